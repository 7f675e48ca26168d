//! What a holder with a file writes down before it carries out an `Apply`, so that one that is killed in the middle of it
//! ends it at its next start: `PATH.apply`.
//!
//! ```text
//!  0  magic "MBAPPL01"    8  u64 ranges    16  u64 bytes    24  u64 bytes of the copy    32  u32 CRC32C of all behind 64
//! 36  zero               60  u32 CRC32C of the first 60 bytes
//! 64  the ranges: u64 offset, u64 length each; then their bytes, one behind the other
//! ```
//!
//! It gets its name when it is whole, and loses it before the `Apply` is answered, so no store was made since if it is
//! there: carrying it out once more is harmless. It is for a killed process only, whose page cache lives on: nothing is
//! synced, and after a reboot it is dropped, since newer stores may have been Durable.

use std::io;
use std::path::Path;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::copy::{beside, remove};
use crate::base::crc32c;
use crate::memory::{MapError, MapOptions, Mapping, VolatileSlice};
use crate::mirror::ByteRange;

const MAGIC: [u8; 8] = *b"MBAPPL01";
const HEAD_BYTES: usize = 64;
const RANGE_BYTES: usize = 16;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    ranges: U64,
    bytes: U64,
    copy_bytes: U64,
    body_crc: U32,
    zero: [u8; 24],
    crc: U32,
}

const _: () = assert!(size_of::<Head>() == HEAD_BYTES);

/// Writes down that `staged` is to go into `ranges`.
///
/// # Errors
/// No room on the disk; nothing was written down.
pub(super) fn note(
    file: &Path,
    ranges: &[ByteRange],
    staged: VolatileSlice<'_>,
    copy_bytes: usize,
) -> Result<(), MapError> {
    let (path, next) = (beside(file, ".apply"), beside(file, ".apply.next"));
    let bytes: usize = ranges.iter().map(|range| range.len).sum();
    let at = HEAD_BYTES + ranges.len() * RANGE_BYTES;
    let failed = |error| MapError::Path { call: "writing", path: next.clone(), error };
    remove(&next).map_err(failed)?;
    let noted = Mapping::file(&next, at + bytes, MapOptions { huge_pages: false })?;
    let target = noted.slice();
    for (place, range) in ranges.iter().enumerate() {
        let pair = [U64::new(range.offset as u64), U64::new(range.len as u64)];
        target.write(HEAD_BYTES + place * RANGE_BYTES, pair.as_bytes());
    }
    let staged = staged.subslice(0, bytes).expect("the sum was checked");
    target.copy_from(at, staged);
    let body = target.subslice(HEAD_BYTES, at + bytes - HEAD_BYTES).expect("it was made so long");
    let mut head = Head {
        magic: MAGIC,
        ranges: (ranges.len() as u64).into(),
        bytes: (bytes as u64).into(),
        copy_bytes: (copy_bytes as u64).into(),
        body_crc: body.crc32c().into(),
        zero: [0; 24],
        crc: 0.into(),
    };
    head.crc = crc32c(&head.as_bytes()[..60]).into();
    target.write(0, head.as_bytes());
    noted.check_whole().map_err(failed)?;
    std::fs::rename(&next, &path).map_err(failed)
}

/// Drops what was written down.
///
/// # Errors
/// It cannot be removed, and would be carried out at the next start.
pub(super) fn forget(file: &Path) -> io::Result<()> {
    remove(&beside(file, ".apply.next"))?;
    remove(&beside(file, ".apply"))
}

/// Carries out what was written down, if anything was, and leaves it.
///
/// # Errors
/// It is damaged.
pub(super) fn redo(file: &Path, copy: &Mapping) -> Result<(), String> {
    let path = beside(file, ".apply");
    let len = match std::fs::metadata(&path) {
        Ok(meta) => usize::try_from(meta.len()).unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let damaged = || format!("{} is damaged: move the files away and push", path.display());
    if len < HEAD_BYTES {
        return Err(damaged());
    }
    let noted =
        Mapping::device(&path, len, MapOptions { huge_pages: false }).map_err(|error| error.to_string())?;
    let ranges = read(noted.slice(), copy.len()).ok_or_else(damaged)?;
    log::warn!("{} ranges are put in place that a killed holder left half-way", ranges.len());
    carry_out(&ranges, noted.slice(), HEAD_BYTES + ranges.len() * RANGE_BYTES, copy);
    copy.check_whole().and(noted.check_whole()).map_err(|error| error.to_string())
}

/// Copies what stands in `source` from `at` on, one behind the other, into `ranges`, which were checked.
pub(super) fn carry_out(ranges: &[ByteRange], source: VolatileSlice<'_>, mut at: usize, copy: &Mapping) {
    for range in ranges {
        let bytes = source.subslice(at, range.len).expect("the sum was checked");
        copy.slice().copy_from(range.offset, bytes);
        at += range.len;
    }
}

/// The ranges, when everything fits.
fn read(noted: VolatileSlice<'_>, copy_bytes: usize) -> Option<Vec<ByteRange>> {
    let mut head = [0; HEAD_BYTES];
    noted.read(0, &mut head);
    let crc = crc32c(&head[..60]);
    let head = Head::read_from_bytes(&head).ok()?;
    let body = noted.subslice(HEAD_BYTES, noted.len() - HEAD_BYTES)?;
    if head.magic != MAGIC
        || head.crc.get() != crc
        || head.copy_bytes.get() != copy_bytes as u64
        || head.body_crc.get() != body.crc32c()
    {
        return None;
    }
    let count = usize::try_from(head.ranges.get()).ok()?;
    let list = count.checked_mul(RANGE_BYTES).filter(|list| *list <= body.len())?;
    let mut left = body.len() - list;
    let mut ranges = Vec::with_capacity(count);
    for place in 0..count {
        let mut pair = [0; RANGE_BYTES];
        body.read(place * RANGE_BYTES, &mut pair);
        let [offset, len] = <[U64; 2]>::read_from_bytes(&pair).ok()?;
        let (offset, len) = (usize::try_from(offset.get()).ok()?, usize::try_from(len.get()).ok()?);
        if len > copy_bytes || offset > copy_bytes - len {
            return None;
        }
        left = left.checked_sub(len)?;
        ranges.push(ByteRange { offset, len });
    }
    (left == 0).then_some(ranges)
}
