//! The nodes and their world, built wrong on purpose: each defect breaks one rule, and the simulation is to find it.

use std::cell::Cell;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// What was handed over counts as being in the peer's memory.
    AckEarly,
    /// A reconnection sends nothing again.
    ResendsNothing,
    /// A primary answers without a lease.
    AnswersWithoutLease,
    /// A lease runs from its answer.
    LeaseFromItsAnswer,
    /// Who takes over does not wait until the leases that it granted are over.
    DoesNotOutlastLeases,
    /// A primary that hands the service over answers on.
    AnswersWhileItHandsOver,
    /// A service that is handed over ends while its log is being written.
    EndsServiceAtOnce,
    /// Who takes over does not write out what its memory has.
    TakesOverWithoutItsMemory,
    /// Who returns keeps what lies behind the fork.
    KeepsWhatIsVoid,
    /// While a peer is being named a member what is in its memory is acknowledged, though the own disk lacks it.
    SetsInByMemoryAlone,
    /// A peer is named a member that lacks something.
    JoinsTooSoon,
    /// While the peer is being set out what the own disk has is acknowledged.
    AnswersWhileItLeaves,
    /// The peer is set out before the own disk has what was acknowledged.
    LeavesBeforeItsDisk,
    /// A primary goes on alone by its own word.
    LeavesUnasked,
    /// Who agreed not to take over does all the same.
    ForgetsThatItRenounced,
    /// A primary is elected without having asked the peer.
    ElectsItself,
    /// A node that restarts serves by what it noted.
    ServesUnaskedAfterRestart,
    /// A node is a member still after a restart.
    StaysMemberAfterRestart,
    /// A generation begins within a ring of what was given out.
    BeginsTooNear,
    /// What was asked in one role is answered in the next.
    AnswersAcrossRoles,
    /// A read does not wait until what it found is committed.
    ReadsWhatIsNotCommitted,
    /// A read of what a trim left does not wait until that is committed.
    ReadsTrimsThatAreNotCommitted,
    /// A record of the ring counts though not all of it is there.
    TakesTornRecords,
    /// A peer is brought up to date from the marker, whatever it has.
    TrustsAnyMarker,
    /// Room is given back that the peer may need.
    ReclaimsTooSoon,
    /// A disk says that it synced, and did not.
    SyncsNothing,
    /// The mediator takes each change, whatever it holds.
    MediatorTakesAll,
    /// One that has just started takes changes of anybody.
    MediatorTakesChangesAtOnce,
    /// One that is told of a later configuration than it holds goes on.
    MediatorNeverLocks,
    /// Its disk says that it synced, and did not.
    MediatorSyncsNothing,
    /// Who takes over leaves the primary its access.
    SkipsTheRevoke,
    /// The lease is looked at when a request comes, and not when its answer leaves.
    LooksAtTheLeaseOnce,
    /// A change whose outcome is not known counts as not taken.
    ForgetsWhatItAskedFor,
    /// A flush does not wait for the peer's disk.
    FlushesHereOnly,
    /// Where answers are to be confirmed by looks, nobody looks.
    ConfirmsWithoutLooking,
}

impl Defect {
    /// Those that are found, each within so many seeds.
    pub(super) const ALL: [(Self, u64); 21] = [
        (Self::AckEarly, 20),
        (Self::AnswersWithoutLease, 50),
        (Self::ReadsWhatIsNotCommitted, 20),
        (Self::ServesUnaskedAfterRestart, 20),
        (Self::MediatorTakesAll, 20),
        (Self::SyncsNothing, 20),
        (Self::ForgetsThatItRenounced, 20),
        (Self::ElectsItself, 20),
        (Self::MediatorTakesChangesAtOnce, 20),
        (Self::MediatorNeverLocks, 20),
        (Self::SkipsTheRevoke, 20),
        (Self::FlushesHereOnly, 20),
        (Self::JoinsTooSoon, 20),
        (Self::LeavesUnasked, 20),
        (Self::TakesOverWithoutItsMemory, 20),
        (Self::AnswersWhileItLeaves, 100),
        (Self::SetsInByMemoryAlone, 20),
        (Self::TakesTornRecords, 20),
        (Self::ResendsNothing, 50),
        (Self::TrustsAnyMarker, 100),
        (Self::MediatorSyncsNothing, 100),
    ];

    /// Those that take an order of events which is rare: looked for when one asks for them.
    pub(super) const RARE: [Self; 14] = [
        Self::DoesNotOutlastLeases,
        Self::LooksAtTheLeaseOnce,
        Self::ForgetsWhatItAskedFor,
        Self::ConfirmsWithoutLooking,
        Self::EndsServiceAtOnce,
        Self::LeaseFromItsAnswer,
        Self::AnswersWhileItHandsOver,
        Self::KeepsWhatIsVoid,
        Self::LeavesBeforeItsDisk,
        Self::StaysMemberAfterRestart,
        Self::BeginsTooNear,
        Self::AnswersAcrossRoles,
        Self::ReadsTrimsThatAreNotCommitted,
        Self::ReclaimsTooSoon,
    ];
}

thread_local! {
    static BROKEN: Cell<Option<Defect>> = const { Cell::new(None) };
}

/// Whether this rule is broken in the world of this thread.
pub(crate) fn breaks(defect: Defect) -> bool {
    BROKEN.get() == Some(defect)
}

pub(super) fn break_rule(defect: Option<Defect>) {
    BROKEN.set(defect);
}
