//! The model for the explorer: its bounds, its rules, and what must hold.

use stateright::{Model, Property};

use crate::config::{Config, Name};
use crate::state::{Mode, Role, State};
use crate::step::Step;

/// How far it is explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Writes of clients, at most; four can be told apart.
    pub writes: u8,
    /// Crashes of nodes, at most.
    pub crashes: u8,
}

/// A rule that can be taken away, to see that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Whoever takes over takes the primary's access away first.
    Fence,
    /// And writes out what came, before it asks.
    Drain,
    /// It serves only when nobody holds a lease any more.
    OutlastLease,
    /// Also when it has just started, and does not know what it granted.
    OutlastAfterRestart,
    /// Nothing is acknowledged from the own disk while a leave is undetermined.
    HoldWhileLeaving,
    /// And the own disk has all that was committed before it is asked for.
    DiskBeforeLeave,
    /// While a join is undetermined a write needs the peer's memory and the own disk.
    CommitByBoth,
    /// The join is sent only when the peer's disk has all that was committed without it.
    JoinWhenWhole,
    /// And is noted before.
    NoteBeforeJoin,
    /// What is undetermined is settled by an answer or a later configuration, not by a look that finds the old one.
    OnlyAnswersSettle,
    /// A request asked for again, word by word, is taken for taken.
    RetryIsTaken,
    /// Who was the only member and restarts serves under a fresh id only.
    FreshId,
    /// A restart ends being a member.
    NoMemberAfterRestart,
    /// Who is named is a member only if it followed since it was told to.
    MemberByFollowing,
    /// Who knows of a later configuration is not told to follow by an earlier one.
    OlderIsRefused,
    /// Before the primary's access is taken away one looks whether the mediator is there.
    LookFirst,
    /// A member renounces for the configuration that the primary knows: a later one makes it void.
    RenounceForSameId,
    /// A primary is not elected while it does not know whether a join was taken: the renunciation would be for an earlier configuration.
    ElectWithoutJoin,
    /// A member renounces only in the life in which it was told to follow: it does not know what it asked for before.
    RenounceInLife,
    /// And only if nothing that it asked for is undetermined.
    RenounceWhenSettled,
    /// The primary is elected when it hears that the member has.
    ElectedByAnswer,
    /// It is no more before the member is told that it need not have.
    ElectedEndsFirst,
    /// A word of an earlier election says nothing about this one.
    NumberElections,
    /// Its own disk has all that was committed before it goes on alone.
    DiskBeforeAlone,
    /// Who restarts is not elected any more, unless it was alone already.
    ElectionEndsWithLife,
    /// Who has gone on alone does not take what the mediator held before for its own word.
    ElectionStaysNoted,
    /// Who has renounced does not take over.
    RenouncedStays,
    /// It looks for the other one, as one that restarted does: that may have.
    RenouncedMeets,
    /// It has renounced also when it restarted since.
    RenounceOnDisk,
    /// The other one is let in only when the mediator has taken that it was set out.
    InviteWhenConfirmed,
}

/// The model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failover {
    /// How far.
    pub bounds: Bounds,
    /// Without these rules, a bit for each.
    pub without: u64,
    /// A join that was noted stays noted when a look finds the configuration before it, of the same id.
    pub join_stays_noted: bool,
    /// A member and a primary that have no mediator elect one in advance.
    pub elects: bool,
    /// A node's word that the other one is to follow it may come late, too.
    pub late_words: bool,
}

impl Failover {
    /// The pair with all rules, as long as it has its mediator.
    #[must_use]
    pub const fn new(writes: u8, crashes: u8) -> Self {
        Self {
            bounds: Bounds { writes, crashes },
            without: 0,
            join_stays_noted: true,
            elects: false,
            late_words: false,
        }
    }

    /// One in which word to follow may come late.
    #[must_use]
    pub const fn with_late_words(self) -> Self {
        Self { late_words: true, ..self }
    }

    /// One that elects in advance, as the pair does when it loses the mediator.
    #[must_use]
    pub const fn electing(self) -> Self {
        Self { elects: true, ..self }
    }

    /// Without one more.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Self {
        Self { without: self.without | 1 << rule as u64, ..self }
    }

    pub(crate) const fn lacks(&self, rule: Rule) -> bool {
        self.without & (1 << rule as u64) != 0
    }
}

impl Model for Failover {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        actions.extend(Step::candidates(state));
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        step.apply(last, self)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one node answers", |_, state| one_answers(state)),
            Property::always("what is read is the newest", |_, state| reads_newest(state)),
            Property::always("a member has what was acknowledged", |_, state| members_have_all(state)),
            Property::always("who serves alone is alone in the register", |_, state| {
                alone_by_register(state)
            }),
        ]
    }
}

const fn has(acked: u8, log: u8) -> bool {
    acked & !log == 0
}

/// At any time at most one of the two could answer a client.
fn one_answers(state: &State) -> bool {
    !Name::ALL.iter().all(|name| state[*name].may_answer())
}

/// Who could answer has all that was acknowledged, by whomever.
fn reads_newest(state: &State) -> bool {
    state.nodes.iter().all(|node| !node.may_answer() || has(state.acked, node.log))
}

/// The only member on its disk; each of two in its memory, as long as it did not lose that. Who has gone on alone without the mediator is the only one.
fn members_have_all(state: &State) -> bool {
    let elected = Name::ALL.into_iter().find(|name| state[*name].by_election);
    let register = elected.map_or(state.register, |name| Config::alone(name, 0));
    Name::ALL.iter().filter(|name| register.has(**name)).all(|name| {
        let node = &state[*name];
        let is_whole = node.has_followed || node.mode().is_some();
        match register.is_alone(*name) {
            true => has(state.acked, node.disk),
            false => !is_whole || has(state.acked, node.log),
        }
    })
}

/// Nobody is ever set out behind its back that acknowledges from its own disk.
fn alone_by_register(state: &State) -> bool {
    Name::ALL.iter().all(|name| {
        let node = &state[*name];
        let is_alone = matches!(node.role, Role::Serves(Mode::Alone | Mode::CatchingUp));
        !is_alone
            || node.by_election
            || (node.behind == 0 && node.known == state.register && node.known.is_alone(*name))
    })
}
