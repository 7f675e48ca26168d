//! What a holder remembers of its file: one small file beside it, `PATH.state`, replaced whole.
//!
//! ```text
//!  0  magic "MBHOLD01"      8  u32 content (0 empty, 1 partial, 2 complete)   12  u32 reserved
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

use super::state::Content;
use crate::base::{RegionId, crc32c};

const MAGIC: [u8; 8] = *b"MBHOLD01";

#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Record {
    magic: [u8; 8],
    content: U32,
    reserved: U32,
    region: [u8; 16],
    boot: [u8; 16],
    bytes: U64,
    reserved_too: U32,
    crc: U32,
}

const _: () = assert!(size_of::<Record>() == 64);

/// What was remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) content: Content,
    pub(super) region: RegionId,
    pub(super) bytes: u64,
    pub(super) same_boot: bool,
}

fn path_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".state");
    name.into()
}

/// This boot of the kernel.
fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
    u128::from_str_radix(&digits, 16)
        .map(u128::to_be_bytes)
        .map_err(|_| io::Error::other(format!("the kernel's boot id {text:?} is none")))
}

/// What the record beside `file` says; `None` when there is none.
///
/// # Errors
/// It cannot be read or is damaged.
pub(super) fn read(file: &Path) -> Result<Option<Remembered>, String> {
    let path = path_of(file);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let damaged =
        |why: &str| format!("{} is damaged ({why}): restore it, or move both files away", path.display());
    let record = Record::read_from_bytes(&bytes).map_err(|_| damaged("it has another size"))?;
    if record.magic != MAGIC || record.crc.get() != crc32c(&bytes[..60]) {
        return Err(damaged("its checksum is wrong"));
    }
    let content = Content::from_code(record.content.get()).ok_or_else(|| damaged("unknown content"))?;
    let boot = boot_id().map_err(|error| error.to_string())?;
    Ok(Some(Remembered {
        content,
        region: RegionId::from_bytes(record.region),
        bytes: record.bytes.get(),
        same_boot: record.boot == boot,
    }))
}

/// Remembers. On return it is on stable storage.
pub(super) fn write(file: &Path, content: Content, region: Option<RegionId>, bytes: u64) -> io::Result<()> {
    let mut record = Record {
        magic: MAGIC,
        content: content.code().into(),
        reserved: 0.into(),
        region: region.map_or([0; 16], RegionId::to_bytes),
        boot: boot_id()?,
        bytes: bytes.into(),
        reserved_too: 0.into(),
        crc: 0.into(),
    };
    record.crc = crc32c(&record.as_bytes()[..60]).into();
    let path = path_of(file);
    let mut next = path.clone().into_os_string();
    next.push(".next");
    let next = PathBuf::from(next);
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
        let region = RegionId::from_bytes([7; 16]);
        write(&file, Content::Complete, Some(region), 4096).unwrap();
        let expected = Remembered { content: Content::Complete, region, bytes: 4096, same_boot: true };
        assert_eq!(read(&file), Ok(Some(expected)));
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
