//! A state: what the three know, and what is under way between them.
//!
//! Ids are not kept, only by how many the mediator's is later: so a pair that has changed its configuration a hundred times is in the same
//! state as one that did twice. What can have no effect any more is not kept either.

use std::hash::{Hash, Hasher};
use std::ops::{Index, IndexMut};

use crate::config::{Config, Name, Writes};
use crate::model::{Failover, Rule};

/// Ids that are further apart than this are no more so than those that are.
const GAP: u8 = 2;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Started, or stepped down.
    Undecided,
    /// Told to follow.
    Follows,
    /// It serves.
    Serves(Mode),
}

/// Whom it serves with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nobody.
    Alone,
    /// The peer follows, and lacks something.
    CatchingUp,
    /// The peer is to be a member, or is one and does not know.
    SettingIn,
    /// Both are members and know it.
    Mirrored,
    /// The link is lost.
    Held,
}

/// A change that is asked for. It is made for the configuration that the node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// Both, with the one that asks as the primary.
    Join,
    /// The one that asks alone, with this floor.
    Alone(u8),
}

impl Request {
    /// What the register holds then.
    #[must_use]
    pub const fn config(self, by: Name) -> Config {
        match self {
            Self::Join => Config::both(by),
            Self::Alone(floor) => Config::alone(by, floor),
        }
    }

    /// As a member of a set.
    pub(crate) const fn bit(self) -> u8 {
        match self {
            Self::Join => 1,
            Self::Alone(floor) => 2 << floor,
        }
    }
}

/// What becomes of a word to the other node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// It is heard, and so is the answer.
    Heard,
    /// The answer is not.
    Unheard,
    /// It comes when nobody waits for the answer any more.
    Late,
}

/// What a node is told that is to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// By how many the mediator's configuration is later than that of the word, which is whoever says it, alone.
    pub behind: u8,
    /// And its floor.
    pub floor: u8,
    /// To where the logs are the same.
    pub fork: Writes,
    /// What whoever says it has.
    pub log: Writes,
    /// It serves.
    pub by_primary: bool,
    /// What it knows, if nobody knew of a later one.
    pub known: Option<Config>,
}

/// How far a question to the mediator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// None is under way.
    Nothing,
    /// On its way there.
    Sent,
    /// The mediator has taken it; the answer is on its way back.
    Taken,
    /// It was heard: what remains is to outlast the peer's lease.
    Won,
}

/// A node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub role: Role,
    /// What it was told last; on its disk.
    pub known: Config,
    /// By how many the mediator's is later.
    pub behind: u8,
    /// What it asked for and does not know the outcome of, or asks for now.
    pub request: Option<Request>,
    /// How far that is.
    pub ask: Ask,
    /// Whether it was asked for before.
    pub again: bool,
    /// What earlier lives of this node asked for that the mediator may yet take.
    pub late: u8,
    /// Word of the peer that this node is a member is on its way, and by how many the mediator's configuration is later than that one.
    pub note: Option<u8>,
    /// Word to follow the peer is on its way.
    pub told: Option<Told>,
    /// The log, in memory.
    pub log: Writes,
    /// What the disk has of it.
    pub disk: Writes,
    /// What may be acknowledged.
    pub committed: Writes,
    /// What the peer's disk has to have before it is set in, and then before the join is sent.
    pub needs: Writes,
    /// The ring's session stands here: whoever serves may write.
    pub session: bool,
    /// A ring has arrived since it was told to follow.
    pub has_followed: bool,
    /// It knows that it is a member.
    pub is_member: bool,
    /// The peer has taken note that it is one.
    pub is_told: bool,
    /// The peer's word that it serves nothing is live.
    pub lease: bool,
    /// It lost its memory under the configuration that stands.
    pub is_hurt: bool,
    /// The peer has renounced: if it is lost, this node goes on without the mediator. Ends with this life.
    pub is_elected: bool,
    /// It has done so, and the mediator has not taken it yet; on its disk.
    pub by_election: bool,
    /// It does not go on by the configuration that it knows; on its disk.
    pub has_renounced: bool,
    /// Word that it need not have is on its way.
    pub is_freed: bool,
}

/// All of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// What the mediator holds.
    pub register: Config,
    /// Whose request that was, if that node still asks for it.
    pub made_by: Option<Name>,
    /// The two.
    pub nodes: [Node; 2],
    /// What some client was told of, by a reply to a write or to a read.
    pub acked: Writes,
    /// Writes so far.
    pub written: u8,
    /// Crashes so far.
    pub crashes: u8,
}

impl Hash for Node {
    /// As few numbers: each state that is found is hashed, and each field by itself would be thirty.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let role = match self.role {
            Role::Undecided => 0,
            Role::Follows => 1,
            Role::Serves(mode) => 2 + mode as u8,
        };
        let known = self.known.members << 1 | self.known.primary as u8;
        let flags = [
            self.again,
            self.session,
            self.has_followed,
            self.is_member,
            self.is_told,
            self.lease,
            self.is_hurt,
        ];
        let flags = flags.iter().fold(0, |all, flag| all << 1 | u8::from(*flag));
        let request = self.request.map_or(0, Request::bit);
        let note = self.note.map_or(0, |note| note + 1);
        let writes = [self.log << 4 | self.disk, self.committed << 4 | self.needs];
        let [log, committed] = writes;
        let small = role << 5 | (self.ask as u8) << 3 | known;
        let behind = self.behind << 4 | note;
        let election = [self.is_elected, self.by_election, self.has_renounced, self.is_freed];
        let election = election.iter().fold(self.known.floor, |all, flag| all << 1 | u8::from(*flag));
        let numbers = [small, election, request, self.late, behind, log, committed, flags];
        hasher.write_u64(u64::from_le_bytes(numbers));
        if let Some(told) = self.told {
            let known =
                told.known.map_or([0, 0], |known| [known.members << 1 | known.primary as u8, known.floor]);
            let numbers = [
                told.behind,
                told.floor,
                told.fork,
                told.log,
                u8::from(told.by_primary),
                known[0],
                known[1],
                1,
            ];
            hasher.write_u64(u64::from_le_bytes(numbers));
        }
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.nodes.iter().for_each(|node| node.hash(hasher));
        let made_by = self.made_by.map_or(0, |name| 1 + name as u8);
        let register = self.register.members << 1 | self.register.primary as u8;
        let numbers = [register, self.register.floor, made_by, self.acked, self.written, self.crashes, 0, 0];
        hasher.write_u64(u64::from_le_bytes(numbers));
    }
}

impl Index<Name> for State {
    type Output = Node;

    fn index(&self, name: Name) -> &Node {
        &self.nodes[name as usize]
    }
}

impl IndexMut<Name> for State {
    fn index_mut(&mut self, name: Name) -> &mut Node {
        &mut self.nodes[name as usize]
    }
}

impl Node {
    /// Who knows this and has nothing.
    const fn new(known: Config) -> Self {
        Self {
            role: Role::Undecided,
            known,
            behind: 0,
            request: None,
            ask: Ask::Nothing,
            again: false,
            late: 0,
            note: None,
            told: None,
            log: 0,
            disk: 0,
            committed: 0,
            needs: 0,
            session: false,
            has_followed: false,
            is_member: false,
            is_told: false,
            lease: false,
            is_hurt: false,
            is_elected: false,
            by_election: false,
            has_renounced: false,
            is_freed: false,
        }
    }

    /// How it serves, if it does.
    #[must_use]
    pub const fn mode(&self) -> Option<Mode> {
        match self.role {
            Role::Serves(mode) => Some(mode),
            Role::Undecided | Role::Follows => None,
        }
    }

    /// It knows of a later configuration: what was said for the one before is void.
    pub(crate) const fn renew(&mut self) {
        (self.is_elected, self.by_election, self.has_renounced, self.is_freed) = (false, false, false, false);
    }

    /// Whether nothing is asked for, nor undetermined.
    pub(crate) fn is_settled(&self) -> bool {
        self.request.is_none() && self.ask == Ask::Nothing
    }

    /// Whether a change may have been taken of which nothing is known.
    pub(crate) fn is_undetermined(&self) -> bool {
        self.request.is_some() && self.ask == Ask::Nothing
    }

    /// Whether an answer may leave it now.
    #[must_use]
    pub const fn may_answer(&self) -> bool {
        match self.mode() {
            Some(Mode::Alone | Mode::CatchingUp) => true,
            Some(Mode::SettingIn | Mode::Mirrored | Mode::Held) => self.lease,
            None => false,
        }
    }
}

impl State {
    /// A serves alone, and B has started.
    #[must_use]
    pub const fn first() -> Self {
        let register = Config::alone(Name::A, 0);
        let (mut a, b) = (Node::new(register), Node::new(register));
        a.role = Role::Serves(Mode::Alone);
        Self { register, made_by: None, nodes: [a, b], acked: 0, written: 0, crashes: 0 }
    }

    /// Whether the node's memory is written to by a link that stands.
    pub(crate) fn is_attached(&self, name: Name) -> bool {
        let mode = self[name.other()].mode();
        self[name].session && matches!(mode, Some(Mode::CatchingUp | Mode::SettingIn | Mode::Mirrored))
    }

    /// Ids are compared, and followed by the next one: by how many one is later than another is the same from two on.
    fn close_gaps(&mut self) {
        let all = self
            .nodes
            .iter()
            .flat_map(|node| [Some(node.behind), node.note, node.told.map(|told| told.behind)])
            .flatten();
        let (mut left, mut before, mut to) = (all.collect::<Vec<_>>(), 0, 0);
        if left.iter().all(|behind| *behind <= GAP) {
            return;
        }
        left.sort_unstable();
        let moved = left.into_iter().map(|behind| {
            to += GAP.min(behind - before);
            before = behind;
            (behind, to)
        });
        let moved: Vec<_> = moved.collect();
        let of = |behind| moved.iter().find(|(from, _)| *from == behind).expect("each is there").1;
        for node in &mut self.nodes {
            (node.behind, node.note) = (of(node.behind), node.note.map(of));
            node.told = node.told.map(|told| Told { behind: of(told.behind), ..told });
        }
    }

    /// The one form of what is the same.
    pub(crate) fn tidy(&mut self, model: &Failover) {
        for name in Name::ALL {
            let node = &mut self[name];
            if let Some(Mode::Alone | Mode::CatchingUp) = node.mode() {
                node.committed = node.disk;
            }
            if node.mode().is_none() {
                (node.committed, node.is_told) = (0, false);
            }
            if !matches!(node.role, Role::Serves(Mode::CatchingUp | Mode::SettingIn | Mode::Held)) {
                node.needs = 0;
            }
            if node.role != Role::Follows {
                (node.session, node.has_followed, node.is_member) = (false, false, false);
            }
            if node.ask == Ask::Nothing {
                node.again = false;
            }
            node.by_election &= node.known.is_alone(name);
            node.note = node.note.filter(|note| *note <= node.behind);
            node.told =
                node.told.filter(|told| told.behind <= node.behind || model.lacks(Rule::OlderIsRefused));
            if self[name].request.is_none() && self.made_by == Some(name) {
                self.made_by = None;
            }
            if self[name].may_answer() {
                self.acked |= self[name].committed;
            }
        }
        self.close_gaps();
    }
}
