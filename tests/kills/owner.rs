//! The owner is killed in the middle of its stores.

use std::sync::mpsc::channel;
use std::time::Duration;

use mirrorbus::Holder;

use crate::child::{PATIENCE, Watchdog, rounds, say, seed};
use crate::common::{Fabric, Random, Scratch, holder_config, keys, soon};
use crate::ledger::{Histogram, Ledger, find_prefix};
use crate::roles::{StorerChild, pull};

const SIZE: usize = 1 << 20;
const LENS: (usize, usize) = (8, 9000);

#[test]
fn killed_owners_leave_a_prefix_over_shm() {
    kill_owners(Fabric::Shm, 1, false, rounds(40, 200));
}

#[test]
fn killed_owners_leave_a_prefix_over_tcp() {
    kill_owners(Fabric::Tcp, 1, false, rounds(40, 200));
}

#[test]
fn killed_owners_leave_a_prefix_over_sealed_tcp() {
    kill_owners(Fabric::TcpSealed, 1, false, rounds(10, 50));
}

#[test]
fn killed_owners_leave_a_prefix_over_a_device() {
    kill_owners(Fabric::Device, 1, false, rounds(20, 100));
}

#[test]
fn killed_owners_of_two_lanes_leave_two_prefixes_over_a_device() {
    kill_owners(Fabric::Device, 2, false, rounds(10, 50));
}

#[test]
fn killed_owners_of_two_lanes_leave_two_prefixes_over_shm() {
    kill_owners(Fabric::Shm, 2, false, rounds(10, 50));
}

#[test]
fn killed_owners_of_two_lanes_leave_two_prefixes_over_tcp() {
    kill_owners(Fabric::Tcp, 2, false, rounds(10, 50));
}

#[test]
fn owners_killed_between_reconnections_leave_a_prefix_over_shm() {
    kill_owners(Fabric::Shm, 1, true, rounds(20, 100));
}

#[test]
fn owners_killed_between_reconnections_leave_a_prefix_over_tcp() {
    kill_owners(Fabric::Tcp, 1, true, rounds(20, 100));
}

/// One holder lives through all rounds; the owner of each recovers what the one before left.
fn kill_owners(fabric: Fabric, lanes: usize, reconnects: bool, count: usize) {
    let kind = if reconnects { ", reconnecting" } else { "" };
    let title = format!("owner killed, {fabric:?}, {lanes} lane(s){kind}");
    let watchdog = Watchdog::new(&title);
    let mut random = Random(seed(&title));
    let scratch = Scratch::new();
    let holder = Holder::start(holder_config(fabric.url(&scratch), SIZE), keys()).unwrap();
    let mut copy = vec![0; SIZE];
    let (mut in_flight, mut kept) = (Histogram::default(), 0);
    for round in 0..3 * count {
        // More of them where a machine that does much else let too few find something to lose.
        if round >= count && in_flight.is_mostly_non_zero() {
            break;
        }
        watchdog.feed(format!("{round} rounds"));
        let storer = StorerChild {
            url: holder.url().clone(),
            size: SIZE,
            pull: round > 0,
            seed: random.next(),
            lanes,
            lens: LENS,
            patience: 48,
            hears_late: false,
            reconnects,
        };
        let context = format!("{title}, round {round}");
        // Every fourth takes the copy over without a fence, as a plain restart does; over a device nothing can fence.
        let fence = fabric != Fabric::Device && round % 4 != 3;
        kept += kill_one(&holder, &storer, &mut random, fence, &mut copy, &mut in_flight, &context);
    }
    let stores = format!("{title}: {kept} stores kept, none acknowledged lost; in flight:");
    in_flight.print(&stores);
    let (non_zero, all) = in_flight.non_zero();
    assert!(2 * non_zero > all, "{non_zero} of {all} kills found stores in flight");
}

/// Returns how many stores the copy has kept.
fn kill_one(
    holder: &Holder,
    storer: &StorerChild,
    random: &mut Random,
    fence: bool,
    copy: &mut Vec<u8>,
    in_flight: &mut Histogram,
    context: &str,
) -> u64 {
    let mut child = storer.start();
    let (first, begun) = channel();
    let ledger = Ledger::keep(child.line.try_clone().unwrap(), storer.lanes, first);
    begun.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{context}: {error}"));
    std::thread::sleep(Duration::from_micros(1000 + random.below(39_000) as u64));
    child.kill();
    let last = ledger.close();
    let fenced = fence.then(|| holder.fence(soon()).unwrap());
    assert!(fenced.as_ref().is_none_or(|fenced| fenced.exact), "{context}: a dead owner goes on storing");
    let next = pull(holder.url(), storer.size);
    let left = holder.memory().slice().to_vec();
    assert!(next.memory().to_vec() == left, "{context}: the next owner sees other bytes");
    if let Some(fenced) = fenced {
        assert!(fenced.memory.slice().to_vec() == left, "{context}: the fenced copy has changed");
    }
    let mut kept = 0;
    for lane in 0..storer.lanes {
        let entry = last.get(&(lane as u64)).copied().unwrap_or_default();
        in_flight.add(entry.taken - entry.acked);
        // At most one store is begun and not in the ledger yet.
        let begun = usize::try_from(entry.taken).unwrap() + 1;
        let stores = storer.stores(lane).take(begun);
        match find_prefix(&left, copy, storer.range(lane), stores, entry.acked) {
            Ok(count) => kept += count,
            Err(why) => {
                say(&format!("{context}, lane {lane}: {storer:?} {last:?}"));
                panic!("{context}, lane {lane}: {why}");
            }
        }
    }
    *copy = left;
    kept
}
