//! A plan against the blocks themselves.

use std::collections::BTreeMap;

use super::*;
use crate::sim::Random;

const LAYOUT: (u64, u64) = (1 << 16, 4096);

fn layout() -> SegmentLayout {
    SegmentLayout::new(LAYOUT.0, LAYOUT.1).unwrap()
}

/// Writes and trims as a log makes them: a record lies in one segment, behind its head.
fn change(map: &mut BlockMap, random: &mut Random, lsn: &mut Lsn) {
    let size = map.block_size();
    for _ in 0..random.below(60) {
        let block = random.below(map.blocks());
        let count = 1 + random.below((map.blocks() - block).min(5));
        let bytes = count << size.shift();
        let base = layout().base(*lsn);
        *lsn = Lsn(lsn.0.max(base.0 + 4096).next_multiple_of(size.bytes()));
        if lsn.plus(bytes) > base.plus(LAYOUT.0 - 4096) {
            *lsn = base.plus(LAYOUT.0 + 4096);
        }
        if random.chance(25) {
            map.trim(BlockNumber(block), count, *lsn);
            *lsn = lsn.plus(512);
        } else {
            map.write(BlockNumber(block), count, *lsn);
            *lsn = lsn.plus(bytes);
        }
    }
}

/// Position by volume and block.
fn blocks(
    maps: &[(VolumeId, Option<BlockMap>, BlockMap)],
    within: &Range<Lsn>,
) -> BTreeMap<(VolumeId, u64), Lsn> {
    let mut found = BTreeMap::new();
    for (volume, old, new) in maps {
        for block in 0..new.blocks() {
            let lsn = new.lookup(BlockNumber(block));
            let had = old.as_ref().filter(|old| block < old.blocks());
            let had = had.and_then(|old| old.lookup(BlockNumber(block)));
            if let Some(lsn) = lsn.filter(|lsn| within.contains(lsn) && had != Some(*lsn)) {
                found.insert((*volume, block), lsn);
            }
        }
    }
    found
}

fn check(plan: &Plan, expected: &BTreeMap<(VolumeId, u64), Lsn>) {
    let (mut found, mut bytes, mut last) = (BTreeMap::new(), 0, None);
    for segment in plan.segments() {
        let base = segment.base();
        assert!(last < Some(base) && layout().base(base) == base, "segments rise");
        last = Some(base);
        assert_eq!(
            plan.segment(base).unwrap().runs().collect::<Vec<_>>(),
            segment.runs().collect::<Vec<_>>()
        );
        let ranges: Vec<_> = segment.ranges().collect();
        assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
        assert!(ranges.iter().all(|range| range.start < range.end && range.end <= LAYOUT.0));
        let mut covered = 0;
        for run in segment.runs() {
            let inside = run.lsn.since(base)..run.end().since(base);
            assert!(ranges.iter().any(|range| range.start <= inside.start && inside.end <= range.end));
            covered += run.bytes();
            for at in 0..run.count {
                let lsn = run.lsn.plus(u64::from(at) << run.block_size.shift());
                assert_eq!(found.insert((run.volume, run.block.0 + u64::from(at)), lsn), None, "twice");
            }
        }
        // Each position is one block's here, so ranges hold nothing else.
        assert_eq!(
            (segment.bytes(), ranges.iter().map(|range| range.end - range.start).sum()),
            (covered, covered)
        );
        bytes += covered;
    }
    assert_eq!((&found, plan.bytes(), plan.is_empty()), (expected, bytes, expected.is_empty()));
}

#[test]
fn what_is_live_and_new_is_lacking_and_nothing_else() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let (mut maps, mut lsn) = (Vec::new(), Lsn(3 << 16));
        for volume in 0..3 {
            let size = if random.chance(50) { BlockSize::Small } else { BlockSize::Large };
            let mut map = BlockMap::new(size, 1 + random.below(200));
            change(&mut map, &mut random, &mut lsn);
            maps.push((VolumeId(volume * 7), random.chance(80).then(|| map.clone()), map));
        }
        let marker = lsn;
        for (_, _, map) in &mut maps {
            change(map, &mut random, &mut lsn);
            if random.chance(30) {
                map.resize(1 + random.below(200), lsn);
            }
        }
        let until = Lsn(marker.0 + (lsn.0 - marker.0) * 3 / 4);
        for within in [Lsn::ZERO..Lsn::MAX, marker..Lsn::MAX, marker..until, until..until] {
            let each = maps.iter().map(|(volume, old, new)| (*volume, old.as_ref(), new));
            check(&Plan::new(layout(), &within, each), &blocks(&maps, &within));
        }
        let gone = Plan::new(layout(), &(Lsn::ZERO..Lsn::MAX), []);
        assert!(gone.is_empty() && gone.segment(Lsn(3 << 16)).is_none());
    }
}

#[test]
fn a_position_that_two_volumes_have_counts_once() {
    let mut map = BlockMap::new(BlockSize::Large, 20);
    map.write(BlockNumber(3), 5, Lsn((1 << 16) + 4096));
    let clone = map.clone();
    let plan =
        Plan::new(layout(), &(Lsn::ZERO..Lsn::MAX), [(VolumeId(0), None, &map), (VolumeId(1), None, &clone)]);
    let segment = plan.segment(Lsn(1 << 16)).unwrap();
    assert_eq!((plan.bytes(), segment.runs().count()), (5 * 4096, 2));
    let mut ranges = segment.ranges();
    assert_eq!((ranges.next(), ranges.next()), (Some(4096..6 * 4096), None));
}

#[test]
fn what_was_overwritten_is_skipped() {
    let mut map = BlockMap::new(BlockSize::Small, 20);
    map.write(BlockNumber(2), 10, Lsn(1 << 20));
    let run = DataRun {
        volume: VolumeId(0),
        block: BlockNumber(2),
        count: 10,
        lsn: Lsn(1 << 20),
        block_size: BlockSize::Small,
    };
    assert_eq!(run.live_in(&map).collect::<Vec<_>>(), [run]);
    map.write(BlockNumber(4), 2, Lsn(1 << 21));
    map.trim(BlockNumber(2), 1, Lsn(1 << 22));
    map.resize(11, Lsn(1 << 23));
    let part = |block: u64, count| DataRun {
        block: BlockNumber(block),
        count,
        lsn: Lsn((1 << 20) + (block - 2) * 512),
        ..run
    };
    assert_eq!(run.live_in(&map).collect::<Vec<_>>(), [part(3, 1), part(6, 5)]);
    map.trim(BlockNumber(0), 11, Lsn(1 << 24));
    assert_eq!(run.live_in(&map).count(), 0);
}
