//! Finding the records of one segment again: by checksum, place and number alone.
//!
//! A record counts when its slots' checksum is right under the segment's salt, its number is the next one, its position is one
//! that the writer would have given it, and its payload's checksums are right. There is no flag that says it was committed:
//! a flag could be there without the rest.
//!
//! The scan stops before the first place where this fails and says what stands there; it may be asked again, and goes on when
//! the record has come: so a secondary follows the ring, where a record's slots may be there before its payload is. It does not judge whether that place is the end of the log or
//! damage; [`Replay`](super::Replay) does, from outside knowledge and [`Scan::durable_behind`].

use std::convert::Infallible;

use super::error::Fault;
use super::head::SegmentHead;
use super::layout::{Form, LSN_STEP, SLOT_BYTES, SegmentLayout};
use super::record::{
    BLOCK_MAX, Extent, RECORD_SLOTS_MAX, Record, SLOT, Slots, block_checksum, decode, slots_claimed,
};
use crate::base::Lsn;
use crate::memory::VolatileSlice;

/// The bytes of one segment: a place of the ring, or a file.
pub trait SegmentSource {
    /// What reading may fail with.
    type Error;

    /// Reads the bytes at `offset`. Parts that were never written may be anything, but are read without an error.
    ///
    /// # Errors
    /// The medium's.
    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), Self::Error>;
}

impl SegmentSource for VolatileSlice<'_> {
    type Error = Infallible;

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), Infallible> {
        VolatileSlice::read(self, usize::try_from(offset).expect("an offset in memory"), target);
        Ok(())
    }
}

impl SegmentSource for [u8] {
    type Error = Infallible;

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), Infallible> {
        let start = usize::try_from(offset).expect("an offset in memory");
        target.copy_from_slice(&self[start..start + target.len()]);
        Ok(())
    }
}

/// How closely a scan looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Slots only: what they say is asked, not what the payloads are.
    Slots,
    /// Payloads too, of the records that end behind `from`: what a checkpoint has may be dead, and punched out of the file.
    Payloads {
        /// Where the checkpoint stands.
        from: Lsn,
    },
}

/// Where a scan of a segment stands.
#[derive(Debug, Clone)]
pub struct Scan {
    head: SegmentHead,
    form: Form,
    verify: Verify,
    slot_next: u32,
    payload_next: u64,
    sequence_next: u32,
    end: Lsn,
}

/// Where a record may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot {
    payload: u64,
    slot: u32,
}

impl Spot {
    /// Of a slot of the record that begins here.
    fn slot_at(self, form: Form, layout: &SegmentLayout, slot: u32) -> u64 {
        match form {
            Form::File => layout.slots(&(slot..slot + 1)).start,
            Form::Ring => SegmentLayout::in_ring(self.payload, slot),
        }
    }
}

impl Scan {
    /// Before the first record of a segment's file.
    #[must_use]
    pub fn new(head: SegmentHead, verify: Verify) -> Self {
        Self::of(head, verify, Form::File)
    }

    /// Before the first record of a segment in a place of the ring. The medium promises no order within what it takes by one request, so
    /// a record that ends behind `from` counts when its payload is there too.
    #[must_use]
    pub fn in_ring(head: SegmentHead, from: Lsn) -> Self {
        Self::of(head, Verify::Payloads { from }, Form::Ring)
    }

    fn of(head: SegmentHead, verify: Verify, form: Form) -> Self {
        Self {
            form,
            verify,
            slot_next: 0,
            payload_next: head.layout.payload_start(),
            sequence_next: 0,
            end: head.previous_end,
            head,
        }
    }

    /// The head of the segment.
    #[must_use]
    pub const fn head(&self) -> &SegmentHead {
        &self.head
    }

    /// The position behind the last record found; before the first, where the log ended before the segment.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.end
    }

    /// Records found.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.sequence_next
    }

    /// The next record, or what stands in its place; then the scan has not moved.
    ///
    /// # Errors
    /// The medium's.
    pub fn next<S: SegmentSource + ?Sized>(
        &mut self,
        source: &S,
    ) -> Result<Result<(Record, Extent), Fault>, S::Error> {
        self.next_with_sums(source, |_| ())
    }

    /// [`next`](Self::next), which gives the checksum of each of the record's payload blocks to `sum`, in their order. What it was
    /// given before an error or a fault means nothing.
    ///
    /// # Errors
    /// The medium's.
    pub fn next_with_sums<S: SegmentSource + ?Sized>(
        &mut self,
        source: &S,
        mut sum: impl FnMut(u32),
    ) -> Result<Result<(Record, Extent), Fault>, S::Error> {
        let layout = self.head.layout;
        if !layout.has_room(self.payload_next + LSN_STEP, u64::from(self.slot_next) + 1) {
            return Ok(Err(Fault::Full));
        }
        let plain = Spot { payload: self.payload_next, slot: self.slot_next };
        let mut found = self.record_at(source, plain)?;
        let padded = Spot { payload: layout.pad(plain.payload), slot: layout.pad_slot(plain.slot) };
        if matches!(found, Ok(None)) && padded != plain {
            found = self.record_at(source, padded)?;
        }
        let (record, extent, slots) = match found {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Err(Fault::NoRecord { slot: self.slot_next })),
            Err(fault) => return Ok(Err(fault)),
        };
        let looks = matches!(self.verify, Verify::Payloads { from } if extent.end > from);
        #[cfg(all(test, feature = "store"))]
        let looks = looks && !crate::store::world::breaks(crate::store::world::Defect::TakesTornRecords);
        if looks
            && record.kind.carries()
            && let Some(fault) = self.payload_fault(source, &record, &extent, &slots)?
        {
            return Ok(Err(fault));
        }
        if record.kind.carries() {
            (0..record.blocks as usize).for_each(|block| sum(block_checksum(&slots, block)));
        }
        self.slot_next = extent.slots.end;
        self.payload_next = extent.end.since(self.head.base);
        self.sequence_next += 1;
        self.end = extent.end;
        Ok(Ok((record, extent)))
    }

    /// Slots of the file's table that has the records found: whole device blocks.
    #[must_use]
    pub fn table_slots(&self) -> u32 {
        self.head.layout.pad_slot(self.slot_next)
    }

    /// Where that table begins in the file.
    #[must_use]
    pub fn table_start(&self) -> u64 {
        self.head.layout.slots(&(0..self.table_slots())).start
    }

    /// How far both nodes were durable, by what any record of the file says that stands somewhere behind the place where the scan stopped.
    /// `None` when there is none. If it is above [`end`](Self::end), what should be here was lost.
    ///
    /// # Errors
    /// The medium's.
    ///
    /// # Panics
    /// In the ring, where records are found one by the other only.
    pub fn durable_behind<S: SegmentSource + ?Sized>(&self, source: &S) -> Result<Option<Lsn>, S::Error> {
        assert_eq!(self.form, Form::File, "a place of the ring has no table");
        let layout = self.head.layout;
        let bytes = layout.segment_bytes() - layout.pad(self.payload_next.min(layout.segment_bytes()));
        let count = u32::try_from(bytes / SLOT_BYTES).expect("fewer slots than bytes");
        let per_block = layout.slots_per_block();
        let mut block = vec![0; SLOT * per_block as usize];
        let mut durable = None;
        for first in (self.slot_next / per_block * per_block..count).step_by(per_block as usize) {
            source.read(layout.slots(&(first..first + per_block)).start, &mut block)?;
            if block.iter().all(|byte| *byte == 0) {
                continue;
            }
            for slot in first.max(self.slot_next)..(first + per_block).min(count) {
                let spot = Spot { payload: layout.payload_start(), slot };
                if let Some((Ok(Some(record)), _, _)) = self.read_slots(source, spot)? {
                    // What a record says it cannot prove beyond itself.
                    if self.head.base < record.lsn && record.lsn < self.head.end() {
                        durable = durable.max(Some(record.durable));
                    }
                }
            }
        }
        Ok(durable)
    }

    /// The valid record that begins there and that the writer would have put there next.
    #[allow(clippy::type_complexity, reason = "the three parts go together nowhere else")]
    fn record_at<S: SegmentSource + ?Sized>(
        &self,
        source: &S,
        spot: Spot,
    ) -> Result<Result<Option<(Record, Extent, Slots)>, Fault>, S::Error> {
        let (layout, slot) = (self.head.layout, spot.slot);
        let Some((decoded, slots, count)) = self.read_slots(source, spot)? else { return Ok(Ok(None)) };
        let record = match decoded {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(Ok(None)),
            Err(fault) => return Ok(Err(fault)),
        };
        if record.sequence != self.sequence_next || record.lsn < self.head.base {
            return Ok(Ok(None));
        }
        let align = if record.payload_bytes() > 0 { record.block_size.bytes() } else { LSN_STEP };
        let start = record.lsn.since(self.head.base);
        let plain = self.payload_next.next_multiple_of(align);
        let padded = layout.pad(self.payload_next).next_multiple_of(align);
        let was_padded = slot != self.slot_next || slot == layout.pad_slot(slot);
        if !(start == plain && slot == self.slot_next || start == padded && was_padded) {
            return Ok(Ok(None));
        }
        let bytes = record.payload_bytes();
        let slots_end = slot + count;
        if !layout.has_room(start + bytes.max(LSN_STEP), slots_end.into()) {
            return Ok(Ok(None));
        }
        let extent = Extent {
            lsn: record.lsn,
            end: record.end(),
            payload: start..start + bytes,
            slots: slot..slots_end,
            at: match self.form {
                // What a flush left out shows in the payload, or not at all: then the ring has no gap either, when it is made from the file.
                Form::File if start != plain => SegmentLayout::in_ring(layout.pad(spot.payload), slot),
                Form::File | Form::Ring => SegmentLayout::in_ring(spot.payload, slot),
            },
        };
        Ok(Ok(Some((record, extent, slots))))
    }

    /// The slots of the record that begins there, as far as its claim fits the segment, decoded; and their number.
    #[allow(clippy::type_complexity, reason = "as above")]
    fn read_slots<S: SegmentSource + ?Sized>(
        &self,
        source: &S,
        spot: Spot,
    ) -> Result<Option<(Result<Option<Record>, Fault>, Slots, u32)>, S::Error> {
        let (layout, slot) = (self.head.layout, spot.slot);
        let has_room = |end: u32| layout.has_room(spot.payload, end.into());
        let at = |slot| spot.slot_at(self.form, &layout, slot);
        if !has_room(slot.saturating_add(1)) {
            return Ok(None);
        }
        let mut slots = [[0; SLOT]; RECORD_SLOTS_MAX as usize];
        source.read(at(slot), &mut slots[0])?;
        let Some(count) = slots_claimed(&slots[0]).filter(|count| has_room(slot + count)) else {
            return Ok(None);
        };
        for (further, bytes) in (slot + 1..slot + count).zip(&mut slots[1..]) {
            source.read(at(further), bytes)?;
        }
        Ok(Some((decode(&slots, count, self.head.salt, slot), slots, count)))
    }

    fn payload_fault<S: SegmentSource + ?Sized>(
        &self,
        source: &S,
        record: &Record,
        extent: &Extent,
        slots: &Slots,
    ) -> Result<Option<Fault>, S::Error> {
        let mut buffer = [0; BLOCK_MAX];
        let bytes = record.block_size.bytes();
        let buffer = &mut buffer[..usize::try_from(bytes).expect("at most 4096")];
        let payload = match self.form {
            Form::File => extent.payload.start,
            Form::Ring => extent.payload_in_ring().start,
        };
        for block in 0..record.blocks {
            let behind = u64::from(block) * bytes;
            source.read(payload + behind, buffer)?;
            if self.head.salt.checksum(buffer) != block_checksum(slots, block as usize) {
                let start = extent.payload.start + behind;
                let range = start..start + bytes;
                return Ok(Some(Fault::Payload { lsn: record.lsn, block, range }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
