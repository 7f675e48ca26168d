//! A node that serves: its log, and the link by which what is appended reaches the peer's memory.
//!
//! ```text
//!              meet                caught up                 the peer took note              link lost
//!   Alone ────────────▶ CatchingUp ────────────▶ SettingIn ─────────────────────▶ Mirrored ───────────────▶ Held
//!     ▲                      │ link lost             │ link lost                     ▲        reconnected      │
//!     ├──────────────────────┘                       └───────────────────────────────┼────────────────────────▶┤
//!     │                                                                              └─────────────────────────┤
//!     └──────────────────────────────── the register says so ──────────────────────────────────────────────────┘
//! ```
//!
//! *Committed* is what may be acknowledged: with the peer a member, what is in its memory; without, what is durable on the own disk.
//! While it is not certain whether the peer knows that it is one, both: it may be promoted, or this node may go on from its disk.
//! It never goes back. While the link is lost and the register still names the peer a member, nothing more is committed: requests are
//! held, not answered.

use super::durable_mark::Marked;
use super::link::{Link, Looks, Wait, Wire};
use super::log::Log;
use super::medium::{Lane, Region};
use super::resync::Source;
use super::ring_memory::{SecondaryWords, Trouble};
#[cfg(test)]
use super::world::{Defect, breaks};
use crate::base::{LogGeneration, Lsn};
use crate::segment::{Node, Sync};

/// Who a primary serves with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nobody: what is durable here is committed.
    Alone,
    /// The peer follows, but lacks what was written before this position.
    CatchingUp {
        /// Where the log ended when it attached.
        until: Lsn,
    },
    /// The peer has everything, and is told that it is a member: what is in its memory and on the own disk is committed.
    SettingIn,
    /// The peer: what is in its memory is committed.
    Mirrored,
    /// The peer, which is not reached: nothing more is committed.
    Held {
        /// What became of the link.
        why: String,
    },
}

/// Whether the service is on its way to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum HandOver {
    /// It stays.
    #[default]
    No,
    /// Nothing is answered, and nobody but whoever hands it over makes a move.
    Holds,
    /// The peer has it: this node is about to step down.
    Done,
}

/// The state of a serving node.
#[derive(Debug)]
pub(super) struct Primary<R = Region, W = Lane> {
    pub(super) log: Log,
    pub(super) mode: Mode,
    /// Taken out while it reconnects.
    pub(super) link: Option<Link<R, W>>,
    pub(super) generation: LogGeneration,
    /// What the peer said of itself last.
    pub(super) peer: SecondaryWords,
    committed: Lsn,
    pub(super) placed: Lsn,
    pub(super) looks: Looks,
    /// How often the link was lost with a member beside this node.
    pub(super) doubts: u64,
    /// The next segment's file cannot be made: why.
    pub(super) no_file: Option<String>,
    /// The peer took note that it is a member.
    pub(super) is_told: bool,
    /// Behind the last record that took blocks out of a map: what reads as zeroes since then does so for certain when this is committed.
    pub(super) emptied: Lsn,
    /// What was acknowledged before it was to become one: it has to have that on its disk first.
    pub(super) joins_at: Lsn,
    /// The peer is being set out.
    leaves: bool,
    pub(super) hand_over: HandOver,
    /// Counts how often the lease was given up.
    pub(super) turn: u64,
    /// The peer is brought up to date: it lacks more than the ring has.
    pub(super) resync: Option<Box<Source>>,
    /// To where the peer was durable when it was last there.
    peer_had: Lsn,
    /// Links that are done with, to be closed by whoever holds no lock: that takes time.
    pub(super) done: Vec<Link<R, W>>,
}

impl<R, W: Wire> Primary<R, W> {
    /// Alone with a log that begins.
    pub(super) const fn new(log: Log, generation: LogGeneration, durable: Lsn) -> Self {
        Self {
            log,
            mode: Mode::Alone,
            link: None,
            generation,
            peer: SecondaryWords { durable: Lsn::ZERO, end: Lsn::ZERO, trouble: Trouble::None },
            committed: durable,
            placed: Lsn::ZERO,
            looks: Looks { begun: 0, done: 0 },
            doubts: 0,
            no_file: None,
            is_told: false,
            emptied: Lsn::ZERO,
            joins_at: Lsn::ZERO,
            leaves: false,
            hand_over: HandOver::No,
            turn: 0,
            resync: None,
            peer_had: Lsn::ZERO,
            done: Vec::new(),
        }
    }

    /// What is before may be acknowledged.
    pub(super) const fn committed(&self) -> Lsn {
        self.committed
    }

    /// Whether the own disk is among what decides what is acknowledged.
    pub(super) const fn writes_through(&self) -> bool {
        matches!(self.mode, Mode::Alone | Mode::CatchingUp { .. } | Mode::SettingIn)
    }

    /// What is to be marked when the sync has succeeded, before it counts. Nothing while what is in two memories is acknowledged; not only while
    /// the own disk decides, but also while it may come to.
    pub(super) fn to_mark(&self, sync: &Sync) -> Option<Marked> {
        let durable = || self.log.destage.durable_after(sync);
        (self.mode != Mode::Mirrored).then(|| Marked { generation: self.generation, durable: durable() })
    }

    /// What the own disk has.
    pub(super) const fn marked(&self) -> Marked {
        Marked { generation: self.generation, durable: self.log.own_durable() }
    }

    /// Whether the peer is one of those who must have a write.
    pub(super) const fn has_member(&self) -> bool {
        matches!(self.mode, Mode::SettingIn | Mode::Mirrored | Mode::Held { .. })
    }

    /// From which position on the peer lacks what is in the log, as far as is known; `None` while it has all of it.
    /// `marker`: it had all before that once.
    pub(super) fn peer_lacks_from(&self, marker: Option<Lsn>) -> Option<Lsn> {
        match self.mode {
            Mode::Alone => Some(self.peer_had.max(marker.unwrap_or_default())),
            Mode::CatchingUp { .. } => match &self.resync {
                Some(source) => Some(source.roots.since.position),
                None => Some(self.log.peer_durable()),
            },
            Mode::SettingIn => Some(self.placed.max(self.log.peer_durable())),
            Mode::Held { .. } => Some(self.committed),
            Mode::Mirrored => None,
        }
    }

    /// Whether the peer is to have every write, and said that it has no room for more.
    pub(super) fn peer_is_full(&self) -> bool {
        self.has_member() && self.peer.trouble == Trouble::NoSpace
    }

    /// Whether a disk of the pair has no room for more.
    pub(super) fn is_full(&self) -> bool {
        self.no_file.is_some() || self.peer_is_full()
    }

    /// Hands over what was appended, and takes note of what arrived. Never waits.
    ///
    /// Nobody waits for the disk of a peer that is brought up to date: to tell it of every write what is durable would cost more than the write
    /// does. The [tender](super::tender) tells it now and then, by [`push_and_tell`](Self::push_and_tell).
    pub(super) fn push(&mut self) {
        self.hand_over_log(self.resync.is_none());
    }

    /// The same, and tells what is to become durable in any case.
    pub(super) fn push_and_tell(&mut self) {
        self.hand_over_log(true);
    }

    fn hand_over_log(&mut self, tells: bool) {
        self.log.gather();
        if let Some(link) = &mut self.link {
            let pushed = link.push(&mut self.log, &mut self.placed);
            let told = pushed.and_then(|()| if tells { link.tell_positions(&self.log) } else { Ok(()) });
            if let Err(why) = told {
                self.lose(why);
            }
        }
        self.settle();
    }

    /// Takes note of what arrived, and hands nothing over. Never waits.
    pub(super) fn reap(&mut self) {
        if let Some(link) = &mut self.link
            && let Err(why) = link.reap(&mut self.placed)
        {
            self.lose(why);
        }
        self.settle();
    }

    /// Whether the log to there was handed over to a peer.
    pub(super) fn has_handed(&self, lsn: Lsn) -> bool {
        self.link.as_ref().is_some_and(|link| link.handed() >= lsn)
    }

    /// What became committed.
    pub(super) fn settle(&mut self) {
        let committed = match &self.mode {
            Mode::Alone | Mode::CatchingUp { .. } => {
                let end = self.log.end();
                self.log.commit(end);
                self.log.own_durable()
            }
            #[cfg(test)]
            Mode::SettingIn if breaks(Defect::SetsInByMemoryAlone) => {
                let end = self.log.end();
                self.log.commit(end);
                self.placed
            }
            Mode::SettingIn => {
                let end = self.log.end();
                self.log.commit(end);
                self.log.own_durable().min(self.placed)
            }
            Mode::Mirrored => {
                self.log.commit(self.placed);
                self.placed
            }
            #[cfg(test)]
            Mode::Held { .. } if self.leaves && breaks(Defect::AnswersWhileItLeaves) => {
                let end = self.log.end();
                self.log.commit(end);
                self.log.own_durable()
            }
            Mode::Held { .. } => {
                if self.leaves {
                    let end = self.log.end();
                    self.log.commit(end);
                }
                self.committed
            }
        };
        self.committed = self.committed.max(committed);
    }

    /// The link is gone.
    pub(super) fn lose(&mut self, why: String) {
        match self.mode {
            Mode::SettingIn | Mode::Mirrored => {
                self.mode = Mode::Held { why };
                self.doubts += 1;
            }
            Mode::CatchingUp { .. } => self.be_alone(),
            Mode::Alone | Mode::Held { .. } => {}
        }
    }

    /// The peer is to be set out: nothing more is committed until [`be_alone`](Self::be_alone) or [`stay`](Self::stay), and the own disk, which is
    /// to count alone, gets all of the log, committed or not. What is committed until then.
    pub(super) fn begin_to_leave(&mut self) -> Lsn {
        self.lose("the operator sets the peer out".into());
        self.leaves = true;
        self.settle();
        self.committed
    }

    /// Answers nothing any more, and asks for no lease. Whoever does this gives up the one there is.
    pub(super) const fn close_gate(&mut self) {
        self.hand_over = HandOver::Holds;
        self.turn += 1;
    }

    /// This node ends, and the peer does not take what it was not given: the own disk gets all of the log, committed or not. No more is committed.
    pub(super) fn write_out(&mut self) {
        self.lose("this node stops".into());
        self.leaves = true;
        self.settle();
    }

    /// It was not set out after all.
    pub(super) const fn stay(&mut self) {
        self.leaves = false;
    }

    /// Whether the peer is being set out, or this node ends without it.
    pub(super) const fn leaves(&self) -> bool {
        self.leaves
    }

    /// From now on without the peer.
    pub(super) fn be_alone(&mut self) {
        // What a resync has moved does not count before all of it is there.
        if self.mode != Mode::Alone && self.resync.is_none() {
            self.peer_had = self.log.peer_durable();
        }
        self.mode = Mode::Alone;
        (self.is_told, self.leaves) = (false, false);
        self.resync = None;
        self.done.extend(self.link.take());
        self.placed = Lsn::ZERO;
        self.log.part();
        self.settle();
    }

    /// To where no fork can come any more.
    pub(super) fn durable_for_good(&self) -> Lsn {
        let own = self.log.own_durable();
        if self.has_member() { own.min(self.log.peer_durable()) } else { own }
    }

    /// How to wait for the peer, after a look.
    pub(super) fn wait(&mut self) -> Wait {
        let Some(link) = &mut self.link else { return Wait::Other };
        link.wait().unwrap_or_else(|why| {
            self.lose(why);
            Wait::Other
        })
    }

    /// Asks the peer how far it is, and takes note of the last answer. Never waits.
    pub(super) fn ask_peer(&mut self) {
        let Some(link) = &mut self.link else { return };
        let came = link.ask(&mut self.looks);
        self.take_answer(came);
    }

    /// Takes note of what the peer says of itself, if an answer came.
    pub(super) fn take_answer(&mut self, came: Result<bool, String>) {
        match came {
            Ok(false) => {}
            Ok(true) => {
                if let Some(peer) = self.log.memory().secondary() {
                    self.peer = peer;
                    self.log.set_durable(Node::Peer, peer.durable);
                    // Its memory takes what comes as before, and is all that it would bring back: nothing more is acknowledged by it.
                    if peer.trouble == Trouble::Failed && self.mode == Mode::Mirrored {
                        self.lose("the peer is out of service: see its status".into());
                    }
                }
            }
            Err(why) => self.lose(why),
        }
    }
}
