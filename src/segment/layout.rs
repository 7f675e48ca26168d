//! Where things lie in a segment.
//!
//! ```text
//! 0        D                                                              S
//! ├─ head ─┼─ payloads ────────▶            ◀──────── table of slots ─────┤
//! ```
//!
//! Payloads grow from the front, the table of 64-byte slots from the end, towards each other: slot 0 is the last 64 bytes. So
//! neither has a size of its own. A table of fixed size at the front would either be far too large for large writes, or
//! would be full after 64 flushes, since each flush pads it to the next device block; making a file is a sync of a
//! directory, so short segments are dear.
//!
//! Head, payloads and table never share a device block, so each can be written without touching another.
//!
//! That is the form of a file. In the ring the same records lie one behind the other, each with its slots before its payload
//! ([`Form::Ring`]), so that what was appended is one range, and one work request takes it to the peer:
//!
//! ```text
//! 0        D
//! ├─ head ─┼─ slots, payload ─┼─ slots, payload ─▶
//! ```

use std::ops::Range;

use super::error::LayoutError;
use super::record::PAYLOAD_BLOCKS_MAX;
use crate::base::{BlockSize, Lsn};

/// Bytes of a slot of the table.
pub const SLOT_BYTES: u64 = 64;

/// Positions are given out in steps of this: the smallest block. What has no payload takes one step, so that every record has a
/// position of its own.
pub const LSN_STEP: u64 = 512;

/// How a segment's records lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In its file: payloads, which can be punched out block by block, and the table.
    File,
    /// In its place of the ring: each record's slots, and its payload behind them.
    Ring,
}

/// The sizes that all segments of a dataset have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLayout {
    segment_bytes: u64,
    device_block_bytes: u64,
}

impl SegmentLayout {
    /// 16 MiB, on devices with blocks of 4096 bytes.
    pub const DEFAULT: Self = Self { segment_bytes: 16 << 20, device_block_bytes: 4096 };

    /// Largest segment: offsets within fit 32 bits with room to spare.
    pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

    /// Blocks that a segment has at least, of the device's size and of the largest volumes'.
    pub const DEVICE_BLOCKS_MIN: u64 = 8;

    /// A segment of `segment_bytes`, of which no two of head, payloads and table share `device_block_bytes`.
    ///
    /// # Errors
    /// Says which number is out of range. Both come from a file or a configuration.
    pub fn new(segment_bytes: u64, device_block_bytes: u64) -> Result<Self, LayoutError> {
        if !device_block_bytes.is_power_of_two() || !(512..=65536).contains(&device_block_bytes) {
            return Err(LayoutError::DeviceBlock { bytes: device_block_bytes });
        }
        let least = Self::DEVICE_BLOCKS_MIN * device_block_bytes.max(BlockSize::Large.bytes());
        let most = Self::SEGMENT_BYTES_MAX;
        if !segment_bytes.is_power_of_two() || !(least..=most).contains(&segment_bytes) {
            return Err(LayoutError::Segment { bytes: segment_bytes, least, most });
        }
        Ok(Self { segment_bytes, device_block_bytes })
    }

    /// Bytes of a segment.
    #[must_use]
    pub const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Bytes that a device writes as a whole.
    #[must_use]
    pub const fn device_block_bytes(&self) -> u64 {
        self.device_block_bytes
    }

    /// Where payloads begin.
    #[must_use]
    pub const fn payload_start(&self) -> u64 {
        self.device_block_bytes
    }

    /// Slots in a device block.
    #[must_use]
    pub fn slots_per_block(&self) -> u32 {
        u32::try_from(self.device_block_bytes / SLOT_BYTES).expect("at most 65536 bytes a block")
    }

    /// Slots that a segment can have at all.
    #[must_use]
    pub fn slots_max(&self) -> u32 {
        let bytes = self.segment_bytes - self.payload_start();
        u32::try_from(bytes / SLOT_BYTES).expect("at most 2^30 bytes a segment")
    }

    /// The bytes of these slots: the later ones lie before the earlier ones.
    ///
    /// # Panics
    /// When a segment has no such slots.
    #[must_use]
    pub fn slots(&self, slots: &Range<u32>) -> Range<u64> {
        assert!(
            slots.start <= slots.end && slots.end <= self.slots_max(),
            "slots {slots:?} of {}",
            self.slots_max()
        );
        let before = |slot: u32| self.segment_bytes - u64::from(slot) * SLOT_BYTES;
        before(slots.end)..before(slots.start)
    }

    /// Where a record's slots begin in the ring, which the log reaches with its payloads at `payload` and with its slots at `slot`. It is behind
    /// everything that came before, and what both have room for in the file has it here.
    #[must_use]
    pub const fn in_ring(payload: u64, slot: u32) -> u64 {
        payload + slot as u64 * SLOT_BYTES
    }

    /// `offset`, or the next beginning of a device block.
    #[must_use]
    pub const fn pad(&self, offset: u64) -> u64 {
        offset.next_multiple_of(self.device_block_bytes)
    }

    /// `slot`, or the next that begins a device block.
    #[must_use]
    pub fn pad_slot(&self, slot: u32) -> u32 {
        slot.next_multiple_of(self.slots_per_block())
    }

    /// Whether payloads to `payload_end` and slots to `slots_end` both have room.
    #[must_use]
    pub fn has_room(&self, payload_end: u64, slots_end: u64) -> bool {
        let Some(table) = slots_end.checked_mul(SLOT_BYTES) else { return false };
        let table = table.next_multiple_of(self.device_block_bytes);
        payload_end <= self.segment_bytes
            && self.pad(payload_end).checked_add(table).is_some_and(|sum| sum <= self.segment_bytes)
    }

    /// Payload blocks that one record can have, so that it fits into an empty segment for certain. A request with more is split.
    #[must_use]
    pub fn payload_blocks_max(&self, size: BlockSize) -> u32 {
        let half = (self.segment_bytes - self.payload_start()) / 2;
        u32::try_from(half >> size.shift())
            .map_or(PAYLOAD_BLOCKS_MAX, |blocks| blocks.min(PAYLOAD_BLOCKS_MAX))
    }

    /// The first position of the segment in which `lsn` lies.
    #[must_use]
    pub const fn base(&self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 - lsn.0 % self.segment_bytes)
    }

    /// The base of the next segment that begins at `lsn` or behind it.
    #[must_use]
    pub fn next_base(&self, lsn: Lsn) -> Lsn {
        if self.base(lsn) == lsn { lsn } else { self.base(lsn).plus(self.segment_bytes) }
    }

    /// The base of a new generation's first segment: in a fresh one, at least a ring past every position that is known. A node
    /// that died may have given out positions in all of its ring that nobody else heard of.
    #[must_use]
    pub fn first_of_generation(&self, highest_known: Lsn, ring_bytes: u64) -> Lsn {
        self.next_base(highest_known.plus(ring_bytes.max(self.segment_bytes)))
    }
}

/// The name of the file of the segment at `base`: names sort as positions do.
#[must_use]
pub fn segment_file_name(base: Lsn) -> String {
    format!("{:016x}.segment", base.0)
}

/// The base in a file's name, or `None` when it is no segment's.
#[must_use]
pub fn parse_segment_file_name(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(".segment")?;
    // Exactly one name for each base: no sign, no capital, no short form.
    let is_plain = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_plain.then(|| u64::from_str_radix(digits, 16).ok().map(Lsn)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_out_of_range_are_refused() {
        for (segment, block) in [(16 << 20, 4096), (1 << 15, 512), (1 << 30, 65536), (1 << 15, 4096)] {
            assert!(SegmentLayout::new(segment, block).is_ok(), "{segment} {block}");
        }
        for (segment, block) in
            [(1 << 14, 512), (1 << 31, 4096), (3 << 20, 4096), (1 << 20, 256), (1 << 20, 600), (0, 0)]
        {
            assert!(SegmentLayout::new(segment, block).is_err(), "{segment} {block}");
        }
    }

    #[test]
    fn slots_grow_from_the_end() {
        let layout = SegmentLayout::new(1 << 16, 4096).unwrap();
        assert_eq!(layout.slots_per_block(), 64);
        assert_eq!(layout.slots(&(0..1)), 65536 - 64..65536);
        assert_eq!(layout.slots(&(2..5)), 65536 - 5 * 64..65536 - 2 * 64);
        assert_eq!((layout.pad_slot(0), layout.pad_slot(1), layout.pad_slot(64)), (0, 64, 64));
        assert!(layout.has_room(65536 - 4096, 64) && !layout.has_room(65536 - 4096, 65));
        assert!(!layout.has_room(65536 - 4095, 1) && layout.has_room(4096, 60 * 1024 / 64));
        assert!(!layout.has_room(u64::MAX, 1) && !layout.has_room(0, u64::MAX));
    }

    #[test]
    fn a_generation_begins_a_ring_past_all_that_is_known() {
        let layout = SegmentLayout::new(1 << 16, 4096).unwrap();
        assert_eq!(layout.first_of_generation(Lsn(0), 1 << 18), Lsn(1 << 18));
        assert_eq!(layout.first_of_generation(Lsn(1), 1 << 18), Lsn((1 << 18) + (1 << 16)));
        assert_eq!(
            layout.first_of_generation(Lsn(1), 0),
            Lsn(2 << 16),
            "the segment itself may be half used"
        );
    }

    #[test]
    fn names_of_files_are_bases() {
        let name = segment_file_name(Lsn(0x12_0000));
        assert_eq!(name, "0000000000120000.segment");
        assert_eq!(parse_segment_file_name(&name), Some(Lsn(0x12_0000)));
        for strange in
            ["120000.segment", "+000000000120000.segment", "00000000001200AB.segment", "x", ".segment"]
        {
            assert_eq!(parse_segment_file_name(strange), None, "{strange}");
        }
    }
}
