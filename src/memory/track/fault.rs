//! A store to a page that is read-only for the while is found by the SIGSEGV that it raises.
//!
//! One handler for the process looks the address up in a table of the guarded ranges. Where the range keeps a map of its pages, it
//! notes the page there and makes it writable; where it has none, it waits until whoever closed the range opens it again, and opens
//! it where that failed. Then it returns, and the store is repeated. Any other SIGSEGV (a jump into such a range, a page that the
//! kernel does not open) goes to the handler that was there before, or kills as it would have.
//!
//! Invariants:
//! - A page of a range with a map is writable only if its bit is set. Both change under the range's lock only: a page that was
//!   writable before its bit was set would let another thread's store pass that nobody finds.
//! - Whoever has a lock takes no signal and stores into no range, so that nobody waits for himself. The handler runs with every signal
//!   blocked; it allocates nothing and calls `mprotect` and `sched_yield` only.
//! - A slot whose range holds the faulting address is stable: who stores there keeps the memory alive. Slots of other ranges change
//!   meanwhile; the version tells (odd: live) that the words belong together.
//! - A slot is its process's. A forked child inherits the table, perhaps with a lock that nobody will give back; slots of another
//!   process are passed by when a fault is looked up, and count as free.
//!
//! A thread that stores into a guarded range must not block SIGSEGV: the kernel kills the process then. A program that installs a
//! SIGSEGV handler of its own after the first such range must pass on what is not its own.

use std::ffi::{c_int, c_void};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use super::super::pages::base_bytes;
use super::super::signal::{Chain, keeping_errno};

/// Guarded ranges in one process.
pub(super) const GUARDED_RANGES_MAX: usize = 64;

static CHAIN: Chain = Chain::new(libc::SIGSEGV);
static SLOTS: [Slot; GUARDED_RANGES_MAX] = [const { Slot::new() }; GUARDED_RANGES_MAX];

struct Slot {
    /// The process that has it; 0: nobody.
    owner: AtomicU32,
    /// Odd while the range is valid.
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    /// Bytes in a page.
    page: AtomicUsize,
    /// A bit for each page; null where faults only wait.
    map: AtomicPtr<AtomicU64>,
    locked: AtomicBool,
}

impl Slot {
    const fn new() -> Self {
        Self {
            owner: AtomicU32::new(0),
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            page: AtomicUsize::new(0),
            map: AtomicPtr::new(std::ptr::null_mut()),
            locked: AtomicBool::new(false),
        }
    }

    /// Takes it for the process `own` if nobody in there has it.
    fn take(&self, own: u32) -> bool {
        let before = self.owner.load(Ordering::Relaxed);
        if before == own
            || self.owner.compare_exchange(before, own, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return false;
        }
        // Of the process that this one was forked from: whoever was about to unlock or free it is not here.
        if before != 0 && self.version.load(Ordering::Relaxed) % 2 == 1 {
            self.version.fetch_add(1, Ordering::Relaxed);
        }
        self.locked.store(false, Ordering::Relaxed);
        true
    }

    fn lock(&self) {
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // SAFETY: gives the processor away, and nothing else; may be called in a handler.
            unsafe { libc::sched_yield() };
        }
    }

    fn unlock(&self) {
        self.locked.store(false, Ordering::Release);
    }

    fn protect(&self, range: Range<usize>, writable: bool) -> bool {
        let start = std::ptr::without_provenance_mut::<c_void>(range.start);
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: whole pages of a live mapping of ours, to which no reference exists; readable throughout.
        unsafe { libc::mprotect(start, range.len(), protection) == 0 }
    }

    fn range(&self) -> Range<usize> {
        self.start.load(Ordering::Relaxed)..self.end.load(Ordering::Relaxed)
    }

    /// The word of the map with the bits of 64 pages from `index * 64`.
    fn word(&self, index: usize) -> Option<&AtomicU64> {
        let map = self.map.load(Ordering::Relaxed);
        if map.is_null() {
            return None;
        }
        // SAFETY: the map has a bit for each page of the range, within which callers stay; it lives as long as the slot is taken.
        let word = unsafe { map.add(index) };
        // SAFETY: as above; shared as an atomic only.
        Some(unsafe { &*word })
    }

    /// Notes `pages` of the range and makes them writable. Under the lock.
    fn open(&self, pages: Range<usize>) -> bool {
        let (page, whole) = (self.page.load(Ordering::Relaxed), self.range());
        let place = whole.start + pages.start * page..whole.start + pages.end * page;
        let mut noted = pages;
        if !self.protect(place, true) {
            // Too many pieces for the kernel: all of it in one piece, and every page counts as stored to.
            if !self.protect(whole.clone(), true) {
                return false;
            }
            noted = 0..whole.len() / page;
        }
        for number in noted {
            if let Some(word) = self.word(number / 64) {
                word.fetch_or(1 << (number % 64), Ordering::Relaxed);
            }
        }
        true
    }

    /// Mends a fault at `address`, which lies within; whether the store may be repeated.
    fn mend(&self, address: usize) -> bool {
        self.lock();
        let number = (address - self.start.load(Ordering::Relaxed)) / self.page.load(Ordering::Relaxed);
        let mended = self.open(number..number + 1);
        self.unlock();
        mended
    }
}

/// Why a range is not guarded, or a memory not tracked.
#[derive(Debug)]
pub(super) enum GuardError {
    /// [`GUARDED_RANGES_MAX`] are.
    TooMany,
    System(io::Error),
}

impl From<io::Error> for GuardError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// A range whose faults are mended; no longer when dropped, after which nothing may be stored there.
pub(super) struct Guard {
    slot: &'static Slot,
    /// The process that made it. A forked child has a copy of this, and no right to the slot.
    owner: u32,
    /// What the slot's pointer leads to.
    map: Box<[AtomicU64]>,
}

impl Guard {
    /// Guards `len` bytes at `start`, whole pages, all of them writable still; with `noting`, every page counts as stored to.
    pub(super) fn new(start: usize, len: usize, noting: bool) -> Result<Self, GuardError> {
        let page = base_bytes();
        assert!(start.is_multiple_of(page) && len.is_multiple_of(page) && len > 0, "{len} bytes at {start}");
        CHAIN.install(on_sigsegv, true).map_err(io::Error::from_raw_os_error)?;
        let pages = len / page;
        let all = |index: usize| u64::MAX >> (64 - (pages - index * 64).min(64));
        let words = if noting { pages.div_ceil(64) } else { 0 };
        let map: Box<[_]> = (0..words).map(|index| AtomicU64::new(all(index))).collect();
        let owner = std::process::id();
        let slot = SLOTS.iter().find(|slot| slot.take(owner)).ok_or(GuardError::TooMany)?;
        // Who reads a word of what follows reads a version after the last owner's.
        fence(Ordering::Release);
        slot.start.store(start, Ordering::Relaxed);
        slot.end.store(start + len, Ordering::Relaxed);
        slot.page.store(page, Ordering::Relaxed);
        let place = if noting { map.as_ptr().cast_mut() } else { std::ptr::null_mut() };
        slot.map.store(place, Ordering::Relaxed);
        let before = slot.version.fetch_add(1, Ordering::Release);
        assert!(before % 2 == 0, "a free slot was live");
        Ok(Self { slot, owner, map })
    }

    /// Makes all of it read-only, takes the noted pages and forgets them; `each` is told each of their numbers, by rising number. A
    /// store that comes later is noted again.
    pub(super) fn take(&self, mut each: impl FnMut(usize)) -> io::Result<()> {
        let words = {
            let _alone = Alone::enter(self.slot);
            if !self.slot.protect(self.slot.range(), false) {
                return Err(io::Error::last_os_error());
            }
            self.map.iter().map(|word| word.swap(0, Ordering::Relaxed)).collect::<Vec<_>>()
        };
        for (index, mut word) in words.into_iter().enumerate() {
            while word != 0 {
                each(index * 64 + word.trailing_zeros() as usize);
                word &= word - 1;
            }
        }
        Ok(())
    }

    /// Notes the pages of `range`, in bytes from the start, and makes them writable.
    pub(super) fn open(&self, range: Range<usize>) -> io::Result<()> {
        let page = base_bytes();
        let _alone = Alone::enter(self.slot);
        if self.slot.open(range.start / page..range.end.div_ceil(page)) {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }

    /// Runs `action` while all of it is read-only; who stores there waits.
    pub(super) fn closed<T>(&self, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let _alone = Alone::enter(self.slot);
        if !self.slot.protect(self.slot.range(), false) {
            return Err(io::Error::last_os_error());
        }
        let result = action();
        if !self.slot.protect(self.slot.range(), true) {
            return Err(io::Error::last_os_error());
        }
        result
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            return;
        }
        let before = self.slot.version.fetch_add(1, Ordering::Relaxed);
        assert!(before % 2 == 1, "a live slot was free");
        self.slot.map.store(std::ptr::null_mut(), Ordering::Relaxed);
        self.slot.owner.store(0, Ordering::Release);
    }
}

/// A slot's lock, with every signal of this thread blocked.
struct Alone {
    slot: &'static Slot,
    before: libc::sigset_t,
}

impl Alone {
    fn enter(slot: &'static Slot) -> Self {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: fills a set that is ours.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: both sets are ours; changes this thread's mask only.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        assert_eq!(failed, 0, "pthread_sigmask fails for wrong arguments only");
        // SAFETY: zeroed is a set, and so is what the call wrote.
        let before = unsafe { before.assume_init() };
        slot.lock();
        Self { slot, before }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.slot.unlock();
        // SAFETY: the mask that this thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

extern "C" fn on_sigsegv(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    keeping_errno(|| {
        if !mended(info, context) {
            CHAIN.pass_on(info, context);
        }
    });
}

/// Whether the fault was a store into a guarded range, and may be repeated.
fn mended(info: *mut libc::siginfo_t, context: *const c_void) -> bool {
    /// The page is there, and may not be written.
    const SEGV_ACCERR: c_int = 2;
    // SAFETY: the kernel hands every handler with SA_SIGINFO a siginfo, which is ours while the handler runs.
    let info = unsafe { &*info };
    // A forked child has none of the memory: its faults are of another code.
    if info.si_code != SEGV_ACCERR {
        return false;
    }
    // SAFETY: a SIGSEGV of the kernel holds the faulting address.
    let address = unsafe { info.si_addr() }.addr();
    if !was_store(context, address) {
        return false;
    }
    let own = std::process::id();
    let found = SLOTS.iter().find(|slot| {
        let version = slot.version.load(Ordering::Acquire);
        let range = slot.range();
        fence(Ordering::Acquire);
        let live = version % 2 == 1 && slot.version.load(Ordering::Relaxed) == version;
        live && slot.owner.load(Ordering::Relaxed) == own && range.contains(&address)
    });
    found.is_some_and(|slot| slot.mend(address))
}

/// Whether the fault at `address` was a store, as far as the processor tells: a jump there faults again whatever is made writable.
#[cfg(target_arch = "x86_64")]
fn was_store(context: *const c_void, _: usize) -> bool {
    /// Of the page fault's error code.
    const STORE: i64 = 1 << 1;
    // SAFETY: the kernel hands every handler with SA_SIGINFO the interrupted context, which is ours while the handler runs.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.gregs[libc::REG_ERR as usize] & STORE != 0
}

/// As above: a jump is one whose instruction would stand at the address.
#[cfg(target_arch = "aarch64")]
fn was_store(context: *const c_void, address: usize) -> bool {
    // SAFETY: the kernel hands every handler with SA_SIGINFO the interrupted context, which is ours while the handler runs.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.pc != address as u64
}

/// As above; nothing tells here.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn was_store(_: *const c_void, _: usize) -> bool {
    true
}
