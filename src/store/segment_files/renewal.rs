//! Segments that are written anew, each beside the file that still counts.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::{Open, SegmentFileError, SegmentFiles, system};
use crate::base::Lsn;
use crate::base::locks::poisoning::MutexGuard;

/// Extension of the name of a file that is written anew.
pub(super) const RENEWAL: &str = "new";

impl SegmentFiles {
    /// Begins to write a segment anew: what is written and synced from now on goes to another file, and what is read comes from the old
    /// one, until [`finish_renewal`](Self::finish_renewal).
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn renew(&self, base: Lsn) -> Result<(), SegmentFileError> {
        let file = self.make(&self.renewal_path(base))?;
        self.lock_renewals().insert(base, Arc::new(Open::new(file)));
        Ok(())
    }

    /// The new file, which was synced, takes the old one's place, durably.
    ///
    /// # Errors
    /// The system's; after a crash it is the one or the other.
    pub fn finish_renewal(&self, base: Lsn) -> Result<(), SegmentFileError> {
        let path = self.path_of(base);
        std::fs::rename(self.renewal_path(base), &path).map_err(system(&path, "rename"))?;
        if let Some(open) = self.lock_renewals().remove(&base) {
            self.cache.remove(base);
            self.cache.insert(base, open);
        }
        self.names_made.fetch_add(1, Ordering::AcqRel);
        self.sync(&[])
    }

    /// Nothing is written anew any more: the old files have all that counts, and what is written from now on goes to them. Nobody writes
    /// meanwhile.
    ///
    /// # Errors
    /// The system's; what it left is removed when the files are opened again.
    pub fn abandon_renewals(&self) -> Result<(), SegmentFileError> {
        let abandoned: Vec<_> = self.lock_renewals().drain().map(|(base, _)| base).collect();
        for base in abandoned {
            let path = self.renewal_path(base);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(system(&path, "unlink")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The file that takes what is written to the segment's memory.
    pub(super) fn written_file(&self, base: Lsn) -> Result<Arc<Open>, SegmentFileError> {
        let renewal = self.lock_renewals().get(&base).cloned();
        renewal.map_or_else(|| self.found(base), Ok)
    }

    pub(super) fn renewal_path(&self, base: Lsn) -> PathBuf {
        self.path_of(base).with_extension(RENEWAL)
    }

    fn lock_renewals(&self) -> MutexGuard<'_, HashMap<Lsn, Arc<Open>>> {
        self.renewals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
