//! The newest stores of a lane whose stores are handed over one by one: a ring of their ranges, by number.
//!
//! Which of them are in flight the watermarks say, so that taking a store writes one entry and an acknowledgment
//! writes nothing here.

use super::{ByteRange, Lane};
use crate::base::Sequence;
use crate::memory::Pair;

/// Stores that it knows of: as many as the deepest lane has in flight. A constant, so that finding a place takes one
/// load.
const CAPACITY: usize = Lane::DEPTH_MAX;
const _: () = assert!(CAPACITY.is_power_of_two(), "a place is the low bits of a number");

/// Ring of ranges; a store's place is its number modulo the capacity.
#[derive(Debug)]
pub(super) struct Recent {
    /// None for lanes that gather their stores, which need no such ring.
    ranges: Option<Box<[Pair; CAPACITY]>>,
}

impl Recent {
    /// Knows of no store, and learns of some only if `needed`.
    pub(super) fn new(needed: bool) -> Self {
        Self { ranges: needed.then(|| Box::new([Pair::new(0, 0); CAPACITY])) }
    }

    /// What `store` wrote, over the one that stood a capacity before.
    #[inline(always)]
    pub(super) fn record(&mut self, store: Sequence, offset: usize, len: usize) {
        if let Some(ranges) = &mut self.ranges {
            ranges[slot(store.0)] = Pair::new(offset as u64, len as u64);
        }
    }

    /// What the stores after `acked` up to `last` wrote, oldest first.
    ///
    /// # Panics
    /// When there are more than the capacity, or any that it did not learn of.
    #[allow(clippy::cast_possible_truncation, reason = "they were made of a usize")]
    pub(super) fn between(&self, acked: Sequence, last: Sequence) -> impl Iterator<Item = ByteRange> {
        assert!(last.0 - acked.0 <= CAPACITY as u64, "stores {acked} to {last} of the last {CAPACITY}");
        (acked.0 + 1..=last.0).map(|store| {
            let ranges = self.ranges.as_ref().unwrap_or_else(|| panic!("no range of store {store} was kept"));
            let range = ranges[slot(store)];
            ByteRange { offset: range.first() as usize, len: range.second() as usize }
        })
    }
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "only the low bits count")]
const fn slot(store: u64) -> usize {
    store as usize % CAPACITY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_by_number() {
        assert_eq!(Recent::new(false).between(Sequence(5), Sequence(5)).count(), 0);
        let mut ring = Recent::new(true);
        let last = CAPACITY as u64 + 10;
        for store in 1..=last {
            ring.record(Sequence(store), slot(store) * 10, 1);
        }
        let ranges: Vec<_> =
            ring.between(Sequence(last - 4), Sequence(last)).map(|range| range.offset).collect();
        assert_eq!(ranges, [70, 80, 90, 100]);
        assert_eq!(ring.between(Sequence(last), Sequence(last)).count(), 0);
        assert_eq!(
            ring.between(Sequence(10), Sequence(last)).map(|range| range.len).sum::<usize>(),
            CAPACITY
        );
    }
}
