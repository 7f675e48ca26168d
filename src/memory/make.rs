//! How mappings come to be: private and unnamed memory here, what has a name in `named`.
//!
//! What is refused is refused before anything is made: no bytes, more bytes than there is memory or space, a file that
//! is too short. What is made here is given its memory or its disk blocks at once, so that a full file system is an
//! error of the constructor and not a fault of a store.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, FileType, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use super::available::check_memory;
use super::mapping::Parts;
use super::pages::{Pages, Transparent, base_bytes, huge_bytes, reserved_for};
use super::{MapError, MapOptions, Mapping, MappingKind};

/// Why memory cannot be synced.
const MEMORY_ONLY: &str = "it is memory only, gone with the power; map a file on a disk for durability";

/// Signals that may interrupt one allocation before it is given up.
const INTERRUPTIONS_MAX: usize = 16;

pub(super) fn failed(call: &'static str, len: usize) -> impl Fn(Errno) -> MapError {
    move |error| MapError::System { call, len, error: error.into() }
}

/// Refuses lengths that cannot be mapped whatever the memory.
pub(super) fn check_len(len: usize) -> Result<(), MapError> {
    /// The largest object that a pointer may reach into, less room to round up to any page.
    const LEN_MAX: usize = (isize::MAX as usize) >> 1;
    if len == 0 {
        return Err(MapError::Zero);
    }
    if len > LEN_MAX {
        return Err(MapError::AddressSpace { asked: len, most: LEN_MAX });
    }
    Ok(())
}

/// Gives all of `len` bytes of the file their blocks or pages, and the file at least that size.
pub(super) fn allocate(fd: impl AsFd, len: usize) -> Result<(), Errno> {
    for _ in 1..INTERRUPTIONS_MAX {
        match rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, len as u64) {
            Err(Errno::INTR) => {}
            outcome => return outcome,
        }
    }
    rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, len as u64)
}

impl Mapping {
    /// Private memory of this process.
    ///
    /// # Errors
    /// When the length is 0 or more than there is memory, or the system refuses.
    pub fn anonymous(len: usize, options: MapOptions) -> Result<Self, MapError> {
        check_len(len)?;
        if cfg!(miri) {
            return Ok(Self::from_allocator(len));
        }
        let (plain, writable) = (MapFlags::PRIVATE, ProtFlags::READ | ProtFlags::WRITE);
        let reserved = if options.huge_pages { reserved_for(len) } else { None };
        // Another process may have taken the pages since: then the plain mapping is the answer.
        let huge = reserved.and_then(|bytes| {
            let mapped = len.next_multiple_of(bytes);
            map_anonymous(mapped, writable, plain | MapFlags::HUGETLB)
                .ok()
                .map(|start| (start, mapped, Pages::Huge { bytes }))
        });
        let (start, mapped, pages) = if let Some(huge) = huge {
            huge
        } else {
            check_memory(MappingKind::Anonymous, len, 0)?;
            let mapped = len.next_multiple_of(base_bytes());
            let start = map_anonymous(mapped, writable, plain).map_err(failed("mmap", len))?;
            (start, mapped, Pages::Base { bytes: base_bytes() })
        };
        let kind = MappingKind::Anonymous;
        let volatile = Some(MEMORY_ONLY);
        let parts = Parts { start, len, mapped, apart: 0, kind, pages, fd: None, volatile };
        let mut mapping = Self::assemble(parts);
        mapping.settle(options, Some(Transparent::Anonymous))?;
        Ok(mapping)
    }

    /// [`anonymous`](Self::anonymous) in base pages, with a page on each side that nobody can reach: the kernel joins it with no other
    /// mapping, and tells nothing of others as if it were of this one.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn apart(len: usize) -> Result<Self, MapError> {
        check_len(len)?;
        if cfg!(miri) {
            return Ok(Self::from_allocator(len));
        }
        check_memory(MappingKind::Anonymous, len, 0)?;
        let (apart, mapped) = (base_bytes(), len.next_multiple_of(base_bytes()));
        let outer = map_anonymous(mapped + 2 * apart, ProtFlags::empty(), MapFlags::PRIVATE);
        let outer = outer.map_err(failed("mmap", len))?;
        let start = outer.wrapping_add(apart);
        let writable = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: within the new mapping, which nobody knows yet.
        if let Err(error) = unsafe { rustix::mm::mprotect(start.cast(), mapped, writable) } {
            // SAFETY: as above, the whole of it.
            let _ = unsafe { rustix::mm::munmap(outer.cast(), mapped + 2 * apart) };
            return Err(failed("mprotect", len)(error));
        }
        let (kind, pages) = (MappingKind::Anonymous, Pages::Base { bytes: base_bytes() });
        let volatile = Some(MEMORY_ONLY);
        let parts = Parts { start, len, mapped, apart, kind, pages, fd: None, volatile };
        let mut mapping = Self::assemble(parts);
        mapping.settle(MapOptions::default(), Some(Transparent::Anonymous))?;
        Ok(mapping)
    }

    /// Memory that can be handed to another process as a descriptor: preallocated, and sealed against resizing.
    ///
    /// # Errors
    /// When the length is 0 or more than there is memory, or the system refuses.
    pub fn memfd(name: &str, len: usize, options: MapOptions) -> Result<Self, MapError> {
        check_len(len)?;
        if options.huge_pages
            && let Some(bytes) = reserved_for(len)
            && let Ok(mapping) =
                Self::memfd_of(name, len, MemfdFlags::HUGETLB, Pages::Huge { bytes }, options)
        {
            return Ok(mapping);
        }
        check_memory(MappingKind::Memfd, len, 0)?;
        let pages = Pages::Base { bytes: base_bytes() };
        Self::memfd_of(name, len, MemfdFlags::empty(), pages, options)
    }

    fn memfd_of(
        name: &str,
        len: usize,
        flags: MemfdFlags,
        pages: Pages,
        options: MapOptions,
    ) -> Result<Self, MapError> {
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags)
            .map_err(failed("memfd_create", len))?;
        let whole = len.next_multiple_of(pages.size_bytes());
        rustix::fs::ftruncate(&fd, whole as u64).map_err(failed("ftruncate", len))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals).map_err(failed("sealing", len))?;
        let mapping = Self::map(fd, len, MappingKind::Memfd, Some(MEMORY_ONLY), options)?;
        // Filled through the mapping first where huge pages were advised, for allocation by file does not know of it.
        if matches!(mapping.pages(), Pages::Advised { .. }) {
            mapping.populate();
        }
        allocate(mapping.fd().expect("a memfd has a descriptor"), whole).map_err(failed("fallocate", len))?;
        Ok(mapping)
    }

    /// `len` bytes of what `fd` refers to, shared with all who map it.
    ///
    /// # Errors
    /// When it cannot be mapped, or is a file of fewer bytes.
    pub fn from_fd(fd: OwnedFd, len: usize, options: MapOptions) -> Result<Self, MapError> {
        check_len(len)?;
        let what = "the descriptor";
        super::named::check_extent(&fd, what, len)?;
        let volatile = super::named::why_volatile(&fd);
        Self::map(fd, len, MappingKind::Descriptor, volatile, options)
    }

    /// [`from_fd`](Self::from_fd), to read only: a write through it is a defect and ends the process.
    ///
    /// # Errors
    /// As there.
    pub fn from_fd_read_only(fd: OwnedFd, len: usize) -> Result<Self, MapError> {
        check_len(len)?;
        super::named::check_extent(&fd, "the descriptor", len)?;
        let volatile = super::named::why_volatile(&fd);
        Self::map_protected(
            fd,
            len,
            MappingKind::Descriptor,
            volatile,
            MapOptions::default(),
            ProtFlags::READ,
        )
    }

    /// Maps `len` bytes of `fd` and guards them where they can be taken away.
    pub(super) fn map(
        fd: OwnedFd,
        len: usize,
        kind: MappingKind,
        volatile: Option<&'static str>,
        options: MapOptions,
    ) -> Result<Self, MapError> {
        Self::map_protected(fd, len, kind, volatile, options, ProtFlags::READ | ProtFlags::WRITE)
    }

    fn map_protected(
        fd: OwnedFd,
        len: usize,
        kind: MappingKind,
        volatile: Option<&'static str>,
        options: MapOptions,
        protection: ProtFlags,
    ) -> Result<Self, MapError> {
        let pages = super::named::pages_of(&fd);
        let mapped = len.next_multiple_of(pages.size_bytes());
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), mapped, protection, MapFlags::SHARED, &fd, 0) }
                .map_err(failed("mmap", len))?;
        let sealed = rustix::fs::fcntl_get_seals(&fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        let status = rustix::fs::fstat(&fd);
        // Looked at behind the seal, which came from whoever sealed it: before, it may have been cut.
        let whole = status
            .as_ref()
            .is_ok_and(|status| u64::try_from(status.st_size).is_ok_and(|size| size >= len as u64));
        // Sealed pages of the reserved pool can be punched out, and the pool be empty when they are wanted again.
        let certain = sealed && whole && matches!(pages, Pages::Base { .. });
        let is_file = status.is_ok_and(|status| FileType::from_raw_mode(status.st_mode).is_file());
        let rule = (is_file && super::named::is_shmem(&fd)).then_some(Transparent::Shmem);
        let start = start.cast();
        let parts = Parts { start, len, mapped, apart: 0, kind, pages, fd: Some(fd), volatile };
        let mut mapping = Self::assemble(parts);
        if !certain {
            mapping.guard()?;
        }
        mapping.settle(options, rule)?;
        Ok(mapping)
    }

    /// Enters every page into this process's page tables, writable, so that no store pays for a fault. Without
    /// effect before Linux 5.14.
    pub fn populate(&self) {
        let filled = self.advise(Advice::LinuxPopulateWrite);
        log::debug!("entering the pages of {} bytes: {filled:?}", self.len());
    }

    /// Applies the advice, and tells what pages were got.
    fn settle(&mut self, options: MapOptions, rule: Option<Transparent>) -> Result<(), MapError> {
        self.advise(Advice::LinuxDontFork).map_err(failed("madvise(MADV_DONTFORK)", self.len()))?;
        // Only makes core dumps smaller; some devices refuse.
        if let Err(error) = self.advise(Advice::LinuxDontDump) {
            log::debug!("{} bytes stay in core dumps: {error}", self.len());
        }
        if !options.huge_pages {
            return Ok(());
        }
        if let (Pages::Base { bytes }, Some(huge_bytes), Some(rule)) = (self.pages(), huge_bytes(), rule)
            && rule.heeded()
            && self.advise(Advice::LinuxHugepage).is_ok()
        {
            self.set_pages(Pages::Advised { bytes, huge_bytes });
        }
        log::info!(
            "huge pages asked for a {} mapping of {} bytes: got {}",
            self.kind(),
            self.len(),
            self.pages()
        );
        Ok(())
    }

    /// Memory of the allocator in place of a mapping: Miri has no `mmap` to speak of.
    fn from_allocator(len: usize) -> Self {
        let mapped = len.next_multiple_of(base_bytes());
        // SAFETY: the size is above 0.
        let start = unsafe { std::alloc::alloc_zeroed(layout(mapped)) };
        let (kind, pages) = (MappingKind::Anonymous, Pages::Base { bytes: base_bytes() });
        let volatile = Some(MEMORY_ONLY);
        Self::assemble(Parts { start, len, mapped, apart: 0, kind, pages, fd: None, volatile })
    }
}

fn layout(mapped: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(mapped, base_bytes()).expect("checked to be far below the limit")
}

#[cfg(miri)]
pub(super) fn release(start: *mut u8, mapped: usize) {
    // SAFETY: from `from_allocator`, with the same size.
    unsafe { std::alloc::dealloc(start, layout(mapped)) };
}

fn map_anonymous(mapped: usize, protection: ProtFlags, flags: MapFlags) -> Result<*mut u8, Errno> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), mapped, protection, flags) }.map(<*mut _>::cast)
}
