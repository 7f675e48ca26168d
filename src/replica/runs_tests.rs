//! Runs that make one map of another, in any map's history.

use super::*;
use crate::base::BlockSize;
use crate::sim::Random;

const VOLUME: VolumeId = VolumeId(3);

/// Some writes and trims at rising positions; the position behind them.
pub(super) fn change(map: &mut BlockMap, random: &mut Random, count: u64, mut lsn: Lsn) -> Lsn {
    let size = map.block_size();
    for _ in 0..count {
        let block = random.below(map.blocks());
        let blocks = 1 + random.below((map.blocks() - block).min(90));
        if random.chance(30) {
            map.trim(BlockNumber(block), blocks, lsn);
            lsn = lsn.plus(size.bytes());
        } else {
            map.write(BlockNumber(block), blocks, lsn);
            lsn = lsn.plus(blocks << size.shift());
        }
        // What heads and tables take.
        lsn = if random.chance(10) { lsn.plus(size.bytes() * 3) } else { lsn };
    }
    lsn
}

#[test]
fn runs_make_the_old_map_to_the_new_one() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let size = if random.chance(50) { BlockSize::Small } else { BlockSize::Large };
        let mut map = BlockMap::new(size, 1 + random.below(9000));
        let position = change(&mut map, &mut random, 40, Lsn(1 << 20));
        let mut peer = map.clone();
        let until = change(&mut map, &mut random, 40, position);
        if random.chance(50) {
            map.resize(1 + random.below(9000), until);
            peer.resize(map.blocks(), until);
        }
        let runs: Vec<_> = MapRuns::new(VOLUME, &peer.clone(), &map, BlockNumber(0)).collect();
        let longest = runs.windows(2).all(|pair| {
            let end = pair[0].lsn.map(|lsn| lsn.plus(pair[0].count << size.shift()));
            pair[0].block.0 + pair[0].count < pair[1].block.0 || end != pair[1].lsn
        });
        assert!(longest, "seed {seed}: {runs:?}");
        runs.iter().for_each(|run| run.apply(&mut peer, until.plus(512)).unwrap());
        assert_eq!(peer.digest(), map.digest(), "seed {seed}");
    }
}

#[test]
fn records_that_came_first_stay_where_they_are_newer() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut map = BlockMap::new(BlockSize::Small, 500);
        let marker = change(&mut map, &mut random, 30, Lsn(1 << 20));
        let old = map.clone();
        let position = change(&mut map, &mut random, 30, marker);
        let at_position = map.clone();
        let (mut peer, mut later) = (old.clone(), random.clone());
        peer.keep_tombstones();
        change(&mut map, &mut random, 30, position);
        change(&mut peer, &mut later, 30, position);
        MapRuns::new(VOLUME, &old, &at_position, BlockNumber(0))
            .for_each(|run| run.apply(&mut peer, position).unwrap());
        peer.drop_tombstones();
        assert_eq!(peer.digest(), map.digest(), "seed {seed}");
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let mut map = BlockMap::new(BlockSize::Large, 100);
    let run = |block, count, lsn: Option<u64>| MapRun {
        volume: VOLUME,
        block: BlockNumber(block),
        count,
        lsn: lsn.map(Lsn),
    };
    let position = Lsn(1 << 20);
    for (block, count) in [(100, 1), (0, 101), (u64::MAX, 2), (1, u64::MAX)] {
        let error = run(block, count, None).apply(&mut map, position).unwrap_err();
        assert_eq!(error, RunError::Range { block, count, blocks: 100 });
    }
    for lsn in [0, 512, (1 << 20) - 4096, 1 << 20, u64::MAX - 4095, Lsn::MAX.0] {
        let error = run(0, 2, Some(lsn)).apply(&mut map, position).unwrap_err();
        assert!(matches!(error, RunError::Position { count: 2, .. }), "{lsn:#x}: {error}");
    }
    assert_eq!(run(0, 1, None).apply(&mut map, Lsn::ZERO), Ok(()));
    assert_eq!(run(0, 1, Some((1 << 20) - 4096)).apply(&mut map, position), Ok(()));
    assert_eq!(map.mapped(), 1);
}
