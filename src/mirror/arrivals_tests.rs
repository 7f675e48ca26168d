//! One place to sleep, over a queue whose own event never comes: what ends a sleep is the word of whoever reaped.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64 as Counter;
use std::time::Instant;

use super::*;
use crate::base::{Sequence, Unsupported};
use crate::fabric::{Armed, WindowId};
use crate::memory::{MapOptions, Mapping};
use crate::mirror::{LaneConfig, RegionCore, shared_lane};

/// Longer than any test may sleep.
const LONG: Duration = Duration::from_secs(30);

struct Rig {
    lane: Mutex<Lane>,
    arrivals: Arc<Arrivals>,
    completed: Arc<Counter>,
    core: Arc<RegionCore>,
}

fn rig() -> Rig {
    let memory = Arc::new(Mapping::anonymous(4096, MapOptions::default()).unwrap());
    let core = RegionCore::new(memory).unwrap();
    let completed = Arc::<Counter>::default();
    let durable = Err(Unsupported { what: "Durable".into(), why: "a test".into() });
    let queue = shared_lane::tests::queue(completed.clone(), Arc::default(), durable);
    let lane = Lane::new(core.clone(), queue, WindowId(1), LaneConfig::default());
    let arrivals = Arc::new(Arrivals::of(&lane).unwrap().expect("the queue has an event"));
    Rig { lane: Mutex::new(lane), arrivals, completed, core }
}

impl Rig {
    /// Stores, looks, and prepares for a sleep, all under the lock, as an owner does.
    fn store_and_watch(&self) -> Watch {
        let mut lane = self.lane.lock().unwrap();
        lane.try_store(0, b"x").unwrap();
        assert_eq!(lane.poll().unwrap().acked, Sequence(0), "nothing completed yet");
        let watch = self.arrivals.watch().expect("nobody else watches");
        assert_eq!(lane.arm().unwrap(), Armed::Sleep);
        watch
    }

    /// Another of the lane's users takes what came.
    fn complete_and_reap(&self) {
        let mut lane = self.lane.lock().unwrap();
        self.completed.store(u64::MAX, Ordering::SeqCst);
        assert_eq!(lane.poll().unwrap().acked, Sequence(1));
        self.arrivals.note();
    }
}

fn returns_soon(sleep: impl FnOnce()) {
    let began = Instant::now();
    sleep();
    assert!(began.elapsed() < LONG / 2, "it slept for {:?}", began.elapsed());
}

#[test]
fn what_another_reaped_between_the_look_and_the_sleep_lets_nobody_sleep() {
    let rig = rig();
    let watch = rig.store_and_watch();
    rig.complete_and_reap();
    returns_soon(|| watch.sleep(LONG));
}

#[test]
fn what_another_reaps_ends_the_sleep() {
    for _ in 0..200 {
        let rig = rig();
        let watch = rig.store_and_watch();
        std::thread::scope(|scope| {
            scope.spawn(|| returns_soon(|| watch.sleep(LONG)));
            rig.complete_and_reap();
        });
    }
}

#[test]
fn a_lost_link_ends_the_sleep() {
    let rig = rig();
    let watch = rig.store_and_watch();
    std::thread::scope(|scope| {
        scope.spawn(|| returns_soon(|| watch.sleep(LONG)));
        rig.core.lose(crate::mirror::LostReason::Closed);
    });
    assert!(rig.lane.lock().unwrap().arm().is_err());
}

#[test]
fn one_watches_at_a_time_and_the_next_when_that_one_has_slept() {
    let rig = rig();
    let watch = rig.store_and_watch();
    assert!(rig.arrivals.watch().is_none());
    let began = Instant::now();
    watch.sleep(Duration::from_millis(5));
    assert!(began.elapsed() >= Duration::from_millis(5), "nothing came");
    assert!(rig.arrivals.watch().is_some());
}
