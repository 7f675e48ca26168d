//! What lies where in the mirrored region, and the head that says so.
//!
//! ```text
//!      0  head: 64 bytes by the owner, behind them the holder's words (`words`)
//!   4096  ring: the log of epochs; position p lies at 4096 + p modulo the ring's bytes
//!  image  the content as of the last epoch that was applied; begins at a whole MiB
//! ```
//!
//! At the holder the image is the copy. In the owner's local memory it is the *twin*: what the peer will hold once the last cut epoch
//! is applied there, which pages are compared with. Neither is sent by stores: a push or a pull moves it whole, epochs change it.
//!
//! The head lies in another piece of a pull than the image, before it, and a pull takes the pieces in order. So the words are
//! not newer than the image, and whoever pulls applies again what may be in it already, and misses nothing.
//!
//! ```text
//! 0 u8 × 8 "MBEPOCHS"   8 u32 version 1  12 u32 crc32c of all others  16 u64 image bytes  24 u64 ring bytes
//! 32 u8 × 16 id of this log  48 u8 × 16 zero
//! ```

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::EpochError;
use crate::base::crc32c_append;

/// Bytes of the head with the holder's words: a page.
pub(super) const HEAD_BYTES: usize = 4096;
/// The image begins at a multiple of this.
const IMAGE_ALIGN: usize = 1 << 20;
/// Epochs begin at multiples of this, and so does the ring's end: no commit record is cut by it.
pub(super) const STEP: usize = 64;
/// Bytes of a word of the image, the unit in which changes are shipped.
pub(super) const WORD: usize = 8;

/// Places of the words that the holder writes.
pub(super) mod words {
    /// The owner may write the ring up to one lap behind this position. The owner fetches this.
    pub(in crate::epoch) const FREE: usize = 64;
    /// Bytes of the ring that the holder has; 0 until it has seen the head.
    pub(in crate::epoch) const HOLDS: usize = 72;
    /// The number of the last epoch that was applied, for the owner to look at: nothing goes by it. Written behind the record.
    pub(in crate::epoch) const NUMBER: usize = 80;
    /// Bytes that the owner fetches, from the first word on.
    pub(in crate::epoch) const BYTES: usize = 24;
    /// Where the two records stand that say how far the image is, in lines of the cache of their own.
    pub(in crate::epoch) const APPLIED: [usize; 2] = [128, 192];
}

const MAGIC: [u8; 8] = *b"MBEPOCHS";
const VERSION: u32 = 1;

/// Sizes of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochLayout {
    image: usize,
    ring: usize,
}

impl EpochLayout {
    /// Bytes of a ring at least.
    pub const RING_BYTES_MIN: usize = 64 << 10;
    /// Bytes of the ring that [`new`](Self::new) makes for a large image at least.
    const RING_BYTES_USUAL: usize = 64 << 20;

    /// For `image` bytes, with the usual ring: one that takes an epoch in which everything changed, up to 63 MiB; of a larger image an
    /// eighth, and 64 MiB at least.
    ///
    /// # Errors
    /// `image` is 0 or no multiple of 8.
    pub fn new(image: usize) -> Result<Self, EpochError> {
        let whole = image.saturating_add(image / 128).saturating_add(Self::RING_BYTES_MIN);
        let ring = whole.min(Self::RING_BYTES_USUAL.max(image / 8));
        Self::with_ring(image, ring.next_multiple_of(HEAD_BYTES))
    }

    /// For `image` bytes, with a ring of `ring` bytes: the largest epoch, and how far the owner may be ahead of the holder's applying.
    ///
    /// # Errors
    /// `image` is 0 or no multiple of 8; `ring` is below [`RING_BYTES_MIN`](Self::RING_BYTES_MIN) or no multiple of 4096.
    pub fn with_ring(image: usize, ring: usize) -> Result<Self, EpochError> {
        let refuse = |what: &'static str| Err(EpochError::Layout { image, ring, what });
        if image == 0 || !image.is_multiple_of(WORD) {
            return refuse("the memory must have a multiple of 8 bytes, and some");
        }
        if ring < Self::RING_BYTES_MIN || !ring.is_multiple_of(HEAD_BYTES) {
            return refuse("the ring must have at least 65536 bytes, and a multiple of 4096");
        }
        if image.checked_add(ring).is_none_or(|sum| sum > isize::MAX as usize / 2) {
            return refuse("together they are more than an address space holds");
        }
        Ok(Self { image, ring })
    }

    /// Bytes of the application's memory.
    #[must_use]
    pub const fn image_bytes(self) -> usize {
        self.image
    }

    /// Bytes of the ring.
    #[must_use]
    pub const fn ring_bytes(self) -> usize {
        self.ring
    }

    /// Where the image begins in the mirrored region.
    #[must_use]
    pub const fn image_offset(self) -> usize {
        (HEAD_BYTES + self.ring).next_multiple_of(IMAGE_ALIGN)
    }

    /// Bytes of the mirrored region.
    #[must_use]
    pub const fn region_bytes(self) -> usize {
        self.image_offset() + self.image
    }

    /// Where `position` of the log lies in the region, and how many bytes are there before the ring's end.
    pub(super) const fn place(self, position: Position) -> (usize, usize) {
        #[allow(clippy::cast_possible_truncation, reason = "below the ring's bytes")]
        let within = (position.0 % self.ring as u64) as usize;
        (HEAD_BYTES + within, self.ring - within)
    }
}

/// A place in the endless log of epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position(pub(super) u64);

/// Which log: a new one with each push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogId(pub(super) [u8; 16]);

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    image: U64,
    ring: U64,
    log: [u8; 16],
    zero: [u8; 16],
}

const _: () = assert!(size_of::<Wire>() == words::FREE);

impl Wire {
    fn checksum(mut self) -> u32 {
        self.crc = U32::ZERO;
        crc32c_append(0, self.as_bytes())
    }
}

/// Bytes of the owner's part of the head.
pub(super) const HEAD_RECORD_BYTES: usize = size_of::<Wire>();

/// What the owner writes at the region's beginning.
pub(super) fn encode_head(layout: EpochLayout, log: LogId) -> [u8; HEAD_RECORD_BYTES] {
    let mut wire = Wire {
        magic: MAGIC,
        version: U32::new(VERSION),
        crc: U32::ZERO,
        image: U64::new(layout.image as u64),
        ring: U64::new(layout.ring as u64),
        log: log.0,
        zero: [0; 16],
    };
    wire.crc = U32::new(wire.checksum());
    zerocopy::transmute!(wire)
}

/// The log of a head, and the bytes of image and ring.
///
/// # Errors
/// It is none of this version.
pub(super) fn decode_any_head(bytes: &[u8; HEAD_RECORD_BYTES]) -> Result<(LogId, u64, u64), String> {
    let wire: Wire = zerocopy::transmute!(*bytes);
    if wire.magic != MAGIC {
        return Err("the region does not begin as one of epochs does".into());
    }
    if wire.crc.get() != wire.checksum() {
        return Err("the head of the epochs' region does not match its checksum".into());
    }
    if wire.version.get() != VERSION {
        return Err(format!("the epochs are of version {}, this is version {VERSION}", wire.version));
    }
    Ok((LogId(wire.log), wire.image.get(), wire.ring.get()))
}

/// The log of a head with this layout.
///
/// # Errors
/// What it is instead.
pub(super) fn decode_head(bytes: &[u8; HEAD_RECORD_BYTES], layout: EpochLayout) -> Result<LogId, String> {
    let (log, image, ring) = decode_any_head(bytes)?;
    if (image, ring) != (layout.image as u64, layout.ring as u64) {
        return Err(format!(
            "what was pushed has {image} bytes and a ring of {ring}, this side {} and a ring of {}",
            layout.image, layout.ring
        ));
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_do_not_touch() {
        for (image, ring) in [(8, 1 << 16), (1 << 20, 1 << 20), ((1 << 30) + 8, (1 << 20) - 4096)] {
            let layout = EpochLayout::with_ring(image, ring).unwrap();
            assert!(
                layout.image_offset() >= HEAD_BYTES + ring && layout.image_offset().is_multiple_of(1 << 20)
            );
            assert_eq!(layout.region_bytes(), layout.image_offset() + image);
            assert_eq!(layout.place(Position(ring as u64 * 3 + 64)), (HEAD_BYTES + 64, ring - 64));
        }
        for (image, ring) in
            [(0, 1 << 16), (9, 1 << 16), (8, 1 << 15), (8, 100_000), (usize::MAX - 7, 1 << 16)]
        {
            assert!(EpochLayout::with_ring(image, ring).is_err(), "{image} {ring}");
        }
        let usual = |image| EpochLayout::new(image).unwrap().ring_bytes();
        assert!(usual(1 << 20) > (1 << 20) + (1 << 12) && usual(1 << 30) == 128 << 20);
        assert_eq!(usual(256 << 20), 64 << 20);
    }

    #[test]
    fn a_head_is_read_as_it_was_written_and_each_changed_byte_is_noticed() {
        let (layout, log) = (EpochLayout::new(1 << 20).unwrap(), LogId([9; 16]));
        let bytes = encode_head(layout, log);
        assert_eq!(decode_head(&bytes, layout), Ok(log));
        let other = EpochLayout::new(2 << 20).unwrap();
        let why = decode_head(&bytes, other).unwrap_err();
        assert!(why.contains("1048576") && why.contains("2097152"), "{why}");
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert!(decode_head(&changed, layout).is_err(), "byte {at}");
        }
    }
}
