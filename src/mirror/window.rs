//! The stores in flight: runs posted and not yet acknowledged, oldest first.
//!
//! A ring of fixed capacity, filled at one end and drained at the other; nothing is allocated after it was made.

use super::ByteRange;
use super::touched::Touched;
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

impl Run {
    const fn range(&self) -> ByteRange {
        ByteRange { offset: self.offset, len: self.len }
    }
}

/// Ring of runs in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    runs: Box<[Run]>,
    /// Runs ever retired and ever pushed; an index is the count modulo the capacity, a power of two.
    retired: usize,
    pushed: usize,
    /// Where each store asks whether it overlaps one of them.
    touched: Option<Touched>,
}

impl InFlight {
    /// Room for `capacity` runs; `asked` says whether each store asks whether it overlaps one of them.
    pub(super) fn new(capacity: usize, asked: bool) -> Self {
        Self {
            runs: vec![Run::default(); capacity.next_power_of_two()].into_boxed_slice(),
            retired: 0,
            pushed: 0,
            touched: asked.then(Touched::new),
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
        if let Some(touched) = &mut self.touched {
            touched.add(run.range());
        }
    }

    /// Drops the runs that end at or before `acked`.
    #[inline]
    pub(super) fn retire(&mut self, acked: Sequence) {
        while self.retired < self.pushed && self.runs[self.slot(self.retired)].end <= acked {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let range = self.runs[self.slot(self.retired)].range();
        self.retired += 1;
        if let Some(touched) = &mut self.touched {
            touched.remove(range);
        }
    }

    /// The runs in flight, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Run> {
        (self.retired..self.pushed).map(|count| &self.runs[self.slot(count)])
    }

    /// Whether one of them shares a byte with the range.
    pub(super) fn overlaps(&self, range: ByteRange) -> bool {
        let may = self.touched.as_ref().is_none_or(|touched| touched.may_touch(range));
        may && self.iter().any(|run| range.overlaps(run.range()))
    }

    /// Their ranges.
    pub(super) fn ranges(&self) -> Vec<ByteRange> {
        self.iter().map(Run::range).collect()
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        while self.retired < self.pushed {
            self.drop_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retires_in_order_and_wraps() {
        for asked in [false, true] {
            retires_and_wraps(InFlight::new(4, asked));
        }
    }

    fn retires_and_wraps(mut ring: InFlight) {
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
        let mut ring = InFlight::new(1, false);
        ring.push(Run::default());
        ring.push(Run::default());
    }
}
