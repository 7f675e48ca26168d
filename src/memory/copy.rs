//! The copy that every store pays twice.
//!
//! # Safety
//! Source and destination may be written by others during the copy: no Rust reference to them exists, the bytes are
//! moved by volatile accesses or by code the compiler cannot see through, so a race gives some mix of old and new
//! bytes and nothing worse.

/// Copies `len` bytes; the ranges must not overlap.
///
/// # Safety
/// `source` is readable and `destination` writable for `len` bytes.
#[inline]
pub(super) unsafe fn copy_racy(source: *const u8, destination: *mut u8, len: usize) {
    let mut done = 0;
    while done + 8 <= len {
        // SAFETY: done + 8 <= len, so the eight bytes lie within what the caller vouches for.
        let word = unsafe { source.add(done).cast::<[u8; 8]>().read_volatile() };
        // SAFETY: as above, for the destination.
        unsafe { destination.add(done).cast::<[u8; 8]>().write_volatile(word) };
        done += 8;
    }
    while done < len {
        // SAFETY: done < len.
        let byte = unsafe { source.add(done).read_volatile() };
        // SAFETY: done < len.
        unsafe { destination.add(done).write_volatile(byte) };
        done += 1;
    }
}
