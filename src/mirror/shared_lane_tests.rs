//! A shared lane over a queue whose completions come when a test says so.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::base::{Medium, Unsupported};
use crate::fabric::{Capabilities, Completion, Queue, QueueError, SourceUse, WindowId, WorkRequest};
use crate::memory::{MapOptions, Mapping};
use crate::mirror::RegionCore;

/// Takes every request; completes what `completed` says.
struct Fake {
    capabilities: Capabilities,
    taken: u64,
    reported: u64,
    completed: Arc<AtomicU64>,
    /// Times that somebody was told to sleep.
    armed: Arc<AtomicU64>,
    event: OwnedFd,
}

impl Queue for Fake {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn post(&mut self, requests: &[WorkRequest]) -> Result<usize, QueueError> {
        self.taken = requests.iter().map(|request| request.wr_id).fold(self.taken, u64::max);
        Ok(requests.len())
    }

    fn doorbell(&mut self) -> Result<(), QueueError> {
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<Completion>, QueueError> {
        let done = self.completed.load(Ordering::SeqCst).min(self.taken);
        if done <= self.reported {
            return Ok(None);
        }
        self.reported = done;
        Ok(Some(Completion { wr_id: done }))
    }

    fn free_slots(&self) -> usize {
        1000
    }

    fn arm(&mut self) -> Result<Armed, QueueError> {
        self.armed.fetch_add(1, Ordering::SeqCst);
        Ok(Armed::Sleep)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.event.as_fd())
    }
}

pub(in crate::mirror) struct Rig {
    pub(in crate::mirror) lane: SharedLane,
    pub(in crate::mirror) core: Arc<RegionCore>,
    completed: Arc<AtomicU64>,
    armed: Arc<AtomicU64>,
}

fn rig() -> Rig {
    rig_with(Err(Unsupported { what: "Durable".into(), why: "a test".into() }))
}

/// A queue that completes what `completed` says.
pub(in crate::mirror) fn queue(
    completed: Arc<AtomicU64>,
    armed: Arc<AtomicU64>,
    durable: Result<(), Unsupported>,
) -> Box<dyn Queue> {
    let capabilities = Capabilities {
        medium: Medium::Tcp,
        message_bytes_max: 4096,
        depth_max: 1000,
        source: SourceUse::AtPost,
        coalesce_bytes_max: 4096,
        one_sided: false,
        visible_on_completion: true,
        durable,
    };
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    Box::new(Fake { capabilities, taken: 0, reported: 0, completed, armed, event })
}

/// One whose peer can sync, or not.
pub(in crate::mirror) fn rig_with(durable: Result<(), Unsupported>) -> Rig {
    let memory = Arc::new(Mapping::anonymous(4096, MapOptions::default()).unwrap());
    let core = RegionCore::new(memory).unwrap();
    let (completed, armed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let queue = queue(completed.clone(), armed.clone(), durable);
    let config = LaneConfig { polling: Polling::Block, ..LaneConfig::default() };
    let lane = Lane::new(core.clone(), queue, WindowId(1), config);
    Rig { lane: lane.into_shared().unwrap(), core, completed, armed }
}

impl Rig {
    /// From now on everything completes when it is looked at.
    pub(in crate::mirror) fn complete_everything(&self) {
        self.completed.store(u64::MAX, Ordering::SeqCst);
    }
}

#[test]
fn posted_is_not_acknowledged() {
    let rig = rig();
    let ticket = rig.lane.store(0, b"nobody acknowledges").unwrap();
    let short = || Deadline::within(Duration::from_millis(100));
    rig.lane.wait(ticket, Level::Posted, short()).unwrap();
    assert_eq!(rig.lane.flush(Level::Posted, short()), Ok(ticket.sequence()));
    assert!(matches!(rig.lane.wait(ticket, Level::Acked, short()), Err(WaitError::Deadline { .. })));
}

/// Waits that `count` is above `than`: whoever raised it is about to sleep.
fn wait_for_sleep(count: &AtomicU64, than: u64) {
    let patience = Instant::now() + Duration::from_secs(10);
    while count.load(Ordering::SeqCst) <= than {
        assert!(Instant::now() < patience, "nobody goes to sleep");
        std::thread::yield_now();
    }
}

/// Of some wake-ups most come at once; a busy machine may be late with the others.
fn most_come_at_once(mut wake_up: impl FnMut() -> Duration) {
    let mut waits: Vec<_> = (0..11).map(|_| wake_up()).collect();
    waits.sort();
    assert!(waits[5] < FOLLOW_MAX / 2, "wake-ups took {waits:?}, a sleep {FOLLOW_MAX:?}");
}

/// How long a sleeping leader takes to see what `by_another` reaped.
fn time_to_wake(rig: &Rig, by_another: impl FnOnce()) -> Duration {
    let armed = rig.armed.load(Ordering::SeqCst);
    let ticket = rig.lane.store(0, b"a").unwrap();
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| {
            rig.lane.wait(ticket, Level::Acked, Deadline::within(Duration::from_secs(10))).unwrap();
            Instant::now()
        });
        wait_for_sleep(&rig.armed, armed);
        by_another();
        let reaped = Instant::now();
        leader.join().unwrap().saturating_duration_since(reaped)
    })
}

/// The event of what another thread reaps is gone before the leader sees it.
#[test]
fn a_leader_does_not_sleep_on_what_another_thread_reaped() {
    let rig = rig();
    let complete = || rig.completed.store(rig.lane.watermarks().last.0, Ordering::SeqCst);
    most_come_at_once(|| {
        time_to_wake(&rig, || {
            let ticket = rig.lane.store(8, b"b").unwrap();
            complete();
            rig.lane.wait(ticket, Level::Acked, Deadline::within(Duration::from_secs(10))).unwrap();
        })
    });
}

/// A store that finds the window full reaps as well.
#[test]
fn a_leader_does_not_sleep_on_what_a_store_reaped() {
    let rig = rig();
    most_come_at_once(|| {
        time_to_wake(&rig, || {
            while rig.lane.watermarks().in_flight() < LaneConfig::default().depth {
                rig.lane.try_store(100, b"c").unwrap();
            }
            rig.completed.store(rig.lane.watermarks().last.0, Ordering::SeqCst);
            rig.lane.try_store(200, b"d").unwrap();
        })
    });
}
