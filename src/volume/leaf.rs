//! A map in pieces of 64 blocks, as a checkpoint keeps it, and all of its runs, as reclaim counts them.
//!
//! A leaf is what the tree's lowest level has: LSNs of 64 blocks, 0 where a block has no data. Tombstones are not part of it: they count
//! while a resync runs, and after a restart that begins anew.

use std::sync::{Arc, OnceLock};

use super::BlockMap;
use super::edit::span;
use super::map::index;
use super::node::{Child, Entry, FAN, Leaf};
use crate::base::{BlockNumber, Lsn};

/// Blocks of a leaf.
pub const LEAF_BLOCKS: usize = FAN;

/// Why a leaf from a disk does not fit its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeafError {
    /// The volume is smaller.
    #[error("leaf {leaf} has data for block {block}, of a volume of {blocks}")]
    Range {
        /// Which leaf.
        leaf: u64,
        /// Its first such block, or the first of all.
        block: u64,
        /// What the volume has.
        blocks: u64,
    },
    /// No data lies at such a position.
    #[error("block {block} has its data at {lsn}, where none can be")]
    Position {
        /// Which.
        block: u64,
        /// What was found.
        lsn: Lsn,
    },
    /// The map has something there.
    #[error("leaf {leaf} is there twice")]
    Twice {
        /// Which leaf.
        leaf: u64,
    },
}

impl BlockMap {
    /// Where the data of blocks 64 × `leaf` and the following lies, [`Lsn::ZERO`] for those without; `None` when none of them has any.
    #[must_use]
    pub fn leaf(&self, leaf: u64) -> Option<[Lsn; LEAF_BLOCKS]> {
        let first = leaf.checked_mul(LEAF_BLOCKS as u64).filter(|first| *first < self.blocks())?;
        match self.leaf_child(first) {
            Child::Leaf(leaf) => {
                let lsns = leaf.entries.map(|entry| entry.lsn().unwrap_or_default());
                (lsns != [Lsn::ZERO; LEAF_BLOCKS]).then_some(lsns)
            }
            Child::Empty | Child::Trimmed(_) | Child::Inner(_) => None,
        }
    }

    /// Enters what [`leaf`](Self::leaf) gave, where the map has nothing yet.
    ///
    /// # Errors
    /// The leaf does not fit the map; then nothing was changed.
    pub fn set_leaf(&mut self, leaf: u64, lsns: &[Lsn; LEAF_BLOCKS]) -> Result<(), LeafError> {
        let blocks = self.blocks();
        let first = leaf.saturating_mul(LEAF_BLOCKS as u64);
        if first >= blocks {
            return Err(LeafError::Range { leaf, block: first, blocks });
        }
        let bytes = self.block_size().bytes();
        let (mut entries, mut mapped, mut newest) = ([Entry::NONE; FAN], 0, Lsn::ZERO);
        for ((block, lsn), entry) in (first..).zip(lsns).zip(&mut entries) {
            if *lsn == Lsn::ZERO {
                continue;
            }
            if block >= blocks {
                return Err(LeafError::Range { leaf, block, blocks });
            }
            if lsn.0 > Lsn::MAX.0 - bytes || !lsn.0.is_multiple_of(bytes) {
                return Err(LeafError::Position { block, lsn: *lsn });
            }
            *entry = Entry::mapped(*lsn);
            (mapped, newest) = (mapped + 1, newest.max(*lsn));
        }
        if !matches!(self.leaf_child(first), Child::Empty) {
            return Err(LeafError::Twice { leaf });
        }
        if mapped > 0 {
            let leaf = Child::Leaf(Arc::new(Leaf { entries, digest: OnceLock::new() }));
            insert(&mut self.root, self.level, first, leaf, (mapped, newest));
            self.mapped += mapped;
        }
        Ok(())
    }

    /// Calls `each` with the longest runs of blocks whose data follow each other in the log: the first block, where its data lies, and how
    /// many they are. In the order of blocks; what has no data is left out.
    pub fn for_each_run(&self, mut each: impl FnMut(BlockNumber, Lsn, u64)) {
        let shift = self.block_size().shift();
        let mut run: Option<(u64, Lsn, u64)> = None;
        walk(&self.root, self.level, 0, &mut |block, lsn| {
            if let Some((first, begin, count)) = &mut run {
                if *first + *count == block && begin.plus(*count << shift) == lsn {
                    *count += 1;
                    return;
                }
                each(BlockNumber(*first), *begin, *count);
            }
            run = Some((block, lsn, 1));
        });
        if let Some((first, begin, count)) = run {
            each(BlockNumber(first), begin, count);
        }
    }

    /// The lowest subtree with block `first`.
    fn leaf_child(&self, first: u64) -> &Child {
        let mut child = &self.root;
        for level in (1..=self.level).rev() {
            if !matches!(child, Child::Inner(_)) {
                break;
            }
            child = child.child(index(first, level));
        }
        child
    }
}

fn insert(child: &mut Child, level: u32, first: u64, leaf: Child, (mapped, newest): (u64, Lsn)) {
    if level == 0 {
        *child = leaf;
        return;
    }
    *child = std::mem::take(child).expand(level);
    let Child::Inner(inner) = child else { unreachable!("what was found to be empty was expanded") };
    let inner = Arc::make_mut(inner);
    inner.mapped += mapped;
    inner.newest = inner.newest.max(newest);
    inner.digest = OnceLock::new();
    insert(&mut inner.children[index(first, level)], level - 1, first, leaf, (mapped, newest));
}

fn walk(child: &Child, level: u32, base: u64, each: &mut impl FnMut(u64, Lsn)) {
    match child {
        Child::Empty | Child::Trimmed(_) => {}
        Child::Leaf(leaf) => {
            for (block, entry) in (base..).zip(&leaf.entries) {
                if let Some(lsn) = entry.lsn() {
                    each(block, lsn);
                }
            }
        }
        Child::Inner(inner) => {
            for (at, child) in (0..).zip(&inner.children) {
                walk(child, level - 1, base + at * span(level - 1), each);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BlockSize;

    /// The leaves of `map` entered into an empty one.
    fn again(map: &BlockMap) -> BlockMap {
        let mut made = BlockMap::new(map.block_size(), map.blocks());
        for leaf in 0..map.blocks().div_ceil(64) {
            if let Some(lsns) = map.leaf(leaf) {
                made.set_leaf(leaf, &lsns).unwrap();
            }
        }
        made
    }

    #[test]
    fn a_map_is_its_leaves() {
        for (size, blocks) in [(BlockSize::Small, 1), (BlockSize::Large, 64), (BlockSize::Small, 300_000)] {
            let mut map = BlockMap::new(size, blocks);
            assert_eq!(again(&map).digest(), map.digest());
            map.write(BlockNumber(0), blocks, Lsn(1 << 30));
            map.trim(BlockNumber(blocks / 3), blocks / 2, Lsn(1 << 31));
            map.write(BlockNumber(blocks / 2), 1, Lsn(1 << 32));
            map.keep_tombstones();
            map.trim(BlockNumber(blocks / 2), blocks / 4, Lsn(1 << 33));
            let mut made = again(&map);
            assert_eq!((made.digest(), made.mapped()), (map.digest(), map.mapped()), "{blocks} blocks");
            // It goes on like any other: what is newer below counts as such.
            map.drop_tombstones();
            made.trim(BlockNumber(0), blocks, Lsn(1 << 30));
            map.trim(BlockNumber(0), blocks, Lsn(1 << 30));
            assert_eq!((made.digest(), made.mapped()), (map.digest(), map.mapped()));
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_changes_nothing() {
        let mut map = BlockMap::new(BlockSize::Large, 100);
        let leaf = |at: usize, lsn: u64| {
            let mut lsns = [Lsn::ZERO; LEAF_BLOCKS];
            lsns[at] = Lsn(lsn);
            lsns
        };
        assert_eq!(map.set_leaf(1, &leaf(35, 4096)), Ok(()));
        assert_eq!(map.set_leaf(1, &leaf(0, 4096)), Err(LeafError::Twice { leaf: 1 }));
        let beyond = |leaf, block| Err(LeafError::Range { leaf, block, blocks: 100 });
        assert_eq!(map.set_leaf(2, &leaf(0, 4096)), beyond(2, 128));
        assert_eq!(map.set_leaf(u64::MAX, &leaf(0, 4096)), beyond(u64::MAX, u64::MAX));
        let mut other = BlockMap::new(BlockSize::Large, 100);
        assert_eq!(other.set_leaf(1, &leaf(36, 4096)), beyond(1, 100));
        for lsn in [1, 4095, 4097, 1 << 63, u64::MAX, (1 << 63) - 512, u64::MAX - 4095] {
            let refused = Err(LeafError::Position { block: 0, lsn: Lsn(lsn) });
            assert_eq!(other.set_leaf(0, &leaf(0, lsn)), refused);
        }
        assert_eq!((other.mapped(), map.mapped(), map.leaf(1)), (0, 1, Some(leaf(35, 4096))));
        assert_eq!((map.leaf(0), map.leaf(2), map.leaf(u64::MAX)), (None, None, None));
    }

    #[test]
    fn runs_go_across_leaves() {
        let mut map = BlockMap::new(BlockSize::Small, 1 << 20);
        map.write(BlockNumber(60), 200, Lsn(1 << 20));
        map.write(BlockNumber(100), 2, Lsn(1 << 21));
        map.trim(BlockNumber(250), 1, Lsn(1 << 22));
        map.write(BlockNumber((1 << 20) - 1), 1, Lsn(512));
        let mut runs = Vec::new();
        map.for_each_run(|block, lsn, count| runs.push((block.0, lsn.0, count)));
        let at = |block: u64| (1 << 20) + (block - 60) * 512;
        let expected = [
            (60, at(60), 40),
            (100, 1 << 21, 2),
            (102, at(102), 148),
            (251, at(251), 9),
            ((1 << 20) - 1, 512, 1),
        ];
        assert_eq!(runs, expected);
        assert_eq!(runs.iter().map(|(_, _, count)| count).sum::<u64>(), map.mapped());
    }
}
