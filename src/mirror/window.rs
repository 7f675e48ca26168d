//! The stores in flight: runs posted and not yet acknowledged, oldest first.
//!
//! A ring of fixed capacity, filled at one end and drained at the other; nothing is allocated after it was made.

use super::ByteRange;
use crate::base::Sequence;

/// Contiguous stores that travel together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Run {
    /// The last store in it.
    pub(super) end: Sequence,
    /// First byte.
    pub(super) offset: usize,
    /// Bytes.
    pub(super) len: usize,
}

/// Ring of runs in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    runs: Box<[Run]>,
    /// Runs ever retired and ever pushed; an index is the count modulo the capacity, a power of two.
    retired: usize,
    pushed: usize,
}

impl InFlight {
    /// Room for `capacity` runs.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            runs: vec![Run::default(); capacity.next_power_of_two()].into_boxed_slice(),
            retired: 0,
            pushed: 0,
        }
    }

    #[inline]
    fn slot(&self, count: usize) -> usize {
        count & (self.runs.len() - 1)
    }

    /// Runs in flight.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.pushed - self.retired
    }

    /// Adds the newest run.
    ///
    /// # Panics
    /// When as many are in flight as there is room for.
    pub(super) fn push(&mut self, run: Run) {
        assert!(self.len() < self.runs.len(), "{} runs in flight", self.len());
        let slot = self.slot(self.pushed);
        self.runs[slot] = run;
        self.pushed += 1;
    }

    /// Drops the runs that end at or before `acked`.
    #[inline]
    pub(super) fn retire(&mut self, acked: Sequence) {
        while self.retired < self.pushed && self.runs[self.slot(self.retired)].end <= acked {
            self.retired += 1;
        }
    }

    /// The runs in flight, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Run> {
        (self.retired..self.pushed).map(|count| &self.runs[self.slot(count)])
    }

    /// Whether one of them shares a byte with the range.
    pub(super) fn overlaps(&self, range: ByteRange) -> bool {
        self.iter().any(|run| range.overlaps(ByteRange { offset: run.offset, len: run.len }))
    }

    /// Their ranges.
    pub(super) fn ranges(&self) -> Vec<ByteRange> {
        self.iter().map(|run| ByteRange { offset: run.offset, len: run.len }).collect()
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.retired = self.pushed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retires_in_order_and_wraps() {
        let mut ring = InFlight::new(4);
        for round in 0..10u64 {
            for index in 0..4usize {
                ring.push(Run { end: Sequence(round * 4 + index as u64 + 1), offset: index * 10, len: 10 });
            }
            assert_eq!(ring.len(), 4);
            let overlaps = |offset, len| ring.overlaps(ByteRange { offset, len });
            assert!(overlaps(39, 5) && !overlaps(40, 5) && !overlaps(5, 0));
            ring.retire(Sequence(round * 4 + 2));
            assert_eq!(ring.ranges(), [ByteRange { offset: 20, len: 10 }, ByteRange { offset: 30, len: 10 }]);
            ring.retire(Sequence(round * 4 + 4));
            assert_eq!(ring.len(), 0);
        }
    }

    #[test]
    #[should_panic(expected = "runs in flight")]
    fn overfull_is_a_defect() {
        let mut ring = InFlight::new(1);
        ring.push(Run::default());
        ring.push(Run::default());
    }
}
