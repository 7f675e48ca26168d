//! The bytes of an epoch in the log: a commit record, and behind it the body, a row of changed ranges.
//!
//! ```text
//! commit  0 u32 crc32c of bytes 4 to 63 and the log's id   4 u32 crc32c of the body   8 u64 position  16 u64 number
//!        24 u64 body bytes  32 u32 ranges  36 u32 zero  40 u64 incarnation  48 u64 that of the epoch before  56 u64 zero
//! range   0 u64 offset in the image  8 u64 bytes  ── and as many bytes of content, a multiple of 8
//! ```
//!
//! The commit record stands first and is **stored last**: whoever finds it whole at the position where the next epoch must begin has the
//! body too, which the checksum confirms. A record of an earlier lap has another position, one of another log another id. The next
//! epoch begins at the next multiple of 64.
//!
//! Where the holder's machine lost its power, whole epochs may stand further on in the ring behind one that is not: of the same log, at the
//! positions where the next owner's will end some day. So an owner chooses a random number, its **incarnation**, each time that it
//! begins with what a holder has, and a record goes on only from an epoch of the incarnation that it names.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::applied::Applied;
use super::layout::{EpochLayout, LogId, Position, STEP, WORD};
use crate::base::crc32c_append;

/// Bytes of a commit record.
pub(super) const COMMIT_BYTES: usize = STEP;
/// Bytes of a range's head.
pub(super) const RANGE_BYTES: usize = 16;

/// What makes an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) position: Position,
    pub(super) number: u64,
    pub(super) body: usize,
    pub(super) ranges: u32,
    pub(super) body_crc: u32,
    /// The owner's, since it last took what a holder has.
    pub(super) incarnation: u64,
    /// That of the epoch before; 0: the push.
    pub(super) before: u64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    crc: U32,
    body_crc: U32,
    position: U64,
    number: U64,
    body: U64,
    ranges: U32,
    zero: U32,
    incarnation: U64,
    before: U64,
    unused: U64,
}

const _: () = assert!(size_of::<Wire>() == COMMIT_BYTES);

impl Wire {
    fn checksum(&self, log: LogId) -> u32 {
        crc32c_append(crc32c_append(0, &log.0), &self.as_bytes()[4..])
    }
}

/// Bytes of the log that an epoch with a body of so many takes.
pub(super) const fn epoch_bytes(body: usize) -> usize {
    COMMIT_BYTES + body.next_multiple_of(STEP)
}

impl Commit {
    pub(super) fn encode(&self, log: LogId) -> [u8; COMMIT_BYTES] {
        let mut wire = Wire {
            crc: U32::ZERO,
            body_crc: U32::new(self.body_crc),
            position: U64::new(self.position.0),
            number: U64::new(self.number),
            body: U64::new(self.body as u64),
            ranges: U32::new(self.ranges),
            zero: U32::ZERO,
            incarnation: U64::new(self.incarnation),
            before: U64::new(self.before),
            unused: U64::ZERO,
        };
        wire.crc = U32::new(wire.checksum(log));
        zerocopy::transmute!(wire)
    }

    /// The commit record of the epoch that goes on from `after`; `None` when it is none, or names a body that no ring of this layout has.
    pub(super) fn decode(
        bytes: &[u8; COMMIT_BYTES],
        log: LogId,
        after: Applied,
        layout: EpochLayout,
    ) -> Option<Self> {
        let wire: Wire = zerocopy::transmute!(*bytes);
        let body = usize::try_from(wire.body.get()).ok()?;
        let good = wire.position.get() == after.position.0
            && wire.crc.get() == wire.checksum(log)
            && wire.number.get() == after.number + 1
            && wire.before.get() == after.incarnation
            && body <= layout.ring_bytes() - COMMIT_BYTES;
        let (number, ranges, body_crc) = (wire.number.get(), wire.ranges.get(), wire.body_crc.get());
        let (incarnation, before) = (wire.incarnation.get(), wire.before.get());
        let position = after.position;
        good.then_some(Self { position, number, body, ranges, body_crc, incarnation, before })
    }

    /// Where the body begins.
    pub(super) const fn body_position(&self) -> Position {
        Position(self.position.0.wrapping_add(COMMIT_BYTES as u64))
    }

    /// How far an image is that has this epoch.
    pub(super) const fn applied(&self) -> Applied {
        Applied { position: self.end(), number: self.number, incarnation: self.incarnation }
    }

    /// Where the next epoch begins.
    pub(super) const fn end(&self) -> Position {
        Position(self.position.0.wrapping_add(epoch_bytes(self.body) as u64))
    }
}

/// The head of a changed range.
pub(super) fn encode_range(offset: usize, len: usize) -> [u8; RANGE_BYTES] {
    let mut bytes = [0; RANGE_BYTES];
    bytes[..8].copy_from_slice(&(offset as u64).to_le_bytes());
    bytes[8..].copy_from_slice(&(len as u64).to_le_bytes());
    bytes
}

/// The range of a head: words of an image of `image` bytes, whose content has at most `left` bytes.
pub(super) fn decode_range(bytes: [u8; RANGE_BYTES], image: usize, left: usize) -> Option<(usize, usize)> {
    let (halves, _) = bytes.as_chunks::<8>();
    let [offset, len] = [halves[0], halves[1]].map(|half| usize::try_from(u64::from_le_bytes(half)));
    let (offset, len) = (offset.ok()?, len.ok()?);
    let whole = len > 0 && len.is_multiple_of(WORD) && offset.is_multiple_of(WORD);
    (whole && len <= left && offset <= image && len <= image - offset).then_some((offset, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId([3; 16]);

    #[test]
    fn a_commit_record_is_read_at_its_place_only_and_each_changed_byte_is_noticed() {
        let layout = EpochLayout::with_ring(1 << 20, 1 << 16).unwrap();
        let commit = Commit {
            position: Position(640),
            number: 7,
            body: 24,
            ranges: 1,
            body_crc: 5,
            incarnation: 8,
            before: 9,
        };
        let bytes = commit.encode(LOG);
        let after =
            |position, number, incarnation| Applied { position: Position(position), number, incarnation };
        let read = |bytes: &[u8; COMMIT_BYTES], log, position| {
            Commit::decode(bytes, log, after(position, 6, 9), layout)
        };
        assert_eq!(read(&bytes, LOG, 640), Some(commit));
        for other in [after(640, 7, 9), after(640, 6, 8), after(640, 6, 0)] {
            assert_eq!(Commit::decode(&bytes, LOG, other, layout), None, "{other:?}");
        }
        assert_eq!((commit.body_position(), commit.end()), (Position(704), Position(768)));
        assert!(read(&bytes, LOG, 640 + (1 << 16)).is_none() && read(&bytes, LogId([4; 16]), 640).is_none());
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 0x80;
            assert!(read(&changed, LOG, 640).is_none(), "byte {at}");
        }
        let long = Commit { body: layout.ring_bytes() - COMMIT_BYTES + 1, ..commit };
        assert!(read(&long.encode(LOG), LOG, 640).is_none());
    }

    /// The format is what holders' files have.
    #[test]
    fn the_bytes_are_these() {
        let commit = Commit {
            position: Position(0x40),
            number: 2,
            body: 24,
            ranges: 1,
            body_crc: 0x0403_0201,
            incarnation: 0x0605,
            before: 7,
        };
        let bytes = commit.encode(LOG);
        assert_eq!(
            bytes[4..],
            [
                1, 2, 3, 4, 0x40, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 1, 0,
                0, 0, 0, 0, 0, 0, 5, 6, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
            ]
        );
        assert_eq!(encode_range(0x1008, 16), [8, 16, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn ranges_outside_the_image_or_the_body_are_none() {
        let read = |offset: u64, len: u64| {
            let mut bytes = [0; RANGE_BYTES];
            bytes[..8].copy_from_slice(&offset.to_le_bytes());
            bytes[8..].copy_from_slice(&len.to_le_bytes());
            decode_range(bytes, 4096, 64)
        };
        assert_eq!((read(4088, 8), read(0, 64)), (Some((4088, 8)), Some((0, 64))));
        for (offset, len) in
            [(0, 0), (0, 72), (4, 8), (0, 9), (4096, 8), (4088, 16), (u64::MAX - 7, 8), (8, u64::MAX - 7)]
        {
            assert_eq!(read(offset, len), None, "{offset} {len}");
        }
    }
}
