//! What a lost link leaves: an acknowledged prefix, and ranges whose outcome at the peer is unknown.

use crate::base::Sequence;

/// A range of the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRange {
    /// First byte.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
}

impl ByteRange {
    /// Whether they share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        let empty = self.len == 0 || other.len == 0;
        !empty && self.offset < other.offset + other.len && other.offset < self.offset + self.len
    }
}

/// What is known of a lane's stores after the link was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Every store up to this one is acknowledged.
    pub acked: Sequence,
    /// Every store after `acked` up to this one may be at the peer or not, in order.
    pub last: Sequence,
    /// The bytes that those stores wrote: sorted, disjoint.
    pub ranges: Vec<ByteRange>,
}

/// Sorts `ranges` and joins those that touch or overlap; drops the empty ones.
pub fn merge_ranges(ranges: &mut Vec<ByteRange>) {
    ranges.retain(|range| range.len > 0);
    ranges.sort_unstable();
    let mut kept = 0;
    for index in 0..ranges.len() {
        let range = ranges[index];
        if kept > 0 && range.offset <= ranges[kept - 1].offset + ranges[kept - 1].len {
            let end = (range.offset + range.len).max(ranges[kept - 1].offset + ranges[kept - 1].len);
            ranges[kept - 1].len = end - ranges[kept - 1].offset;
        } else {
            ranges[kept] = range;
            kept += 1;
        }
    }
    ranges.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merged_ranges_cover_the_same_bytes_once(input in prop::collection::vec((0usize..200, 0usize..20), 0..30)) {
            let mut covered = [false; 256];
            for &(offset, len) in &input {
                covered[offset..offset + len].fill(true);
            }
            let mut ranges: Vec<_> = input.iter().map(|&(offset, len)| ByteRange { offset, len }).collect();
            merge_ranges(&mut ranges);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].offset + pair[0].len < pair[1].offset));
            let mut again = [false; 256];
            for range in &ranges {
                again[range.offset..range.offset + range.len].fill(true);
            }
            prop_assert_eq!(covered, again);
        }
    }
}
