//! The block map of one volume: where in the log each block's data is.
//!
//! A radix tree over block numbers, as high as the volume's size needs, so that equal maps are equal trees and have equal digests.
//! Cloning shares the root: a snapshot is a clone, whatever its size. A change then copies the nodes on its path, once.
//!
//! Data of a block that is not mapped is zeroes.

use std::ops::Range;

use super::edit::{Edit, apply, span};
use super::node::{Child, Entry, FAN, FAN_SHIFT};
use crate::base::{BlockNumber, BlockSize, Lsn};

/// Which LSN each block of a volume has. A clone shares all of it and takes constant time.
#[derive(Debug, Clone)]
pub struct BlockMap {
    pub(super) root: Child,
    /// Of the root.
    pub(super) level: u32,
    size: BlockSize,
    blocks: u64,
    pub(super) mapped: u64,
    tombstones: bool,
    /// While tombstones are kept: from which block on the volume was cut off, and when.
    cuts: Vec<(Lsn, u64)>,
}

/// Blocks of a run, all mapped in the log's order or none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many.
    pub blocks: u64,
    /// Where the first one's data is; that of the others follows it. `None`: zeroes.
    pub lsn: Option<Lsn>,
}

impl BlockMap {
    /// Blocks of a volume at most.
    pub const BLOCKS_MAX: u64 = 1 << 48;

    /// Of a volume with this many blocks, none of them mapped.
    ///
    /// # Panics
    /// With more than [`BLOCKS_MAX`](Self::BLOCKS_MAX).
    #[must_use]
    pub fn new(size: BlockSize, blocks: u64) -> Self {
        assert!(blocks <= Self::BLOCKS_MAX, "{blocks} blocks, at most 2^48");
        let level = level_for(blocks);
        Self { root: Child::Empty, level, size, blocks, mapped: 0, tombstones: false, cuts: Vec::new() }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_size(&self) -> BlockSize {
        self.size
    }

    /// Blocks of the volume.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Blocks with data: what the volume takes of the store.
    #[must_use]
    pub const fn mapped(&self) -> u64 {
        self.mapped
    }

    /// Where the block's data is, or `None` when it reads as zeroes.
    ///
    /// # Panics
    /// When the volume has no such block.
    #[must_use]
    pub fn lookup(&self, block: BlockNumber) -> Option<Lsn> {
        assert!(block.0 < self.blocks, "block {block} of {}", self.blocks);
        self.find(block.0).0.lsn()
    }

    /// The longest run from `block` of at most `most` blocks.
    ///
    /// # Panics
    /// When the volume has no such blocks, or `most` is 0.
    #[must_use]
    pub fn run(&self, block: BlockNumber, most: u64) -> Run {
        self.check(block.0, most);
        assert!(most > 0, "a run has at least one block");
        let (first, same) = self.find(block.0);
        let Some(lsn) = first.lsn() else {
            let mut blocks = same.min(most);
            while blocks < most {
                let (entry, same) = self.find(block.0 + blocks);
                if entry.lsn().is_some() {
                    break;
                }
                blocks = most.min(blocks + same);
            }
            return Run { blocks, lsn: None };
        };
        let follows = |at: u64| self.find(block.0 + at).0.lsn() == Some(lsn.plus(at << self.size.shift()));
        let blocks = (1..most).find(|at| !follows(*at)).unwrap_or(most);
        Run { blocks, lsn: Some(lsn) }
    }

    /// Maps `count` blocks from `block` to the data that begins at `lsn`, where they have nothing newer.
    ///
    /// # Panics
    /// When the volume has no such blocks.
    pub fn write(&mut self, block: BlockNumber, count: u64, lsn: Lsn) {
        self.check(block.0, count);
        let end = self.uncut(block.0, count, lsn);
        self.edit(block.0..end, &Edit::Write { first: block.0, lsn, size: self.size });
    }

    /// Unmaps `count` blocks from `block`, where they have nothing newer than `lsn`.
    ///
    /// # Panics
    /// When the volume has no such blocks.
    pub fn trim(&mut self, block: BlockNumber, count: u64, lsn: Lsn) {
        self.check(block.0, count);
        let end = self.uncut(block.0, count, lsn);
        self.edit(block.0..end, &Edit::Trim { lsn, keep: self.tombstones });
    }

    /// From now on a trim leaves a tombstone with its LSN, so that older data that comes later does not come back. Without them,
    /// records are to be applied in the order of the log.
    pub const fn keep_tombstones(&mut self) {
        self.tombstones = true;
    }

    /// Drops all tombstones and keeps none any more.
    pub fn drop_tombstones(&mut self) {
        self.tombstones = false;
        self.cuts.clear();
        self.edit(0..self.blocks, &Edit::ForgetTombstones);
    }

    /// Gives the volume another size, by the record at `lsn`. What is cut off is gone; what is added reads as zeroes.
    ///
    /// # Panics
    /// With more than [`BLOCKS_MAX`](Self::BLOCKS_MAX).
    pub fn resize(&mut self, blocks: u64, lsn: Lsn) {
        assert!(blocks <= Self::BLOCKS_MAX, "{blocks} blocks, at most 2^48");
        let level = level_for(blocks);
        if blocks < self.blocks {
            // Or what was cut off would be there again when the volume grows.
            self.edit(blocks..self.blocks, &Edit::Forget);
            if self.tombstones {
                self.cuts.push((lsn, blocks));
            }
            for _ in level..self.level {
                self.root = self.root.child(0).clone();
            }
        }
        for below in self.level..level {
            self.root = match std::mem::take(&mut self.root) {
                Child::Empty => Child::Empty,
                root => above(root, below),
            };
        }
        (self.level, self.blocks) = (level, blocks);
    }

    /// Digest of size and content: equal on both nodes when each block has the same LSN. Nodes remember theirs, so that after a
    /// change only the changed paths are summed again.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.blocks.to_le_bytes()).update(&[self.size.shift()]);
        hasher.update(&self.root.digest().unwrap_or_default());
        *hasher.finalize().as_bytes()
    }

    /// Bytes of memory of its nodes, without what the allocator adds to each; nodes that clones share count for each. Visits
    /// every node.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.root.memory_bytes()
    }

    fn check(&self, block: u64, count: u64) {
        let end = block.checked_add(count);
        assert!(
            end.is_some_and(|end| end <= self.blocks),
            "{count} blocks from {block} of a volume of {}",
            self.blocks
        );
    }

    /// The end of the part that was not cut off after the record at `lsn`.
    fn uncut(&self, block: u64, count: u64, lsn: Lsn) -> u64 {
        let later = self.cuts.iter().filter(|(cut, _)| *cut > lsn).map(|(_, from)| *from);
        later.fold(block + count, u64::min).max(block)
    }

    fn edit(&mut self, range: Range<u64>, edit: &Edit) {
        let effect = apply(&mut self.root, self.level, 0, &range, edit);
        self.mapped = self.mapped + effect.mapped - effect.unmapped;
    }

    /// What is known of the block, and for how many from it on that is the same for certain.
    fn find(&self, block: u64) -> (Entry, u64) {
        let mut child = &self.root;
        for level in (1..=self.level).rev() {
            let Child::Inner(_) = child else {
                return (child.entry(0), span(level) - block % span(level));
            };
            child = child.child(index(block, level));
        }
        match child {
            Child::Leaf(leaf) => (leaf.entries[index(block, 0)], 1),
            _ => (child.entry(0), span(0) - block % span(0)),
        }
    }
}

/// Which child of a node of this level has the block.
pub(super) fn index(block: u64, level: u32) -> usize {
    usize::try_from(block >> (FAN_SHIFT * level)).expect("64 bits") % FAN
}

/// The level of the root of a volume with this many blocks.
fn level_for(blocks: u64) -> u32 {
    (0..).find(|level| span(*level) >= blocks).expect("a volume has at most 2^48 blocks")
}

/// A root one level above `root`, whose blocks come first.
fn above(root: Child, level: u32) -> Child {
    let mut parent = Child::Empty.expand(level + 1);
    if let Child::Inner(inner) = &mut parent {
        let Some(inner) = std::sync::Arc::get_mut(inner) else { unreachable!("it was just made") };
        inner.mapped = root.mapped();
        inner.newest = root.newest();
        inner.children[0] = root;
    }
    parent
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
