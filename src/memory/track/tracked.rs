//! A memory whose stores are found.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::mm::Advice;

use super::fault::{GUARDED_RANGES_MAX, GuardError};
use super::mprotect::Mprotect;
use super::runs::Runs;
use super::soft_dirty::SoftDirty;
use super::wp_async::WpAsync;
use super::{Tracker, TrackingMethod};
use crate::memory::pages::base_bytes;
use crate::memory::{MapError, Mapping, MappingKind, Pages, VolatileSlice};

/// Why a memory cannot be tracked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// No memory.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The system refused.
    #[error("stores cannot be tracked by {method}: {error}")]
    System {
        /// The method.
        method: TrackingMethod,
        /// What it said.
        error: std::io::Error,
    },
    /// As many memories of this process are tracked by `soft-dirty` and `mprotect` as can be.
    #[error(
        "stores cannot be tracked by {method}: {most} memories are tracked by soft-dirty or mprotect, the most in a process: drop one first"
    )]
    TooMany {
        /// The method.
        method: TrackingMethod,
        /// How many.
        most: usize,
    },
    /// The method finds something else than what was stored to.
    #[error(
        "stores cannot be tracked by {method}: a store to page {page} on trial was found at the bytes {found:?}"
    )]
    Wrong {
        /// The method.
        method: TrackingMethod,
        /// The page that was stored to.
        page: usize,
        /// What was found.
        found: Vec<Range<usize>>,
    },
    /// No method works.
    #[error("stores cannot be tracked on this machine: {0}")]
    NoMethod(String),
    /// Of other memory than private pages of the base size.
    #[error("a {kind} mapping of {bytes} bytes in {pages} cannot be tracked: {why}")]
    Unfit {
        /// What is mapped.
        kind: MappingKind,
        /// Its bytes.
        bytes: usize,
        /// Its pages.
        pages: Pages,
        /// What it should be.
        why: &'static str,
    },
}

/// Private memory into which the application stores as it likes, through [`pointer`](Self::pointer) or otherwise;
/// [`collect`](Self::collect) tells which pages.
///
/// It is in base pages always: the kernel is advised against transparent huge pages, which would be found as a whole. A forked child
/// does not have it (as any [`Mapping`]): its stores there end it, and are not found here.
pub struct TrackedMemory {
    /// Before the mapping: it ends first.
    tracker: Mutex<Box<dyn Tracker>>,
    /// Pages that others said they stored to, for the next collection.
    said: Mutex<Runs>,
    mapping: Mapping,
    method: TrackingMethod,
}

impl TrackedMemory {
    /// `len` bytes of zeroes, tracked by `method`.
    ///
    /// # Errors
    /// No memory, the kernel does not have the method, or [`TrackError::TooMany`]: `soft-dirty` and `mprotect` track 64 memories of a process
    /// at most, both together.
    pub fn new(len: usize, method: TrackingMethod) -> Result<Self, TrackError> {
        Self::over(Mapping::apart(len)?, method)
    }

    /// The memory of `mapping`, which has stored what it will have until now, tracked by `method`: stores from here on are found. Where the
    /// kernel joins it with another mapping, [`TrackingMethod::SoftDirty`] may tell of all of it; it does not with what
    /// [`new`](Self::new) makes.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`TrackError::Unfit`] for memory that others may store into, and for huge pages, of which one store
    /// would be found as a change of megabytes.
    pub fn over(mapping: Mapping, method: TrackingMethod) -> Result<Self, TrackError> {
        let unfit = |why| {
            let (kind, bytes, pages) = (mapping.kind(), mapping.len(), mapping.pages());
            Err(TrackError::Unfit { kind, bytes, pages, why })
        };
        if mapping.kind() != MappingKind::Anonymous {
            return unfit("others may store into it, and would not be found: use an anonymous one");
        }
        if !matches!(mapping.pages(), Pages::Base { .. }) {
            return unfit("it is tracked in base pages only: map it without huge pages");
        }
        // A kernel without huge pages refuses, and gives none.
        if let Err(error) = mapping.advise(Advice::LinuxNoHugepage) {
            log::debug!("advice against huge pages: {error}");
        }
        // Each page is there, so that each has an entry to be protected.
        mapping.populate();
        let start = mapping.slice().start().expose_provenance();
        let len = mapping.len().next_multiple_of(base_bytes());
        let tracker = match method {
            TrackingMethod::WpAsync => WpAsync::new(start, len)
                .map(|it| Box::new(it) as Box<dyn Tracker>)
                .map_err(GuardError::System),
            TrackingMethod::SoftDirty => {
                SoftDirty::new(start, len).map(|it| Box::new(it) as Box<dyn Tracker>)
            }
            TrackingMethod::Mprotect => Mprotect::new(start, len).map(|it| Box::new(it) as Box<dyn Tracker>),
        };
        let tracker = tracker.map_err(|error| match error {
            GuardError::TooMany => TrackError::TooMany { method, most: GUARDED_RANGES_MAX },
            GuardError::System(error) => TrackError::System { method, error },
        })?;
        let said = Mutex::new(Runs::new(base_bytes()));
        Ok(Self { tracker: Mutex::new(tracker), said, mapping, method })
    }

    fn tracker(&self) -> MutexGuard<'_, Box<dyn Tracker>> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How stores are found.
    #[must_use]
    pub const fn method(&self) -> TrackingMethod {
        self.method
    }

    /// Where it begins: [`len`](Self::len) bytes, readable and writable until this is dropped, that no reference of this library's
    /// exists to. Any thread may store there at any time, while pages are collected too.
    #[must_use]
    pub fn pointer(&self) -> NonNull<u8> {
        NonNull::new(self.mapping.slice().start()).expect("a mapping is not at 0")
    }

    /// All of it; a write through this is a store like any other.
    #[must_use]
    pub fn slice(&self) -> VolatileSlice<'_> {
        self.mapping.slice()
    }

    /// Bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Whether it has no bytes: never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.mapping.is_empty()
    }

    /// Bytes in a page, the unit in which stores are found.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        base_bytes()
    }

    /// The memory itself, to lock it. That tells of every page once. Memory that is locked by `mlock` or `mlockall` without
    /// `MLOCK_ONFAULT` is told whole each time by [`TrackingMethod::SoftDirty`].
    #[must_use]
    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Adds to `found` every page that was stored to since the last time. Each is protected again before this returns: copy it now, and
    /// no store is missed. Now and then a page is told that was not stored to.
    ///
    /// # Errors
    /// What was added is protected again; of the other pages nothing is known, and all of them must be looked at.
    pub fn collect(&self, found: &mut Runs) -> std::io::Result<()> {
        self.tracker().collect(found)?;
        let said = std::mem::replace(&mut *self.said(), Runs::new(base_bytes()));
        for run in said.ranges() {
            found.add_pages(run.start / base_bytes()..run.end / base_bytes());
        }
        Ok(())
    }

    fn said(&self) -> MutexGuard<'_, Runs> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something stored `len` bytes at `offset` that no method sees: a device, into pages that it keeps pinned (`O_DIRECT`,
    /// registered buffers of io_uring, RDMA, a GPU). The next [`collect`](Self::collect) tells their pages. Call it when the device has
    /// done, before that.
    ///
    /// # Panics
    /// When it does not lie within.
    pub fn stored(&self, offset: usize, len: usize) {
        assert!(self.slice().contains(offset, len), "{len} bytes at {offset} of {}", self.len());
        if len > 0 {
            self.said().add_pages(offset / base_bytes()..(offset + len).div_ceil(base_bytes()));
        }
    }

    /// Says that the kernel is about to store into `len` bytes at `offset`: a `read` or `recv` of a system call. With
    /// [`TrackingMethod::Mprotect`] the call would fail with EFAULT without; the others need nothing. It holds until the next
    /// [`collect`](Self::collect): not while such a call is under way. With [`TrackingMethod::SoftDirty`] that goes for the collection of any
    /// memory of the process that is tracked so, and for making one: a call under way may fail with EFAULT then.
    ///
    /// # Errors
    /// The system refused: the range may be as it was.
    ///
    /// # Panics
    /// When it does not lie within.
    pub fn prepare(&self, offset: usize, len: usize) -> std::io::Result<()> {
        assert!(self.slice().contains(offset, len), "{len} bytes at {offset} of {}", self.len());
        if len == 0 {
            return Ok(());
        }
        self.tracker().prepare(offset..offset + len)
    }
}

impl fmt::Debug for TrackedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrackedMemory({} bytes by {})", self.len(), self.method)
    }
}
