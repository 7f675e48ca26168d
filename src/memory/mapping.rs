//! A mapping: memory of this process, with what is known of it.
//!
//! Invariants:
//! - `mapped` bytes at `start` stay mapped, readable and writable, from construction to drop. A truncation of the file
//!   behind them changes their content, not this (see `sigbus`).
//! - No reference to the bytes is made; all access goes through [`VolatileSlice`].
//! - The pages are not copied to a forked child (`MADV_DONTFORK`): it has no business writing to a peer's memory, and a
//!   page that a NIC writes must not be moved by copy-on-write. They stay out of core dumps too.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{Advice, MlockFlags, MsyncFlags};

use super::pages::Pages;
use super::sigbus::{NEVER_LOST, Watch};
use super::{MapError, VolatileSlice};

/// How a mapping is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MapOptions {
    /// Ask for huge pages. What was got is logged, and told by [`Mapping::pages`].
    pub huge_pages: bool,
}

/// What is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MappingKind {
    /// Private memory.
    Anonymous,
    /// Memory with a descriptor, sealed against resizing.
    Memfd,
    /// A named shared memory object.
    Shm,
    /// A file of ours.
    File,
    /// A device or file that was there before and is never resized.
    Device,
    /// Whatever the descriptor refers to that was handed to us.
    Descriptor,
}

impl fmt::Display for MappingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::Memfd => "memfd",
            Self::Shm => "shared memory",
            Self::File => "file",
            Self::Device => "device",
            Self::Descriptor => "descriptor",
        })
    }
}

/// Memory of this process, mapped once; unmapped on drop.
pub struct Mapping {
    start: *mut u8,
    len: usize,
    /// Bytes really mapped: `len` up to a whole page.
    mapped: usize,
    /// Bytes before and behind those that nobody can reach.
    apart: usize,
    /// The flag of `watch`, or one that is never raised.
    lost: &'static AtomicBool,
    watch: Option<Watch>,
    kind: MappingKind,
    pages: Pages,
    /// Why [`Mapping::sync`] cannot be had, if it cannot.
    volatile: Option<&'static str>,
    fd: Option<OwnedFd>,
    /// What the first failed sync said. The kernel tells of lost writes once only, so no later sync may succeed.
    sync_failed: Mutex<Option<String>>,
}

// SAFETY: memory is mapped for the process, not for a thread; the bytes are reached through VolatileSlice only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// What a constructor has put together.
pub(super) struct Parts {
    pub(super) start: *mut u8,
    pub(super) len: usize,
    pub(super) mapped: usize,
    /// Bytes before and behind those that belong to it too, and that nobody can reach.
    pub(super) apart: usize,
    pub(super) kind: MappingKind,
    pub(super) pages: Pages,
    pub(super) fd: Option<OwnedFd>,
    pub(super) volatile: Option<&'static str>,
}

impl Mapping {
    /// Takes over `mapped` bytes at `start`, which nobody else unmaps.
    pub(super) fn assemble(parts: Parts) -> Self {
        let Parts { start, len, mapped, apart, kind, pages, fd, volatile } = parts;
        assert!(!start.is_null() && 0 < len && len <= mapped, "{len} of {mapped} bytes mapped at {start:?}");
        let sync_failed = Mutex::new(None);
        super::copy::prepare();
        let (lost, watch) = (&NEVER_LOST, None);
        Self { start, len, mapped, apart, lost, watch, kind, pages, volatile, fd, sync_failed }
    }

    /// Guards it against truncation of what is behind it.
    pub(super) fn guard(&mut self) -> Result<(), MapError> {
        let watch = super::sigbus::watch(self.start.addr(), self.mapped, self.pages.size_bytes())?;
        self.lost = watch.lost();
        self.watch = Some(watch);
        Ok(())
    }

    /// Advises the kernel about all of it.
    pub(super) fn advise(&self, advice: Advice) -> rustix::io::Result<()> {
        // SAFETY: mapped; the advices used here change no byte.
        unsafe { rustix::mm::madvise(self.start.cast(), self.mapped, advice) }
    }

    pub(super) const fn set_pages(&mut self, pages: Pages) {
        self.pages = pages;
    }

    /// Bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes: never, for such a mapping is refused.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is mapped.
    #[must_use]
    pub const fn kind(&self) -> MappingKind {
        self.kind
    }

    /// The pages that were got, which is not always what was asked for.
    #[must_use]
    pub const fn pages(&self) -> Pages {
        self.pages
    }

    /// Bytes in a page that is certain; transparent huge pages are not.
    #[must_use]
    pub const fn page_size_used(&self) -> usize {
        self.pages.size_bytes()
    }

    /// All of it.
    #[inline]
    #[must_use]
    pub fn slice(&self) -> VolatileSlice<'_> {
        // SAFETY: mapped for as long as self lives.
        unsafe { VolatileSlice::new(self.start, self.len) }
    }

    /// Where it begins, for a device that is to read or write it. Nothing may be read or written through this.
    #[cfg(feature = "rdma")]
    pub(crate) fn address(&self) -> usize {
        self.start.expose_provenance()
    }

    /// What backs it, where that can be handed on.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Whether pages were lost because the file behind them was truncated: what is read from then on means nothing, and
    /// what is written goes nowhere. Stays raised.
    ///
    /// Raised by an access beyond the file's end, so look after the access, not before. A cut within the last page that
    /// is left raises nothing; [`Mapping::sync`] finds it.
    #[inline]
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether what backs it outlives the power, so that [`Mapping::sync`] can be had.
    #[must_use]
    pub const fn is_durable_backing(&self) -> bool {
        self.volatile.is_none()
    }

    /// Why what backs it does not outlive the power, with the way out; `None` when it does.
    #[must_use]
    pub const fn why_volatile(&self) -> Option<&'static str> {
        self.volatile
    }

    /// Returns when all that was written is on stable storage.
    ///
    /// # Errors
    /// `Unsupported`, with why, where nothing durable is behind it. After any other failure the content on storage is
    /// unknown, and each later call fails too.
    pub fn sync(&self) -> io::Result<()> {
        if let Some(why) = self.volatile {
            let text = format!("a {} mapping cannot be made durable: {why}", self.kind);
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let mut failed = self.sync_failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(first) = &*failed {
            return Err(io::Error::other(format!(
                "an earlier sync of this mapping failed, and is not retried: {first}"
            )));
        }
        self.sync_once().inspect_err(|error| *failed = Some(error.to_string()))
    }

    /// Makes the kernel take every page for changed, so that the next sync writes it: a device that wrote some of them told
    /// the kernel nothing. No byte changes, whoever writes meanwhile.
    pub fn touch_all(&self) {
        // SAFETY: mapped, to the end of the last page, for as long as self lives.
        let pages = unsafe { VolatileSlice::new(self.start, self.mapped) };
        for at in (0..self.mapped).step_by(super::pages::base_bytes()) {
            let word = pages.word_u64(at);
            let mut seen = word.load(Ordering::Relaxed);
            // An exchange with itself: an addition of nothing might be compiled into a load.
            while let Err(now) = word.compare_exchange_weak(seen, seen, Ordering::Relaxed, Ordering::Relaxed)
            {
                seen = now;
            }
        }
    }

    fn sync_once(&self) -> io::Result<()> {
        let fd = self.fd.as_ref().expect("what is durable has a descriptor");
        // SAFETY: mapped; changes no byte of memory.
        unsafe { rustix::mm::msync(self.start.cast(), self.mapped, MsyncFlags::SYNC) }?;
        rustix::fs::fdatasync(fd)?;
        self.check_whole()
    }

    /// Looks whether all of it is there still, as far as can be told now: nothing was found lost, and what is behind
    /// it is as long as it was.
    ///
    /// # Errors
    /// It was truncated, with the figures.
    pub fn check_whole(&self) -> io::Result<()> {
        let Some(fd) = &self.fd else { return Ok(()) };
        let status = rustix::fs::fstat(fd)?;
        let is_file = rustix::fs::FileType::from_raw_mode(status.st_mode).is_file();
        let found = u64::try_from(status.st_size).unwrap_or(0);
        if self.lost() || (is_file && found < self.len as u64) {
            let text = format!("the file behind the mapping of {} bytes was truncated to {found}", self.len);
            return Err(io::Error::other(text));
        }
        Ok(())
    }

    /// Locks all of it into memory.
    pub(super) fn lock_pages(&self) -> rustix::io::Result<()> {
        if cfg!(miri) {
            return Ok(());
        }
        // SAFETY: mapped; changes no byte.
        unsafe { rustix::mm::mlock(self.start.cast(), self.mapped) }?;
        if self.kind == MappingKind::Anonymous {
            // Private memory that is locked otherwise the kernel stores to by itself, all of it, whenever it is made writable again: who
            // looks for stores would find every page. Every page is there, so that it is locked as before.
            // SAFETY: as above.
            let only_marked =
                unsafe { rustix::mm::mlock_with(self.start.cast(), self.mapped, MlockFlags::ONFAULT) };
            log::debug!("locking {} bytes without filling them again: {only_marked:?}", self.len);
        }
        Ok(())
    }

    /// Bytes that have a page of memory now.
    pub(super) fn resident_bytes(&self) -> u64 {
        const CHUNK_PAGES: usize = 16 << 10;
        let page = super::pages::base_bytes();
        let mut resident = vec![0_u8; CHUNK_PAGES];
        let mut count = 0;
        let mut done = 0;
        while done < self.mapped {
            let len = (self.mapped - done).min(CHUNK_PAGES * page);
            // SAFETY: done < mapped.
            let at = unsafe { self.start.add(done) };
            // SAFETY: mapped, and the vector has a byte for each page.
            if unsafe { libc::mincore(at.cast(), len, resident.as_mut_ptr()) } != 0 {
                return 0;
            }
            count += resident[..len.div_ceil(page)].iter().filter(|&&state| state & 1 == 1).count();
            done += len;
        }
        (count * page) as u64
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = if self.lost() { ", lost" } else { "" };
        write!(f, "Mapping({}, {} bytes at {:?}, {}{lost})", self.kind, self.len, self.start, self.pages)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before the addresses can be those of another mapping.
        drop(self.watch.take());
        #[cfg(miri)]
        super::make::release(self.start, self.mapped);
        #[cfg(not(miri))]
        {
            let (whole, start) = (self.mapped + 2 * self.apart, self.start.wrapping_sub(self.apart));
            // SAFETY: mapped by us, and every slice of it is gone.
            let unmapped = unsafe { rustix::mm::munmap(start.cast(), whole) };
            assert!(unmapped.is_ok(), "munmap of {} bytes at {:?}: {unmapped:?}", self.mapped, self.start);
        }
    }
}
