//! Words that the holder writes into its own copy, as the owner fetches them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mirrorbus::mirror::{Polling, StoreError, WaitError};
use mirrorbus::{Lane, LaneConfig, Level};

use super::link::fill;
use crate::common::{Fabric, Pair, soon};

const SIZE: usize = 1 << 20;
/// Where the holder's words are: behind what `fill` writes.
const WORDS: usize = SIZE;
const ALL: usize = SIZE + 4096;

over_a_device_too!(
    a_fetch_brings_the_holders_words_and_nothing_else,
    words_are_whole_and_never_go_back,
    fetches_and_stores_do_not_disturb_each_other,
    a_fetch_is_polled,
);

mod where_access_can_be_taken_away {
    use super::*;

    on_every_fabric!(a_fetch_goes_on_over_a_reconnection, a_fenced_owner_fetches_nothing);

    fn a_fetch_goes_on_over_a_reconnection(fabric: Fabric) {
        let pair = Pair::new(fabric, ALL);
        let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
        for round in 1..=5 {
            fill(&mut lane, round, 100);
            // Whether it is done before the link is cut or not: it is done after.
            lane.try_fetch(WORDS, 8).unwrap();
            pair.region.reconnect(&mut [&mut lane], soon()).unwrap();
            pair.holder.publish_word(WORDS, round);
            let until = Instant::now() + Duration::from_secs(20);
            while !lane.fetch_done().unwrap() {
                assert!(Instant::now() < until, "a fetch that was cut off is never done");
            }
            lane.fetch(WORDS, 8, soon()).unwrap();
            assert_eq!(pair.region.memory().load_word(WORDS), round, "the copy may have moved");
            assert!(pair.held()[..SIZE] == pair.local()[..SIZE]);
        }
    }

    fn a_fenced_owner_fetches_nothing(fabric: Fabric) {
        let pair = Pair::new(fabric, ALL);
        let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
        pair.holder.publish_word(WORDS, 1);
        lane.fetch(WORDS, 8, soon()).unwrap();
        pair.holder.fence(soon()).unwrap();
        pair.holder.publish_word(WORDS, 2);
        let error = lane.fetch(WORDS, 8, soon()).unwrap_err();
        assert!(matches!(error, WaitError::LinkLost { .. }), "{error}");
        let error = lane.try_fetch(WORDS, 8).unwrap_err();
        assert!(matches!(error, StoreError::LinkLost { .. }), "{error}");
        assert_eq!(pair.region.memory().load_word(WORDS), 1);
    }
}

fn words(lane: &mut Lane, pair: &Pair) -> [u64; 2] {
    lane.fetch(WORDS + 64, 16, soon()).unwrap();
    [pair.region.memory().load_word(WORDS + 64), pair.region.memory().load_word(WORDS + 72)]
}

fn a_fetch_brings_the_holders_words_and_nothing_else(fabric: Fabric) {
    let pair = Pair::new(fabric, ALL);
    for polling in [Polling::Spin, Polling::Block, Polling::Adaptive(Duration::from_micros(10))] {
        let mut lane = pair.region.lane(LaneConfig { polling, ..LaneConfig::default() }).unwrap();
        for number in [1, u64::MAX, 0x0102_0304_0506_0708] {
            for at in [56, 64, 72, 80] {
                pair.holder.publish_word(WORDS + at, number.rotate_left(at as u32));
            }
            assert_eq!(words(&mut lane, &pair), [number.rotate_left(64), number.rotate_left(72)]);
            let memory = pair.region.memory();
            assert_eq!((memory.load_word(WORDS + 56), memory.load_word(WORDS + 80)), (0, 0), "beside them");
        }
        lane.fetch(ALL - Lane::FETCH_BYTES_MAX, Lane::FETCH_BYTES_MAX, soon()).unwrap();
        lane.fetch(WORDS, 0, soon()).unwrap();
        assert_eq!(lane.watermarks().last.0, 0, "a fetch is no store");
    }
}

fn words_are_whole_and_never_go_back(fabric: Fabric) {
    let pair = Pair::new(fabric, ALL);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    let stop = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs(20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1u64.. {
                pair.holder.publish_word(WORDS + 64, number | number << 32);
                pair.holder.publish_word(WORDS + 72, number);
                if stop.load(Ordering::Relaxed) || Instant::now() > until {
                    break;
                }
            }
        });
        let (mut before, mut seen) = (0, 0);
        // Many of them, and long enough to see several values.
        for count in 0.. {
            if (count >= 3000 && seen >= 10) || Instant::now() > until {
                break;
            }
            let [whole, _] = words(&mut lane, &pair);
            let is_whole = whole >> 32 == whole & 0xffff_ffff;
            // Promised over every medium but RDMA, where soft-RoCE copies a word in pieces now and then.
            assert!(is_whole || fabric == Fabric::Rdma, "half of one value and half of another: {whole:x}");
            if !is_whole {
                continue;
            }
            assert!(whole >= before, "{before:x}, then {whole:x}");
            seen += u32::from(whole > before);
            before = whole;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(seen >= 10, "{seen} values were seen");
    });
}

fn fetches_and_stores_do_not_disturb_each_other(fabric: Fabric) {
    let pair = Pair::new(fabric, ALL);
    for (depth, polling) in [(2, Polling::Spin), (64, Polling::Block), (4096, Polling::Spin)] {
        let mut lane = pair.region.lane(LaneConfig { depth, polling, ..LaneConfig::default() }).unwrap();
        let (mut begun, mut done) = (None, 0);
        for round in 1..=200u64 {
            pair.holder.publish_word(WORDS, round);
            match lane.try_fetch(WORDS, 8) {
                Ok(()) => begun = Some(round),
                Err(StoreError::WouldBlock { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            fill(&mut lane, round, 10);
            if round % 3 == 0 {
                let level = if round % 2 == 0 { Level::Acked } else { Level::Visible };
                lane.flush(level, soon()).unwrap();
                let marks = lane.watermarks();
                assert_eq!((marks.at(level), marks.last.0), (marks.last, round * 10));
            }
            if lane.fetch_done().unwrap()
                && let Some(begun) = begun.take()
            {
                let word = pair.region.memory().load_word(WORDS);
                assert!((begun..=round).contains(&word), "{word} of {begun} to {round}");
                done += 1;
            }
        }
        assert!(done > 0, "no fetch was ever done beside the stores");
        lane.flush(Level::Visible, soon()).unwrap();
        lane.fetch(WORDS, 8, soon()).unwrap();
        assert_eq!(pair.region.memory().load_word(WORDS), 200);
        assert_eq!(lane.watermarks().visible.0, 2000);
        assert!(pair.held() == pair.local());
    }
}

fn a_fetch_is_polled(fabric: Fabric) {
    let pair = Pair::new(fabric, ALL);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    assert!(lane.fetch_done().unwrap(), "none is under way");
    for number in 1..=100 {
        pair.holder.publish_word(WORDS + 8, number);
        lane.try_fetch(WORDS + 8, 8).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while !lane.fetch_done().unwrap() {
            assert!(Instant::now() < until, "a fetch is never done");
        }
        assert_eq!(pair.region.memory().load_word(WORDS + 8), number);
    }
}
