//! What differs between two maps, in the order of blocks. Subtrees that both share are not entered.
//!
//! One walk serves resync, verification, incremental backup and the transfer of clones.

use super::BlockMap;
use super::edit::span;
use super::node::{Child, FAN};
use crate::base::{BlockNumber, Lsn};

/// A block whose data differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub block: BlockNumber,
    /// Where the first map has its data; `None`: zeroes.
    pub old: Option<Lsn>,
    /// Where the second one has it.
    pub new: Option<Lsn>,
}

/// A subtree and its level, which may be below the one that is walked: then it is the first of that node's descendants.
#[derive(Debug, Clone, Copy)]
struct Side<'a> {
    child: &'a Child,
    level: u32,
}

static EMPTY: Child = Child::Empty;

impl<'a> Side<'a> {
    fn child(self, level: u32, index: usize) -> Self {
        if self.level < level {
            return if index == 0 { self } else { Self { child: &EMPTY, level: level - 1 } };
        }
        Self { child: self.child.child(index), level: level - 1 }
    }
}

#[derive(Debug)]
struct Frame<'a> {
    old: Side<'a>,
    new: Side<'a>,
    level: u32,
    base: u64,
    next: usize,
}

/// The differences between two maps; made by [`BlockMap::diff`].
#[derive(Debug)]
pub struct Diff<'a> {
    stack: Vec<Frame<'a>>,
    visited: u64,
    /// Blocks before are left out.
    first: u64,
}

impl BlockMap {
    /// Each block whose data differs between `self` and `new`, in order. The sizes may differ; the block size may not.
    ///
    /// # Panics
    /// When the block sizes differ.
    #[must_use]
    pub fn diff<'a>(&'a self, new: &'a Self) -> Diff<'a> {
        self.diff_from(new, BlockNumber(0))
    }

    /// As [`diff`](Self::diff), from block `first` on: so a long one can be continued where it was left. What lies before is not walked.
    ///
    /// # Panics
    /// When the block sizes differ.
    #[must_use]
    pub fn diff_from<'a>(&'a self, new: &'a Self, first: BlockNumber) -> Diff<'a> {
        assert_eq!(self.block_size(), new.block_size(), "two maps of different block sizes");
        let mut diff = Diff { stack: Vec::new(), visited: 0, first: first.0 };
        let side = |map: &'a Self| Side { child: &map.root, level: map.level };
        diff.enter(side(self), side(new), self.level.max(new.level), 0);
        diff
    }
}

impl<'a> Diff<'a> {
    /// Pairs of nodes that were looked into.
    #[must_use]
    pub const fn visited(&self) -> u64 {
        self.visited
    }

    fn enter(&mut self, old: Side<'a>, new: Side<'a>, level: u32, base: u64) {
        // Digests and pointers compare subtrees of the same blocks only.
        let is_void = |side: Side<'_>| matches!(side.child, Child::Empty | Child::Trimmed(_));
        let shared = old.level == new.level && old.child.is_shared_with(new.child);
        if !(shared || is_void(old) && is_void(new)) {
            self.visited += 1;
            let child_blocks = if level == 0 { 1 } else { span(level - 1) };
            let before = self.first.saturating_sub(base) / child_blocks;
            let next = usize::try_from(before).map_or(FAN, |before| before.min(FAN));
            self.stack.push(Frame { old, new, level, base, next });
        }
    }
}

impl Iterator for Diff<'_> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        while let Some(frame) = self.stack.last_mut() {
            let (index, level, base) = (frame.next, frame.level, frame.base);
            if index == FAN {
                self.stack.pop();
                continue;
            }
            frame.next += 1;
            let (old, new) = (frame.old, frame.new);
            if level > 0 {
                let base = base + index as u64 * span(level - 1);
                self.enter(old.child(level, index), new.child(level, index), level - 1, base);
                continue;
            }
            let (old, new) = (old.child.entry(index).lsn(), new.child.entry(index).lsn());
            if old != new {
                return Some(Change { block: BlockNumber(base + index as u64), old, new });
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
