//! How far an image has come, as the holder writes it down: two records of which one is written at a time, the older.
//!
//! ```text
//! 0 u32 crc32c of the log's id and bytes 4 to 31   4 u32 zero   8 u64 position  16 u64 number  24 u64 incarnation
//! ```
//!
//! Whoever reads the head at any moment, or finds it after the holder was killed or lost its power, has one of the two whole, and never
//! the number of one epoch with the position of another. The newest whole one counts.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{EpochLayout, LogId, Position, STEP, words};
use crate::base::crc32c_append;
use crate::memory::VolatileSlice;

/// Positions and numbers are below this: they can be added to.
const COUNT_MAX: u64 = 1 << 63;

/// The last epoch in an image, and where the next begins. Of a push: all 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Applied {
    /// Every epoch before this is in the image.
    pub(super) position: Position,
    /// The last one's number.
    pub(super) number: u64,
    /// The owner that made it, each time it opened: see [`Commit`](super::record::Commit).
    pub(super) incarnation: u64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    crc: U32,
    zero: U32,
    position: U64,
    number: U64,
    incarnation: U64,
}

/// Bytes of a record.
pub(super) const APPLIED_BYTES: usize = size_of::<Wire>();

impl Wire {
    fn checksum(&self, log: LogId) -> u32 {
        crc32c_append(crc32c_append(0, &log.0), &self.as_bytes()[4..])
    }
}

impl Applied {
    pub(super) fn encode(self, log: LogId) -> [u8; APPLIED_BYTES] {
        let mut wire = Wire {
            crc: U32::ZERO,
            zero: U32::ZERO,
            position: U64::new(self.position.0),
            number: U64::new(self.number),
            incarnation: U64::new(self.incarnation),
        };
        wire.crc = U32::new(wire.checksum(log));
        zerocopy::transmute!(wire)
    }

    fn decode(bytes: [u8; APPLIED_BYTES], log: LogId) -> Option<Self> {
        let wire: Wire = zerocopy::transmute!(bytes);
        let (position, number) = (wire.position.get(), wire.number.get());
        let good = wire.crc.get() == wire.checksum(log)
            && position.is_multiple_of(STEP as u64)
            && position.max(number) < COUNT_MAX;
        good.then_some(Self { position: Position(position), number, incarnation: wire.incarnation.get() })
    }
}

/// The newest whole record, and which of the two it is.
fn newest(region: VolatileSlice<'_>, log: LogId) -> Option<(usize, Applied)> {
    let read = |place: usize| {
        let mut bytes = [0; APPLIED_BYTES];
        region.read(place, &mut bytes);
        Applied::decode(bytes, log).map(|applied| (place, applied))
    };
    words::APPLIED.into_iter().filter_map(read).max_by_key(|(_, applied)| applied.position)
}

/// How far the image of `region` has come.
///
/// # Errors
/// No record of it is whole, or it does not go with how far the owner may write.
pub(super) fn read_applied(
    region: VolatileSlice<'_>,
    layout: EpochLayout,
    log: LogId,
) -> Result<Applied, String> {
    let Some((_, applied)) = newest(region, log) else {
        return Err("no record of how far the epochs are applied is whole".into());
    };
    let (free, at) = (region.load_word(words::FREE), applied.position.0);
    if free > at || at - free > layout.ring_bytes() as u64 {
        return Err(format!(
            "the epochs are said to be applied to {at}, and the ring of {} bytes to be free from {free} on",
            layout.ring_bytes()
        ));
    }
    Ok(applied)
}

/// Writes `applied` over the older record.
pub(super) fn write_applied(region: VolatileSlice<'_>, log: LogId, applied: Applied) {
    let [first, second] = words::APPLIED;
    let place = if newest(region, log).is_some_and(|(place, _)| place == first) { second } else { first };
    region.write(place, &applied.encode(log));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{LOG, pushed};
    use super::*;

    fn layout() -> EpochLayout {
        EpochLayout::with_ring(8, EpochLayout::RING_BYTES_MIN).unwrap()
    }

    fn applied(position: u64) -> Applied {
        Applied { position: Position(position), number: position / 64, incarnation: 7 }
    }

    #[test]
    fn the_newest_whole_record_counts_and_the_older_is_overwritten() {
        let region = pushed(layout());
        let read = || read_applied(region.slice(), layout(), LOG);
        assert_eq!(read(), Ok(Applied::default()));
        for position in [64, 128, 192] {
            write_applied(region.slice(), LOG, applied(position));
            assert_eq!(read(), Ok(applied(position)));
        }
        // One that is written just now, or was when the power went.
        let newest = newest(region.slice(), LOG).unwrap().0;
        region.slice().write(newest + 9, &[0xff]);
        assert_eq!(read(), Ok(applied(128)));
        assert!(read_applied(region.slice(), layout(), LogId([9; 16])).is_err());
        words::APPLIED.into_iter().for_each(|place| region.slice().write(place, &[0; APPLIED_BYTES]));
        assert!(read().unwrap_err().contains("whole"));
    }

    #[test]
    fn positions_that_do_not_go_together_are_refused() {
        let ring = EpochLayout::RING_BYTES_MIN as u64;
        for (free, at, good) in [
            (0, 0, true),
            (64, 64 + ring, true),
            (128, 64, false),
            (64, 128 + ring, false),
            (0, u64::MAX - 63, false),
            (u64::MAX - 63, u64::MAX - 63, false),
            (0, 72, false),
        ] {
            let region = pushed(layout());
            region.slice().write(words::APPLIED[0], &[0; APPLIED_BYTES]);
            region.slice().store_word(words::FREE, free);
            write_applied(region.slice(), LOG, applied(at));
            assert_eq!(read_applied(region.slice(), layout(), LOG).is_ok(), good, "{free} {at}");
        }
    }
}
