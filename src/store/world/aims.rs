//! Moments in which a fault says more than at any other time: nodes are in the midst of something, or somebody was just told something.

use super::client::Clients;
use super::faults::Fault;
use super::oracle::look_at;
use crate::store::pair::glance::{Follows, Glance, Serves, Stand};
use crate::store::primary::{HandOver, Mode};

/// Such a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Aim {
    /// A peer gets what the ring has.
    CatchesUp,
    /// It gets what the ring has no more.
    Resyncs,
    /// It is being named a member.
    Joins,
    /// It is being set out.
    Leaves,
    /// The link is lost, and nobody has gone on yet.
    Held,
    /// A member has taken the primary's access away.
    TakesOver,
    Switches,
    /// A trim is in the log, and not committed.
    Trims,
    /// What was acknowledged is in two memories, and on no disk.
    InMemory,
    /// Somebody was just answered.
    Answered,
}

impl Aim {
    pub(super) const ALL: [Self; 10] = [
        Self::CatchesUp,
        Self::Resyncs,
        Self::Joins,
        Self::Leaves,
        Self::Held,
        Self::TakesOver,
        Self::Switches,
        Self::Trims,
        Self::InMemory,
        Self::Answered,
    ];

    /// What may come then.
    pub(super) const FAULTS: [Fault; 12] = [
        Fault::KillNode,
        Fault::KillNode,
        Fault::PowerOfNode,
        Fault::PauseNode,
        Fault::PauseNode,
        Fault::HangUp,
        Fault::CutLoud,
        Fault::CutSilent,
        Fault::CutOneWay,
        Fault::KillMediator,
        Fault::CutFromMediator,
        Fault::BothNodes,
    ];

    /// Whether it is now; `answered` is how many answers there were when one began to wait for it.
    pub(super) fn is_now(self, clients: &Clients, answered: u64) -> bool {
        if self == Self::Answered {
            return clients.answered.get() > answered;
        }
        (0..2).filter_map(|machine| look_at(machine, false)).any(|glance| self.is_of(&glance))
    }

    fn is_of(self, glance: &Glance) -> bool {
        match &glance.stand {
            Stand::Primary(serves) => self.is_of_primary(serves),
            Stand::Secondary(Follows { is_resynced, is_member, .. }) => match self {
                Self::Resyncs => *is_resynced,
                Self::TakesOver => *is_member && !glance.is_attached,
                _ => false,
            },
            Stand::Undecided { .. } | Stand::Failed => false,
        }
    }

    fn is_of_primary(self, serves: &Serves) -> bool {
        match self {
            Self::CatchesUp => matches!(serves.mode, Mode::CatchingUp { .. }) && !serves.resyncs,
            Self::Joins => serves.mode == Mode::SettingIn,
            Self::Leaves => serves.leaves,
            Self::Held => matches!(serves.mode, Mode::Held { .. }),
            Self::Switches => serves.hand_over == HandOver::Holds,
            Self::Trims => serves.trims,
            Self::InMemory => serves.mode == Mode::Mirrored && serves.committed > serves.durable,
            Self::Resyncs | Self::TakesOver | Self::Answered => false,
        }
    }
}
