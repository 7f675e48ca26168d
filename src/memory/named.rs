//! Mappings of what has a name: files, shared memory objects, devices.
//!
//! A *file* and a *shared memory object* are ours: made when missing, extended when shorter, and refused when longer,
//! for cutting would destroy what another size of region wrote. A *device* was there before (a DAX or NTB window, a block
//! device, a file that somebody prepared): it is neither made nor resized.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, FsWord, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::available::{check_memory, check_space};
use super::make::{allocate, check_len, failed};
use super::pages::{Pages, base_bytes};
use super::{MapError, MapOptions, Mapping, MappingKind};

const TMPFS: FsWord = 0x0102_1994;
const RAMFS: FsWord = 0x8584_58f6;
const HUGETLBFS: FsWord = 0x9584_58f6;
const OWNER_ONLY: Mode = Mode::RUSR.union(Mode::WUSR);

impl Mapping {
    /// The file at `path`, made if missing (for its owner only) and extended to `len` bytes, all of them allocated.
    ///
    /// Its name and its size are on stable storage on return.
    ///
    /// # Errors
    /// When it is longer, is no regular file, or the file system is too small; or the system refuses.
    pub fn file(path: &Path, len: usize, options: MapOptions) -> Result<Self, MapError> {
        check_len(len)?;
        let fail = path_failed("opening", path);
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, OWNER_ONLY)
            .map_err(fail)?;
        let status = regular(&fd, path)?;
        grow(&fd, path, &status, len, MappingKind::File)?;
        let fail = path_failed("syncing", path);
        rustix::fs::fsync(&fd).map_err(&fail)?;
        let whole = std::path::absolute(path).map_err(|error| path_error("finding", path, error))?;
        if let Some(directory) = whole.parent() {
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| path_error("syncing the directory", path, error))?;
        }
        let volatile = why_volatile(&fd);
        Self::map(fd, len, MappingKind::File, volatile, options)
    }

    /// The POSIX shared memory object `name` (as `/region`), made if missing (for its owner only) and extended to `len`
    /// bytes, all of them allocated. It stays until [`Mapping::unlink_shm`].
    ///
    /// # Errors
    /// When it is longer, or there is not so much memory; or the system refuses.
    pub fn shm(name: &str, len: usize, options: MapOptions) -> Result<Self, MapError> {
        check_len(len)?;
        let path = Path::new(name);
        let fail = path_failed("shm_open", path);
        let flags = rustix::shm::OFlags::RDWR | rustix::shm::OFlags::CREATE;
        let fd = rustix::shm::open(name, flags, OWNER_ONLY).map_err(fail)?;
        let status = regular(&fd, path)?;
        check_memory(MappingKind::Shm, len, allocated(&status))?;
        grow(&fd, path, &status, len, MappingKind::Shm)?;
        let volatile = why_volatile(&fd);
        Self::map(fd, len, MappingKind::Shm, volatile, options)
    }

    /// Removes the name of a shared memory object; its memory goes with the last mapping.
    ///
    /// # Errors
    /// When there is none, or the system refuses.
    pub fn unlink_shm(name: &str) -> std::io::Result<()> {
        Ok(rustix::shm::unlink(name)?)
    }

    /// The first `len` bytes of the device or file at `path`, which is neither made nor resized.
    ///
    /// # Errors
    /// When it is missing or shorter, is neither file nor device, or the system refuses.
    pub fn device(path: &Path, len: usize, options: MapOptions) -> Result<Self, MapError> {
        check_len(len)?;
        let fail = path_failed("opening", path);
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
        check_extent(&fd, &format!("{path:?}"), len)?;
        let volatile = why_volatile(&fd);
        Self::map(fd, len, MappingKind::Device, volatile, options)
    }
}

fn path_error(call: &'static str, path: &Path, error: std::io::Error) -> MapError {
    MapError::Path { call, path: path.to_owned(), error }
}

fn path_failed(call: &'static str, path: &Path) -> impl Fn(Errno) -> MapError {
    move |error| path_error(call, path, error.into())
}

/// The status of what must be a regular file.
fn regular(fd: &OwnedFd, path: &Path) -> Result<Stat, MapError> {
    let status = rustix::fs::fstat(fd).map_err(path_failed("fstat", path))?;
    let found = FileType::from_raw_mode(status.st_mode);
    if !found.is_file() {
        let (what, found) = (format!("{path:?}"), name_of(found));
        return Err(MapError::NotMappable {
            what,
            found,
            wanted: "a regular file (devices have a way of their own)",
        });
    }
    Ok(status)
}

fn size(status: &Stat) -> u64 {
    u64::try_from(status.st_size).unwrap_or(0)
}

/// Bytes that have blocks already.
fn allocated(status: &Stat) -> u64 {
    u64::try_from(status.st_blocks).unwrap_or(0).saturating_mul(512)
}

/// Extends the file to `len` bytes, with their blocks.
fn grow(fd: &OwnedFd, path: &Path, status: &Stat, len: usize, kind: MappingKind) -> Result<(), MapError> {
    let found = size(status);
    if found > len as u64 {
        return Err(MapError::TooLong { path: path.to_owned(), found, asked: len });
    }
    check_space(kind, fd, len, allocated(status))?;
    match allocate(fd, len) {
        Err(Errno::OPNOTSUPP) => {
            log::warn!(
                "{path:?}: this file system cannot allocate ahead; if it runs full, stores into it are lost"
            );
            rustix::fs::ftruncate(fd, len as u64).map_err(failed("ftruncate", len))
        }
        outcome => outcome.map_err(failed("fallocate", len)),
    }
}

/// Checks that `fd` can be mapped and, where its size can be known, that it holds `len` bytes.
pub(super) fn check_extent(fd: &OwnedFd, what: &str, len: usize) -> Result<(), MapError> {
    let status = rustix::fs::fstat(fd).map_err(failed("fstat", len))?;
    let found = match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => size(&status),
        FileType::BlockDevice => rustix::fs::seek(fd, SeekFrom::End(0)).map_err(failed("seek", len))?,
        // Most character devices do not tell; mmap then has the last word.
        FileType::CharacterDevice => dax_attribute(&status, "size").unwrap_or(u64::MAX),
        other => {
            let (what, found) = (what.to_owned(), name_of(other));
            return Err(MapError::NotMappable { what, found, wanted: "a regular file or a device" });
        }
    };
    if found < len as u64 {
        return Err(MapError::TooShort { what: what.to_owned(), found, asked: len });
    }
    Ok(())
}

const fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Unknown => "of an unknown type",
    }
}

/// A figure that the kernel tells of a device-DAX window.
fn dax_attribute(status: &Stat, name: &str) -> Option<u64> {
    let (major, minor) = (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev));
    std::fs::read_to_string(format!("/sys/dev/char/{major}:{minor}/{name}")).ok()?.trim().parse().ok()
}

fn file_system(fd: impl AsFd) -> Option<rustix::fs::StatFs> {
    rustix::fs::fstatfs(fd).ok()
}

/// Whether it is memory with a file's face, for which the kernel has a huge page switch of its own.
pub(super) fn is_shmem(fd: impl AsFd) -> bool {
    file_system(fd).is_some_and(|system| system.f_type == TMPFS)
}

/// The pages that a mapping of `fd` is made of.
pub(super) fn pages_of(fd: &OwnedFd) -> Pages {
    let base = Pages::Base { bytes: base_bytes() };
    let Ok(status) = rustix::fs::fstat(fd) else { return base };
    let bytes = match FileType::from_raw_mode(status.st_mode) {
        FileType::CharacterDevice => dax_attribute(&status, "align"),
        FileType::RegularFile => file_system(fd)
            .filter(|system| system.f_type == HUGETLBFS)
            .and_then(|system| system.f_bsize.try_into().ok()),
        _ => None,
    };
    match bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
        Some(bytes) if bytes.is_power_of_two() && bytes > base_bytes() => Pages::Huge { bytes },
        _ => base,
    }
}

/// Why `fd` cannot be made durable, or `None` when it can.
pub(super) fn why_volatile(fd: &OwnedFd) -> Option<&'static str> {
    let Ok(status) = rustix::fs::fstat(fd) else { return Some("what is behind it cannot be examined") };
    match FileType::from_raw_mode(status.st_mode) {
        FileType::BlockDevice => None,
        FileType::RegularFile => match file_system(fd) {
            Some(system) if [TMPFS, RAMFS, HUGETLBFS].contains(&system.f_type) => {
                Some("its file system is memory only, gone with the power; use a file on a disk")
            }
            Some(_) => None,
            None => Some("its file system cannot be examined"),
        },
        _ => Some("a character device has no sync; use a file on a DAX file system"),
    }
}
