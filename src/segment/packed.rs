//! What lies where in a segment's place of the ring, for those who know a record by its position in the file: a reader of a block, and
//! whoever writes the file.
//!
//! ```text
//!  ring   ─┬ slots 1 ┬ payload 1 ┬ slots 2 ┬ payload 2 ┬──▶
//!  file    └────────────────────────────────────────────▶ payload 1 │ payload 2 │ … │ slots 2 │ slots 1
//! ```

use std::ops::Range;

use super::layout::{LSN_STEP, SLOT_BYTES, SegmentLayout};
use super::record::Extent;
use crate::memory::{Piece, VolatileSlice};

/// One record.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Of its slots, in the ring.
    at: u32,
    /// Of its payload, in the file.
    payload: u32,
    slot: u32,
    /// Of its payload, in smallest blocks.
    steps: u16,
    slots: u16,
}

/// The records of a segment in the ring: 16 bytes for each.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    records: Vec<Entry>,
}

impl Entry {
    fn new(extent: &Extent) -> Self {
        let small = |number: u64| u32::try_from(number).expect("segments have at most 2^30 bytes");
        let few = |number: u64| u16::try_from(number).expect("a record has at most 256 blocks and 17 slots");
        Self {
            at: small(extent.at),
            payload: small(extent.payload.start),
            slot: extent.slots.start,
            steps: few((extent.payload.end - extent.payload.start) / LSN_STEP),
            slots: few(u64::from(extent.slots.end - extent.slots.start)),
        }
    }

    fn payload(&self) -> Range<u64> {
        let start = u64::from(self.payload);
        start..start + u64::from(self.steps) * LSN_STEP
    }

    /// Where the byte of its payload lies that has this place in the file.
    fn in_ring(&self, offset: u64) -> u64 {
        SegmentLayout::in_ring(self.at.into(), self.slots.into()) + offset - u64::from(self.payload)
    }
}

impl Packed {
    /// Takes note of a record; they come in the order of the log.
    ///
    /// # Panics
    /// When it lies before one that is known.
    pub fn push(&mut self, extent: &Extent) {
        let entry = Entry::new(extent);
        assert!(self.records.last().is_none_or(|last| last.at < entry.at), "{extent:?} is no later record");
        self.records.push(entry);
    }

    /// Reads payload by its place in the file, over any number of records; false when not all of it is here.
    #[must_use]
    pub fn read(&self, place: VolatileSlice<'_>, offset: u64, target: &mut [u8]) -> bool {
        let mut first = self.records.partition_point(|entry| entry.payload().end <= offset);
        let (mut at, mut rest) = (offset, target);
        while !rest.is_empty() {
            let Some(entry) = self.records.get(first).filter(|entry| entry.payload().contains(&at)) else {
                return false;
            };
            let len = rest.len().min(index(entry.payload().end - at));
            let (part, behind) = rest.split_at_mut(len);
            place.read(index(entry.in_ring(at)), part);
            (at, rest, first) = (at + len as u64, behind, first + 1);
        }
        true
    }

    /// Of what the bytes of the file consist that lie in `range`, which is a part of its payloads. What lies between them is zeroes.
    #[must_use]
    pub fn payloads(&self, range: Range<u64>) -> Vec<Piece> {
        let first = self.records.partition_point(|entry| entry.payload().end <= range.start);
        let end = self.records.partition_point(|entry| entry.payload().start < range.end);
        let records = self.records.get(first..end).unwrap_or_default();
        let (mut pieces, mut at) = (Vec::with_capacity(records.len() + 1), range.start);
        for entry in records {
            let payload = entry.payload();
            let (start, end) = (payload.start.max(range.start), payload.end.min(range.end));
            if start == end {
                continue;
            }
            zeroes(&mut pieces, start - at);
            let from = index(entry.in_ring(start));
            pieces.push(Piece::Memory(from..from + index(end - start)));
            at = end;
        }
        zeroes(&mut pieces, range.end - at);
        pieces
    }

    /// The same of these slots of the table, the last of which comes first.
    #[must_use]
    pub fn table(&self, slots: Range<u32>) -> Vec<Piece> {
        let end = self.records.partition_point(|entry| entry.slot < slots.end);
        let most = usize::try_from(slots.end - slots.start).expect("it fits the memory");
        let (mut pieces, mut at) = (Vec::with_capacity(most), slots.end);
        for entry in self.records[..end].iter().rev() {
            let own = entry.slot..entry.slot + u32::from(entry.slots);
            if own.end <= slots.start {
                break;
            }
            zeroes(&mut pieces, u64::from(at.saturating_sub(own.end)) * SLOT_BYTES);
            for slot in (own.start.max(slots.start)..own.end.min(slots.end)).rev() {
                let from = index(SegmentLayout::in_ring(entry.at.into(), slot - own.start));
                pieces.push(Piece::Memory(from..from + index(SLOT_BYTES)));
            }
            at = own.start.max(slots.start);
        }
        zeroes(&mut pieces, u64::from(at - slots.start) * SLOT_BYTES);
        pieces
    }
}

fn zeroes(pieces: &mut Vec<Piece>, bytes: u64) {
    if bytes > 0 {
        pieces.push(Piece::Zeroes(index(bytes)));
    }
}

/// An offset in a segment, for memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("segments have at most 2^30 bytes")
}

#[cfg(test)]
mod tests {
    use super::super::head::tests::sample;
    use super::super::testing::{appended, memory, request, write};
    use super::*;
    use crate::base::BlockSize;
    use crate::segment::{Append, RecordKind};

    #[test]
    fn the_file_is_made_of_pieces() {
        let head = sample();
        let (memory, mut log, mut packed) = (memory(&head), Append::new(head), Packed::default());
        let small = |kind, blocks| request(kind, 5, blocks, BlockSize::Small);
        for (number, wanted) in
            [write(1, 2), small(RecordKind::Write, 6), small(RecordKind::Trim, 9), write(7, 1)]
                .into_iter()
                .enumerate()
        {
            if number == 3 {
                log.pad();
            }
            let extent = appended(&mut log, &memory, wanted, 1 + u8::try_from(number).unwrap()).unwrap();
            packed.push(&extent);
        }
        // Slots of the records: 0, 1 and 2, 3, and 64 behind the padding.
        let payloads = packed.payloads(4096..6 * 4096);
        let places: Vec<_> = [(4096 + 64, 8192), (4096 + 64 + 8192 + 128, 3072)]
            .map(|(at, len)| Piece::Memory(at..at + len))
            .into_iter()
            .chain([Piece::Zeroes(1024)])
            .chain([(4 * 4096 + 65 * 64, 4096)].map(|(at, len)| Piece::Memory(at..at + len)))
            .chain([Piece::Zeroes(4096)])
            .collect();
        assert_eq!(payloads, places);
        let image = memory.slice().gather(&payloads);
        assert!(image[..8192] == [1; 8192] && image[8192..11264] == [2; 3072]);
        assert!(image[11264..12288] == [0; 1024] && image[12288..16384] == [4; 4096]);
        assert_eq!(memory.slice().gather(&packed.payloads(8192..12288)), image[4096..8192]);
        let table = memory.slice().gather(&packed.table(0..128));
        let slot = |slot: usize| &table[(127 - slot) * 64..][..64];
        assert!([0, 1, 2, 3, 64].iter().all(|used| slot(*used)[..4] != [0; 4]));
        assert!((4..64).chain(65..128).all(|unused| slot(unused) == [0; 64]));
        assert_eq!(memory.slice().gather(&packed.table(0..64)), table[64 * 64..]);
    }

    #[test]
    fn payload_is_read_over_records() {
        let head = sample();
        let (memory, mut log, mut packed) = (memory(&head), Append::new(head), Packed::default());
        for byte in 1..4 {
            packed.push(&appended(&mut log, &memory, write(0, 1), byte).unwrap());
        }
        let mut target = [0; 8192];
        assert!(packed.read(memory.slice(), 4096 + 512, &mut target));
        assert!(target[..3584] == [1; 3584] && target[3584..7680] == [2; 4096] && target[7680..] == [3; 512]);
        assert!(!packed.read(memory.slice(), 8192 + 512, &mut target), "not all of it is here");
        assert!(!packed.read(memory.slice(), 0, &mut target));
    }
}
