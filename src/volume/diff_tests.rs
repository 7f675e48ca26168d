//! A difference costs what differs, not what is there.

use super::*;
use crate::base::BlockSize;

#[test]
fn only_what_is_not_shared_is_walked() {
    let mut map = BlockMap::new(BlockSize::Large, 1 << 20);
    map.write(BlockNumber(0), 1 << 20, Lsn(1 << 33));
    let before = map.clone();
    assert_eq!((before.diff(&map).count(), before.diff(&map).visited()), (0, 0));
    map.write(BlockNumber(1 << 19), 1, Lsn(1 << 34));
    map.trim(BlockNumber(77), 1, Lsn((1 << 34) + 4096));
    let mut diff = before.diff(&map);
    let old = |block: u64| Some(Lsn((1 << 33) + block * 4096));
    let found: Vec<_> = diff.by_ref().collect();
    let expected = [
        Change { block: BlockNumber(77), old: old(77), new: None },
        Change { block: BlockNumber(1 << 19), old: old(1 << 19), new: Some(Lsn(1 << 34)) },
    ];
    assert_eq!(found, expected);
    assert!(diff.visited() <= 2 * 4, "{} of 16 thousand nodes", diff.visited());
}

#[test]
fn a_write_that_changes_nothing_leaves_everything_shared() {
    let mut map = BlockMap::new(BlockSize::Large, 1 << 14);
    map.write(BlockNumber(0), 1 << 14, Lsn(1 << 30));
    let before = map.clone();
    map.write(BlockNumber(100), 10, Lsn(1 << 20));
    map.trim(BlockNumber(0), 1 << 13, Lsn(1 << 29));
    let diff = before.diff(&map);
    assert_eq!((diff.visited(), diff.count()), (0, 0));
}

#[test]
fn maps_of_other_sizes_compare() {
    let mut small = BlockMap::new(BlockSize::Large, 50);
    small.write(BlockNumber(3), 2, Lsn(1 << 20));
    let mut large = small.clone();
    large.resize(1 << 20, Lsn(1 << 21));
    assert_eq!(small.diff(&large).count(), 0);
    large.write(BlockNumber(9999), 1, Lsn(1 << 22));
    let change = |block, old, new| Change { block: BlockNumber(block), old, new };
    assert_eq!(small.diff(&large).collect::<Vec<_>>(), [change(9999, None, Some(Lsn(1 << 22)))]);
    assert_eq!(large.diff(&small).collect::<Vec<_>>(), [change(9999, Some(Lsn(1 << 22)), None)]);
}

#[test]
fn equal_digests_end_the_walk_where_nothing_is_shared() {
    let filled = || {
        let mut map = BlockMap::new(BlockSize::Large, 1 << 14);
        map.write(BlockNumber(0), 1 << 14, Lsn(1 << 30));
        map
    };
    let (a, mut b) = (filled(), filled());
    let diff = a.diff(&b);
    assert_eq!((diff.visited(), a.diff(&b).count()), (1, 0));
    assert_eq!(a.digest(), b.digest());
    b.write(BlockNumber(5000), 1, Lsn(1 << 31));
    assert_ne!(a.digest(), b.digest());
    let mut diff = a.diff(&b);
    assert_eq!(diff.by_ref().count(), 1);
    assert_eq!(diff.visited(), 3);
}

#[test]
fn it_is_continued_from_any_block() {
    let mut map = BlockMap::new(BlockSize::Large, 1 << 20);
    map.write(BlockNumber(0), 1 << 20, Lsn(1 << 33));
    let before = map.clone();
    for (at, block) in [0, 1, 63, 64, 4095, 4096, 300_000, (1 << 20) - 1].into_iter().enumerate() {
        map.write(BlockNumber(block), 1, Lsn((1 << 34) + at as u64 * 4096));
    }
    let all: Vec<_> = before.diff(&map).collect();
    for first in all.iter().flat_map(|change| [change.block.0, change.block.0 + 1]).chain([1 << 40, u64::MAX])
    {
        let mut diff = before.diff_from(&map, BlockNumber(first));
        let found: Vec<_> = diff.by_ref().collect();
        let expected: Vec<_> = all.iter().copied().filter(|change| change.block.0 >= first).collect();
        assert_eq!(found, expected, "from {first}");
        // The paths to two blocks at most, the first of which may be left out.
        assert!(found.len() > 1 || diff.visited() <= 7, "{} nodes from {first}", diff.visited());
    }
}
