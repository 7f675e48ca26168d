//! A file truncated under a mapping takes no process down.
//!
//! An access beyond the end of the file behind a mapping raises SIGBUS, and anybody who can open the file can cut it.
//! One handler for the process looks the address up in a table of the mappings that this can happen to, puts anonymous
//! zero pages in place of the mapping from the faulting page to its end, raises the mapping's *lost* flag and returns:
//! the access is repeated and succeeds. What is read from then on means nothing and what is written goes nowhere,
//! which is what `lost` says. Any other SIGBUS goes to the handler that was there before, or kills as it would have.
//!
//! The tail goes as a whole, not page by page, because what lies behind a page beyond the end lies beyond it too, and
//! because a table of a mapping per page would run into the kernel's limit of mappings.
//!
//! Invariants:
//! - The handler allocates nothing, takes no lock, and calls `mmap` only, by the bare system call.
//! - A slot whose range holds the faulting address is stable: its mapping is borrowed by the thread that faulted.
//!   Slots of other mappings change meanwhile; the version tells (odd: live) that start and end belong together.
//!
//! A program that installs a SIGBUS handler of its own after the first such mapping must pass on what is not its own.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags};

use super::MapError;
use super::signal::{Chain, keeping_errno};

/// Mappings that can be truncated, in one process.
pub(super) const TRUNCATABLE_MAPPINGS_MAX: usize = 1024;

static REGISTRY: Registry<TRUNCATABLE_MAPPINGS_MAX> = Registry::new();

/// The flag of all mappings that cannot be truncated.
pub(super) static NEVER_LOST: AtomicBool = AtomicBool::new(false);

static ANY_LOST: AtomicBool = AtomicBool::new(false);

/// Whether any mapping of this process was ever lost. Until then nobody need look at
/// [`Mapping::lost`](super::Mapping::lost), which costs more. As there: look after the access.
#[inline]
pub fn any_mapping_lost() -> bool {
    ANY_LOST.load(Ordering::Relaxed)
}

static CHAIN: Chain = Chain::new(libc::SIGBUS);

/// One mapping, on a cache line of its own: the flag is read by every store.
#[repr(align(64))]
struct Slot {
    taken: AtomicBool,
    /// Odd while the range is valid.
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    page_bytes: AtomicUsize,
    lost: AtomicBool,
}

impl Slot {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            page_bytes: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }
}

/// Part of a mapping to be replaced.
#[derive(Debug, PartialEq, Eq)]
struct Tail {
    slot: usize,
    start: usize,
    len: usize,
}

struct Registry<const SLOTS: usize> {
    slots: [Slot; SLOTS],
}

impl<const SLOTS: usize> Registry<SLOTS> {
    const fn new() -> Self {
        Self { slots: [const { Slot::new() }; SLOTS] }
    }

    fn enter(&'static self, start: usize, len: usize, page_bytes: usize) -> Option<Watch> {
        assert!(
            page_bytes.is_power_of_two()
                && start.is_multiple_of(page_bytes)
                && len.is_multiple_of(page_bytes)
        );
        let free = |slot: &&Slot| {
            slot.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let slot = self.slots.iter().find(free)?;
        // Who reads a word of what follows reads a version after the last owner's.
        fence(Ordering::Release);
        slot.lost.store(false, Ordering::Relaxed);
        slot.start.store(start, Ordering::Relaxed);
        slot.end.store(start + len, Ordering::Relaxed);
        slot.page_bytes.store(page_bytes, Ordering::Relaxed);
        let before = slot.version.fetch_add(1, Ordering::Release);
        assert!(before % 2 == 0, "a free slot was live");
        Some(Watch { slot })
    }

    /// What to replace for a fault at `address`. Runs in the signal handler.
    fn tail(&self, address: usize) -> Option<Tail> {
        self.slots.iter().enumerate().find_map(|(at, slot)| {
            let version = slot.version.load(Ordering::Acquire);
            let (start, end) = (slot.start.load(Ordering::Relaxed), slot.end.load(Ordering::Relaxed));
            let page_bytes = slot.page_bytes.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if version % 2 == 0 || slot.version.load(Ordering::Relaxed) != version {
                return None;
            }
            let page = address & !page_bytes.wrapping_sub(1);
            (start..end).contains(&address).then(|| Tail { slot: at, start: page, len: end - page })
        })
    }
}

/// A mapping's place in the table; leaves it on drop.
pub(super) struct Watch {
    slot: &'static Slot,
}

impl Watch {
    /// The mapping's flag. Not to be looked at after the watch is dropped.
    pub(super) const fn lost(&self) -> &'static AtomicBool {
        &self.slot.lost
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let before = self.slot.version.fetch_add(1, Ordering::Relaxed);
        assert!(before % 2 == 1, "a live slot was free");
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// Guards `len` bytes at `start` against truncation of what is behind them; installs the handler when it is the first.
pub(super) fn watch(start: usize, len: usize, page_bytes: usize) -> Result<Watch, MapError> {
    CHAIN.install(on_sigbus, false).map_err(|error| MapError::System {
        call: "sigaction(SIGBUS)",
        len,
        error: std::io::Error::from_raw_os_error(error),
    })?;
    REGISTRY.enter(start, len, page_bytes).ok_or(MapError::TooMany { most: TRUNCATABLE_MAPPINGS_MAX })
}

extern "C" fn on_sigbus(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    keeping_errno(|| {
        if !replaced(info) {
            CHAIN.pass_on(info, context);
        }
    });
}

/// Whether the fault was in a mapping of ours, and is mended.
fn replaced(info: *mut libc::siginfo_t) -> bool {
    // SAFETY: the kernel hands every handler with SA_SIGINFO a siginfo, which is ours while the handler runs.
    let info = unsafe { &*info };
    if info.si_code <= 0 {
        return false; // Sent by a process: it holds no address.
    }
    // SAFETY: a SIGBUS of the kernel holds the faulting address.
    let address = unsafe { info.si_addr() }.addr();
    let Some(tail) = REGISTRY.tail(address) else { return false };
    // Before the pages: who sees zeros there must see the flag.
    REGISTRY.slots[tail.slot].lost.store(true, Ordering::SeqCst);
    ANY_LOST.store(true, Ordering::SeqCst);
    // Memory is not reserved: most of the tail will never be touched again.
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    let place = std::ptr::without_provenance_mut(tail.start);
    // SAFETY: the range is the tail of a live mapping of ours, which nothing in Rust refers to but as raw memory.
    let made =
        unsafe { rustix::mm::mmap_anonymous(place, tail.len, ProtFlags::READ | ProtFlags::WRITE, flags) };
    made.is_ok()
}
