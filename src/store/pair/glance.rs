//! How a node stands at a moment, for a simulated world that looks at both at once: nobody is waited for, and nothing is changed.

use super::{HandOver, Mode, Pair};
use crate::base::Lsn;
use crate::cluster::Configuration;
use crate::store::follower::{Secondary, Stage};
use crate::store::medium::Holder;
use crate::store::primary::Primary;
use crate::store::register::Register;
use crate::store::state::Role;

/// What a node is, as far as that can be seen without a lock that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Stand {
    Undecided { end: Lsn },
    Secondary(Follows),
    Primary(Serves),
    Failed,
}

/// One that follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Follows {
    /// It takes itself for one that has every acknowledged write, and takes over if it misses the other.
    pub(in crate::store) is_member: bool,
    /// It has followed in this life, and is not being resynced.
    pub(in crate::store) is_whole: bool,
    pub(in crate::store) is_resynced: bool,
    /// To where it would have the log if nothing more came, as far as that was asked for, and to where it has it on its disk.
    pub(in crate::store) reach: Lsn,
    pub(in crate::store) durable: Lsn,
}

/// One that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Serves {
    pub(in crate::store) generation: u64,
    /// Where its generation left the log before.
    pub(in crate::store) fork: Lsn,
    /// The segment that is open.
    pub(in crate::store) segment: (Lsn, Lsn),
    pub(in crate::store) durable: Lsn,
    pub(in crate::store) committed: Lsn,
    pub(in crate::store) end: Lsn,
    pub(in crate::store) mode: Mode,
    pub(in crate::store) hand_over: HandOver,
    pub(in crate::store) leaves: bool,
    /// A trim is in the log, and not committed.
    pub(in crate::store) trims: bool,
    pub(in crate::store) resyncs: bool,
}

/// A node at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Glance {
    pub(in crate::store) configuration: Option<Configuration>,
    pub(in crate::store) stand: Stand,
    /// Somebody may write its memory.
    pub(in crate::store) is_attached: bool,
}

impl Pair {
    /// `None` where somebody is about to change it. `closely`: what lies in its memory is read, to see how far it goes.
    pub(in crate::store) fn glance(&self, closely: bool) -> Option<Glance> {
        let register = self.register.try_lock().ok()?;
        let state = self.engine.shared.at_once()?;
        let contents = register.contents();
        let id = contents.configuration.as_ref().map_or(0, |known| known.id);
        let node = &self.engine.config.node;
        let stand = match &state.role {
            Role::Undecided => Stand::Undecided { end: state.position.end() },
            Role::Failed { .. } => Stand::Failed,
            Role::Secondary(secondary) => {
                let is_named =
                    contents.configuration.as_ref().is_some_and(|known| known.members.contains(node));
                let has_renounced = contents.renounced == Some(id);
                let follows = Follows::of(secondary, closely);
                let is_member = follows.is_member && is_named && !has_renounced;
                Stand::Secondary(Follows { is_member, ..follows })
            }
            Role::Primary(primary) => {
                let fork = contents.begun(primary.generation).map_or(Lsn::ZERO, |fork| Lsn(fork.fork));
                Stand::Primary(Serves::of(primary, fork))
            }
        };
        let is_attached = match self.holder.get() {
            Some(Holder::Simulated(holder)) => holder.has_owner(),
            Some(Holder::Real(_)) | None => false,
        };
        Some(Glance { configuration: contents.configuration.clone(), stand, is_attached })
    }
}

impl Follows {
    fn of(secondary: &Secondary, closely: bool) -> Self {
        let reach = match &secondary.stage {
            Stage::Following(following) if closely => following.reach().max(secondary.applied),
            Stage::Following(_) | Stage::Waiting => secondary.applied,
        };
        Self {
            is_member: secondary.is_member,
            is_whole: secondary.has_followed && secondary.resync.is_none(),
            is_resynced: secondary.resync.is_some(),
            reach,
            durable: secondary.durable,
        }
    }
}

impl Serves {
    fn of(primary: &Primary, fork: Lsn) -> Self {
        let head = primary.log.head();
        Self {
            generation: primary.generation.0,
            fork,
            segment: (head.base, head.end()),
            durable: primary.log.own_durable(),
            committed: primary.committed(),
            end: primary.log.end(),
            mode: primary.mode.clone(),
            hand_over: primary.hand_over,
            leaves: primary.leaves(),
            trims: primary.emptied > primary.committed(),
            resyncs: primary.resync.is_some(),
        }
    }

    /// Whether it needs nobody for an answer.
    pub(in crate::store) fn is_by_itself(&self) -> bool {
        self.hand_over == HandOver::No && matches!(self.mode, Mode::Alone | Mode::CatchingUp { .. })
    }
}
