//! The segments whose bytes lie in the ring of a primary, needed there or not, and where their records are.

use std::collections::VecDeque;

use super::ring_memory::RingMemory;
use crate::base::Lsn;
use crate::segment::{Extent, Packed, SegmentHead};

#[derive(Debug)]
struct Segment {
    head: SegmentHead,
    /// Its records, unless it was brought back from its file unchecked: that is for the peer's ring only.
    packed: Option<Packed>,
}

/// Them, by rising base.
#[derive(Debug, Default)]
pub(super) struct Residents(VecDeque<Segment>);

impl Residents {
    pub(super) fn heads(&self) -> impl DoubleEndedIterator<Item = &SegmentHead> + ExactSizeIterator {
        self.0.iter().map(|segment| &segment.head)
    }

    /// A segment begins, behind all others.
    pub(super) fn begin(&mut self, head: SegmentHead, memory: &RingMemory) {
        self.evict(head.base, memory);
        self.0.push_back(Segment { head, packed: Some(Packed::default()) });
    }

    /// One was brought back from its file.
    pub(super) fn adopt(&mut self, head: SegmentHead, memory: &RingMemory) {
        self.evict(head.base, memory);
        let at = self.0.partition_point(|segment| segment.head.base < head.base);
        self.0.insert(at, Segment { head, packed: None });
    }

    /// What lay where the segment at `base` comes is no more.
    fn evict(&mut self, base: Lsn, memory: &RingMemory) {
        self.0.retain(|segment| memory.offset(segment.head.base) != memory.offset(base));
    }

    /// The newest segment has another record.
    pub(super) fn push(&mut self, extent: &Extent) {
        if let Some(Segment { packed: Some(packed), .. }) = self.0.back_mut() {
            packed.push(extent);
        }
    }

    /// Which records the ring has of the segment at `base`. What was brought back from a file is read from there, against its checksum.
    pub(super) fn packed(&self, base: Lsn) -> Option<&Packed> {
        let at = self.0.binary_search_by_key(&base, |segment| segment.head.base).ok()?;
        self.0[at].packed.as_ref()
    }
}
