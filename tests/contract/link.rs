//! Attaching, losing the link, reconnecting, revoking, several windows.

use std::time::Duration;

use mirrorbus::mirror::{Lane, Polling, StoreError, WaitError};
use mirrorbus::node::{CallError, Content, LinkStatus, OpenError, ReconnectError, RefusalCode};
use mirrorbus::{Attach, Deadline, Holder, LaneConfig, Level, Region, RegionConfig};

use crate::common::{Fabric, Pair, Random, Scratch, holder_config, keys, region_config, soon};

const SIZE: usize = 1 << 20;

on_every_fabric!(
    a_push_brings_the_local_bytes,
    a_restarted_owner_pulls_everything,
    equality_is_proven_or_refused,
    a_copy_is_not_destroyed_by_mistake,
    only_one_owner_at_a_time,
    fencing_stops_everything_and_keeps_what_was_acknowledged,
    a_fenced_owner_cannot_resume_and_another_can_pull,
    reconnecting_sends_what_is_unknown,
    reconnecting_sends_no_hole_before_it_is_sealed,
    reconnecting_needs_every_lane,
    a_lane_that_ended_leaves_its_ranges_to_the_reconnection,
    many_reconnections_under_load,
    a_shared_lane_reconnects,
    a_restarted_holder_is_not_resumed,
    a_stopped_holder_is_a_lost_link,
    a_flush_finds_the_link_lost_with_nothing_in_flight,
    closing_is_orderly,
);

fn open(holder: &Holder, size: usize, attach: Attach) -> Result<Region, OpenError> {
    Region::open(region_config(holder.url(), size, attach), keys())
}

fn code_of(error: &OpenError) -> Option<RefusalCode> {
    match error {
        OpenError::Call(CallError::Refused { code, .. }) => Some(*code),
        _ => None,
    }
}

/// Waits until the holder knows that its owner is gone.
fn until_disconnected(holder: &Holder) {
    let mut status = holder.status();
    let mut deadline = Deadline::within(Duration::from_secs(10));
    while status.connected {
        assert!(deadline.remaining().is_some(), "the holder never noticed: {status:?}");
        status = holder.wait_change(status.changes, Deadline::within(Duration::from_secs(1)));
    }
}

pub(crate) fn fill(lane: &mut Lane, seed: u64, stores: usize) {
    let mut random = Random(seed);
    for _ in 0..stores {
        let len = 1 + random.below(2000);
        let offset = random.below(SIZE - len);
        lane.store(offset, &vec![random.next() as u8; len]).unwrap();
    }
}

fn a_push_brings_the_local_bytes(fabric: Fabric) {
    let scratch = Scratch::new();
    let holder = Holder::start(holder_config(fabric.url(&scratch), SIZE), keys()).unwrap();
    let memory = mirrorbus::Mapping::anonymous(SIZE, mirrorbus::memory::MapOptions::default()).unwrap();
    memory.slice().write(777, b"here before the region was");
    let config = region_config(holder.url(), SIZE, Attach::Push { replace: false });
    let region = Region::open_over(config, keys(), std::sync::Arc::new(memory)).unwrap();
    assert_eq!(holder.memory().slice().to_vec(), region.memory().to_vec());
    assert_eq!(holder.status().content, Content::Complete);
    assert_eq!(holder.status().region, Some(region.id()));
}

fn a_restarted_owner_pulls_everything(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    fill(&mut lane, 3, 500);
    lane.flush(Level::Acked, soon()).unwrap();
    let (before, id) = (pair.local(), pair.region.id());
    let Pair { region, holder, scratch: _scratch } = pair;
    drop((lane, region));
    until_disconnected(&holder);
    let again = open(&holder, SIZE, Attach::Pull).unwrap();
    assert_eq!(again.memory().to_vec(), before);
    assert_eq!(again.id(), id);
    let mut lane = again.lane(LaneConfig::default()).unwrap();
    lane.store(5, b"and goes on").unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(holder.memory().slice().to_vec(), again.memory().to_vec());
    drop((lane, again));
    until_disconnected(&holder);
    let config = RegionConfig {
        id: Some(mirrorbus::RegionId::from_bytes([9; 16])),
        ..region_config(holder.url(), SIZE, Attach::Pull)
    };
    let error = Region::open(config, keys()).unwrap_err();
    assert!(matches!(error, OpenError::OtherRegion { .. }), "{error}");
}

fn equality_is_proven_or_refused(fabric: Fabric) {
    let size = 3 * SIZE + 4096;
    let pair = Pair::new(fabric, size);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    lane.store(2 * SIZE + 5, b"content").unwrap();
    lane.flush(Level::Acked, soon()).unwrap();
    let bytes = pair.local();
    let Pair { region, holder, scratch: _scratch } = pair;
    drop((lane, region));
    until_disconnected(&holder);
    let equal = |bytes: &[u8]| {
        let memory = mirrorbus::Mapping::anonymous(size, mirrorbus::memory::MapOptions::default()).unwrap();
        memory.slice().write(0, bytes);
        let config = region_config(holder.url(), size, Attach::Equal);
        Region::open_over(config, keys(), std::sync::Arc::new(memory))
    };
    drop(equal(&bytes).unwrap());
    until_disconnected(&holder);
    let mut other = bytes.clone();
    other[size - 1] ^= 1;
    other[SIZE] ^= 1;
    match equal(&other).unwrap_err() {
        OpenError::Different { differing, chunks, first_offset } => {
            assert_eq!((differing, chunks, first_offset), (2, 4, SIZE));
        }
        error => panic!("{error}"),
    }
}

fn a_copy_is_not_destroyed_by_mistake(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    lane.store(0, b"precious").unwrap();
    lane.flush(Level::Acked, soon()).unwrap();
    let Pair { region, holder, scratch: _scratch } = pair;
    drop((lane, region));
    until_disconnected(&holder);
    let error = open(&holder, SIZE, Attach::Push { replace: false }).unwrap_err();
    assert_eq!(code_of(&error), Some(RefusalCode::Occupied), "{error}");
    assert_eq!(&holder.memory().slice().to_vec()[..8], b"precious");
    let replaced = open(&holder, SIZE, Attach::Push { replace: true }).unwrap();
    assert_eq!(holder.memory().slice().to_vec(), replaced.memory().to_vec());
}

fn only_one_owner_at_a_time(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let error = open(&pair.holder, SIZE, Attach::Pull).unwrap_err();
    assert_eq!(code_of(&error), Some(RefusalCode::Busy), "{error}");
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    lane.store(0, b"undisturbed").unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(pair.held(), pair.local());
}

fn fencing_stops_everything_and_keeps_what_was_acknowledged(fabric: Fabric) {
    for round in 0..10u64 {
        let pair = Pair::new(fabric, SIZE);
        let mut lane = pair.region.lane(LaneConfig { depth: 32, ..LaneConfig::default() }).unwrap();
        let (acked, fenced) = std::thread::scope(|scope| {
            let storing = scope.spawn(move || {
                // Store k writes k at slot k mod 1024: the copy must show a prefix.
                for number in 1u64.. {
                    let offset = (number % 1024) as usize * 512;
                    if lane.store(offset, &number.to_le_bytes()).is_err() || lane.poll().is_err() {
                        break;
                    }
                }
                match lane.flush(Level::Acked, soon()) {
                    Ok(_) => assert_eq!(lane.watermarks().acked, lane.watermarks().last),
                    Err(error) => assert!(matches!(error, WaitError::LinkLost { .. }), "{error}"),
                }
                lane.watermarks().acked.0
            });
            std::thread::sleep(Duration::from_millis(1 + round * 3));
            let fenced = pair.holder.fence(soon()).unwrap();
            let digest = fenced.memory.slice().digest();
            let acked = storing.join().unwrap();
            assert_eq!(fenced.memory.slice().digest(), digest, "bytes changed after the fence");
            (acked, fenced)
        });
        assert!(fenced.exact);
        let copy = fenced.memory.slice().to_vec();
        let word = |slot: usize| u64::from_le_bytes(copy[slot * 512..slot * 512 + 8].try_into().unwrap());
        let last = (0..1024).map(word).max().unwrap();
        assert!(last >= acked, "{acked} acknowledged, the copy ends at {last}");
        for slot in 0..1024u64 {
            let expected =
                (last.saturating_sub(1023)..=last).find(|number| number % 1024 == slot).unwrap_or(0);
            assert_eq!(word(slot as usize), expected, "slot {slot} of a copy that ends at {last}");
        }
        assert!(!pair.holder.status().connected);
    }
}

fn a_fenced_owner_cannot_resume_and_another_can_pull(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    lane.store(100, b"before the fence").unwrap();
    lane.flush(Level::Acked, soon()).unwrap();
    let before = pair.local();
    pair.holder.fence(soon()).unwrap();
    let error = loop {
        match lane.store(0, b"after") {
            Ok(_) => drop(lane.poll()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::LinkLost { .. }), "{error}");
    assert!(matches!(pair.region.link(), LinkStatus::Lost(_)));
    match pair.region.reconnect(&mut [&mut lane], soon()).unwrap_err() {
        ReconnectError::Call(CallError::Refused { code: RefusalCode::NotResumable, .. }) => {}
        error => panic!("{error}"),
    }
    let pulled = open(&pair.holder, SIZE, Attach::Pull).unwrap();
    assert_eq!(pulled.memory().to_vec(), before);
}

fn reconnecting_sends_what_is_unknown(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    for polling in [Polling::Spin, Polling::Block] {
        let config = LaneConfig { polling, depth: 512, ..LaneConfig::default() };
        let mut lane = pair.region.lane(config).unwrap();
        let early = lane.store(0, b"early").unwrap();
        fill(&mut lane, 11, 300);
        // Nothing waited: what is in flight is unknown the moment the link goes.
        let last = lane.watermarks().last;
        pair.region.reconnect(&mut [&mut lane], soon()).unwrap();
        assert_eq!(lane.watermarks().acked, last);
        assert_eq!(pair.held(), pair.local());
        let error = lane.wait(early, Level::Acked, soon()).unwrap_err();
        assert!(matches!(error, WaitError::StaleTicket { .. }), "{error}");
        fill(&mut lane, 12, 300);
        lane.flush(Level::Visible, soon()).unwrap();
        assert_eq!(lane.watermarks().last.0, last.0 + 300);
        assert_eq!(pair.held(), pair.local());
        assert_eq!(lane.stats().sessions, 2);
    }
}

fn reconnecting_sends_no_hole_before_it_is_sealed(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    lane.store(0, &[1; 100]).unwrap();
    let hole = lane.reserve(20, 40).unwrap();
    hole.memory().write(0, &[2; 30]);
    pair.region.reconnect(&mut [&mut lane], soon()).unwrap();
    assert_eq!(pair.held()[..100], [1; 100], "the hole is no store yet");
    lane.seal(hole).unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(pair.held(), pair.local());
}

fn reconnecting_needs_every_lane(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut first = pair.region.lane(LaneConfig::default()).unwrap();
    let mut second = pair.region.lane(LaneConfig::default()).unwrap();
    let error = pair.region.reconnect(&mut [&mut first], soon()).unwrap_err();
    assert_eq!(error, ReconnectError::LanesMissing { passed: 1, exist: 2 });
    fill(&mut first, 5, 50);
    fill(&mut second, 6, 50);
    pair.region.reconnect(&mut [&mut first, &mut second], soon()).unwrap();
    assert_eq!(pair.held(), pair.local());
}

fn a_lane_that_ended_leaves_its_ranges_to_the_reconnection(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    fill(&mut lane, 21, 100);
    let hole = lane.reserve(0, 64).unwrap();
    hole.memory().write(0, &[0xaa; 64]);
    drop(lane);
    pair.region.reconnect(&mut [], soon()).unwrap();
    assert_eq!(pair.held(), pair.local());
}

fn many_reconnections_under_load(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lanes: Vec<_> = (0..3).map(|_| pair.region.lane(LaneConfig::default()).unwrap()).collect();
    for round in 0..20u64 {
        for (index, lane) in lanes.iter_mut().enumerate() {
            fill(lane, 1 + round * 10 + index as u64, 40);
        }
        let mut all: Vec<&mut Lane> = lanes.iter_mut().collect();
        pair.region.reconnect(&mut all, soon()).unwrap();
        assert_eq!(pair.held(), pair.local(), "round {round}");
    }
    assert!(pair.holder.status().streams <= 4, "{:?}", pair.holder.status());
}

fn a_shared_lane_reconnects(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let lane = pair.region.lane(LaneConfig::default()).unwrap().into_shared().unwrap();
    let stale = lane.store(0, b"first").unwrap();
    lane.exclusively(|lane| pair.region.reconnect(&mut [lane], soon())).unwrap().unwrap();
    assert!(lane.wait(stale, Level::Acked, soon()).is_err());
    let ticket = lane.store(50, b"second").unwrap();
    lane.wait(ticket, Level::Visible, soon()).unwrap();
    assert_eq!(pair.held(), pair.local());
}

fn a_restarted_holder_is_not_resumed(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    fill(&mut lane, 31, 50);
    let Pair { region, holder, scratch: _scratch } = pair;
    let url = holder.url().clone();
    holder.stop();
    let holder = Holder::start(holder_config(url, SIZE), keys()).unwrap();
    match region.reconnect(&mut [&mut lane], soon()).unwrap_err() {
        ReconnectError::Call(CallError::Refused { code: RefusalCode::NotResumable, .. }) => {}
        error => panic!("{error}"),
    }
    let bytes = region.memory().to_vec();
    let memory = region.mapping().clone();
    drop((lane, region));
    let config = region_config(holder.url(), SIZE, Attach::Push { replace: false });
    let again = Region::open_over(config, keys(), memory.clone()).unwrap();
    assert!(std::sync::Arc::ptr_eq(again.mapping(), &memory), "the very same memory");
    assert!(again.memory().to_vec() == bytes && holder.memory().slice().to_vec() == bytes);
    let mut lane = again.lane(LaneConfig::default()).unwrap();
    lane.store(3, b"mirrored again").unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(&memory.slice().to_vec()[3..17], b"mirrored again");
    assert_eq!(holder.memory().slice().to_vec(), memory.slice().to_vec());
}

fn a_stopped_holder_is_a_lost_link(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    let ticket = lane.store(0, b"acknowledged").unwrap();
    lane.wait(ticket, Level::Acked, soon()).unwrap();
    let Pair { region, holder, scratch: _scratch } = pair;
    holder.stop();
    let error = loop {
        match lane.flush(Level::Visible, soon()).and_then(|_| lane.poll().map(|_| ())) {
            Ok(()) => std::thread::yield_now(),
            Err(error) => break error,
        }
    };
    match error {
        WaitError::LinkLost { acked, last, .. } => assert_eq!((acked.0, last.0), (1, 1)),
        error => panic!("{error}"),
    }
    assert!(lane.unknown().ranges.is_empty());
    assert!(region.lane(LaneConfig::default()).is_err());
}

fn a_flush_finds_the_link_lost_with_nothing_in_flight(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut unused = pair.region.lane(LaneConfig::default()).unwrap();
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    let shared = pair.region.lane(LaneConfig::default()).unwrap().into_shared().unwrap();
    lane.store(0, b"acknowledged").unwrap();
    for level in [Level::Posted, Level::Acked, Level::Visible] {
        assert_eq!(unused.flush(level, soon()).unwrap().0, 0);
        assert_eq!(lane.flush(level, soon()).unwrap().0, 1);
        assert_eq!(shared.flush(level, soon()).unwrap().0, 0);
    }
    pair.holder.fence(soon()).unwrap();
    // Through memory the grant page says so at once; a stream's end is heard of a moment later.
    while fabric != Fabric::Shm && pair.region.link() == LinkStatus::Up {
        std::thread::yield_now();
    }
    for level in [Level::Posted, Level::Acked, Level::Visible, Level::Durable] {
        for result in [unused.flush(level, soon()), lane.flush(level, soon()), shared.flush(level, soon())] {
            let error = result.unwrap_err();
            assert!(matches!(error, WaitError::LinkLost { .. }), "{level}: {error}");
        }
    }
    assert_eq!(lane.watermarks().acked.0, 1);
}

fn closing_is_orderly(fabric: Fabric) {
    let pair = Pair::new(fabric, SIZE);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    let Pair { region, holder, scratch: _scratch } = pair;
    region.close();
    let error = lane.store(0, b"late").unwrap_err();
    assert!(matches!(error, StoreError::LinkLost { .. }), "{error}");
    until_disconnected(&holder);
    assert_eq!(holder.status().content, Content::Complete);
}
