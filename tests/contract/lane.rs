//! Stores, levels, windows, holes.

use std::time::{Duration, Instant};

use mirrorbus::mirror::{Polling, StoreError, WaitError};
use mirrorbus::{Deadline, LaneConfig, Level};

use crate::common::{Fabric, Pair, Random, soon};

const SIZE: usize = 1 << 20;

over_a_device_too!(
    a_store_reaches_the_peer_at_its_offset,
    levels_grow_in_order,
    the_window_bounds_what_is_in_flight,
    a_blocking_store_waits_for_room,
    long_runs_are_acknowledged_at_the_end,
    overlapping_stores_keep_their_order,
    sizes_from_nothing_to_everything,
    what_lies_outside_is_refused,
    a_wait_ends_at_its_deadline,
    gathered_stores_are_one,
    holes_are_filled_in_place,
    tickets_of_another_lane_are_stale,
    two_lanes_are_independent,
    sixteen_threads_share_a_lane,
    system_calls_are_counted,
    random_stores_leave_equal_copies,
);

fn a_store_reaches_the_peer_at_its_offset(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    let ticket = lane.store(12_345, b"hello, peer").unwrap();
    lane.wait(ticket, Level::Visible, soon()).unwrap();
    assert_eq!(&pair.held()[12_345..12_356], b"hello, peer");
    assert_eq!(pair.held(), pair.local());
}

fn levels_grow_in_order(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    for number in 1..=100u64 {
        let ticket = lane.store(64 * number as usize, &number.to_le_bytes()).unwrap();
        assert_eq!(ticket.sequence().0, number);
        if number % 10 == 0 {
            lane.wait(ticket, Level::Acked, soon()).unwrap();
        }
        let marks = lane.watermarks();
        assert!(marks.last >= marks.posted && marks.posted >= marks.acked);
        assert!(marks.acked >= marks.visible && marks.visible >= marks.durable);
    }
    assert_eq!(lane.flush(Level::Visible, soon()).unwrap().0, 100);
    let error = lane.flush(Level::Durable, soon()).unwrap_err();
    assert!(matches!(error, WaitError::Unsupported(_)), "{error}");
    assert!(error.to_string().contains("with a file"), "{error}");
}

fn the_window_bounds_what_is_in_flight(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let depth = 8;
    let mut lane = pair.region.lane(LaneConfig { depth, ..LaneConfig::default() }).unwrap();
    let mut taken = 0;
    for number in 0..10_000 {
        match lane.try_store(number % 1000 * 64, &[1; 64]) {
            Ok(_) => taken += 1,
            Err(StoreError::WouldBlock { in_flight }) => assert!(in_flight <= depth),
            Err(error) => panic!("{error}"),
        }
        assert!(lane.watermarks().in_flight() <= depth);
    }
    assert!(taken >= depth);
    assert_eq!(lane.flush(Level::Visible, soon()).unwrap().0, taken as u64);
    assert_eq!(pair.held(), pair.local());
}

fn a_blocking_store_waits_for_room(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    for polling in [Polling::Spin, Polling::Block, Polling::Adaptive(Duration::from_micros(10))] {
        let config = LaneConfig { depth: 4, polling, ..LaneConfig::default() };
        let mut lane = pair.region.lane(config).unwrap();
        for number in 0..2000 {
            lane.store(number % 500 * 128, &[number as u8; 100]).unwrap();
        }
        lane.flush(Level::Visible, soon()).unwrap();
        assert_eq!(pair.held(), pair.local());
    }
}

fn long_runs_are_acknowledged_at_the_end(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig { depth: 4096, ..LaneConfig::default() }).unwrap();
    for round in 0..5u8 {
        // Every second slot, so that nothing coalesces: each store is a request of its own.
        for number in 0..4096 {
            lane.store(number * 128, &[round; 64]).unwrap();
        }
        lane.flush(Level::Acked, soon()).unwrap();
    }
    let stats = lane.stats();
    assert!(stats.requests >= 5 * 4096, "{stats:?}");
    assert_eq!(pair.held(), pair.local());
}

fn overlapping_stores_keep_their_order(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig { depth: 1024, ..LaneConfig::default() }).unwrap();
    for number in 0..1000u64 {
        // A counter that is overwritten while its last store is in flight, and one beside it that is contiguous.
        lane.store(0, &number.to_le_bytes()).unwrap();
        lane.store(8, &number.to_le_bytes()).unwrap();
        lane.store(4, &[0xee; 2]).unwrap();
        // At any moment the first counter is the second or one ahead, in the copy as in the original.
        if number % 50 == 0 {
            lane.poll().unwrap();
            let held = pair.holder.memory().slice().subslice(0, 16).unwrap().to_vec();
            let low = |at: usize| u32::from_le_bytes(held[at..at + 4].try_into().unwrap());
            assert!(low(0) == low(8) || low(0) == low(8) + 1, "{} then {}", low(0), low(8));
        }
    }
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(pair.held(), pair.local());
}

fn sizes_from_nothing_to_everything(fabric: Fabric) {
    let size = 3 << 20;
    let pair = Pair::new(fabric, size);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    for len in [0, 1, 7, 8, 63, 64, 65, 4095, 4096, 65_537, 1 << 20, size] {
        let bytes: Vec<u8> = (0..len).map(|index| (index * 31 + len) as u8).collect();
        let ticket = lane.store(size - len, &bytes).unwrap();
        lane.wait(ticket, Level::Visible, soon()).unwrap();
        assert_eq!(pair.held()[size - len..], bytes[..]);
    }
    let ticket = lane.store(size, b"").unwrap();
    lane.wait(ticket, Level::Visible, soon()).unwrap();
    assert_eq!(pair.held(), pair.local());
}

fn what_lies_outside_is_refused(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    for (offset, len) in [(SIZE, 1), (SIZE - 1, 2), (usize::MAX, 1), (0, SIZE + 1)] {
        let error = lane.store(offset, &vec![0xff; len]).unwrap_err();
        assert_eq!(error, StoreError::OutOfRange { offset, len, size: SIZE });
        assert!(lane.reserve(offset, len).is_err());
    }
    assert_eq!(lane.watermarks().last.0, 0);
    lane.store(0, b"still works").unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(pair.held(), pair.local());
}

fn a_wait_ends_at_its_deadline(fabric: Fabric) {
    let pair = Pair::with(fabric, SIZE, |_, _| {});
    for polling in [Polling::Spin, Polling::Block] {
        let mut lane = pair.region.lane(LaneConfig { polling, ..LaneConfig::default() }).unwrap();
        let ticket = lane.store(0, &vec![7; SIZE]).unwrap();
        let began = Instant::now();
        match lane.wait(ticket, Level::Visible, Deadline::at(began)) {
            // Memory is fast enough to be there before the first look at the clock.
            Ok(()) => {}
            Err(WaitError::Deadline { level, wanted, .. }) => {
                assert_eq!((level, wanted), (Level::Visible, ticket.sequence()));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(began.elapsed() < Duration::from_secs(5));
        lane.wait(ticket, Level::Visible, soon()).unwrap();
    }
}

fn gathered_stores_are_one(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    let ticket = lane.store_v(100, &[b"one ", b"", b"store ", b"of parts"]).unwrap();
    assert_eq!(ticket.sequence().0, 1);
    lane.wait(ticket, Level::Visible, soon()).unwrap();
    assert_eq!(&pair.held()[100..118], b"one store of parts");
    assert!(lane.store_v(SIZE - 4, &[b"123", b"45"]).is_err());
    assert_eq!(pair.held(), pair.local());
}

fn holes_are_filled_in_place(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    let first = lane.reserve(0, 100).unwrap();
    let second = lane.reserve(100, 100).unwrap();
    first.memory().write(0, &[1; 100]);
    let error = lane.store(50, b"in the way").unwrap_err();
    assert!(matches!(error, StoreError::OpenHole { hole_offset: 0, hole_len: 100, .. }), "{error}");
    lane.store(200, b"beside it").unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(pair.held()[..200], [0; 200], "a hole is no store before it is sealed");
    second.memory().write(0, &[2; 60]);
    lane.void(second).unwrap();
    lane.seal(first).unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(pair.held()[..100], [1; 100]);
    assert_eq!(pair.held(), pair.local(), "a void hole is equal on both sides");
    assert!(lane.open_holes().is_empty());
    let mut other = pair.region.lane(LaneConfig::default()).unwrap();
    let strange = other.reserve(0, 10).unwrap();
    assert_eq!(lane.seal(strange).unwrap_err(), StoreError::StrangeHole);
}

fn tickets_of_another_lane_are_stale(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut first = pair.region.lane(LaneConfig::default()).unwrap();
    let mut second = pair.region.lane(LaneConfig::default()).unwrap();
    let ticket = first.store(0, b"x").unwrap();
    let error = second.wait(ticket, Level::Acked, soon()).unwrap_err();
    assert!(matches!(error, WaitError::StaleTicket { .. }), "{error}");
    first.wait(ticket, Level::Acked, soon()).unwrap();
}

fn two_lanes_are_independent(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let halves = SIZE / 2;
    std::thread::scope(|scope| {
        for half in 0..2usize {
            let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
            scope.spawn(move || {
                for number in 0..3000usize {
                    lane.store(half * halves + number % 1000 * 500, &[number as u8; 300]).unwrap();
                }
                lane.flush(Level::Visible, soon()).unwrap();
            });
        }
    });
    assert_eq!(pair.held(), pair.local());
}

fn sixteen_threads_share_a_lane(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    for polling in [Polling::Spin, Polling::Block] {
        let config = LaneConfig { depth: 64, polling, ..LaneConfig::default() };
        let lane = pair.region.lane(config).unwrap().into_shared().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..16usize {
                let lane = lane.clone();
                scope.spawn(move || {
                    for number in 0..200usize {
                        let ticket = lane.store((thread * 200 + number) * 64, &[number as u8; 64]).unwrap();
                        if number % 7 == 0 {
                            lane.wait(ticket, Level::Acked, soon()).unwrap();
                        }
                    }
                    lane.flush(Level::Visible, soon()).unwrap();
                });
            }
        });
        assert_eq!(lane.stats().stores, 16 * 200);
        assert_eq!(lane.watermarks().acked.0, 16 * 200);
        assert_eq!(pair.held(), pair.local());
    }
}

fn system_calls_are_counted(fabric: Fabric) {
    let through_memory = matches!(fabric, Fabric::Shm | Fabric::Device);
    let pair = Pair::new(fabric, SIZE);
    if fabric == Fabric::Rdma {
        // Whether a doorbell is a system call is between the library and the device.
        assert_eq!(pair.region.lane(LaneConfig::default()).unwrap().stats().syscalls, None);
        return;
    }
    for polling in [Polling::Spin, Polling::Block] {
        let mut lane = pair.region.lane(LaneConfig { polling, ..LaneConfig::default() }).unwrap();
        let calls = |lane: &mirrorbus::Lane| lane.stats().syscalls.unwrap();
        let made = calls(&lane);
        for number in 0..100 {
            let before = calls(&lane);
            let ticket = lane.store(number * 64, &[1; 64]).unwrap();
            lane.wait(ticket, Level::Acked, soon()).unwrap();
            // Over a stream at least one to send the store and one to receive its answer.
            let least = if through_memory { 0 } else { 2 };
            assert!(calls(&lane) >= before + least, "{before}, then {}", calls(&lane));
        }
        if through_memory {
            assert_eq!(calls(&lane), 0, "a store through memory makes none");
        } else if polling == Polling::Block {
            // One that sleeps until the answer is there makes few: a send, a look in vain, a look that finds it.
            assert!(calls(&lane) <= made + 100 * 8, "{} calls for 100 stores", calls(&lane));
        }
        let before = calls(&lane);
        pair.region.reconnect(&mut [&mut lane], soon()).unwrap();
        assert!(calls(&lane) >= before, "those of the queue before count as well");
    }
}

fn random_stores_leave_equal_copies(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig { depth: 100, ..LaneConfig::default() }).unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut model = vec![0u8; SIZE];
    for _ in 0..3000 {
        let len = random.below(5000);
        let offset = random.below(SIZE - len);
        let byte = random.next() as u8;
        lane.store(offset, &vec![byte; len]).unwrap();
        model[offset..offset + len].fill(byte);
        if random.below(20) == 0 {
            lane.flush(Level::Acked, soon()).unwrap();
        }
    }
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(pair.local(), model);
    assert_eq!(pair.held(), model);
}
