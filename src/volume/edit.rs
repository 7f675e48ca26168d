//! Changing a tree: in place where nobody shares a node, on a copy of the path where somebody does.
//!
//! *Higher LSN wins*, block by block: so what arrives twice, or late beside newer data, changes nothing. What changes nothing
//! copies nothing either, or two trees would stop sharing what is equal.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::node::{Child, Entry, FAN, FAN_SHIFT};
use crate::base::{BlockSize, Lsn};

/// A change of a range of blocks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edit {
    /// Block *n* of the volume has its data at `lsn` and *n* − `first` blocks.
    Write { first: u64, lsn: Lsn, size: BlockSize },
    /// No block has data.
    Trim { lsn: Lsn, keep: bool },
    /// Nothing that a block had is known any more.
    Forget,
    /// Tombstones are not known any more.
    ForgetTombstones,
}

/// What an edit did to a subtree.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effect {
    changed: bool,
    /// Blocks that have data and had none.
    pub(super) mapped: u64,
    /// Blocks that had data and have none.
    pub(super) unmapped: u64,
}

impl Edit {
    /// What becomes of `entry`.
    fn on(&self, block: u64, entry: Entry) -> Entry {
        match *self {
            Self::Write { first, lsn, size } => {
                let lsn = lsn.plus((block - first) << size.shift());
                if lsn > entry.newest() { Entry::mapped(lsn) } else { entry }
            }
            Self::Trim { lsn, .. } if lsn <= entry.newest() => entry,
            Self::Trim { lsn, keep: true } => Entry::trimmed(lsn),
            Self::Trim { keep: false, .. } | Self::Forget => Entry::NONE,
            Self::ForgetTombstones => entry.lsn().map_or(Entry::NONE, Entry::mapped),
        }
    }

    /// The newest record that it leaves in `range`; 0 when it leaves none.
    fn newest(&self, range: &Range<u64>) -> Lsn {
        match *self {
            Self::Write { first, lsn, size } => lsn.plus((range.end - 1 - first) << size.shift()),
            Self::Trim { lsn, keep: true } => lsn,
            Self::Trim { keep: false, .. } | Self::Forget | Self::ForgetTombstones => Lsn::ZERO,
        }
    }

    /// What all of a subtree becomes when the edit covers it, if that can be told without looking at its blocks.
    fn on_whole(&self, child: &Child) -> Option<Child> {
        match (*self, child) {
            (Self::Write { .. }, _) => None,
            (Self::Trim { lsn, keep: true }, _) if lsn > child.newest() => Some(Child::Trimmed(lsn)),
            (Self::Trim { lsn, keep: false }, _) if lsn > child.newest() => Some(Child::Empty),
            (Self::Trim { .. } | Self::ForgetTombstones, Child::Empty) => Some(Child::Empty),
            (Self::Trim { .. }, Child::Trimmed(_)) => Some(child.clone()),
            (Self::Trim { .. }, _) => None,
            (Self::Forget, _) | (Self::ForgetTombstones, Child::Trimmed(_)) => Some(Child::Empty),
            (Self::ForgetTombstones, Child::Leaf(_) | Child::Inner(_)) => None,
        }
    }
}

/// Blocks below a node of this level.
pub(super) const fn span(level: u32) -> u64 {
    1 << (FAN_SHIFT * (level + 1))
}

/// The part of `range` that lies in `count` blocks from `base`.
fn clip(range: &Range<u64>, base: u64, count: u64) -> Range<u64> {
    range.start.max(base)..range.end.min(base + count)
}

/// The children, each of `count` blocks, that `range` touches.
fn touched(range: &Range<u64>, base: u64, count: u64) -> Range<usize> {
    let index = |block: u64| usize::try_from(block).expect("one of 64 children");
    index((range.start - base) / count)..index((range.end - base).div_ceil(count))
}

/// Applies `edit` to the blocks of `range`, all of which lie in `child`, a subtree of this level from block `base`.
pub(super) fn apply(child: &mut Child, level: u32, base: u64, range: &Range<u64>, edit: &Edit) -> Effect {
    debug_assert!(base <= range.start && range.end <= base + span(level));
    if range.is_empty() {
        return Effect::default();
    }
    if range.end - range.start == span(level)
        && let Some(whole) = edit.on_whole(child)
    {
        let unmapped = child.mapped();
        let changed = match (&*child, &whole) {
            (Child::Empty, Child::Empty) => false,
            (Child::Trimmed(before), Child::Trimmed(after)) => before != after,
            _ => true,
        };
        *child = whole;
        return Effect { changed, mapped: 0, unmapped };
    }
    // Where nobody shares, a path that turns out unchanged was not copied either.
    if !is_own(child) && !would_change(child, level, base, range, edit) {
        return Effect::default();
    }
    *child = match std::mem::take(child) {
        node @ (Child::Leaf(_) | Child::Inner(_)) => node,
        other => other.expand(level),
    };
    let effect = match child {
        Child::Leaf(leaf) => {
            let leaf = Arc::make_mut(leaf);
            let effect = apply_to_leaf(&mut leaf.entries, base, range, edit);
            if effect.changed {
                leaf.digest = OnceLock::new();
            }
            effect
        }
        Child::Inner(inner) => {
            let inner = Arc::make_mut(inner);
            let count = span(level - 1);
            let mut effect = Effect::default();
            for index in touched(range, base, count) {
                let base = base + index as u64 * count;
                let part =
                    apply(&mut inner.children[index], level - 1, base, &clip(range, base, count), edit);
                effect.changed |= part.changed;
                effect.mapped += part.mapped;
                effect.unmapped += part.unmapped;
            }
            inner.mapped = inner.mapped + effect.mapped - effect.unmapped;
            if effect.changed {
                inner.newest = inner.newest.max(edit.newest(range));
                inner.digest = OnceLock::new();
            }
            effect
        }
        Child::Empty | Child::Trimmed(_) => unreachable!("it was expanded"),
    };
    if !matches!(edit, Edit::Write { .. }) && child.is_void() {
        *child = Child::Empty;
    }
    effect
}

fn apply_to_leaf(entries: &mut [Entry; FAN], base: u64, range: &Range<u64>, edit: &Edit) -> Effect {
    let mut effect = Effect::default();
    for index in touched(range, base, 1) {
        let (before, after) = (entries[index], edit.on(base + index as u64, entries[index]));
        entries[index] = after;
        effect.changed |= before != after;
        effect.mapped += u64::from(before.lsn().is_none() && after.lsn().is_some());
        effect.unmapped += u64::from(before.lsn().is_some() && after.lsn().is_none());
    }
    effect
}

/// Whether nobody else has the node.
fn is_own(child: &Child) -> bool {
    match child {
        Child::Leaf(leaf) => Arc::strong_count(leaf) == 1,
        Child::Inner(inner) => Arc::strong_count(inner) == 1,
        Child::Empty | Child::Trimmed(_) => false,
    }
}

/// Whether the edit changes anything.
fn would_change(child: &Child, level: u32, base: u64, range: &Range<u64>, edit: &Edit) -> bool {
    match child {
        Child::Empty | Child::Trimmed(_) => {
            // The last block of a write has the highest LSN; other edits treat all blocks alike.
            let entry = child.entry(0);
            edit.on(range.end - 1, entry) != entry
        }
        Child::Leaf(leaf) => touched(range, base, 1)
            .any(|index| edit.on(base + index as u64, leaf.entries[index]) != leaf.entries[index]),
        Child::Inner(inner) => {
            let count = span(level - 1);
            touched(range, base, count).any(|index| {
                let base = base + index as u64 * count;
                would_change(&inner.children[index], level - 1, base, &clip(range, base, count), edit)
            })
        }
    }
}
