//! A node for tests: says what it was told to say, and hangs where it is told to.

use std::sync::{Condvar, Mutex, MutexGuard};

use super::{
    AdminError, Bucket, CheckKind, CheckStatus, DatasetStatus, DiskState, ErrorCode, Event, EventLog,
    HookStatus, LatencyStatus, NodeStatus, Reason, ReplicationState, RingStatus, Role, ScrubReport,
    StopReport, Subject, SwitchReport, VerifyReport, VolumeStatus, Watermarks,
};

/// A status with something in every field.
pub(in crate::serve) fn status() -> NodeStatus {
    let latency = |count| LatencyStatus {
        count,
        sum_ns: count * 7_000,
        p50_ns: 5_000,
        p99_ns: 40_000,
        p999_ns: 90_000,
        max_ns: 2_100_000,
        buckets: vec![
            Bucket { at_most_ns: 10_000, count: count / 2 },
            Bucket { at_most_ns: 10_000_000, count },
        ],
    };
    let mut dataset = DatasetStatus {
        name: "vm1".into(),
        id: "5a1e6c0f9b3d4e7281c4a6f0d2b39e58".into(),
        role: Role::Primary,
        disk_state: DiskState::UpToDate,
        replication_state: ReplicationState::Established,
        reason: Reason { code: "peer-in-sync".into(), text: "the peer has every write".into() },
        generation: 3,
        lsn: Watermarks {
            appended: 9 << 20,
            committed: 9 << 20,
            durable_own: 8 << 20,
            durable_peer: 7 << 20,
            applied: 9 << 20,
            checkpoint: 1 << 20,
            marker: 1 << 19,
        },
        ring: RingStatus { bytes: 256 << 20, used_bytes: 32 << 20, places: 16, used_places: 2 },
        volumes: vec![VolumeStatus {
            name: "root".into(),
            id: 1,
            bytes: 10 << 30,
            block_bytes: 4096,
            mapped_bytes: 3 << 29,
        }],
        hook: Some(HookStatus { on: "promote".into(), text: "it took 9 ms".into(), ..HookStatus::default() }),
        check: Some(CheckStatus { kind: CheckKind::Verify, done_bytes: 1 << 20, total_bytes: 4 << 20 }),
        ..DatasetStatus::default()
    };
    dataset.counters.writes = 12;
    dataset.counters.write_bytes = 12 * 4096;
    dataset.latency.write = latency(12);
    dataset.latency.read = latency(4);
    NodeStatus {
        name: "alpha".into(),
        version: "0.1.0".into(),
        uptime_ms: 90_061_000,
        age_ms: 0,
        datasets: vec![dataset],
    }
}

/// What a test has the node do.
#[derive(Debug)]
pub(in crate::serve) struct TestSubject {
    status: Mutex<NodeStatus>,
    pub(in crate::serve) events: EventLog,
    pub(in crate::serve) calls: Mutex<Vec<String>>,
    scrubs: Mutex<bool>,
    scrubs_changed: Condvar,
}

impl Default for TestSubject {
    fn default() -> Self {
        Self {
            status: Mutex::new(status()),
            events: EventLog::new(1000),
            calls: Mutex::default(),
            scrubs: Mutex::new(true),
            scrubs_changed: Condvar::new(),
        }
    }
}

impl TestSubject {
    pub(in crate::serve) fn change(&self, change: impl FnOnce(&mut NodeStatus)) {
        change(&mut self.status.lock().unwrap());
    }

    /// Its status hangs as long as what is returned lives.
    pub(in crate::serve) fn hang(&self) -> MutexGuard<'_, NodeStatus> {
        self.status.lock().unwrap()
    }

    /// Whether scrubs end.
    pub(in crate::serve) fn let_scrubs_end(&self, end: bool) {
        *self.scrubs.lock().unwrap() = end;
        self.scrubs_changed.notify_all();
    }

    pub(in crate::serve) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn call(&self, dataset: &str, what: String) -> Result<(), AdminError> {
        self.calls.lock().unwrap().push(what);
        if dataset == "vm1" {
            return Ok(());
        }
        Err(AdminError::new(ErrorCode::NoSuchDataset, format!("no dataset {dataset:?}; there is vm1")))
    }
}

impl Subject for TestSubject {
    fn status(&self) -> NodeStatus {
        self.status.lock().unwrap().clone()
    }

    fn create_volume(
        &self,
        dataset: &str,
        name: &str,
        bytes: u64,
        block_bytes: u32,
    ) -> Result<(), AdminError> {
        self.call(dataset, format!("create {dataset} {name} {bytes} {block_bytes}"))
    }

    fn resize_volume(&self, dataset: &str, name: &str, bytes: u64) -> Result<(), AdminError> {
        self.call(dataset, format!("resize {dataset} {name} {bytes}"))
    }

    fn delete_volume(&self, dataset: &str, name: &str) -> Result<(), AdminError> {
        self.call(dataset, format!("delete {dataset} {name}"))
    }

    fn promote(&self, dataset: &str, flushed_only: bool) -> Result<(), AdminError> {
        self.call(dataset, format!("promote {dataset} {flushed_only}"))
    }

    fn alone(&self, dataset: &str) -> Result<(), AdminError> {
        self.call(dataset, format!("alone {dataset}"))
    }

    fn replace_peer(&self, dataset: &str) -> Result<(), AdminError> {
        self.call(dataset, format!("replace-peer {dataset}"))
    }

    fn seed(&self, dataset: &str) -> Result<(), AdminError> {
        self.call(dataset, format!("seed {dataset}"))
    }

    fn switch(&self, dataset: Option<&str>) -> Result<SwitchReport, AdminError> {
        self.call(dataset.unwrap_or("vm1"), format!("switch {dataset:?}"))?;
        Ok(SwitchReport { dataset: "vm1".into(), to: "beta".into(), held_us: 7 })
    }

    fn can_stop(&self, dataset: Option<&str>) -> Result<StopReport, AdminError> {
        self.call(dataset.unwrap_or("vm1"), format!("can-stop {dataset:?}"))?;
        Ok(StopReport { can_stop: true, ..StopReport::default() })
    }

    fn verify(&self, dataset: &str, volume: Option<&str>, repair: bool) -> Result<VerifyReport, AdminError> {
        self.call(dataset, format!("verify {dataset} {volume:?} {repair}"))?;
        Ok(VerifyReport { volumes: 1, bytes: 4096, ..VerifyReport::default() })
    }

    fn scrub(&self, dataset: &str, repair: bool) -> Result<ScrubReport, AdminError> {
        self.call(dataset, format!("scrub {dataset} {repair}"))?;
        let mut ends = self.scrubs.lock().unwrap();
        while !*ends {
            ends = self.scrubs_changed.wait(ends).unwrap();
        }
        Ok(ScrubReport { segments: 2, blocks: 100, bytes: 409_600, ..ScrubReport::default() })
    }

    fn events_since(&self, sequence: u64) -> Vec<Event> {
        self.events.since(sequence)
    }

    fn stop(&self) {
        self.calls.lock().unwrap().push("stop".into());
    }
}
