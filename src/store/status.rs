//! What a dataset says of itself: read without waiting for anything that may hang.

use std::time::Duration;

use super::counters::Counts;
use super::health::CheckStatus;
use super::holding::{HoldStatus, Holding};
use super::pair::Pair;
use super::primary::{HandOver, Mode};
use super::register::Configuration;
use super::resync::ResyncStatus;
use super::state::{Reason, Role, State};
use super::volumes::{Entry, VolumeInfo};
use crate::base::{DatasetId, LogGeneration, Lsn};

/// How long the state may be busy until the status says that it is.
const BUSY_TIME: Duration = Duration::from_millis(500);

/// What this node is for the dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleStatus {
    /// Serves nothing, and waits for the peer or the operator.
    Undecided,
    /// Follows.
    Secondary,
    /// Serves.
    Primary,
    /// Out of service.
    Failed,
}

/// What this node's copy is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskState {
    /// It has every acknowledged write, or its ring does.
    UpToDate,
    /// Whole, as of some point; whether there is a newer one is not known.
    Consistent,
    /// Whole, and older than the primary's.
    Outdated,
    /// Its disk failed, or it is damaged.
    Failed,
}

/// How the two nodes are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicationState {
    /// Every acknowledged write is in both memories.
    Established,
    /// The peer follows, and lacks some of the log.
    CatchingUp,
    /// The peer was away for longer than the ring reaches back, and is brought up to date from this node's files.
    SyncSource,
    /// This node is brought up to date from the primary's files, and has what it had until that is done.
    SyncTarget,
    /// The link is lost and requests are held.
    LinkLost,
    /// The primary serves without the peer.
    Alone,
    /// The secondary waits for a primary.
    Waiting,
}

/// How a dataset is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetStatus {
    /// Its name.
    pub name: String,
    /// What it is.
    pub id: DatasetId,
    /// This node's part.
    pub role: RoleStatus,
    /// This node's copy.
    pub disk: DiskState,
    /// The pair.
    pub replication: ReplicationState,
    /// Why.
    pub reason: Reason,
    /// The configuration that this node knows.
    pub configuration: Option<Configuration>,
    /// Of the log.
    pub generation: LogGeneration,
    /// The log's end here.
    pub appended: Lsn,
    /// What may be acknowledged.
    pub committed: Lsn,
    /// Durable on this node's storage.
    pub durable_own: Lsn,
    /// Durable on the other's, as far as is known here.
    pub durable_peer: Lsn,
    /// In the checkpoint.
    pub checkpoint: Lsn,
    /// What both nodes have durable for certain, with the maps of then; `None`: a peer that is away is copied whole.
    pub marker: Option<Lsn>,
    /// Bytes of the ring.
    pub ring_bytes: u64,
    /// Places of the ring in use, and how many there are.
    pub ring_places: (u64, u64),
    /// The volumes.
    pub volumes: Vec<VolumeInfo>,
    /// Bytes of the log, or of what a resync has left to do, that the peer does not have.
    pub unreplicated_bytes: u64,
    /// The check under way.
    pub check: Option<CheckStatus>,
    /// How long requests have been held, while they are: the link is lost, and it is not decided which node goes on.
    pub hold: Option<HoldStatus>,
    /// How far a resync is, while there is one.
    pub resync: Option<ResyncStatus>,
    /// What was done.
    pub counts: Counts,
    /// Whether the state could not be looked at in time: then only the name, the counts and the register are right.
    pub busy: bool,
}

/// The status now.
pub(super) fn of(pair: &Pair) -> DatasetStatus {
    let engine = &pair.engine;
    let config = &engine.config;
    let mut status = DatasetStatus {
        name: config.name.clone(),
        id: config.id,
        role: RoleStatus::Undecided,
        disk: DiskState::Consistent,
        replication: ReplicationState::Waiting,
        reason: Reason::new("busy", "the dataset's state is busy"),
        configuration: None,
        generation: LogGeneration(0),
        appended: Lsn::ZERO,
        committed: Lsn::ZERO,
        durable_own: Lsn::ZERO,
        durable_peer: Lsn::ZERO,
        checkpoint: Lsn::ZERO,
        marker: None,
        ring_bytes: config.ring_bytes(),
        ring_places: (0, config.places),
        volumes: Vec::new(),
        unreplicated_bytes: 0,
        check: engine.health.check(),
        hold: None,
        resync: None,
        counts: engine.shared.counters.counts(),
        busy: true,
    };
    let Some(mut state) = engine.shared.try_lock(BUSY_TIME) else { return status };
    fill(&mut status, &mut state, &engine.holding);
    drop(state);
    status.configuration = pair.configuration();
    status
}

fn fill(status: &mut DatasetStatus, state: &mut State, holding: &Holding) {
    let position = super::pair::position(state);
    status.busy = false;
    status.reason = state.reason.clone();
    status.generation = position.generation();
    status.appended = position.end();
    status.checkpoint = state.checkpoint;
    status.marker = state.marker;
    status.volumes = state.volumes.entries().iter().map(Entry::info).collect();
    match &mut state.role {
        Role::Undecided => status.durable_own = position.end(),
        Role::Failed { .. } => (status.role, status.disk) = (RoleStatus::Failed, DiskState::Failed),
        Role::Secondary(secondary) => {
            status.role = RoleStatus::Secondary;
            (status.durable_own, status.durable_peer) = (secondary.durable, secondary.primary_durable);
            status.committed = secondary.applied;
            let is_following = matches!(secondary.stage, super::follower::Stage::Following(_));
            if let Some(staging) = &mut secondary.resync {
                status.resync = Some(staging.status());
                (status.disk, status.replication) = (DiskState::Outdated, ReplicationState::SyncTarget);
                (status.durable_own, status.committed) = (staging.old.end(), staging.old.end());
            } else if is_following {
                (status.disk, status.replication) = (DiskState::UpToDate, ReplicationState::Established);
            }
        }
        Role::Primary(primary) => {
            // One that has handed the service over serves nobody.
            let serves = primary.hand_over != HandOver::Done;
            status.role = if serves { RoleStatus::Primary } else { RoleStatus::Undecided };
            status.disk = DiskState::UpToDate;
            (status.durable_own, status.durable_peer) =
                (primary.log.own_durable(), primary.log.peer_durable());
            status.committed = primary.committed();
            status.hold = holding.status(state.epoch, primary);
            let reason = status.hold.and_then(|hold| holding.reason(&hold, &state.reason));
            status.reason = reason.unwrap_or_else(|| state.reason.clone());
            status.ring_places.0 = primary.log.used() as u64;
            status.replication = match primary.mode {
                Mode::Alone => ReplicationState::Alone,
                Mode::CatchingUp { .. } if primary.resync.is_some() => ReplicationState::SyncSource,
                Mode::CatchingUp { .. } | Mode::SettingIn => ReplicationState::CatchingUp,
                Mode::Mirrored => ReplicationState::Established,
                Mode::Held { .. } => ReplicationState::LinkLost,
            };
            let with_peer =
                if primary.has_member() { primary.committed() } else { primary.log.peer_durable() };
            status.unreplicated_bytes = primary.log.end().0.saturating_sub(with_peer.0);
            status.resync = primary.resync.as_mut().map(|source| source.status());
            status.unreplicated_bytes += status.resync.map_or(0, |resync| resync.left_bytes);
        }
    }
}
