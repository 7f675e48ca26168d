//! Moments in which a fault says more than at any other time: nodes are in the midst of something, or somebody was just told something.

use super::client::Clients;
use super::faults::Fault;
use super::lane;
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
    /// One that serves alone has written something which its disk does not have for good.
    OnItsWay,
    /// A store is on its way to the other memory.
    Placing,
    /// Somebody was just answered.
    Answered,
}

impl Aim {
    pub(super) const ALL: [Self; 12] = [
        Self::CatchesUp,
        Self::Resyncs,
        Self::Joins,
        Self::Leaves,
        Self::Held,
        Self::TakesOver,
        Self::Switches,
        Self::Trims,
        Self::InMemory,
        Self::OnItsWay,
        Self::Placing,
        Self::Answered,
    ];

    /// What may come then.
    /// Those in which who serves is about to change, or who has what: rarest first.
    pub(super) const CHANGES: [Self; 8] = [
        Self::Leaves,
        Self::Joins,
        Self::TakesOver,
        Self::Switches,
        Self::Resyncs,
        Self::CatchesUp,
        Self::Held,
        Self::OnItsWay,
    ];

    const FAULTS: [Fault; 12] = [
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

    pub(super) const fn faults(self) -> &'static [Fault] {
        match self {
            // What is torn then is found by whoever begins with this disk.
            Self::OnItsWay => &[Fault::PowerOfNode, Fault::PowerOfNode, Fault::PowerOfNode, Fault::KillNode],
            Self::Placing => {
                &[Fault::HangUp, Fault::HangUp, Fault::CutLoud, Fault::KillNode, Fault::PauseNode]
            }
            _ => &Self::FAULTS,
        }
    }

    /// Which of them it is now; `answered` is how many answers there were when one began to wait for it.
    pub(super) fn now(wanted: &[Self], clients: &Clients, answered: u64) -> Option<Self> {
        let glances: Vec<_> = (0..2).filter_map(|machine| look_at(machine, false)).collect();
        wanted.iter().copied().find(|aim| match aim {
            Self::Answered => clients.answered.get() > answered,
            Self::Placing => lane::is_on_its_way(),
            _ => glances.iter().any(|glance| aim.is_of(glance)),
        })
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
            Self::OnItsWay => serves.is_by_itself() && serves.end > serves.durable,
            Self::Resyncs | Self::TakesOver | Self::Placing | Self::Answered => false,
        }
    }
}
