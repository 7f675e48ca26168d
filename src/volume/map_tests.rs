//! The map against a plain table of blocks.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn lsns(map: &BlockMap) -> Vec<(u64, u64)> {
    (0..map.blocks()).filter_map(|block| Some((block, map.lookup(BlockNumber(block))?.0))).collect()
}

#[test]
fn sizes_need_as_many_levels_as_they_must() {
    let levels = [0, 1, 64, 65, 4096, 4097, 1 << 28, BlockMap::BLOCKS_MAX].map(level_for);
    assert_eq!(levels, [0, 0, 0, 1, 1, 2, 4, 7]);
}

#[test]
fn the_last_block_of_the_largest_volume_is_reached() {
    let last = BlockNumber(BlockMap::BLOCKS_MAX - 1);
    let mut map = BlockMap::new(BlockSize::Large, BlockMap::BLOCKS_MAX);
    map.write(last, 1, Lsn(4096));
    assert_eq!((map.lookup(last), map.mapped()), (Some(Lsn(4096)), 1));
    assert_eq!(map.run(BlockNumber(0), BlockMap::BLOCKS_MAX), Run { blocks: last.0, lsn: None });
    map.trim(BlockNumber(0), BlockMap::BLOCKS_MAX, Lsn(8192));
    assert_eq!((map.mapped(), map.memory_bytes()), (0, 0));
}

/// Twelve bytes a block is the promise, with the allocator's own eight to sixteen a node; nine and a bit is what it takes.
#[test]
fn a_dense_map_takes_little_memory() {
    for blocks in [1 << 12, 1 << 18, 300_000] {
        let mut map = BlockMap::new(BlockSize::Large, blocks);
        for block in (0..blocks).rev() {
            map.write(BlockNumber(block), 1, Lsn((block + 1) * 4096));
        }
        assert_eq!(map.mapped(), blocks);
        let nodes = blocks.div_ceil(64) + blocks.div_ceil(4096) + 2 + blocks.div_ceil(1 << 18);
        let bytes = map.memory_bytes() as u64 + 16 * nodes;
        assert!(bytes <= blocks * 10 + 4096, "{bytes} bytes for {blocks} blocks");
    }
}

#[test]
fn a_clone_is_one_pointer_and_stays_as_it_was() {
    let mut map = BlockMap::new(BlockSize::Large, 1 << 20);
    map.write(BlockNumber(0), 1 << 20, Lsn(1 << 33));
    let (snapshot, before) = (map.clone(), map.digest());
    map.write(BlockNumber(777), 2, Lsn(1 << 34));
    map.trim(BlockNumber(5000), 100_000, Lsn((1 << 34) + 8192));
    assert_eq!(snapshot.digest(), before);
    assert_ne!(map.digest(), before);
    assert_eq!((snapshot.mapped(), map.mapped()), (1 << 20, (1 << 20) - 100_000));
    assert_eq!(snapshot.lookup(BlockNumber(778)), Some(Lsn((1 << 33) + 778 * 4096)));
    assert_eq!(map.lookup(BlockNumber(778)), Some(Lsn((1 << 34) + 4096)));
}

#[test]
fn older_data_never_comes_back_while_tombstones_are_kept() {
    let mut map = BlockMap::new(BlockSize::Large, 1 << 14);
    map.keep_tombstones();
    map.trim(BlockNumber(0), 1 << 14, Lsn(1 << 20));
    map.write(BlockNumber(5000), 3, Lsn(1 << 16));
    assert_eq!(map.mapped(), 0);
    map.write(BlockNumber(5000), 3, Lsn(1 << 21));
    map.trim(BlockNumber(4990), 20, Lsn(1 << 19));
    assert_eq!(map.mapped(), 3);
    // Of a run that is half older only the newer half counts.
    map.write(BlockNumber(4999), 2, Lsn((1 << 20) - 4096));
    assert_eq!(map.mapped(), 3);
    let before = map.digest();
    map.drop_tombstones();
    assert_eq!((map.mapped(), map.digest()), (3, before));
    map.write(BlockNumber(0), 1, Lsn(4096));
    assert_eq!(map.mapped(), 4, "without tombstones the order is the caller's");
}

#[test]
fn what_was_cut_off_stays_gone() {
    let mut map = BlockMap::new(BlockSize::Large, 10_000);
    map.keep_tombstones();
    map.write(BlockNumber(0), 10_000, Lsn(1 << 28));
    map.resize(70, Lsn(1 << 30));
    assert_eq!((map.mapped(), map.blocks()), (70, 70));
    map.resize(10_000, Lsn((1 << 30) + 512));
    assert_eq!((map.mapped(), map.lookup(BlockNumber(70))), (70, None));
    map.write(BlockNumber(60), 100, Lsn(1 << 29));
    assert_eq!(map.mapped(), 70, "it was written before the cut");
    map.write(BlockNumber(60), 100, Lsn(1 << 31));
    assert_eq!(map.mapped(), 160);
}

#[test]
fn equal_maps_have_equal_digests_however_they_came_about() {
    let mut a = BlockMap::new(BlockSize::Small, 100_000);
    let mut b = BlockMap::new(BlockSize::Small, 100);
    b.resize(100_000, Lsn(1));
    assert_eq!(a.digest(), b.digest());
    a.write(BlockNumber(64), 9, Lsn(1 << 20));
    b.keep_tombstones();
    b.write(BlockNumber(0), 500, Lsn(1 << 15));
    b.write(BlockNumber(64), 9, Lsn(1 << 20));
    b.trim(BlockNumber(0), 64, Lsn(1 << 21));
    b.trim(BlockNumber(73), 99_000, Lsn(1 << 21));
    assert_eq!(a.digest(), b.digest());
    b.resize(99_999, Lsn(1 << 22));
    assert_ne!(a.digest(), b.digest(), "the size is part of it");
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, u64),
    /// One that is older than everything but what has nothing newer.
    WriteLate(u64, u64),
    Trim(u64, u64),
    Resize(u64),
    Keep(bool),
    Clone,
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0_u64..9000, prop_oneof![3 => 1_u64..20, 1 => 1_u64..9000]);
    prop_oneof![
        5 => range().prop_map(|(block, count)| Step::Write(block, count)),
        2 => range().prop_map(|(block, count)| Step::WriteLate(block, count)),
        3 => range().prop_map(|(block, count)| Step::Trim(block, count)),
        1 => prop_oneof![0_u64..200, 0_u64..9000].prop_map(Step::Resize),
        1 => any::<bool>().prop_map(Step::Keep),
        1 => Just(Step::Clone),
    ]
}

/// A table of what each block has and when that was decided.
#[derive(Clone, Default)]
struct Model {
    blocks: HashMap<u64, (Option<u64>, u64)>,
    keep: bool,
}

impl Model {
    fn set(&mut self, block: u64, lsn: u64, data: bool) {
        if self.blocks.get(&block).is_some_and(|(_, newest)| *newest >= lsn) {
            return;
        }
        if data || self.keep {
            self.blocks.insert(block, (data.then_some(lsn), lsn));
        } else {
            self.blocks.remove(&block);
        }
    }

    fn lsns(&self) -> Vec<(u64, u64)> {
        let mapped = self.blocks.iter().filter_map(|(block, (lsn, _))| Some((*block, (*lsn)?)));
        let mut mapped: Vec<_> = mapped.collect();
        mapped.sort_unstable();
        mapped
    }
}

fn take(map: &mut BlockMap, model: &mut Model, step: &Step, lsn: u64) {
    let clip =
        |block: u64, count: u64, blocks: u64| (block.min(blocks), count.min(blocks.saturating_sub(block)));
    match *step {
        Step::Write(block, count) | Step::WriteLate(block, count) => {
            let lsn = if matches!(step, Step::WriteLate(..)) { lsn / 2 + 512 } else { lsn };
            let (block, count) = clip(block, count, map.blocks());
            map.write(BlockNumber(block), count, Lsn(lsn));
            (0..count).for_each(|at| model.set(block + at, lsn + at * 512, true));
        }
        Step::Trim(block, count) => {
            let (block, count) = clip(block, count, map.blocks());
            map.trim(BlockNumber(block), count, Lsn(lsn));
            (block..block + count).for_each(|block| model.set(block, lsn, false));
        }
        // A shrunk volume and late writes are tested by themselves: the model has no cuts.
        Step::Resize(blocks) if !model.keep => {
            map.resize(blocks, Lsn(lsn));
            model.blocks.retain(|block, _| *block < blocks);
        }
        Step::Keep(true) => {
            map.keep_tombstones();
            model.keep = true;
        }
        Step::Keep(false) => {
            map.drop_tombstones();
            model.keep = false;
            model.blocks.retain(|_, (lsn, _)| lsn.is_some());
        }
        Step::Resize(_) | Step::Clone => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn does_what_a_table_does(steps in prop::collection::vec(step(), 1..40)) {
        let (mut map, mut model) = (BlockMap::new(BlockSize::Small, 9000), Model::default());
        let mut snapshots: Vec<(BlockMap, Model)> = Vec::new();
        for (number, step) in (1_u64..).zip(&steps) {
            if matches!(step, Step::Clone) { snapshots.push((map.clone(), model.clone())); }
            take(&mut map, &mut model, step, number << 24);
        }
        snapshots.push((map, model));
        let mut before: Option<(BlockMap, Vec<(u64, u64)>)> = None;
        for (map, model) in snapshots {
            let expected = model.lsns();
            prop_assert_eq!(&lsns(&map), &expected);
            prop_assert_eq!(map.mapped(), expected.len() as u64);
            // Made afresh it has the same digest, and its runs cover it.
            let mut fresh = BlockMap::new(BlockSize::Small, map.blocks());
            expected.iter().for_each(|(block, lsn)| fresh.write(BlockNumber(*block), 1, Lsn(*lsn)));
            prop_assert_eq!(map.digest(), fresh.digest());
            prop_assert_eq!(map.diff(&fresh).count(), 0);
            let (mut at, mut covered) = (0, Vec::new());
            while at < map.blocks() {
                let run = map.run(BlockNumber(at), map.blocks() - at);
                if let Some(lsn) = run.lsn { covered.extend((0..run.blocks).map(|k| (at + k, lsn.0 + k * 512))); }
                at += run.blocks;
            }
            prop_assert_eq!(&covered, &expected);
            if let Some((earlier, then)) = &before {
                let table = |list: &[(u64, u64)]| list.iter().copied().collect::<HashMap<_, _>>();
                let (then, now) = (table(then), table(&expected));
                let mut changed: Vec<_> = then.keys().chain(now.keys()).copied().filter(|b| then.get(b) != now.get(b)).collect();
                changed.sort_unstable();
                changed.dedup();
                let found: Vec<_> = earlier.diff(&map).map(|change| change.block.0).collect();
                prop_assert_eq!(found, changed);
            }
            before = Some((map, expected));
        }
    }
}
