//! Tracking by faults: pages are read-only, and the first store to each raises a SIGSEGV.
//!
//! Works on any Linux, at the price of a signal for each page and epoch. A system call that is to write into such a page fails with
//! EFAULT, for the kernel raises no signal for its own stores: [`prepare`](super::Tracker::prepare) opens a range for it.

use std::io;
use std::ops::Range;

use super::Tracker;
use super::fault::{Guard, GuardError};
use super::runs::Runs;

/// The range, guarded.
pub(super) struct Mprotect(Guard);

impl Mprotect {
    pub(super) fn new(start: usize, len: usize) -> Result<Self, GuardError> {
        let guard = Guard::new(start, len, true)?;
        guard.take(|_| ())?;
        Ok(Self(guard))
    }
}

impl Tracker for Mprotect {
    fn collect(&mut self, found: &mut Runs) -> io::Result<()> {
        self.0.take(|page| found.add_pages(page..page + 1))
    }

    fn prepare(&self, range: Range<usize>) -> io::Result<()> {
        self.0.open(range)
    }
}
