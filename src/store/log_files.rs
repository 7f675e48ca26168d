//! The segments' files, as far as a log is read back from them.
//!
//! There are two: those of this node's storage, and those of a simulated disk in tests.

use std::io;

use super::segment_files::{FileSource, SegmentFileError, SegmentFiles};
use crate::base::{DatasetId, Lsn};
use crate::segment::{SegmentHead, SegmentSource};

/// Files of segments.
pub(super) trait LogFiles {
    /// One of them, as a scan reads it.
    type Source<'a>: SegmentSource<Error = io::Error>
    where
        Self: 'a;

    /// See [`SegmentFiles::heads`].
    fn heads(
        &self,
        dataset: DatasetId,
        needed_from: Lsn,
    ) -> Result<Vec<(SegmentHead, Self::Source<'_>)>, SegmentFileError>;

    /// See [`SegmentFiles::list`].
    fn list(&self) -> Result<Vec<Lsn>, SegmentFileError>;

    /// See [`SegmentFiles::source`].
    fn source(&self, base: Lsn) -> Self::Source<'_>;

    /// See [`SegmentFiles::read`].
    fn read(&self, base: Lsn, offset: u64, target: &mut [u8]) -> io::Result<()>;

    /// See [`SegmentFiles::sync`].
    fn sync(&self, bases: &[Lsn]) -> Result<(), SegmentFileError>;
}

impl LogFiles for SegmentFiles {
    type Source<'a> = FileSource<'a>;

    fn heads(
        &self,
        dataset: DatasetId,
        needed_from: Lsn,
    ) -> Result<Vec<(SegmentHead, FileSource<'_>)>, SegmentFileError> {
        self.heads(dataset, needed_from)
    }

    fn list(&self) -> Result<Vec<Lsn>, SegmentFileError> {
        self.list()
    }

    fn source(&self, base: Lsn) -> FileSource<'_> {
        self.source(base)
    }

    fn read(&self, base: Lsn, offset: u64, target: &mut [u8]) -> io::Result<()> {
        self.read(base, offset, target)
    }

    fn sync(&self, bases: &[Lsn]) -> Result<(), SegmentFileError> {
        self.sync(bases)
    }
}
