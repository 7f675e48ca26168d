//! Whether this process was forked after the library was used.
//!
//! A child has the library's memory but none of its threads, and the parent's connections: what it would store would be a second
//! owner's. A page that the kernel wipes in a child tells, for one load of each call, where asking for the process' id would be a
//! system call.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use crate::codes::{Failure, mirrorbus_code};

const PAGE_BYTES: usize = 4096;

/// The page, once the library was used; its first byte is 1 in the process that used it.
static PAGE: AtomicPtr<AtomicU8> = AtomicPtr::new(ptr::null_mut());

/// Fails in a child. Before the library is used there is nothing that a child could harm.
#[inline]
pub(crate) fn check() -> Result<(), Failure> {
    let page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        return Ok(());
    }
    // SAFETY: the page was mapped by `watch`, and is never unmapped.
    let byte = unsafe { &*page };
    if byte.load(Ordering::Relaxed) == 1 { Ok(()) } else { Err(forked()) }
}

#[cold]
fn forked() -> Failure {
    let text =
        "this process was forked after the library was used: fork before that, or call it in the parent only";
    Failure::new(mirrorbus_code::MIRRORBUS_E_FORKED, text)
}

/// Has children told from now on. Called before there is anything that they could harm.
pub(crate) fn watch() -> Result<(), Failure> {
    if !PAGE.load(Ordering::Acquire).is_null() {
        return Ok(());
    }
    let system = |what: &str| {
        let text = format!("{what}: {}", std::io::Error::last_os_error());
        Failure::new(mirrorbus_code::MIRRORBUS_E_SYSTEM, text)
    };
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping of its own touches no memory that there is.
    let page = unsafe { libc::mmap(ptr::null_mut(), PAGE_BYTES, access, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(system("mmap of a page"));
    }
    // SAFETY: it is the mapping made above, whole.
    let advised = unsafe { libc::madvise(page, PAGE_BYTES, libc::MADV_WIPEONFORK) };
    if advised != 0 {
        let failure = system("madvise(MADV_WIPEONFORK)");
        // SAFETY: nobody else knows the mapping.
        unsafe { libc::munmap(page, PAGE_BYTES) };
        return Err(failure);
    }
    let first = page.cast::<AtomicU8>();
    // SAFETY: the mapping is writable, and as large; nobody else knows it yet.
    unsafe { &*first }.store(1, Ordering::Relaxed);
    if PAGE.compare_exchange(ptr::null_mut(), first, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: another thread was first, so that nobody will know this one.
        unsafe { libc::munmap(page, PAGE_BYTES) };
    }
    Ok(())
}
