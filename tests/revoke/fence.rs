//! Fences against owners that keep the contract: one stopped in the middle of a store, one that stores all the time.

use std::sync::mpsc::channel;
use std::time::Duration;

use mirrorbus::node::{FenceError, LinkStatus};
use mirrorbus::{FabricUrl, Holder, LaneConfig, Level};

use crate::child::{PATIENCE, Watchdog, rounds, say, seed};
use crate::common::{Fabric, Pair, Random, Scratch, holder_config, keys, soon};
use crate::ledger::{Entry, Histogram, Ledger, find_prefix};
use crate::roles::{StorerChild, pull};

const SIZE: usize = 8 << 20;
/// Large stores, so that a stop in the middle of one is likely.
const LARGE: (usize, usize) = (1 << 18, 1 << 20);
const MIXED: (usize, usize) = (8, 1 << 16);

#[test]
fn an_owner_stopped_in_the_middle_of_a_store_changes_nothing_when_it_goes_on() {
    fence_storing_owners(Fabric::Shm, true, LARGE, rounds(30, 100));
}

#[test]
fn an_owner_that_stores_all_the_time_changes_nothing_after_the_fence_over_shm() {
    fence_storing_owners(Fabric::Shm, false, MIXED, rounds(10, 50));
}

#[test]
fn an_owner_that_stores_all_the_time_changes_nothing_after_the_fence_over_tcp() {
    fence_storing_owners(Fabric::Tcp, false, MIXED, rounds(10, 50));
}

#[test]
fn an_owner_that_stores_all_the_time_changes_nothing_after_the_fence_over_sealed_tcp() {
    fence_storing_owners(Fabric::TcpSealed, false, MIXED, rounds(5, 20));
}

#[test]
fn an_owner_stopped_over_tcp_changes_nothing_when_it_goes_on() {
    fence_storing_owners(Fabric::Tcp, true, LARGE, rounds(10, 50));
}

#[test]
fn a_refused_fence_over_a_device_leaves_the_owner_alone() {
    let pair = Pair::new(Fabric::Device, 1 << 20);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    lane.store(0, b"before").unwrap();
    let generation = pair.holder.status().generation;
    let error = pair.holder.fence(soon()).unwrap_err();
    assert!(matches!(error, FenceError::Unsupported(_)), "{error}");
    assert!(error.to_string().contains("detach the device"), "{error}");
    assert_eq!(pair.holder.status().generation, generation);
    // Time for what the holder might have told the owner.
    std::thread::sleep(Duration::from_millis(200));
    lane.store(0, b"beyond").unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(pair.region.link(), LinkStatus::Up);
    assert!(pair.holder.status().connected);
    assert_eq!(pair.held(), pair.local());
}

fn fence_storing_owners(fabric: Fabric, stop: bool, lens: (usize, usize), count: usize) {
    let kind = if stop { "stopped" } else { "storing" };
    let title = format!("fence of a {kind} owner, {fabric:?}");
    let watchdog = Watchdog::new(&title);
    let mut random = Random(seed(&title));
    let scratch = Scratch::new();
    let holder = Holder::start(holder_config(fabric.url(&scratch), SIZE), keys()).unwrap();
    let mut copy = vec![0; SIZE];
    let (mut in_flight, mut torn) = (Histogram::default(), 0);
    for round in 0..count {
        watchdog.feed(format!("{round} rounds"));
        let storer = StorerChild {
            url: holder.url().clone(),
            size: SIZE,
            pull: round > 0,
            seed: random.next(),
            lanes: 1,
            lens,
            // Acknowledged one by one, a torn store must not be; in long rows, none behind it.
            patience: if round % 2 == 0 { 1 } else { 32 },
            // Then nothing but the generation can keep it from acknowledging.
            hears_late: stop,
            reconnects: false,
        };
        let context = format!("{title}, round {round}");
        let delay = Duration::from_micros(1000 + random.below(20_000) as u64);
        torn += usize::from(fence_one(&holder, &storer, delay, stop, &mut copy, &mut in_flight, &context));
    }
    in_flight
        .print(&format!("{title}: {count} fences, {torn} left a torn store, in flight when all was over:"));
}

/// Returns whether the copy ends in the middle of a store.
fn fence_one(
    holder: &Holder,
    storer: &StorerChild,
    delay: Duration,
    stop: bool,
    copy: &mut Vec<u8>,
    in_flight: &mut Histogram,
    context: &str,
) -> bool {
    let child = storer.start();
    let (first, begun) = channel();
    let ledger = Ledger::keep(child.line.try_clone().unwrap(), 1, first);
    begun.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{context}: {error}"));
    std::thread::sleep(delay);
    if stop {
        child.stop();
    }
    let fenced = holder.fence(soon()).unwrap();
    assert!(fenced.exact, "{context}: an owner that keeps the contract was called disobedient");
    let left = fenced.memory.slice().to_vec();
    if stop {
        child.go_on();
    }
    // The owner finds out by itself; its last entry says how.
    let last = ledger.close();
    child.finish();
    assert!(fenced.memory.slice().to_vec() == left, "{context}: bytes have changed after the fence");
    let next = pull(holder.url(), storer.size);
    assert!(next.memory().to_vec() == left, "{context}: the next owner sees other bytes");
    // Over tcp the end of the data stream may be seen before the message that says why.
    let told = last.get(&Entry::REVOKED).or_else(|| last.get(&Entry::LOST).filter(|_| !is_shm(holder)));
    let end = told.unwrap_or_else(|| panic!("{context}: not told of the fence: {last:?}"));
    in_flight.add(end.taken - end.acked);
    let stores = storer.stores(0).take(usize::try_from(end.taken).unwrap() + 1);
    let (mut model, all) = (copy.clone(), 0..storer.size);
    let kept = find_prefix(&left, &mut model, all, stores, end.acked).unwrap_or_else(|why| {
        say(&format!("{context}: {storer:?} {last:?}"));
        panic!("{context}: {why}");
    });
    let partial = left != model && {
        let store = storer.stores(0).nth(usize::try_from(kept).unwrap()).unwrap();
        store.apply(&mut model);
        left != model
    };
    *copy = left;
    partial
}

fn is_shm(holder: &Holder) -> bool {
    matches!(holder.url(), FabricUrl::Shm { .. })
}
