//! Mending a segment's file: bytes that are put where they belong again, and a file that is made again as a whole.
//!
//! Only what the log has made durable once is ever put: the same bytes at the same place. So a crash on the way leaves what was, what
//! is to be, or a block that does not match its checksum, which is what it was before.
//!
//! A file that is made again has a name of its own until all of it is synced, so a crash leaves the one or the other.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cache::Open;
use super::{SegmentFileError, SegmentFiles, system};
use crate::base::Lsn;

/// Extension of the name of a file that is made again.
pub(super) const REMADE: &str = "remade";

/// A segment's file that is made again beside what is left of the old one. Removed when it is dropped unfinished.
#[derive(Debug)]
pub struct Remade<'a> {
    files: &'a SegmentFiles,
    base: Lsn,
    path: PathBuf,
    file: Option<File>,
}

impl SegmentFiles {
    /// Looks whether the file that is open is still the one of that name: somebody may have removed or replaced it. If not it is opened
    /// anew when it is needed. Not for a segment that is being written.
    pub fn revisit(&self, base: Lsn) {
        let Ok(open) = self.file(base) else { return };
        let same = |there: &std::fs::Metadata, here: &std::fs::Metadata| {
            (there.dev(), there.ino()) == (here.dev(), here.ino())
        };
        let is_same = match (std::fs::metadata(self.path_of(base)), open.file.metadata()) {
            (Ok(there), Ok(here)) => same(&there, &here),
            (Err(_), _) | (_, Err(_)) => false,
        };
        if !is_same && !open.dirty.load(Ordering::SeqCst) {
            log::warn!("{} was removed or replaced", self.path_of(base).display());
            self.cache.remove(base);
        }
    }

    /// Puts `bytes` where they belong in the segment's file. They count when [`mended`](Self::mended) returned.
    ///
    /// # Errors
    /// The disk's. Nothing that was stored elsewhere is in doubt.
    pub fn put(&self, base: Lsn, offset: u64, bytes: &[u8]) -> Result<(), SegmentFileError> {
        self.check()?;
        let open = self.found(base)?;
        open.file.write_all_at(bytes, offset).map_err(system(&self.path_of(base), "pwrite"))
    }

    /// Makes durable what was put into the segment's file.
    ///
    /// # Errors
    /// The disk's. What it has is unknown from now on, and every later write and sync fails too.
    pub fn mended(&self, base: Lsn) -> Result<(), SegmentFileError> {
        self.check()?;
        let open = self.found(base)?;
        (self.calls.sync)(&open.file).map_err(|error| self.fail(base, "fdatasync", &error))
    }

    /// Begins to make the segment's file again.
    ///
    /// # Errors
    /// [`NoSpace`](SegmentFileError::NoSpace) when there is no room for it beside the old one, or the system's.
    pub fn remake(&self, base: Lsn) -> Result<Remade<'_>, SegmentFileError> {
        let path = self.path_of(base).with_extension(REMADE);
        let file = self.make(&path)?;
        Ok(Remade { files: self, base, path, file: Some(file) })
    }
}

impl Remade<'_> {
    /// Puts `bytes` into it.
    ///
    /// # Errors
    /// The disk's.
    pub fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), SegmentFileError> {
        let Some(file) = &self.file else { unreachable!("it is taken at the end only") };
        file.write_all_at(bytes, offset).map_err(system(&self.path, "pwrite"))
    }

    /// Makes durable what it has.
    ///
    /// # Errors
    /// The disk's; it is of no use then.
    pub fn sync(&self) -> Result<(), SegmentFileError> {
        let Some(file) = &self.file else { unreachable!("it is taken at the end only") };
        (self.files.calls.sync)(file).map_err(system(&self.path, "fdatasync"))
    }

    /// It takes the old file's place, durably. It was synced.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(mut self) -> Result<(), SegmentFileError> {
        let (files, target) = (self.files, self.files.path_of(self.base));
        std::fs::rename(&self.path, &target).map_err(system(&target, "rename"))?;
        if let Some(file) = self.file.take() {
            files.cache.remove(self.base);
            files.cache.insert(self.base, Arc::new(Open::new(file)));
        }
        files.names_made.fetch_add(1, Ordering::AcqRel);
        files.sync(&[])
    }
}

impl Drop for Remade<'_> {
    fn drop(&mut self) {
        if self.file.is_some()
            && let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("{}: {error}", self.path.display());
        }
    }
}
