//! Tracking by the kernel: pages are write-protected for a userfaultfd that asked to hear of nothing (`UFFD_FEATURE_WP_ASYNC`).
//!
//! Linux 6.7 has it; it is used from 6.9 on, since the two before have faults in it that were mended later.
//!
//! The kernel lifts the protection of a page itself at the first store, its own stores among them, and `PAGEMAP_SCAN` tells which pages
//! lost it and protects them again, each page in one step: no store falls between the two.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::mm::UserfaultfdFlags;

use super::Tracker;
use super::runs::Runs;
use crate::memory::pages::base_bytes;

/// `UFFD_USER_MODE_ONLY`: all that is allowed without privilege, and enough, since no fault is ever handed to us.
const USER_MODE_ONLY: u32 = 1;
const UFFD_API: u64 = 0xaa;
/// `UFFD_FEATURE_WP_UNPOPULATED` and `UFFD_FEATURE_WP_ASYNC`.
const FEATURES: u64 = 1 << 13 | 1 << 15;
const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// `PM_SCAN_WP_MATCHING` and `PM_SCAN_CHECK_WPASYNC`.
const SCAN_FLAGS: u64 = 1 | 2;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
/// The first release whose implementation is relied on.
const LINUX_MIN: (u32, u32) = (6, 9);
/// Runs that one scan tells.
const RUNS_MAX: usize = 1024;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// The range, registered.
pub(super) struct WpAsync {
    /// Its end is the end of the registration.
    _uffd: OwnedFd,
    pagemap: File,
    start: usize,
    len: usize,
    regions: Vec<Region>,
}

/// A call with a structure of its own.
fn call<T>(fd: &impl AsRawFd, request: u64, argument: &mut T) -> io::Result<usize> {
    // SAFETY: the structure is the one that the request reads and writes, as the kernel's headers have it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, &raw mut *argument) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Refuses a kernel of this release if it is known and too old.
fn check_release(release: &str) -> io::Result<()> {
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return Ok(()) };
    if (major, minor) >= LINUX_MIN {
        return Ok(());
    }
    let (major_min, minor_min) = LINUX_MIN;
    let why = format!(
        "Linux {major}.{minor}: asynchronous write protection is new in 6.7 and is relied on from {major_min}.{minor_min} on"
    );
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

impl WpAsync {
    pub(super) fn new(start: usize, len: usize) -> io::Result<Self> {
        check_release(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())?;
        let named = |what: &'static str| {
            move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
        };
        let flags = UserfaultfdFlags::CLOEXEC
            | UserfaultfdFlags::NONBLOCK
            | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
        // SAFETY: makes a descriptor; what it may do to memory is said by the calls below.
        let uffd =
            unsafe { rustix::mm::userfaultfd(flags) }.map_err(|error| named("userfaultfd")(error.into()))?;
        let mut api = Api { api: UFFD_API, features: FEATURES, ioctls: 0 };
        call(&uffd, UFFDIO_API, &mut api).map_err(named("UFFDIO_API with asynchronous write protection"))?;
        let mut register =
            Register { start: start as u64, len: len as u64, mode: UFFDIO_REGISTER_MODE_WP, ioctls: 0 };
        call(&uffd, UFFDIO_REGISTER, &mut register).map_err(named("UFFDIO_REGISTER"))?;
        let pagemap = File::open("/proc/self/pagemap").map_err(named("/proc/self/pagemap"))?;
        let regions = vec![Region::default(); RUNS_MAX];
        let mut tracker = Self { _uffd: uffd, pagemap, start, len, regions };
        tracker.collect(&mut Runs::new(base_bytes())).map_err(named("PAGEMAP_SCAN"))?;
        Ok(tracker)
    }
}

impl Tracker for WpAsync {
    fn collect(&mut self, found: &mut Runs) -> io::Result<()> {
        let (page, end) = (base_bytes(), (self.start + self.len) as u64);
        let mut at = self.start as u64;
        while at < end {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                flags: SCAN_FLAGS,
                start: at,
                end,
                walk_end: 0,
                vec: self.regions.as_mut_ptr().expose_provenance() as u64,
                vec_len: self.regions.len() as u64,
                max_pages: 0,
                category_inverted: 0,
                category_mask: PAGE_IS_WRITTEN,
                category_anyof_mask: 0,
                return_mask: PAGE_IS_WRITTEN,
            };
            let count = call(&self.pagemap, PAGEMAP_SCAN, &mut scan)?;
            for region in &self.regions[..count.min(self.regions.len())] {
                let number = |address: u64| {
                    usize::try_from(address).unwrap_or(usize::MAX).saturating_sub(self.start) / page
                };
                found.add_pages(number(region.start)..number(region.end));
            }
            // Short of the end where there were more runs than it could tell.
            if scan.walk_end <= at {
                return Err(io::Error::other(format!(
                    "PAGEMAP_SCAN from {at:#x} came to {:#x}",
                    scan.walk_end
                )));
            }
            at = scan.walk_end;
        }
        Ok(())
    }

    fn prepare(&self, _: Range<usize>) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_the_first_good_one_are_refused_with_the_reason() {
        for good in ["6.9.0", "6.10.3-amd64", "7.0", "", "unheard of"] {
            assert!(check_release(good).is_ok(), "{good}");
        }
        for old in ["6.8.12-generic", "6.7", "5.15.0", "4.19.0+"] {
            let why = check_release(old).unwrap_err().to_string();
            assert!(why.contains("6.9"), "{old}: {why}");
        }
    }
}
