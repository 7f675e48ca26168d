//! What a holder remembers of its file: one small file beside it, `PATH.state`, replaced whole.
//!
//! ```text
//!  0  magic "MBHOLD01"      8  u32 content (0 empty, 1 partial, 2 complete)   12  u32 flags (1 a sync failed)
//! 16  region id            32  kernel boot id in force when it was written    48  u64 bytes of the copy
//! 56  u32 reserved         60  u32 CRC32C of the first 60 bytes
//! ```
//!
//! A killed holder leaves its file whole, since the page cache outlives it. A rebooted host does not: pages were
//! written back in any order, so the boot id tells whether the file is a prefix or uncertain.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::copy::beside;
use super::state::Content;
use crate::base::{RegionId, crc32c};

const MAGIC: [u8; 8] = *b"MBHOLD01";

#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    content: U32,
    flags: U32,
    region: [u8; 16],
    boot: [u8; 16],
    bytes: U64,
    reserved_too: U32,
    crc: U32,
}

const _: () = assert!(size_of::<Wire>() == 64);

/// Flag: a sync of the copy failed.
const SYNC_FAILED: u32 = 1;

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) content: Content,
    /// None while empty.
    pub(super) region: Option<RegionId>,
    pub(super) bytes: u64,
    pub(super) sync_failed: bool,
}

fn path_of(file: &Path) -> PathBuf {
    beside(file, ".state")
}

/// This boot of the kernel.
fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
    u128::from_str_radix(&digits, 16)
        .map(u128::to_be_bytes)
        .map_err(|_| io::Error::other(format!("the kernel's boot id {text:?} is none")))
}

/// What the record beside `file` says, and whether it was written in this boot; `None` when there is none.
///
/// # Errors
/// It cannot be read or is damaged.
pub(super) fn read(file: &Path) -> Result<Option<(Record, bool)>, String> {
    let path = path_of(file);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let damaged =
        |why: &str| format!("{} is damaged ({why}): restore it, or move both files away", path.display());
    let record = Wire::read_from_bytes(&bytes).map_err(|_| damaged("it has another size"))?;
    if record.magic != MAGIC || record.crc.get() != crc32c(&bytes[..60]) {
        return Err(damaged("its checksum is wrong"));
    }
    let content = Content::from_code(record.content.get()).ok_or_else(|| damaged("unknown content"))?;
    let boot = boot_id().map_err(|error| error.to_string())?;
    let known = Record {
        content,
        region: (content != Content::Empty).then(|| RegionId::from_bytes(record.region)),
        bytes: record.bytes.get(),
        sync_failed: record.flags.get() & SYNC_FAILED != 0,
    };
    Ok(Some((known, record.boot == boot)))
}

/// Remembers. On return it is on stable storage.
pub(super) fn write(file: &Path, known: Record) -> io::Result<()> {
    let mut record = Wire {
        magic: MAGIC,
        content: known.content.code().into(),
        flags: if known.sync_failed { SYNC_FAILED } else { 0 }.into(),
        region: known.region.map_or([0; 16], RegionId::to_bytes),
        boot: boot_id()?,
        bytes: known.bytes.into(),
        reserved_too: 0.into(),
        crc: 0.into(),
    };
    record.crc = crc32c(&record.as_bytes()[..60]).into();
    let path = path_of(file);
    let next = beside(&path, ".next");
    let mut target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    target.write_all(record.as_bytes())?;
    target.sync_all()?;
    std::fs::rename(&next, &path)?;
    sync_directory(&path)
}

/// Makes a rename of `path` last.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_back_and_damage_is_seen() {
        let directory = std::env::temp_dir().join(format!("mirrorbus-record-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("copy");
        assert_eq!(read(&file), Ok(None));
        let region = Some(RegionId::from_bytes([7; 16]));
        for sync_failed in [false, true] {
            let record = Record { content: Content::Complete, region, bytes: 4096, sync_failed };
            write(&file, record).unwrap();
            assert_eq!(read(&file), Ok(Some((record, true))));
        }
        let mut bytes = std::fs::read(path_of(&file)).unwrap();
        for index in 0..bytes.len() {
            bytes[index] ^= 1;
            std::fs::write(path_of(&file), &bytes).unwrap();
            assert!(read(&file).is_err(), "byte {index}");
            bytes[index] ^= 1;
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
