//! The page in which a holder says that its grant still stands.
//!
//! ```text
//! offset 0   u32  life word: thread id of the holder's life thread; the kernel sets FUTEX_OWNER_DIED (bit 30) in it
//!                 when that thread ends, with its process, however it ends (a robust futex)
//! offset 4   u32  generation
//! ```
//!
//! One aligned 8-byte read sees both, so the owner's check costs one load of a line that nobody else writes: revoked
//! and dead are one comparison. The page is a memfd of its own, sealed so that only the holder's mapping can write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};

use super::fencing;
use crate::base::Generation;
use crate::memory::{MapError, MapOptions, Mapping};

const PAGE_BYTES: usize = 4096;
const LIFE_OFFSET: usize = 0;
const GENERATION_OFFSET: usize = 4;
/// Set by the kernel in the life word of a dead holder (include/uapi/linux/futex.h).
pub(super) const FUTEX_OWNER_DIED: u32 = 0x4000_0000;

const fn compose(generation: u32, life: u32) -> u64 {
    (generation as u64) << 32 | life as u64
}

/// The holder's end.
#[derive(Debug)]
pub struct GrantPage {
    mapping: Mapping,
}

impl GrantPage {
    /// A page that grants `generation`, alive for as long as `life` is this process's life thread.
    ///
    /// # Errors
    /// No memory or descriptor.
    pub fn new(generation: Generation) -> Result<Self, MapError> {
        let failed = |call| {
            move |error: rustix::io::Errno| MapError::System { call, len: PAGE_BYTES, error: error.into() }
        };
        let fd = rustix::fs::memfd_create("mirrorbus-grant", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(failed("memfd_create"))?;
        rustix::fs::ftruncate(&fd, PAGE_BYTES as u64).map_err(failed("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).map_err(failed("sealing"))?;
        let page = Self { mapping: Mapping::from_fd(fd, PAGE_BYTES, MapOptions::default())? };
        page.word().store(compose(generation.0, 0), Ordering::SeqCst);
        // From here on no new mapping can write: this process has the only one that can.
        rustix::fs::fcntl_add_seals(page.fd(), SealFlags::FUTURE_WRITE | SealFlags::SEAL)
            .map_err(failed("sealing"))?;
        Ok(page)
    }

    /// What is handed to the owner.
    ///
    /// # Panics
    /// Never: the page is a memfd.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        match self.mapping.fd() {
            Some(fd) => fd,
            None => unreachable!("the grant page is a memfd"),
        }
    }

    /// The half that the kernel marks.
    pub(super) fn life_word(&self) -> &AtomicU32 {
        self.mapping.slice().word_u32(LIFE_OFFSET)
    }

    /// The whole word as it stands: what the owner is told to expect.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.word().load(Ordering::SeqCst)
    }

    fn word(&self) -> &AtomicU64 {
        self.mapping.slice().word_u64(0)
    }

    /// Voids what was granted: after this returns no store is acknowledged by an owner that keeps the contract
    /// unless it is in the memory by now.
    pub fn revoke(&self, raised: Generation) {
        // The kernel writes the life half only when this process dies, so the two cannot race.
        fencing::raise(self.word(), compose(raised.0, self.life_word().load(Ordering::Relaxed)));
    }
}

/// The owner's end: read only. Clones look at the same page.
#[derive(Debug, Clone)]
pub struct GrantView {
    mapping: Arc<Mapping>,
    /// The word in `mapping`, found once.
    word: NonNull<AtomicU64>,
    granted: u64,
}

// SAFETY: the word is an atomic in a mapping that the view owns.
unsafe impl Send for GrantView {}
// SAFETY: as above.
unsafe impl Sync for GrantView {}

impl GrantView {
    /// Maps what the holder sent, which must still hold `granted`.
    ///
    /// # Errors
    /// It cannot be mapped, or is no grant page.
    pub fn new(fd: OwnedFd, granted: u64) -> Result<Self, String> {
        let seals = rustix::fs::fcntl_get_seals(&fd)
            .map_err(|error| format!("the grant page is no memfd: {error}"))?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err("the grant page is not sealed against resizing".into());
        }
        let size = rustix::fs::fstat(fd.as_fd())
            .map_err(|error| format!("the grant page has no size: {error}"))?
            .st_size;
        if usize::try_from(size) != Ok(PAGE_BYTES) {
            return Err(format!("the grant page has {size} bytes, not {PAGE_BYTES}"));
        }
        let mapping = Mapping::from_fd_read_only(fd, PAGE_BYTES).map_err(|error| error.to_string())?;
        let mapping = Arc::new(mapping);
        let word = NonNull::from(mapping.slice().word_u64(0));
        Ok(Self { mapping, word, granted })
    }

    /// For a window that nobody can revoke: a word of this process's own that never changes.
    ///
    /// # Errors
    /// No memory.
    pub fn unrevocable() -> Result<Self, MapError> {
        let mapping = Arc::new(Mapping::anonymous(PAGE_BYTES, MapOptions::default())?);
        let word = NonNull::from(mapping.slice().word_u64(0));
        Ok(Self { mapping, word, granted: 0 })
    }

    /// The word, and what it shows while the grant stands.
    pub(super) fn watched(&self) -> (&AtomicU64, u64) {
        (self.word(), self.granted)
    }

    /// After stores: whether they may be acknowledged. Contains the full fence.
    #[inline(always)]
    #[must_use]
    pub fn acknowledges(&self) -> bool {
        fencing::still_granted(self.word(), self.granted)
    }

    /// Before a store: whether the grant stood a moment ago. Keeps an owner from storing on and on after a revocation,
    /// and its stores in their order; it is no full fence.
    #[inline(always)]
    #[must_use]
    pub fn stands(&self) -> bool {
        fencing::after_earlier_stores();
        self.word().load(Ordering::Relaxed) == self.granted
    }

    /// Whether the holder's process has ended.
    #[must_use]
    pub fn holder_died(&self) -> bool {
        self.mapping.slice().word_u32(LIFE_OFFSET).load(Ordering::SeqCst) & FUTEX_OWNER_DIED != 0
    }

    /// The generation that the page shows now.
    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation(self.mapping.slice().word_u32(GENERATION_OFFSET).load(Ordering::SeqCst))
    }

    #[inline(always)]
    fn word(&self) -> &AtomicU64 {
        // SAFETY: it points into `mapping`, which lives as long as self and never moves.
        unsafe { self.word.as_ref() }
    }
}
