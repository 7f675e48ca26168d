//! Open descriptors: few, those used last.
//!
//! The lock is held to look up and to enter, never over a call to the system. A file that was written and not synced is not closed to
//! make room: the kernel tells a failed write-back to who has the file open, and could forget it with the last descriptor. There are no
//! more of those than segments in the ring.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::base::Lsn;

/// Descriptors that are kept, but for those of files written and not synced.
pub const OPEN_FILES_MAX: usize = 256;

/// An open file.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) file: File,
    /// When it was used last, in uses.
    used: AtomicU64,
    /// Whether it was written since the last sync began.
    pub(super) dirty: AtomicBool,
}

type Files = HashMap<Lsn, Arc<Open>>;

/// Those that are open.
#[derive(Debug, Default)]
pub(super) struct Cache {
    files: RwLock<Files>,
    uses: AtomicU64,
    /// Counts removals, so that a file that was opened before one is not entered behind it.
    removals: AtomicU64,
}

impl Open {
    pub(super) const fn new(file: File) -> Self {
        Self { file, used: AtomicU64::new(0), dirty: AtomicBool::new(false) }
    }
}

impl Cache {
    fn read(&self) -> RwLockReadGuard<'_, Files> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Files> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open file, or what `open` gives.
    pub(super) fn get(&self, base: Lsn, open: impl FnOnce() -> io::Result<File>) -> io::Result<Arc<Open>> {
        if let Some(found) = self.read().get(&base) {
            found.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            return Ok(found.clone());
        }
        let removals = self.removals.load(Ordering::Acquire);
        let opened = Arc::new(Open::new(open()?));
        let mut files = self.write();
        if let Some(found) = files.get(&base) {
            return Ok(found.clone());
        }
        if self.removals.load(Ordering::Acquire) == removals {
            let evicted = self.enter(&mut files, base, opened.clone());
            drop(files);
            drop(evicted);
        }
        Ok(opened)
    }

    /// Enters an open file in place of any other of its segment.
    pub(super) fn insert(&self, base: Lsn, open: Arc<Open>) {
        let mut files = self.write();
        let evicted = self.enter(&mut files, base, open);
        drop(files);
        drop(evicted);
    }

    /// What is to be closed for it, when the lock is given back.
    fn enter(&self, files: &mut Files, base: Lsn, open: Arc<Open>) -> [Option<Arc<Open>>; 2] {
        open.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let replaced = files.insert(base, open);
        if files.len() <= OPEN_FILES_MAX {
            return [replaced, None];
        }
        let idle = files.iter().filter(|(other, open)| **other != base && !open.dirty.load(Ordering::SeqCst));
        let oldest = idle.min_by_key(|(_, open)| open.used.load(Ordering::Relaxed)).map(|(base, _)| *base);
        [replaced, oldest.and_then(|oldest| files.remove(&oldest))]
    }

    /// Forgets a file that is removed.
    pub(super) fn remove(&self, base: Lsn) {
        let mut files = self.write();
        self.removals.fetch_add(1, Ordering::AcqRel);
        let removed = files.remove(&base);
        drop(files);
        drop(removed);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.read().len()
    }
}
