//! The head of a segment: whose it is, where it lies in the log, and what it continues.
//!
//! ```text
//!   0 magic "MBSEGM01"   8 u32 crc32c of bytes 12 to 127   12 u32 flags, 0
//!  16 dataset           32 u64 base LSN        40 u64 generation       48 u64 predecessor generation
//!  56 u64 fork LSN      64 u64 previous end    72 u64 phase            80 salt
//!  96 u32 segment bytes 100 u32 device block bytes                    104 reserved, 0
//! ```
//!
//! *Fork*: where this generation leaves its predecessor; what that wrote from there on is void. *Previous end*: where the records
//! before this segment end; the same as the fork in a generation's first segment. A head goes to a disk only when
//! everything before its previous end is durable there, so a valid head proves all that.
//!
//! *Salt*: seeds the checksums of the segment's records. It is random, so nothing that a client writes, and nothing that an
//! earlier segment left in the same memory, passes for a record.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::SegmentLayout;
use super::error::HeadError;
use crate::base::{DatasetId, LogGeneration, Lsn, Phase, crc32c, crc32c_append};

/// Bytes of a head; the rest of its device block is not used.
pub const HEAD_BYTES: usize = 128;

const MAGIC: [u8; 6] = *b"MBSEGM";
const VERSION: [u8; 2] = *b"01";
const CHECKED_FROM: usize = 12;

/// A head's bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 6],
    version: [u8; 2],
    crc: U32,
    flags: U32,
    dataset: [u8; 16],
    base: U64,
    generation: U64,
    predecessor: U64,
    fork: U64,
    previous_end: U64,
    phase: U64,
    salt: [u8; 16],
    segment_bytes: U32,
    device_block_bytes: U32,
    reserved: [u8; 24],
}

const _: () = assert!(size_of::<Wire>() == HEAD_BYTES);

/// Random bytes that seed the checksums of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt(pub [u8; 16]);

impl Salt {
    /// What every checksum of the segment starts from.
    #[must_use]
    pub fn seed(self) -> u32 {
        crc32c(&self.0)
    }

    /// Checksum of `bytes` in the segment.
    #[must_use]
    pub fn checksum(self, bytes: &[u8]) -> u32 {
        crc32c_append(self.seed(), bytes)
    }
}

/// What a head says. Public fields: a head is a plain statement; [`decode`](Self::decode) and the makers check it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHead {
    /// Whose log.
    pub dataset: DatasetId,
    /// Position of the segment's first byte.
    pub base: Lsn,
    /// The writer.
    pub generation: LogGeneration,
    /// The generation that this one continues; 0 for the first.
    pub predecessor: LogGeneration,
    /// Where this generation leaves its predecessor.
    pub fork: Lsn,
    /// Where the records before this segment end.
    pub previous_end: Lsn,
    /// The writing phase in which it was begun.
    pub phase: Phase,
    /// Seeds its checksums.
    pub salt: Salt,
    /// Its sizes.
    pub layout: SegmentLayout,
}

impl SegmentHead {
    /// The first segment of a generation that leaves `predecessor` at `fork`, at least a ring past `highest_known`.
    ///
    /// # Panics
    /// When `generation` is not above `predecessor`, or `fork` is above `highest_known`.
    #[must_use]
    pub fn first(
        dataset: DatasetId,
        layout: SegmentLayout,
        begin: GenerationBegin,
        phase: Phase,
        salt: Salt,
    ) -> Self {
        assert!(begin.generation > begin.predecessor, "{begin:?}: generations rise");
        assert!(begin.fork <= begin.highest_known, "{begin:?}: a fork is a position that is known");
        Self {
            dataset,
            base: layout.first_of_generation(begin.highest_known, begin.ring_bytes),
            generation: begin.generation,
            predecessor: begin.predecessor,
            fork: begin.fork,
            previous_end: begin.fork,
            phase,
            salt,
            layout,
        }
    }

    /// The segment after this one, whose records end at `end`.
    ///
    /// # Panics
    /// When this segment cannot end there.
    #[must_use]
    pub fn successor(&self, end: Lsn, phase: Phase, salt: Salt) -> Self {
        let base = self.end();
        assert!(end > self.base && end <= base, "the segment at {} cannot end at {end}", self.base);
        assert!(phase >= self.phase, "phase {phase} after {}", self.phase);
        Self { base, previous_end: end, phase, salt, ..*self }
    }

    /// The position behind the segment.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.base.plus(self.layout.segment_bytes())
    }

    /// Whether it is its generation's first.
    #[must_use]
    pub fn begins_generation(&self) -> bool {
        self.previous_end == self.fork
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let small = |bytes: u64| U32::new(u32::try_from(bytes).expect("a layout's sizes are at most 2^30"));
        let mut wire = Wire {
            magic: MAGIC,
            version: VERSION,
            crc: U32::ZERO,
            flags: U32::ZERO,
            dataset: self.dataset.to_bytes(),
            base: self.base.0.into(),
            generation: self.generation.0.into(),
            predecessor: self.predecessor.0.into(),
            fork: self.fork.0.into(),
            previous_end: self.previous_end.0.into(),
            phase: self.phase.0.into(),
            salt: self.salt.0,
            segment_bytes: small(self.layout.segment_bytes()),
            device_block_bytes: small(self.layout.device_block_bytes()),
            reserved: [0; 24],
        };
        wire.crc = crc32c(&wire.as_bytes()[CHECKED_FROM..]).into();
        zerocopy::transmute!(wire)
    }

    /// What `bytes` say.
    ///
    /// # Errors
    /// They are no head, of another version, damaged, or contradict themselves.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self, HeadError> {
        let wire: Wire = zerocopy::transmute!(*bytes);
        if wire.magic != MAGIC {
            return Err(HeadError::Magic);
        }
        if wire.version != VERSION {
            return Err(HeadError::Version { found: wire.version });
        }
        let computed = crc32c(&bytes[CHECKED_FROM..]);
        if wire.crc.get() != computed {
            return Err(HeadError::Checksum { found: wire.crc.get(), computed });
        }
        let layout =
            SegmentLayout::new(wire.segment_bytes.get().into(), wire.device_block_bytes.get().into())?;
        let head = Self {
            dataset: DatasetId::from_bytes(wire.dataset),
            base: Lsn(wire.base.get()),
            generation: LogGeneration(wire.generation.get()),
            predecessor: LogGeneration(wire.predecessor.get()),
            fork: Lsn(wire.fork.get()),
            previous_end: Lsn(wire.previous_end.get()),
            phase: Phase(wire.phase.get()),
            salt: Salt(wire.salt),
            layout,
        };
        let impossible = |field, value| Err(HeadError::Field { field, value });
        let base_max = Lsn::MAX.0 - layout.segment_bytes();
        if head.base.0 == 0 || head.base.0 > base_max || layout.base(head.base) != head.base {
            return impossible("base", head.base.0);
        }
        if head.generation <= head.predecessor {
            return impossible("generation", head.generation.0);
        }
        if head.previous_end > head.base {
            return impossible("previous end", head.previous_end.0);
        }
        if head.fork > head.previous_end {
            return impossible("fork", head.fork.0);
        }
        if wire.flags.get() != 0 {
            return impossible("flags", wire.flags.get().into());
        }
        if let Some(byte) = wire.reserved.iter().find(|byte| **byte != 0) {
            return impossible("reserved part", (*byte).into());
        }
        Ok(head)
    }

    /// As [`decode`](Self::decode), of the segment that should be at `base` of `dataset`.
    ///
    /// # Errors
    /// Those, and that it is another dataset's or another segment.
    pub fn decode_at(bytes: &[u8; HEAD_BYTES], dataset: DatasetId, base: Lsn) -> Result<Self, HeadError> {
        let head = Self::decode(bytes)?;
        if head.dataset != dataset {
            return Err(HeadError::Dataset { found: head.dataset, wanted: dataset });
        }
        if head.base != base {
            return Err(HeadError::Base { found: head.base, wanted: base });
        }
        Ok(head)
    }
}

/// How a generation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationBegin {
    /// The new one.
    pub generation: LogGeneration,
    /// The one that it continues.
    pub predecessor: LogGeneration,
    /// Where it leaves it.
    pub fork: Lsn,
    /// The highest position that the node knows of, whether its record is valid or not.
    pub highest_known: Lsn,
    /// Bytes of the ring of open segments.
    pub ring_bytes: u64,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As in the golden file.
    pub(in crate::segment) fn sample() -> SegmentHead {
        let begin = GenerationBegin {
            generation: LogGeneration(3),
            predecessor: LogGeneration(2),
            fork: Lsn(0x1_2000),
            highest_known: Lsn(0x1_9000),
            ring_bytes: 0x4_0000,
        };
        let layout = SegmentLayout::new(1 << 16, 4096).unwrap();
        let dataset = DatasetId::from_bytes(*b"dataset of tests");
        SegmentHead::first(dataset, layout, begin, Phase(7), Salt(*b"0123456789abcdef"))
    }

    fn changed(change: impl FnOnce(&mut Wire)) -> Result<SegmentHead, HeadError> {
        let mut wire: Wire = zerocopy::transmute!(sample().encode());
        change(&mut wire);
        wire.crc = crc32c(&wire.as_bytes()[CHECKED_FROM..]).into();
        SegmentHead::decode(&zerocopy::transmute!(wire))
    }

    #[test]
    fn survives_its_bytes() {
        let first = sample();
        assert_eq!(first.base, Lsn(0x6_0000));
        assert!(first.begins_generation());
        let next = first.successor(Lsn(0x6_8000), Phase(8), Salt([1; 16]));
        assert_eq!((next.base, next.previous_end), (Lsn(0x7_0000), Lsn(0x6_8000)));
        assert!(!next.begins_generation());
        for head in [first, next] {
            assert_eq!(SegmentHead::decode(&head.encode()), Ok(head));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let bytes = sample().encode();
        for bit in 0..HEAD_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHead::decode(&damaged).is_err(), "bit {bit}");
        }
        assert_eq!(SegmentHead::decode(&[0; HEAD_BYTES]), Err(HeadError::Magic));
    }

    #[test]
    fn what_no_writer_writes_is_refused_though_its_checksum_is_right() {
        assert!(changed(|_| ()).is_ok());
        let field = |result: Result<SegmentHead, HeadError>| match result {
            Err(HeadError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(changed(|wire| wire.base = 0x6_1000.into())), "base");
        assert_eq!(field(changed(|wire| wire.base = 0.into())), "base");
        assert_eq!(field(changed(|wire| wire.base = (u64::MAX << 16).into())), "base");
        assert_eq!(field(changed(|wire| wire.generation = 2.into())), "generation");
        assert_eq!(field(changed(|wire| wire.previous_end = 0x6_0001.into())), "previous end");
        assert_eq!(field(changed(|wire| wire.fork = 0x1_2001.into())), "fork");
        assert_eq!(field(changed(|wire| wire.flags = 1.into())), "flags");
        assert_eq!(field(changed(|wire| wire.reserved[5] = 1)), "reserved part");
        assert!(matches!(changed(|wire| wire.segment_bytes = 5.into()), Err(HeadError::Layout(_))));
        assert!(matches!(changed(|wire| wire.version = *b"02"), Err(HeadError::Version { .. })));
    }

    #[test]
    fn another_dataset_or_place_is_named() {
        let head = sample();
        let other = DatasetId::from_bytes([1; 16]);
        let bytes = head.encode();
        assert_eq!(SegmentHead::decode_at(&bytes, head.dataset, head.base), Ok(head));
        let error = SegmentHead::decode_at(&bytes, other, head.base).unwrap_err();
        assert_eq!(error, HeadError::Dataset { found: head.dataset, wanted: other });
        let error = SegmentHead::decode_at(&bytes, head.dataset, Lsn(1 << 16)).unwrap_err();
        assert_eq!(error, HeadError::Base { found: head.base, wanted: Lsn(1 << 16) });
    }
}
