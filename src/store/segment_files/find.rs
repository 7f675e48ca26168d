//! Which segments there are.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::{FileSource, SegmentFileError, SegmentFiles, system};
use crate::base::{DatasetId, Lsn};
use crate::segment::{HEAD_BYTES, HeadError, Scan, SegmentHead, Verify, parse_segment_file_name};

impl SegmentFiles {
    /// Makes durable which files there are: one that was removed stays so.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn sync_names(&self) -> Result<(), SegmentFileError> {
        self.names_made.fetch_add(1, Ordering::AcqRel);
        self.sync(&[])
    }

    /// Bytes that the file takes of the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn allocated_bytes(&self, base: Lsn) -> Result<u64, SegmentFileError> {
        let found = rustix::fs::fstat(&self.found(base)?.file);
        let found = found.map_err(|error| system(&self.path_of(base), "fstat")(error.into()))?;
        Ok(u64::try_from(found.st_blocks).unwrap_or_default() * 512)
    }

    /// Bytes that are free on the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn free_bytes(&self) -> Result<u64, SegmentFileError> {
        #[cfg(test)]
        if crate::sim::files::is_full() {
            return Ok(0);
        }
        let found = rustix::fs::fstatvfs(&self.directory);
        let found = found.map_err(|error| system(&self.path, "fstatvfs")(error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// The bases of all segments with a file, by rising base, whether begun or not. Positions in them may have been given out.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&self) -> Result<Vec<Lsn>, SegmentFileError> {
        let mut bases = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(system(&self.path, "readdir"))? {
            let name = entry.map_err(system(&self.path, "readdir"))?.file_name();
            bases.extend(name.to_str().and_then(parse_segment_file_name));
        }
        bases.sort_unstable();
        Ok(bases)
    }

    /// The segments with a valid head, by rising base, for [`Replay`](crate::segment::Replay). Others were never begun, or are damaged
    /// and lie before `needed_from`.
    ///
    /// # Errors
    /// The system's; a file of another dataset, or of a newer program; a damaged head of a segment that has something from `needed_from`
    /// on, where the log's end could not be told from damage.
    pub fn heads(
        &self,
        dataset: DatasetId,
        needed_from: Lsn,
    ) -> Result<Vec<(SegmentHead, FileSource<'_>)>, SegmentFileError> {
        let mut heads = Vec::new();
        for base in self.list()? {
            let head = self.head(dataset, base, needed_from)?;
            heads.extend(head.map(|head| (head, self.source(base))));
        }
        Ok(heads)
    }

    /// The head of the segment at `base`; `None` when it is not valid.
    ///
    /// # Errors
    /// As [`heads`](Self::heads).
    pub fn head(
        &self,
        dataset: DatasetId,
        base: Lsn,
        needed_from: Lsn,
    ) -> Result<Option<SegmentHead>, SegmentFileError> {
        let path = self.path_of(base);
        let mut bytes = [0; HEAD_BYTES];
        self.read(base, 0, &mut bytes).map_err(system(&path, "read"))?;
        match SegmentHead::decode_at(&bytes, dataset, base) {
            Ok(head) if head.layout == self.layout => return Ok(Some(head)),
            Ok(head) => log::warn!("{}: its sizes are {:?}, left out", path.display(), head.layout),
            Err(error @ (HeadError::Dataset { .. } | HeadError::Version { .. })) => {
                return Err(SegmentFileError::Foreign { path, error });
            }
            Err(HeadError::Magic) if bytes.iter().all(|byte| *byte == 0) => {
                log::debug!("{}: never begun", path.display());
            }
            Err(error) if base.plus(self.layout.segment_bytes()) > needed_from => {
                return Err(SegmentFileError::Head { path, error });
            }
            Err(error) => log::warn!("{}: {error}, left out", path.display()),
        }
        Ok(None)
    }

    /// The bytes of the segment that are neither head nor table, if its records are found to `end` at least: then all that lives is before
    /// `end`, and the table of what is found has it.
    ///
    /// # Errors
    /// The disk's.
    pub fn payload_area(&self, head: &SegmentHead, end: Lsn) -> Result<Option<Range<u64>>, SegmentFileError> {
        let (source, mut scan) = (self.source(head.base), Scan::new(*head, Verify::Slots));
        while scan.next(&source).map_err(system(&self.path_of(head.base), "read"))?.is_ok() {}
        Ok((scan.end() >= end).then(|| head.layout.payload_start()..scan.table_start()))
    }

    /// The segment's file for a scan.
    #[must_use]
    pub fn source(&self, base: Lsn) -> FileSource<'_> {
        FileSource::new(self, base)
    }
}
