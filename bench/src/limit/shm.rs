//! The limit of shared memory: each store is two copies, one into private memory and one into a shared mapping of a
//! memfd, and each acknowledged batch ends with one full fence.
//!
//! Both mappings are of this process; no other looks at them. Each thread has a part of its own, so there are no
//! races. All pages are touched before the first slice.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

use super::{Limit, Team};
use crate::Failure;
use crate::driver::Side;
use crate::workload::Workload;

/// A mapping, touched, unmapped when dropped.
#[derive(Debug)]
struct Pages {
    start: *mut u8,
    len: usize,
}

// SAFETY: only the owner's drop uses the pointer; sides hold copies of it and keep to disjoint parts.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn private(len: usize) -> Result<Self, Failure> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::PRIVATE) }
                .map_err(|error| format!("cannot map {len} bytes of private memory: {error}"))?;
        Ok(Self::touched(start.cast(), len))
    }

    fn shared(len: usize) -> Result<Self, Failure> {
        let fd = rustix::fs::memfd_create("mirrorbus-bench-limit", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, len as u64)
            .map_err(|error| format!("cannot make a memfd of {len} bytes: {error}"))?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the file is as long as the mapping and private
        // to this process, so nobody cuts it short.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, &fd, 0) }
            .map_err(|error| format!("cannot map {len} bytes of shared memory: {error}"))?;
        Ok(Self::touched(start.cast(), len))
    }

    fn touched(start: *mut u8, len: usize) -> Self {
        // SAFETY: the whole of a mapping just made, writable and known to nobody else.
        unsafe { start.write_bytes(1, len) };
        Self { start, len }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length; the sides that knew the address are gone with their Arc.
        let result = unsafe { rustix::mm::munmap(self.start.cast(), self.len) };
        debug_assert!(result.is_ok(), "munmap of our own mapping: {result:?}");
    }
}

/// One thread's part.
#[derive(Debug)]
struct ShmSide {
    local: *mut u8,
    peer: *mut u8,
    len: usize,
    source: Vec<u8>,
    _pages: Arc<[Pages; 2]>,
}

// SAFETY: the pointers go into mappings that `_pages` keeps, at offsets that only this side's thread uses.
unsafe impl Send for ShmSide {}

impl Side for ShmSide {
    type Mark = ();

    #[inline(always)]
    fn store(&mut self, offset: usize) -> Result<(), Failure> {
        let size = self.source.len();
        assert!(offset <= self.len && size <= self.len - offset, "{size} bytes at {offset} of {}", self.len);
        // SAFETY: offset lies within the mapping.
        let local = unsafe { self.local.add(offset) };
        // SAFETY: offset lies within the mapping.
        let peer = unsafe { self.peer.add(offset) };
        // SAFETY: both ranges were checked; the source is a vector of ours, which no mapping overlaps.
        unsafe { copy_twice(self.source.as_ptr(), local, peer, size) };
        Ok(())
    }

    #[inline(always)]
    fn post(&mut self, (): (), _more: bool) -> Result<(), Failure> {
        fence(Ordering::SeqCst);
        Ok(())
    }

    #[inline(always)]
    fn wait(&mut self, (): ()) -> Result<(), Failure> {
        Ok(())
    }

    fn calls(&self) -> Option<u64> {
        Some(0)
    }
}

/// Copies `len` bytes to both; the commonest small size through registers, read once.
///
/// # Safety
/// `source` is readable and the targets writable for `len` bytes, and no two of them overlap.
#[inline(always)]
unsafe fn copy_twice(source: *const u8, first: *mut u8, second: *mut u8, len: usize) {
    if len == 64 {
        // SAFETY: the caller's promise, for 64 bytes.
        let bytes = unsafe { source.cast::<[u8; 64]>().read_unaligned() };
        // SAFETY: as above.
        unsafe { first.cast::<[u8; 64]>().write_unaligned(bytes) };
        // SAFETY: as above.
        unsafe { second.cast::<[u8; 64]>().write_unaligned(bytes) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { ptr::copy_nonoverlapping(source, first, len) };
        // SAFETY: the caller's promise.
        unsafe { ptr::copy_nonoverlapping(source, second, len) };
    }
}

/// The limit of `workload`.
///
/// # Errors
/// The memory could not be had.
pub(crate) fn limit(workload: &Workload) -> Result<Limit, Failure> {
    let pages = Arc::new([Pages::private(workload.region)?, Pages::shared(workload.region)?]);
    let sides = (0..workload.threads)
        .map(|_| ShmSide {
            local: pages[0].start,
            peer: pages[1].start,
            len: workload.region,
            source: vec![0xa5; workload.size],
            _pages: Arc::clone(&pages),
        })
        .collect();
    Ok(Limit {
        contender: Box::new(Team::new(sides, workload, ())),
        bare: None,
        does: "two copies per store (private memory, shared memfd), one full fence per acknowledged batch",
        copies_per_byte: 2.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(region: usize, size: usize) -> ShmSide {
        let pages = Arc::new([Pages::private(region).unwrap(), Pages::shared(region).unwrap()]);
        ShmSide {
            local: pages[0].start,
            peer: pages[1].start,
            len: region,
            source: (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect(),
            _pages: pages,
        }
    }

    #[test]
    fn a_store_is_in_both_memories_and_nowhere_else() {
        for size in [1, 64, 4096] {
            let mut side = side(1 << 16, size);
            side.store(8192).unwrap();
            side.post((), false).unwrap();
            for start in [side.local, side.peer] {
                // SAFETY: the whole mapping, kept by the side, and nobody writes now.
                let bytes = unsafe { std::slice::from_raw_parts(start, side.len) };
                assert_eq!(&bytes[8192..8192 + size], &side.source[..]);
                assert!(bytes[..8192].iter().chain(&bytes[8192 + size..]).all(|byte| *byte == 1));
            }
        }
    }

    #[test]
    #[should_panic(expected = "64 bytes at 65473")]
    fn a_store_past_the_end_is_refused() {
        drop(side(1 << 16, 64).store((1 << 16) - 63));
    }
}
