//! Tracking by the kernel's soft-dirty bits (`CONFIG_MEM_SOFT_DIRTY`): bit 55 of each entry of `/proc/self/pagemap`.
//!
//! The bits are cleared for the *whole process* at once, by writing 4 to `/proc/self/clear_refs`. So every memory that is tracked this
//! way takes note of its own bits before any of them clears; and whoever else in the process, or a debugger from outside, goes by
//! these bits or clears them, spoils it for both.
//!
//! Between reading the bits and clearing them a store would be lost. The memories are read-only for that moment, and a thread that stores
//! there waits in the handler of the fault; a system call that would, fails with EFAULT: none may be under way while pages
//! of any of them are collected, or one more is made.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Tracker;
use super::fault::{Guard, GuardError};
use super::runs::Runs;
use crate::memory::pages::base_bytes;

/// "Set since the bits were last cleared", of an entry of 64 bits.
const SOFT_DIRTY: u64 = 1 << 55;
/// Entries that are read at a time.
const ENTRIES: usize = 8192;

/// Every memory of this process that is tracked this way; who collects holds this.
static ALL: Mutex<Vec<Weak<Member>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of them.
struct Member {
    /// The process that it is mapped in: a forked child has none of it.
    owner: u32,
    start: usize,
    len: usize,
    guard: Guard,
    /// What was found and not yet asked for.
    found: Mutex<Runs>,
}

impl Member {
    /// Notes the pages whose bit is set.
    fn read(&self, pagemap: &File) -> io::Result<()> {
        let (first, pages) = (self.start / base_bytes(), self.len / base_bytes());
        let mut found = lock(&self.found);
        let mut bytes = vec![0; ENTRIES.min(pages) * 8];
        for begin in (0..pages).step_by(ENTRIES) {
            let entries = &mut bytes[..ENTRIES.min(pages - begin) * 8];
            pagemap.read_exact_at(entries, (first + begin) as u64 * 8)?;
            for (at, entry) in entries.as_chunks::<8>().0.iter().enumerate() {
                if u64::from_ne_bytes(*entry) & SOFT_DIRTY != 0 {
                    found.add_pages(begin + at..begin + at + 1);
                }
            }
        }
        Ok(())
    }
}

/// The memory, known to all that clear the bits.
pub(super) struct SoftDirty(Arc<Member>);

impl SoftDirty {
    pub(super) fn new(start: usize, len: usize) -> Result<Self, GuardError> {
        check_kernel()?;
        let guard = Guard::new(start, len, false)?;
        let (owner, found) = (std::process::id(), Mutex::new(Runs::new(base_bytes())));
        let range = Member { owner, start, len, guard, found };
        let mut tracker = Self(Arc::new(range));
        lock(&ALL).push(Arc::downgrade(&tracker.0));
        tracker.collect(&mut Runs::new(base_bytes()))?;
        Ok(tracker)
    }
}

impl Drop for SoftDirty {
    /// Nobody who clears the bits knows the memory, or is about to protect it, when this is gone: who does has the list, and lets go
    /// of every member before he gives it back. The memory is unmapped behind this.
    fn drop(&mut self) {
        lock(&ALL).retain(|known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(&self.0)));
    }
}

/// Whether the kernel marks a page that is stored to. One without `CONFIG_MEM_SOFT_DIRTY` takes the request to clear all the same.
fn check_kernel() -> io::Result<()> {
    /// Another memory's collection may come between the store and the look.
    const TRIES: u8 = 20;
    let pagemap = File::open("/proc/self/pagemap")?;
    let (mut place, mut entry) = (0, [0; 8]);
    for number in 1..=TRIES {
        *std::hint::black_box(&mut place) = number;
        let page = (&raw const place).addr() / base_bytes();
        pagemap.read_exact_at(&mut entry, page as u64 * 8)?;
        if u64::from_ne_bytes(entry) & SOFT_DIRTY != 0 {
            return Ok(());
        }
    }
    let why = "the kernel marks no page that is stored to: it is made without CONFIG_MEM_SOFT_DIRTY";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

/// Closes `ranges`, one within the other, notes the bits of each and clears them all.
fn take(ranges: &[Arc<Member>], all: &[Arc<Member>], pagemap: &File) -> io::Result<()> {
    if let Some((first, rest)) = ranges.split_first() {
        return first.guard.closed(|| take(rest, all, pagemap));
    }
    all.iter().try_for_each(|range| range.read(pagemap))?;
    File::options().write(true).open("/proc/self/clear_refs")?.write_all(b"4")
}

impl Tracker for SoftDirty {
    fn collect(&mut self, found: &mut Runs) -> io::Result<()> {
        let pagemap = File::open("/proc/self/pagemap")?;
        let mut known = lock(&ALL);
        known.retain(|range| range.strong_count() > 0);
        let own = std::process::id();
        let all: Vec<_> = known.iter().filter_map(Weak::upgrade).filter(|range| range.owner == own).collect();
        take(&all, &all, &pagemap)?;
        let mut own = lock(&self.0.found);
        for run in own.ranges() {
            found.add_pages(run.start / base_bytes()..run.end / base_bytes());
        }
        own.clear();
        Ok(())
    }

    fn prepare(&self, _: Range<usize>) -> io::Result<()> {
        Ok(())
    }
}
