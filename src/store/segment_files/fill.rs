//! Files of segments that are filled in piece by piece, in any order, by a resync: sparse from the beginning, as reclaim would have left
//! them.
//!
//! They are written again where they are wrong, since their checksums say what counts; so a full disk is an error here that may be tried
//! again. A write that fails otherwise, and a sync, is kept like any other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Open, SegmentFileError, SegmentFiles, system};
use crate::base::Lsn;

/// Bytes that are copied at a time. Those that are all zero stay a hole.
const COPY_BYTES: u64 = 64 << 10;

impl SegmentFiles {
    /// Makes the segment's file, without any room. One that is there is replaced.
    ///
    /// # Errors
    /// The system's.
    pub fn create_sparse(&self, base: Lsn) -> Result<(), SegmentFileError> {
        self.check()?;
        self.remove(base)?;
        let file = self.make_sparse(&self.path_of(base))?;
        self.cache.insert(base, Arc::new(Open::new(file)));
        self.names_made.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Writes `bytes` at `offset` of the segment's file. They are not durable before a [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`NoSpace`](SegmentFileError::NoSpace) may be tried again; after any other every later write and sync fails too.
    pub fn fill(&self, base: Lsn, offset: u64, bytes: &[u8]) -> Result<(), SegmentFileError> {
        self.check()?;
        let open = self.found(base)?;
        open.dirty.store(true, Ordering::SeqCst);
        open.file.write_all_at(bytes, offset).map_err(|error| self.unfilled(base, &error))
    }

    /// Makes durable what was [filled in](Self::fill), and the names of all files; whatever is written anew beside them is not.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn sync_filled(&self, bases: &[Lsn]) -> Result<(), SegmentFileError> {
        self.sync_files(bases, |base| self.found(base))
    }

    /// Gives the segment's file another head and table, and keeps its payload to `payload_end`: durable on return; after a crash before,
    /// it is what it was.
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    pub fn replace_table(
        &self,
        base: Lsn,
        payload_end: u64,
        head: &[u8],
        (table_start, table): (u64, &[u8]),
    ) -> Result<(), SegmentFileError> {
        assert!(payload_end <= table_start, "payload to {payload_end}, table from {table_start}");
        self.check()?;
        let (path, next) = (self.path_of(base), self.renewal_path(base));
        let file = self.make_sparse(&next)?;
        let mut buffer = vec![0; usize::try_from(COPY_BYTES).expect("small")];
        let mut at = self.layout.payload_start();
        while at < payload_end {
            let count = COPY_BYTES.min(payload_end - at);
            let piece = &mut buffer[..usize::try_from(count).expect("small")];
            self.read(base, at, piece).map_err(system(&path, "read"))?;
            if piece.iter().any(|byte| *byte != 0) {
                file.write_all_at(piece, at).map_err(|error| self.unfilled(base, &error))?;
            }
            at += count;
        }
        let written = file.write_all_at(head, 0).and_then(|()| file.write_all_at(table, table_start));
        written.map_err(|error| self.unfilled(base, &error))?;
        (self.calls.sync)(&file).map_err(|error| self.fail(base, "fdatasync", &error))?;
        std::fs::rename(&next, &path).map_err(system(&path, "rename"))?;
        self.cache.remove(base);
        self.cache.insert(base, Arc::new(Open::new(file)));
        self.names_made.fetch_add(1, Ordering::AcqRel);
        self.sync(&[])
    }

    fn make_sparse(&self, path: &Path) -> Result<File, SegmentFileError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let made = options.open(path).and_then(|file| {
            file.set_len(self.layout.segment_bytes())?;
            Ok(file)
        });
        made.map_err(|error| match is_full(&error) {
            true => SegmentFileError::NoSpace { path: path.to_owned(), bytes: 0 },
            false => system(path, "open")(error),
        })
    }

    fn unfilled(&self, base: Lsn, error: &io::Error) -> SegmentFileError {
        if is_full(error) {
            let bytes = self.layout.segment_bytes();
            SegmentFileError::NoSpace { path: self.path_of(base), bytes }
        } else {
            self.fail(base, "write", error)
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentLayout;

    #[test]
    fn a_table_is_replaced_and_the_payload_stays() {
        let directory = tempfile::tempdir().unwrap();
        let layout = SegmentLayout::new(1 << 16, 4096).unwrap();
        let files = SegmentFiles::open(directory.path(), layout).unwrap();
        let base = Lsn(1 << 16);
        files.create_sparse(base).unwrap();
        files.fill(base, 0, &[1; 128]).unwrap();
        files.fill(base, 8192, &[2; 4096]).unwrap();
        files.fill(base, (1 << 16) - 4096, &[3; 4096]).unwrap();
        files.sync(&[base]).unwrap();
        let table = vec![5; 8192];
        files.replace_table(base, 12288, &[4; 128], ((1 << 16) - 8192, &table)).unwrap();
        let mut all = vec![0; 1 << 16];
        files.read(base, 0, &mut all).unwrap();
        assert!(all[..128].iter().all(|byte| *byte == 4) && all[128..8192].iter().all(|byte| *byte == 0));
        assert!(all[8192..12288].iter().all(|byte| *byte == 2) && all[(1 << 16) - 8192..] == table);
        assert!(files.allocated_bytes(base).unwrap() < 1 << 16, "what is zero stays a hole");
        files.create_sparse(base).unwrap();
        files.read(base, 0, &mut all).unwrap();
        assert!(all.iter().all(|byte| *byte == 0), "another file");
        assert_eq!(files.list().unwrap(), [base]);
    }
}
