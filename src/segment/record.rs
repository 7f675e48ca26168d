//! A record of the log, and the slots of the table that it takes.
//!
//! ```text
//!  0 u32 crc32c of bytes 4 to 63 and of all further slots, seeded by the salt
//!  4 u8 kind   5 u8 block shift   6 u16 flags, 0
//!  8 u64 lsn  16 u64 durable  24 u64 block  32 u32 blocks  36 u32 sequence  40 u32 volume
//! 44 u32 × 5 crc32c of the first payload blocks
//! ── further slots, while blocks remain ──  u32 × 16 crc32c of the next payload blocks
//! ```
//!
//! *Sequence* counts the segment's records from 0: a slot that a flush left out is told from a lost record by it. *Durable*: both
//! nodes' logs were durable to there when the record was made, so whatever is missing below was lost, not never written.

use std::ops::Range;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::Fault;
use super::head::Salt;
use super::layout::{LSN_STEP, SLOT_BYTES, SegmentLayout};
use crate::base::{BlockNumber, BlockSize, Lsn, VolumeId, crc32c_append};

/// Checksums in the first slot.
const INLINE: usize = 5;
/// Checksums in each further slot.
const FURTHER: usize = 16;

/// Payload blocks of a record at most. A request with more is split.
pub const PAYLOAD_BLOCKS_MAX: u32 = 256;

/// Slots of a record at most.
pub const RECORD_SLOTS_MAX: u32 = 17;

pub(super) const SLOT: usize = 64;

/// Bytes of the largest block, for a buffer.
pub(super) const BLOCK_MAX: usize = 4096;

const _: () = assert!(SLOT as u64 == SLOT_BYTES && BLOCK_MAX as u64 == BlockSize::Large.bytes());

/// The slots of one record, first to last; room for the largest.
pub(super) type Slots = [[u8; SLOT]; RECORD_SLOTS_MAX as usize];

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    crc: U32,
    kind: u8,
    block_shift: u8,
    flags: U16,
    lsn: U64,
    durable: U64,
    block: U64,
    blocks: U32,
    sequence: U32,
    volume: U32,
    checksums: [U32; INLINE],
}

const _: () = assert!(size_of::<Wire>() == SLOT);
const _: () = assert!(PAYLOAD_BLOCKS_MAX as usize <= INLINE + FURTHER * (RECORD_SLOTS_MAX as usize - 1));

/// What a record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The blocks have this content.
    Write = 1,
    /// The blocks have no content and read as zeroes.
    Trim = 2,
    /// The blocks read as zeroes.
    WriteZeroes = 3,
    /// All of the phase with this number lies before; the number stands in place of the block.
    PhaseMarker = 4,
    /// Nothing: the request came to an end before its payload was complete. It keeps its place.
    Void = 5,
    /// The volume came to be, changed its size or its name, or is no more: what its payload, one large block, says.
    Volume = 6,
}

impl RecordKind {
    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Write,
            2 => Self::Trim,
            3 => Self::WriteZeroes,
            4 => Self::PhaseMarker,
            5 => Self::Void,
            6 => Self::Volume,
            _ => return None,
        })
    }

    /// Whether `blocks` payload blocks lie in the segment: of a void record too, whose content means nothing.
    pub(super) const fn has_payload(self) -> bool {
        self.carries() || matches!(self, Self::Void)
    }

    /// Whether those blocks mean something, so that each has a checksum.
    pub(super) const fn carries(self) -> bool {
        matches!(self, Self::Write | Self::Volume)
    }
}

/// A record without its checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What it does.
    pub kind: RecordKind,
    /// The volume.
    pub volume: VolumeId,
    /// The first block; a phase marker's phase.
    pub block: BlockNumber,
    /// How many.
    pub blocks: u32,
    /// Their size.
    pub block_size: BlockSize,
    /// Position of the payload's first byte; block *n* of the record lies *n* blocks behind.
    pub lsn: Lsn,
    /// Both nodes were durable to there.
    pub durable: Lsn,
    /// Which record of the segment it is.
    pub sequence: u32,
}

/// What a record takes in its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Its position.
    pub lsn: Lsn,
    /// The position behind it.
    pub end: Lsn,
    /// Its payload's bytes in the segment; empty for what has none.
    pub payload: Range<u64>,
    /// Its slots.
    pub slots: Range<u32>,
    /// Where its slots begin in the ring, with its payload behind them.
    pub at: u64,
}

impl Extent {
    /// Its bytes in the ring: slots and payload.
    #[must_use]
    pub const fn in_ring(&self) -> Range<u64> {
        let payload = self.payload_in_ring();
        self.at..payload.end
    }

    /// Its payload's bytes in the ring.
    #[must_use]
    pub const fn payload_in_ring(&self) -> Range<u64> {
        let start = SegmentLayout::in_ring(self.at, self.slots.end - self.slots.start);
        start..start + (self.payload.end - self.payload.start)
    }
}

/// Slots that a record of this kind takes.
pub(super) fn slots_of(kind: RecordKind, blocks: u32) -> u32 {
    if !kind.has_payload() {
        return 1;
    }
    let further = (blocks as usize).saturating_sub(INLINE).div_ceil(FURTHER);
    1 + u32::try_from(further).expect("a quarter of a u32")
}

impl Record {
    /// Bytes of payload.
    #[must_use]
    pub const fn payload_bytes(&self) -> u64 {
        if self.kind.has_payload() { (self.blocks as u64) << self.block_size.shift() } else { 0 }
    }

    /// The position behind it: what has no payload takes a step all the same.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.lsn.plus(self.payload_bytes().max(LSN_STEP))
    }

    /// Slots that it takes.
    #[must_use]
    pub fn slots(&self) -> u32 {
        slots_of(self.kind, self.blocks)
    }

    /// Its slots' bytes; `checksums` has one for each payload block of a write.
    ///
    /// # Panics
    /// When they are not as many.
    pub(super) fn encode(&self, checksums: &[u32], salt: Salt) -> Slots {
        let count = if self.kind.carries() { self.blocks as usize } else { 0 };
        assert_eq!(checksums.len(), count, "one checksum for each payload block");
        assert!(self.blocks <= PAYLOAD_BLOCKS_MAX || !self.kind.has_payload(), "{} blocks", self.blocks);
        let mut wire = Wire {
            crc: U32::ZERO,
            kind: self.kind as u8,
            block_shift: self.block_size.shift(),
            flags: U16::ZERO,
            lsn: self.lsn.0.into(),
            durable: self.durable.0.into(),
            block: self.block.0.into(),
            blocks: self.blocks.into(),
            sequence: self.sequence.into(),
            volume: self.volume.0.into(),
            checksums: [U32::ZERO; INLINE],
        };
        wire.checksums.iter_mut().zip(checksums).for_each(|(place, sum)| *place = (*sum).into());
        let mut slots = [[0; SLOT]; RECORD_SLOTS_MAX as usize];
        slots[0] = zerocopy::transmute!(wire);
        for (slot, sums) in
            slots[1..].iter_mut().zip(checksums.get(INLINE..).unwrap_or_default().chunks(FURTHER))
        {
            slot.chunks_exact_mut(4)
                .zip(sums)
                .for_each(|(place, sum)| place.copy_from_slice(&sum.to_le_bytes()));
        }
        let crc = checksum(&slots, self.slots() as usize, salt);
        slots[0][..4].copy_from_slice(&crc.to_le_bytes());
        slots
    }
}

/// The header checksum of the first `count` slots.
fn checksum(slots: &Slots, count: usize, salt: Salt) -> u32 {
    let first = crc32c_append(salt.seed(), &slots[0][4..]);
    slots[1..count].iter().fold(first, |crc, slot| crc32c_append(crc, slot))
}

/// How many slots the record takes whose first one this is, if it is one at all: what says so is not verified yet.
pub(super) fn slots_claimed(first: &[u8; SLOT]) -> Option<u32> {
    let wire: Wire = zerocopy::transmute!(*first);
    // A kind from the future is taken to have one slot: its checksum then says whether there is a record.
    let kind = RecordKind::from_code(wire.kind).unwrap_or(RecordKind::Trim);
    let slots = slots_of(kind, wire.blocks.get());
    (slots <= RECORD_SLOTS_MAX).then_some(slots)
}

/// The record in `slots`, of which the first `count` were read; `Ok(None)` when their checksum says there is none.
///
/// `slot` is named in errors.
///
/// # Errors
/// The checksum is right but a field says nothing that this program knows.
pub(super) fn decode(slots: &Slots, count: u32, salt: Salt, slot: u32) -> Result<Option<Record>, Fault> {
    let wire: Wire = zerocopy::transmute!(slots[0]);
    if wire.crc.get() != checksum(slots, count as usize, salt) {
        return Ok(None);
    }
    let unreadable = |field, value: u64| Err(Fault::Unreadable { slot, field, value });
    let Some(kind) = RecordKind::from_code(wire.kind) else { return unreadable("kind", wire.kind.into()) };
    let Some(block_size) = BlockSize::from_shift(wire.block_shift) else {
        return unreadable("block shift", wire.block_shift.into());
    };
    if wire.flags.get() != 0 {
        return unreadable("flags", wire.flags.get().into());
    }
    let blocks = wire.blocks.get();
    let least = u32::from(!matches!(kind, RecordKind::Void | RecordKind::PhaseMarker));
    if blocks < least || (kind.has_payload() && blocks > PAYLOAD_BLOCKS_MAX) {
        return unreadable("blocks", blocks.into());
    }
    let lsn = Lsn(wire.lsn.get());
    if lsn.0 > Lsn::MAX.0 - SegmentLayout::SEGMENT_BYTES_MAX || !lsn.0.is_multiple_of(LSN_STEP) {
        return unreadable("lsn", lsn.0);
    }
    if wire.durable.get() > lsn.0 {
        return unreadable("durable", wire.durable.get());
    }
    if kind != RecordKind::PhaseMarker && wire.block.get().checked_add(blocks.into()).is_none() {
        return unreadable("block", wire.block.get());
    }
    Ok(Some(Record {
        kind,
        volume: VolumeId(wire.volume.get()),
        block: BlockNumber(wire.block.get()),
        blocks,
        block_size,
        lsn,
        durable: Lsn(wire.durable.get()),
        sequence: wire.sequence.get(),
    }))
}

/// Checksum of payload block `index` in a decoded record's slots.
pub(super) fn block_checksum(slots: &Slots, index: usize) -> u32 {
    let (slot, place) = match index.checked_sub(INLINE) {
        None => (0, SLOT - 4 * INLINE + 4 * index),
        Some(further) => (1 + further / FURTHER, 4 * (further % FURTHER)),
    };
    u32::from_le_bytes(slots[slot][place..place + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
