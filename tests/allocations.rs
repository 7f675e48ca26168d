//! No store allocates. A lane in use for hours makes millions of stores a second; one allocation in their path would
//! be its slowest part, and the only one without a bound.
//!
//! The allocator counts per thread: the holder's threads, in this process as well, are not the owner's path.

mod common;
#[cfg(feature = "serve")]
#[path = "nbd/memory.rs"]
mod memory;
#[cfg(feature = "serve")]
#[path = "allocations/nbd.rs"]
mod nbd;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{Fabric, Pair, soon};
use mirrorbus::mirror::Polling;
use mirrorbus::{LaneConfig, Level};

const SIZE: usize = 1 << 20;
const STORES: usize = 10_000;

/// The system's allocator, with a count of calls per thread.
struct Counting;

thread_local! {
    /// Constant and without a destructor: to touch it allocates nothing and is allowed at any time.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    CALLS.with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call is handed on as it is to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: promises what the trait asks for, by handing on.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that this call asks for.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: promises what the trait asks for, by handing on.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    // SAFETY: promises what the trait asks for, by handing on.
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    // SAFETY: promises what the trait asks for, by handing on.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `body` runs.
fn allocations(body: impl FnOnce()) -> u64 {
    let before = CALLS.with(Cell::get);
    body();
    CALLS.with(Cell::get) - before
}

#[test]
fn the_counter_counts_this_thread_and_no_other() {
    assert_eq!(allocations(|| ()), 0);
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7)))), 1);
    let grown = allocations(|| {
        let mut list = std::hint::black_box(Vec::with_capacity(1));
        list.extend_from_slice(&[1, 2, 3]);
        std::hint::black_box(&list);
    });
    assert_eq!(grown, 2, "one allocation and one growth");
    let (start, end) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            assert!(allocations(|| drop(std::hint::black_box(vec![0; 100]))) > 0);
            end.wait();
        });
        let here = allocations(|| {
            start.wait();
            end.wait();
        });
        assert_eq!(here, 0, "another thread's allocation was counted here");
    });
}

/// Sizes and places of every kind: contiguous, random, overlapping what is in flight.
fn place(number: usize) -> (usize, usize) {
    let len = [8, 64, 64, 256, 1500][number % 5];
    let offset = match number / 16 % 3 {
        0 => number % 16 * 64,
        1 => number.wrapping_mul(0x9e37_79b9) % (SIZE - 4096),
        _ => 8 * (number % 7),
    };
    (offset, len)
}

fn exclusive(fabric: Fabric, polling: Polling) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig { polling, ..LaneConfig::default() }).unwrap();
    let data = [0xa5; 1500];
    let mut one_by_one = |first: usize, count: usize| {
        for number in first..first + count {
            let (offset, len) = place(number);
            let ticket = lane.store(offset, &data[..len]).unwrap();
            lane.wait(ticket, Level::Visible, soon()).unwrap();
        }
    };
    one_by_one(0, 1000);
    assert_eq!(allocations(|| one_by_one(1000, STORES)), 0, "{STORES} stores, each waited for");
    let mut in_flight = |first: usize, count: usize| {
        for number in first..first + count {
            let (offset, len) = place(number);
            if number % 7 == 0 {
                lane.store_v(offset, &[&data[..len / 2], &data[len / 2..len]]).unwrap();
            } else {
                lane.store(offset, &data[..len]).unwrap();
            }
        }
        lane.flush(Level::Visible, soon()).unwrap();
    };
    in_flight(0, 5000);
    assert_eq!(allocations(|| in_flight(5000, STORES)), 0, "{STORES} stores in a full window");
    assert_eq!(pair.held(), pair.local());
}

fn shared(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let lane = pair.region.lane(LaneConfig::default()).unwrap().into_shared().unwrap();
    let data = [0x5a; 1500];
    let store = |first: usize, count: usize| {
        for number in first..first + count {
            let (offset, len) = place(number);
            let ticket = lane.store(offset, &data[..len]).unwrap();
            if number % 3 != 0 {
                lane.wait(ticket, Level::Visible, soon()).unwrap();
            }
        }
        lane.flush(Level::Visible, soon()).unwrap();
    };
    store(0, 1000);
    assert_eq!(allocations(|| store(1000, STORES)), 0, "{STORES} stores of one thread");
    // Four threads that combine; each counts its own.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                store(thread * 1000, 1000);
                assert_eq!(allocations(|| store(thread * 1000, STORES / 4)), 0, "thread {thread}");
            });
        }
    });
    assert_eq!(pair.held(), pair.local());
}

#[test]
fn an_exclusive_lane_over_shared_memory_allocates_nothing() {
    exclusive(Fabric::Shm, Polling::Spin);
    exclusive(Fabric::Shm, LaneConfig::default().polling);
}

#[test]
fn an_exclusive_lane_over_tcp_allocates_nothing() {
    exclusive(Fabric::Tcp, LaneConfig::default().polling);
    exclusive(Fabric::Tcp, Polling::Block);
}

#[test]
fn a_shared_lane_over_shared_memory_allocates_nothing() {
    shared(Fabric::Shm);
}

#[test]
fn a_shared_lane_over_tcp_allocates_nothing() {
    shared(Fabric::Tcp);
}
