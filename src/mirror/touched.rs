//! Which pages the runs in flight touch, roughly: so that most stores need not look at each of them.
//!
//! A count for each page, modulo [`COUNTS`] pages: 0 means for certain that no run in flight has a byte there.

use super::ByteRange;

/// Bytes of a page, as a power of two.
const PAGE_BITS: usize = 12;
/// Counts; a power of two. With a few hundred runs in flight most of them are 0.
const COUNTS: usize = 1024;
/// Pages of a store beyond which looking at each run is no dearer.
const PAGES_MAX: usize = 64;

/// The counts.
#[derive(Debug)]
pub(super) struct Touched {
    counts: Box<[u32; COUNTS]>,
}

impl Touched {
    pub(super) fn new() -> Self {
        Self { counts: Box::new([0; COUNTS]) }
    }

    /// A run of this range is in flight.
    pub(super) fn add(&mut self, range: ByteRange) {
        pages(range).for_each(|page| self.counts[page & (COUNTS - 1)] += 1);
    }

    /// It no longer is.
    pub(super) fn remove(&mut self, range: ByteRange) {
        pages(range).for_each(|page| self.counts[page & (COUNTS - 1)] -= 1);
    }

    /// Whether a run in flight may have a byte of `range`. `false` is certain.
    #[inline]
    pub(super) fn may_touch(&self, range: ByteRange) -> bool {
        let mut pages = pages(range);
        pages.len() > PAGES_MAX || pages.any(|page| self.counts[page & (COUNTS - 1)] > 0)
    }
}

#[inline]
fn pages(range: ByteRange) -> std::ops::Range<usize> {
    match range.len {
        0 => 0..0,
        len => range.offset >> PAGE_BITS..((range.offset + len - 1) >> PAGE_BITS) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_in_flight_is_always_found(
            steps in prop::collection::vec((any::<bool>(), 0usize..20_000_000, 0usize..600_000), 1..60)
        ) {
            let mut touched = Touched::new();
            let mut flying: Vec<ByteRange> = Vec::new();
            for (add, offset, len) in steps {
                let range = ByteRange { offset, len };
                if flying.iter().any(|other| other.overlaps(range)) {
                    prop_assert!(touched.may_touch(range));
                }
                if add {
                    touched.add(range);
                    flying.push(range);
                } else if !flying.is_empty() {
                    touched.remove(flying.remove(0));
                }
            }
            flying.drain(..).for_each(|range| touched.remove(range));
            prop_assert!(touched.counts.iter().all(|count| *count == 0));
            let word = ByteRange { offset: 0, len: 8 };
            prop_assert!(!touched.may_touch(word));
        }
    }
}
