//! Mappings.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::VolatileSlice;

/// How a mapping is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MapOptions {
    /// Ask for huge pages.
    pub huge_pages: bool,
}

/// Why a mapping cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// A call failed.
    #[error("{call} of {len} bytes failed: {error}")]
    System {
        /// The call.
        call: &'static str,
        /// Bytes.
        len: usize,
        /// What it said.
        error: std::io::Error,
    },
}

/// Memory of this process, mapped once; unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    start: *mut u8,
    len: usize,
    fd: Option<OwnedFd>,
    lost: AtomicBool,
}

// SAFETY: the mapping is reached through VolatileSlice only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Private memory of this process.
    pub fn anonymous(len: usize, _options: MapOptions) -> Result<Self, MapError> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        Self::finish(start, len, None)
    }

    /// Memory that can be handed to another process as a descriptor: preallocated, and sealed against resizing.
    pub fn memfd(name: &str, len: usize, options: MapOptions) -> Result<Self, MapError> {
        let fail = |call| move |error: rustix::io::Errno| MapError::System { call, len, error: error.into() };
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(fail("memfd_create"))?;
        rustix::fs::fallocate(&fd, rustix::fs::FallocateFlags::empty(), 0, len as u64)
            .map_err(fail("fallocate"))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).map_err(fail("seal"))?;
        Self::from_fd(fd, len, options)
    }

    /// The file at `path`, made if missing and set to `len` bytes.
    pub fn file(path: &Path, len: usize, options: MapOptions) -> Result<Self, MapError> {
        let fail = |call| move |error: rustix::io::Errno| MapError::System { call, len, error: error.into() };
        use rustix::fs::{Mode, OFlags};
        let fd =
            rustix::fs::open(path, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
                .map_err(fail("open"))?;
        rustix::fs::fallocate(&fd, rustix::fs::FallocateFlags::empty(), 0, len as u64)
            .map_err(fail("fallocate"))?;
        Self::from_fd(fd, len, options)
    }

    /// `len` bytes of what `fd` refers to, shared with all who map it.
    pub fn from_fd(fd: OwnedFd, len: usize, _options: MapOptions) -> Result<Self, MapError> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &fd,
                0,
            )
        };
        Self::finish(start, len, Some(fd))
    }

    /// [`from_fd`](Self::from_fd), to read only: a write through it is a defect and ends the process.
    pub fn from_fd_read_only(fd: OwnedFd, len: usize) -> Result<Self, MapError> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, &fd, 0) };
        Self::finish(start, len, Some(fd))
    }

    fn finish(
        start: Result<*mut std::ffi::c_void, rustix::io::Errno>,
        len: usize,
        fd: Option<OwnedFd>,
    ) -> Result<Self, MapError> {
        let start = start.map_err(|error| MapError::System { call: "mmap", len, error: error.into() })?;
        Ok(Self { start: start.cast(), len, fd, lost: AtomicBool::new(false) })
    }

    /// Bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// All of it.
    #[inline]
    #[must_use]
    pub fn slice(&self) -> VolatileSlice<'_> {
        // SAFETY: mapped for as long as self lives.
        unsafe { VolatileSlice::new(self.start, self.len) }
    }

    /// What backs it, where that can be handed on.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Whether pages were lost because the file behind them was truncated.
    #[inline]
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and every slice of it is gone.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.len) };
    }
}
