//! Appending to one segment. Pure: it gives out places and says what is to be posted; others move the bytes.
//!
//! ```text
//!             reserve           payload received        seal
//!  (nothing) ────────▶ open ──────────────────────────────────▶ sealed ──▶ taken, with all before it, as a batch
//!                       └───────────── void ──────────────────────┘
//! ```
//!
//! Invariants:
//! * Positions rise, and none is given out twice: each record takes at least a step.
//! * Payloads end at or before the table, and never in the same device block.
//! * A batch is a run of records without a gap, so it is one range of the ring.
//! * After [`pad`](Append::pad), no later record shares a device block with an earlier one: what a flush made durable is never
//!   written again.
//!
//! A full segment gives no place; [`next`](Append::next) makes the head of the one after it. Places that are open then are sealed as
//! ever: a batch of the next segment must not be posted before them.

use std::collections::VecDeque;
use std::ops::Range;

use super::head::{Salt, SegmentHead};
use super::layout::{LSN_STEP, SegmentLayout};
use super::record::{BLOCK_MAX, Extent, Record, RecordKind, slots_of};
use crate::base::{BlockNumber, BlockSize, Lsn, Phase, VolumeId};
use crate::memory::VolatileSlice;

/// What is to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What it does; not [`Void`](RecordKind::Void), which a place becomes.
    pub kind: RecordKind,
    /// The volume.
    pub volume: VolumeId,
    /// The first block; a phase marker's phase.
    pub block: BlockNumber,
    /// How many: at least one, but of a phase marker none; with payload at most [`SegmentLayout::payload_blocks_max`].
    pub blocks: u32,
    /// Their size.
    pub block_size: BlockSize,
}

/// A place in the segment, reserved for one record. Its payload's range belongs to whoever has it.
#[derive(Debug)]
#[must_use = "seal it or void it: nothing behind it is posted before"]
pub struct Place {
    record: Record,
    extent: Extent,
    base: Lsn,
}

impl Place {
    /// Its position.
    #[must_use]
    pub const fn lsn(&self) -> Lsn {
        self.record.lsn
    }

    /// The position behind it: durable to there, it is durable.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.extent.end
    }

    /// Where its payload goes in the segment's place of the ring, to be filled before it is sealed.
    #[must_use]
    pub const fn payload(&self) -> Range<u64> {
        self.extent.payload_in_ring()
    }

    /// What it takes.
    #[must_use]
    pub const fn extent(&self) -> &Extent {
        &self.extent
    }
}

/// What is to be posted next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Records in it.
    pub records: u32,
    /// The position behind the last.
    pub end: Lsn,
    /// All of it in the segment's place of the ring.
    pub range: Range<u64>,
}

#[derive(Debug)]
struct Entry {
    extent: Extent,
    sealed: bool,
}

/// The state of appending to a segment.
#[derive(Debug)]
pub struct Append {
    head: SegmentHead,
    payload_next: u64,
    slot_next: u32,
    sequence_next: u32,
    /// Both nodes are durable to there.
    durable: Lsn,
    /// The position behind the last place given out.
    end: Lsn,
    /// Places not yet taken in a batch, in order.
    pending: VecDeque<Entry>,
    closed: bool,
}

impl Append {
    /// The segment with this head, empty. Its head's bytes are to be posted before any batch. What is durable is to be said again.
    #[must_use]
    pub fn new(head: SegmentHead) -> Self {
        Self {
            payload_next: head.layout.payload_start(),
            slot_next: 0,
            sequence_next: 0,
            durable: Lsn::ZERO,
            end: head.previous_end,
            pending: VecDeque::new(),
            closed: false,
            head,
        }
    }

    /// Its head.
    #[must_use]
    pub const fn head(&self) -> &SegmentHead {
        &self.head
    }

    /// The position behind the last place given out.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.end
    }

    /// Places given out and not yet taken in a batch.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Takes note that both nodes are durable to `lsn`: records made from now on say so.
    ///
    /// # Panics
    /// When that is beyond the log's end.
    pub fn set_durable(&mut self, lsn: Lsn) {
        assert!(lsn <= self.end, "durable to {lsn}, beyond the log's end {}", self.end);
        self.durable = self.durable.max(lsn);
    }

    /// Whether the segment has room for `request`, and for `rest` bytes of payload more behind it.
    ///
    /// # Panics
    /// When the request is none that a record can hold.
    #[must_use]
    pub fn has_room_before(&self, request: &Request, rest: u64) -> bool {
        let layout = self.head.layout;
        check(request, &layout);
        let bytes = u64::from(request.blocks) << request.block_size.shift();
        let bytes = if request.kind.carries() { bytes } else { LSN_STEP };
        let start = self.payload_next.next_multiple_of(request.block_size.bytes());
        let slots = self.slot_next + slots_of(request.kind, request.blocks);
        !self.closed && layout.has_room(start + bytes + rest, slots.into())
    }

    /// A place for `request`, or `None` when the segment has no room for it.
    ///
    /// # Panics
    /// When the request is none that a record can hold.
    pub fn reserve(&mut self, request: Request) -> Option<Place> {
        let layout = self.head.layout;
        check(&request, &layout);
        let has_payload = request.kind.carries();
        let start = if has_payload {
            self.payload_next.next_multiple_of(request.block_size.bytes())
        } else {
            self.payload_next
        };
        let bytes = if has_payload { u64::from(request.blocks) << request.block_size.shift() } else { 0 };
        let (end, slots) = (start + bytes.max(LSN_STEP), slots_of(request.kind, request.blocks));
        if self.closed || !layout.has_room(end, u64::from(self.slot_next) + u64::from(slots)) {
            return None;
        }
        let extent = Extent {
            lsn: self.head.base.plus(start),
            end: self.head.base.plus(end),
            payload: start..start + bytes,
            slots: self.slot_next..self.slot_next + slots,
            at: SegmentLayout::in_ring(self.payload_next, self.slot_next),
        };
        let record = Record {
            kind: request.kind,
            volume: request.volume,
            block: request.block,
            blocks: request.blocks,
            block_size: request.block_size,
            lsn: extent.lsn,
            durable: self.durable,
            sequence: self.sequence_next,
        };
        assert!(extent.lsn >= self.end && record.end() == extent.end, "{record:?} in {extent:?}");
        self.payload_next = end;
        self.slot_next = extent.slots.end;
        self.sequence_next += 1;
        self.end = extent.end;
        self.pending.push_back(Entry { extent: extent.clone(), sealed: false });
        Some(Place { record, extent, base: self.head.base })
    }

    /// Makes the place a record: computes the checksums of its payload, which must not change any more, and writes its slots
    /// into `segment`, the segment's memory.
    ///
    /// The payload is copied once, block by block, to be summed: nobody may look at memory that a peer can write.
    ///
    /// # Panics
    /// When the place is another segment's, or `segment` has another size.
    pub fn seal(&mut self, place: Place, segment: VolatileSlice<'_>) {
        let mut sums = [0; super::record::PAYLOAD_BLOCKS_MAX as usize];
        let record = place.record;
        let count = if record.kind.carries() { record.blocks as usize } else { 0 };
        let mut block = [0; BLOCK_MAX];
        let block = &mut block[..index(record.block_size.bytes())];
        for (at, sum) in sums[..count].iter_mut().enumerate() {
            segment.read(index(place.payload().start) + at * block.len(), block);
            *sum = self.head.salt.checksum(block);
        }
        self.finish(place, &sums[..count], segment);
    }

    /// [`seal`](Self::seal) of a place whose payload is `bytes`, private memory: writes them into the segment, and sums them where
    /// they are, so that nothing is copied for the sums' sake.
    ///
    /// # Panics
    /// As there, and when `bytes` are not as many as the place has room for.
    pub fn fill(&mut self, place: Place, bytes: &[u8], segment: VolatileSlice<'_>) {
        let record = place.record;
        assert_eq!(bytes.len() as u64, record.payload_bytes(), "bytes for {record:?}");
        segment.write(index(place.payload().start), bytes);
        let mut sums = [0; super::record::PAYLOAD_BLOCKS_MAX as usize];
        let blocks = bytes.chunks_exact(index(record.block_size.bytes()));
        let count = blocks.len();
        sums.iter_mut().zip(blocks).for_each(|(sum, block)| *sum = self.head.salt.checksum(block));
        self.finish(place, &sums[..count], segment);
    }

    /// Gives the place up: its record says nothing, whatever its payload's range holds.
    ///
    /// # Panics
    /// As [`seal`](Self::seal).
    pub fn void(&mut self, mut place: Place, segment: VolatileSlice<'_>) {
        // A void record keeps the payload's range and the slots that go with it; what had none has no blocks either.
        let blocks = if place.record.kind.carries() { place.record.blocks } else { 0 };
        place.record = Record { kind: RecordKind::Void, blocks, ..place.record };
        self.finish(place, &[], segment);
    }

    fn finish(&mut self, place: Place, sums: &[u32], segment: VolatileSlice<'_>) {
        let layout = self.head.layout;
        assert_eq!(place.base, self.head.base, "the place is of another segment");
        assert_eq!(segment.len() as u64, layout.segment_bytes(), "bytes of the segment's memory");
        assert_eq!(place.record.slots(), place.extent.slots.end - place.extent.slots.start);
        let slots = place.record.encode(sums, self.head.salt);
        let count = index(u64::from(place.record.slots()));
        segment.write(index(place.extent.at), slots[..count].as_flattened());
        let first = self.sequence_next as usize - self.pending.len();
        let entry = &mut self.pending[place.record.sequence as usize - first];
        assert!(!entry.sealed && entry.extent == place.extent, "{entry:?} is not the place of {place:?}");
        entry.sealed = true;
    }

    /// All that was sealed since the last batch and has nothing open before it; `None` when that is nothing. The extents of its
    /// records go to the end of `extents`.
    pub fn take_batch(&mut self, extents: &mut Vec<Extent>) -> Option<Batch> {
        let mut batch: Option<Batch> = None;
        while self.pending.front().is_some_and(|entry| entry.sealed) {
            let Some(Entry { extent, .. }) = self.pending.pop_front() else { break };
            let range = extent.in_ring();
            let joined =
                batch.get_or_insert_with(|| Batch { records: 0, end: extent.end, range: range.clone() });
            joined.range.end = range.end;
            joined.end = extent.end;
            joined.records += 1;
            extents.push(extent);
        }
        batch
    }

    /// Makes the next record begin in device blocks of its own, for a flush; the position to which that must make the log durable.
    pub fn pad(&mut self) -> Lsn {
        self.payload_next = self.head.layout.pad(self.payload_next);
        self.slot_next = self.head.layout.pad_slot(self.slot_next);
        self.end
    }

    /// Closes the segment, and makes the head of the one after it. Padded, so that it can be written whole.
    ///
    /// # Panics
    /// When nothing was appended: an empty segment has no reason to end.
    pub fn next(&mut self, phase: Phase, salt: Salt) -> SegmentHead {
        assert!(self.sequence_next > 0, "the segment at {} is empty", self.head.base);
        self.closed = true;
        self.pad();
        self.head.successor(self.end, phase, salt)
    }
}

fn check(request: &Request, layout: &SegmentLayout) {
    let most = match request.kind {
        RecordKind::Write | RecordKind::Volume => layout.payload_blocks_max(request.block_size),
        RecordKind::Trim | RecordKind::WriteZeroes => u32::MAX,
        RecordKind::PhaseMarker => 0,
        RecordKind::Void => panic!("a place becomes void, none is reserved as such"),
    };
    let least = u32::from(request.kind != RecordKind::PhaseMarker);
    assert!((least..=most).contains(&request.blocks), "{request:?} with room for {least} to {most} blocks");
    assert!(
        request.block.0.checked_add(request.blocks.into()).is_some(),
        "{request:?} beyond the last block"
    );
}

/// An offset in a segment, for memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("segments have at most 2^30 bytes")
}

#[cfg(test)]
#[path = "append_tests.rs"]
mod tests;
