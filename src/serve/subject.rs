//! A node's datasets as its operators see them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admin::{
    AdminError, Counters, DatasetStatus, DatasetStop, DiskState, ErrorCode, Event, EventLog, HoldProgress,
    Latencies, NodeStatus, Reason, ReplicationState, ResyncProgress, RingStatus, Role, ScrubReport,
    StopReport, Subject, SwitchReport, VerifyReport, VolumeStatus, Watermarks,
};
use super::checks;
use super::exports::Waits;
use super::hooks::{HookDesk, HookLog};
use crate::base::BlockSize;
use crate::cluster::ArbiterError;
use crate::store::{self, CommandError, Dataset, IoError, VolumeError};

/// A dataset with what clients waited for it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) dataset: Arc<Dataset>,
    pub(super) waits: Arc<Waits>,
    pub(super) hooks: Arc<HookDesk>,
}

/// The node.
pub(super) struct NodeSubject {
    pub(super) name: String,
    pub(super) began: Instant,
    pub(super) served: Vec<Served>,
    pub(super) events: Arc<EventLog>,
    /// Asks the node to end.
    pub(super) stop: Box<dyn Fn() + Send + Sync>,
}

impl NodeSubject {
    fn find(&self, name: &str) -> Result<&Dataset, AdminError> {
        let found = self.served.iter().find(|served| served.dataset.config().name == name);
        found.map(|served| &*served.dataset).ok_or_else(|| {
            let names: Vec<_> =
                self.served.iter().map(|served| served.dataset.config().name.as_str()).collect();
            let text = format!("no dataset {name:?} on this node; it has {}", names.join(", "));
            AdminError::new(ErrorCode::NoSuchDataset, text)
        })
    }

    /// Carries a command out, and keeps what became of it.
    fn command(
        &self,
        dataset: &str,
        kind: &str,
        work: impl FnOnce(&Dataset) -> Result<(), CommandError>,
    ) -> Result<(), AdminError> {
        let result = work(self.find(dataset)?).map_err(told);
        let text = match &result {
            Ok(()) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        self.events.add(Some(dataset), kind, text);
        result
    }
}

fn told(error: CommandError) -> AdminError {
    let code = match &error {
        CommandError::Volume(VolumeError::UnknownName(_)) => ErrorCode::NoSuchVolume,
        CommandError::Volume(VolumeError::Exists(_)) => ErrorCode::Exists,
        CommandError::Io(IoError::RoleChanged | IoError::Stopping) => ErrorCode::NotPrimary,
        CommandError::Io(IoError::NoSpace(_)) => ErrorCode::NoSpace,
        CommandError::Refused(_)
        | CommandError::Volume(_)
        | CommandError::Overtaken { .. }
        | CommandError::Arbiter(ArbiterError::Refused { .. }) => ErrorCode::Refused,
        CommandError::Io(_)
        | CommandError::Register(_)
        | CommandError::Note(_)
        | CommandError::Open(_)
        | CommandError::Arbiter(_)
        | CommandError::Peer(_) => ErrorCode::Failed,
    };
    AdminError::new(code, error.to_string())
}

impl Subject for NodeSubject {
    fn status(&self) -> NodeStatus {
        NodeStatus {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            age_ms: 0,
            datasets: self.served.iter().map(status).collect(),
        }
    }

    fn create_volume(
        &self,
        dataset: &str,
        name: &str,
        bytes: u64,
        block_bytes: u32,
    ) -> Result<(), AdminError> {
        let size = [BlockSize::Small, BlockSize::Large];
        let size = size.into_iter().find(|size| size.bytes() == u64::from(block_bytes));
        let size = size.ok_or_else(|| {
            AdminError::new(ErrorCode::Refused, format!("blocks of {block_bytes} bytes: 512 or 4096"))
        })?;
        self.command(dataset, "volume-create", |dataset| dataset.create_volume(name, bytes, size))
    }

    fn resize_volume(&self, dataset: &str, name: &str, bytes: u64) -> Result<(), AdminError> {
        self.command(dataset, "volume-resize", |dataset| dataset.resize_volume(name, bytes))
    }

    fn delete_volume(&self, dataset: &str, name: &str) -> Result<(), AdminError> {
        self.command(dataset, "volume-delete", |dataset| dataset.delete_volume(name))
    }

    fn promote(&self, dataset: &str, flushed_only: bool) -> Result<(), AdminError> {
        self.command(dataset, "promote", |dataset| dataset.promote(flushed_only))
    }

    fn alone(&self, dataset: &str) -> Result<(), AdminError> {
        self.command(dataset, "alone", Dataset::alone)
    }

    fn replace_peer(&self, dataset: &str) -> Result<(), AdminError> {
        self.command(dataset, "replace-peer", Dataset::replace_peer)
    }

    fn seed(&self, dataset: &str) -> Result<(), AdminError> {
        self.command(dataset, "seed", Dataset::seed)
    }

    fn switch(&self, dataset: Option<&str>) -> Result<SwitchReport, AdminError> {
        let served = match (dataset, self.served.as_slice()) {
            (Some(name), _) => self.find(name)?,
            (None, [only]) => &only.dataset,
            (None, several) => {
                let text = format!("this node has {} datasets: say which", several.len());
                return Err(AdminError::new(ErrorCode::Refused, text));
            }
        };
        let name = &served.config().name;
        let switched = served.switch().map_err(told);
        let text = match &switched {
            Ok(switched) => format!("{} serves, after {} ms", switched.to, switched.held.as_millis()),
            Err(error) => error.to_string(),
        };
        self.events.add(Some(name), "switch", text);
        let held_us = |held: Duration| u64::try_from(held.as_micros()).unwrap_or(u64::MAX);
        switched.map(|switched| SwitchReport {
            dataset: name.clone(),
            to: switched.to,
            held_us: held_us(switched.held),
        })
    }

    fn can_stop(&self, dataset: Option<&str>) -> Result<StopReport, AdminError> {
        let served: Vec<&Dataset> = match dataset {
            Some(name) => vec![self.find(name)?],
            None => self.served.iter().map(|served| &*served.dataset).collect(),
        };
        let datasets: Vec<_> = served.into_iter().map(can_stop).collect();
        Ok(StopReport { can_stop: datasets.iter().all(|dataset| dataset.can_stop), datasets })
    }

    fn scrub(&self, dataset: &str, repair: bool) -> Result<ScrubReport, AdminError> {
        let report = checks::scrub(self.find(dataset)?, repair).map_err(told);
        self.events.add(Some(dataset), "scrub", checks::scrub_event(&report));
        report
    }

    fn verify(&self, dataset: &str, volume: Option<&str>, repair: bool) -> Result<VerifyReport, AdminError> {
        let report = checks::verify(self.find(dataset)?, volume, repair).map_err(told);
        let (kind, text) = checks::verify_event(&report);
        self.events.add(Some(dataset), kind, text);
        report
    }

    fn events_since(&self, sequence: u64) -> Vec<Event> {
        self.events.since(sequence)
    }

    fn stop(&self) {
        (self.stop)();
    }
}

fn status(served: &Served) -> DatasetStatus {
    let found = served.dataset.status();
    let hooks = served.hooks.log();
    let segment_bytes = served.dataset.config().layout.segment_bytes();
    let volume = |volume: store::VolumeInfo| VolumeStatus {
        id: volume.id.0,
        bytes: volume.bytes(),
        block_bytes: 1 << volume.block_size.shift(),
        mapped_bytes: volume.mapped << volume.block_size.shift(),
        name: volume.name,
    };
    DatasetStatus {
        name: found.name,
        id: found.id.to_string(),
        role: match found.role {
            store::RoleStatus::Primary => Role::Primary,
            store::RoleStatus::Secondary => Role::Secondary,
            store::RoleStatus::Undecided | store::RoleStatus::Failed => Role::Undecided,
        },
        disk_state: match found.disk {
            store::DiskState::UpToDate => DiskState::UpToDate,
            store::DiskState::Consistent => DiskState::Consistent,
            store::DiskState::Outdated => DiskState::Outdated,
            store::DiskState::Failed => DiskState::Failed,
        },
        replication_state: match found.replication {
            store::ReplicationState::Established => ReplicationState::Established,
            store::ReplicationState::CatchingUp => ReplicationState::CatchingUp,
            store::ReplicationState::SyncSource => ReplicationState::SyncSource,
            store::ReplicationState::SyncTarget => ReplicationState::SyncTarget,
            store::ReplicationState::LinkLost => ReplicationState::LinkLost,
            store::ReplicationState::Alone => ReplicationState::Alone,
            store::ReplicationState::Waiting => ReplicationState::WaitingForPeer,
        },
        reason: Reason { code: found.reason.code.to_owned(), text: found.reason.text },
        generation: found.generation.0,
        lsn: Watermarks {
            appended: found.appended.0,
            committed: found.committed.0,
            durable_own: found.durable_own.0,
            durable_peer: found.durable_peer.0,
            applied: found.appended.0,
            checkpoint: found.checkpoint.0,
            marker: found.marker.unwrap_or_default().0,
        },
        ring: RingStatus {
            bytes: found.ring_bytes,
            used_bytes: found.ring_places.0 * segment_bytes,
            places: found.ring_places.1,
            used_places: found.ring_places.0,
        },
        volumes: found.volumes.into_iter().map(volume).collect(),
        unreplicated_bytes: found.unreplicated_bytes,
        check: found.check.map(checks::status),
        resync: found.resync.map(progress),
        hold: found.hold.map(hold),
        counters: counters(&found.counts, &hooks),
        hook: hooks.last,
        latency: Latencies {
            read: served.waits.read.status(),
            write: served.waits.write.status(),
            flush: served.waits.flush.status(),
        },
    }
}

fn hold(hold: store::HoldStatus) -> HoldProgress {
    HoldProgress {
        held_ms: u64::try_from(hold.time.as_millis()).unwrap_or(u64::MAX),
        is_over: hold.is_over,
        after: match hold.after {
            store::AfterHold::Suspend => "suspend".into(),
            store::AfterHold::Error => "error".into(),
        },
    }
}

const fn progress(resync: store::ResyncStatus) -> ResyncProgress {
    ResyncProgress {
        total_bytes: resync.total_bytes,
        left_bytes: resync.left_bytes,
        in_sync_hundredths: resync.hundredths,
        bytes_per_second: resync.bytes_per_second,
        seconds_left: resync.seconds_left,
    }
}

fn can_stop(dataset: &Dataset) -> DatasetStop {
    let found = dataset.can_stop();
    DatasetStop {
        dataset: dataset.config().name.clone(),
        can_stop: found.is_safe,
        reason: Reason { code: found.code, text: found.text },
        resync: found.resync.map(progress),
    }
}

fn counters(counts: &store::Counts, hooks: &HookLog) -> Counters {
    Counters {
        reads: counts.reads,
        read_bytes: counts.read_bytes,
        writes: counts.writes,
        write_bytes: counts.write_bytes,
        trims: counts.trims,
        flushes: counts.flushes,
        destaged_bytes: counts.destaged_bytes,
        syncs: counts.syncs,
        checkpoints: counts.checkpoints,
        segments_removed: counts.segments_removed,
        punched_bytes: counts.punched_bytes,
        damaged_blocks: counts.damaged_blocks,
        repaired_blocks: counts.repaired_blocks,
        masked_reads: counts.masked_reads,
        resync_questions: counts.resync_questions,
        resync_pieces: counts.resync_pieces,
        resync_data_bytes: counts.resync_data_bytes,
        resync_table_bytes: counts.resync_table_bytes,
        hold_failures: counts.hold_failures,
        hook_runs: hooks.runs,
        hook_failures: hooks.failures,
    }
}
