//! A range that the application fills in place, so that its bytes need no copy into the local memory.

use std::sync::Arc;

use super::ByteRange;
use crate::memory::{Mapping, VolatileSlice};

/// Holes that a lane may have open at a time.
pub(super) const HOLES_MAX: usize = 256;

/// An exclusive right to fill a range of the local memory.
///
/// Seal it to make it a store, which takes its place in the lane's order at that moment. Or void it: what the range
/// holds by then is mirrored all the same, since both copies must agree, but means nothing. Until then no other store
/// of this lane may touch the range. A hole that is dropped keeps its range reserved until the lane ends.
#[derive(Debug)]
#[must_use = "seal it or void it: its range stays reserved"]
pub struct Hole {
    pub(super) lane: u32,
    pub(super) range: ByteRange,
    pub(super) memory: Arc<Mapping>,
}

impl Hole {
    /// The range's memory, to be filled.
    #[must_use]
    pub fn memory(&self) -> VolatileSlice<'_> {
        // The range was checked against the mapping when the hole was made.
        match self.memory.slice().subslice(self.range.offset, self.range.len) {
            Some(slice) => slice,
            None => unreachable!("a hole lies within its region"),
        }
    }

    /// Where it lies in the region.
    #[must_use]
    pub const fn range(&self) -> ByteRange {
        self.range
    }
}
