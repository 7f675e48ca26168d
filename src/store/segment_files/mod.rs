//! The segments on this node's storage: one sparse file each, `segments/<base>.segment`.
//!
//! A file is made whole, with room for all of it, before its segment is begun: so a disk that is full is found before anything depends
//! on it. What follows are writes of device blocks that are written once, and punched holes.
//!
//! After a write or a sync that failed nobody knows what the disk has. The error is kept, every later write and sync gives it, and
//! neither is ever tried again: after a failed fsync the kernel takes the lost pages for clean, and a second one succeeds.
//!
//! Any number of threads read while one writes and syncs. No lock is held over a call to the system.
//!
//! Writes are `pwritev` of up to a mebibyte at a time, not `io_uring`: one such call is a copy into the page cache, which takes hundreds of
//! times as long as entering the kernel does, so there is nothing that a ring of requests would save. (The test `rate` measures it; seen on tmpfs: 210 µs a
//! mebibyte, 0.36 µs a call that moves nothing.)

mod cache;
mod error;
mod fill;
mod find;
mod mend;
mod read;
mod renewal;
mod source;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::base::Lsn;
use crate::base::locks::poisoning::Mutex;
use crate::memory::{Piece, VolatileSlice};
use crate::node::files::sync_data;
use crate::segment::{HEAD_BYTES, SegmentHead, SegmentLayout, segment_file_name};
use cache::{Cache, Open};
use renewal::RENEWAL;

pub use cache::OPEN_FILES_MAX;
pub use error::SegmentFileError;
pub use mend::Remade;
pub use source::FileSource;

/// Calls to the system that tests let fail.
#[derive(Debug, Clone, Copy)]
struct Calls {
    allocate: fn(&File, u64) -> io::Result<()>,
    sync: fn(&File) -> io::Result<()>,
}

const CALLS: Calls = Calls { allocate, sync: sync_data };

/// All of them.
#[derive(Debug)]
pub struct SegmentFiles {
    path: PathBuf,
    directory: File,
    layout: SegmentLayout,
    cache: Cache,
    /// Written anew, each beside the file that still counts.
    renewals: Mutex<HashMap<Lsn, Arc<Open>>>,
    /// Counts files made, and how many of those the directory was synced with. Begins with one that is not: the process before may
    /// have died between.
    names_made: AtomicU64,
    names_synced: AtomicU64,
    preallocates: AtomicBool,
    failed: OnceLock<(PathBuf, &'static str, i32)>,
    calls: Calls,
}

impl SegmentFiles {
    /// Those in the directory at `path`. What was being written anew when the process before ended is removed.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, layout: SegmentLayout) -> Result<Self, SegmentFileError> {
        Self::with_calls(path, layout, CALLS)
    }

    fn with_calls(path: &Path, layout: SegmentLayout, calls: Calls) -> Result<Self, SegmentFileError> {
        let files = Self {
            path: path.to_owned(),
            directory: File::open(path).map_err(system(path, "open"))?,
            layout,
            cache: Cache::default(),
            renewals: Mutex::default(),
            names_made: AtomicU64::new(1),
            names_synced: AtomicU64::new(0),
            preallocates: AtomicBool::new(true),
            failed: OnceLock::new(),
            calls,
        };
        for entry in std::fs::read_dir(path).map_err(system(path, "readdir"))? {
            let path = entry.map_err(system(path, "readdir"))?.path();
            if path.extension().is_some_and(|extension| extension == RENEWAL || extension == mend::REMADE) {
                std::fs::remove_file(&path).map_err(system(&path, "unlink"))?;
            }
        }
        Ok(files)
    }

    /// The sizes of all segments.
    #[must_use]
    pub const fn layout(&self) -> SegmentLayout {
        self.layout
    }

    /// Whether files were given all of their room when they were made, as far as is known. Where the file system cannot, a full disk is
    /// found by a write only, which takes the node out.
    #[must_use]
    pub fn preallocates(&self) -> bool {
        self.preallocates.load(Ordering::Relaxed)
    }

    /// Makes the file of a segment that begins, with room for all of it. There may be one of a segment that was never begun: it is
    /// replaced.
    ///
    /// # Errors
    /// [`NoSpace`](SegmentFileError::NoSpace) when the disk is full, [`Exists`](SegmentFileError::Exists) when the segment was begun. No
    /// file is left behind.
    pub fn create(&self, base: Lsn) -> Result<(), SegmentFileError> {
        let path = self.path_of(base);
        if self.exists(base) {
            let mut bytes = [0; HEAD_BYTES];
            self.read(base, 0, &mut bytes).map_err(system(&path, "read"))?;
            if SegmentHead::decode(&bytes).is_ok() {
                return Err(SegmentFileError::Exists { path });
            }
            self.remove(base)?;
        }
        let file = self.make(&path)?;
        self.cache.insert(base, Arc::new(Open::new(file)));
        self.names_made.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// The same, if so many bytes are free on the disk afterwards.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_leaving(&self, base: Lsn, free_bytes: u64) -> Result<(), SegmentFileError> {
        let bytes = self.layout.segment_bytes();
        if self.free_bytes()? < bytes.saturating_add(free_bytes) && !self.exists(base) {
            return Err(SegmentFileError::NoSpace { path: self.path_of(base), bytes });
        }
        self.create(base)
    }

    /// Whether the segment has a file.
    #[must_use]
    pub fn exists(&self, base: Lsn) -> bool {
        self.path_of(base).exists()
    }

    /// Writes `pieces` of the segment's place in the ring to its file, one behind the other from `offset` on. They are not durable
    /// before a [`sync`](Self::sync).
    ///
    /// # Errors
    /// The disk's; every later write and sync fails too.
    ///
    /// # Panics
    /// When the place has no such bytes.
    pub fn write(
        &self,
        base: Lsn,
        offset: u64,
        pieces: &[Piece],
        place: VolatileSlice<'_>,
    ) -> Result<(), SegmentFileError> {
        self.check()?;
        let open = self.written_file(base)?;
        open.dirty.store(true, Ordering::SeqCst);
        let written = place.write_file_pieces(pieces, open.file.as_fd(), offset);
        written.map_err(|error| self.fail(base, "write", &error))
    }

    /// Makes durable what was written to these segments, and the names of all files.
    ///
    /// # Errors
    /// The disk's. What it has is unknown from now on, and every later write and sync fails too.
    pub fn sync(&self, bases: &[Lsn]) -> Result<(), SegmentFileError> {
        self.sync_files(bases, |base| self.written_file(base))
    }

    fn sync_files(
        &self,
        bases: &[Lsn],
        file: impl Fn(Lsn) -> Result<Arc<Open>, SegmentFileError>,
    ) -> Result<(), SegmentFileError> {
        self.check()?;
        for base in bases {
            let open = file(*base)?;
            // Before the call: a write during it is not synced for certain.
            open.dirty.store(false, Ordering::SeqCst);
            (self.calls.sync)(&open.file).map_err(|error| self.fail(*base, "fdatasync", &error))?;
        }
        let made = self.names_made.load(Ordering::Acquire);
        if self.names_synced.load(Ordering::Acquire) < made {
            let synced = (self.calls.sync)(&self.directory);
            synced.map_err(|error| self.fail_at(self.path.clone(), "fsync", &error))?;
            self.names_synced.fetch_max(made, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Reads bytes of the segment. What lies in holes and behind the file's end reads as zeroes: checksums say what counts.
    ///
    /// # Errors
    /// The disk's, or there is no such segment.
    pub fn read(&self, base: Lsn, offset: u64, target: &mut [u8]) -> io::Result<()> {
        let open = self.file(base)?;
        read::whole(|part, at| open.file.read_at(part, at), offset, target)
    }

    /// Removes the segment's file. After a crash it may be there again.
    ///
    /// # Errors
    /// The system's; no such file is none.
    pub fn remove(&self, base: Lsn) -> Result<(), SegmentFileError> {
        let path = self.path_of(base);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(system(&path, "unlink")(error));
            }
            _ => {}
        }
        self.cache.remove(base);
        Ok(())
    }

    /// Gives the room of a part of the segment back; it reads as zeroes then.
    ///
    /// # Errors
    /// The system's; [`Unsupported`](SegmentFileError::Unsupported) where the file system cannot.
    ///
    /// # Panics
    /// When the part is not of whole device blocks behind the head's.
    pub fn punch(&self, base: Lsn, range: Range<u64>) -> Result<(), SegmentFileError> {
        let block = self.layout.device_block_bytes();
        assert!(
            range.start >= self.layout.payload_start()
                && range.start < range.end
                && range.end <= self.layout.segment_bytes()
                && range.start.is_multiple_of(block)
                && range.end.is_multiple_of(block),
            "a hole at {range:?} of a segment in device blocks of {block} bytes"
        );
        let open = self.found(base)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&open.file, flags, range.start, range.end - range.start) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => Err(SegmentFileError::Unsupported {
                path: self.path_of(base),
                call: "fallocate(FALLOC_FL_PUNCH_HOLE)",
            }),
            Err(error) => Err(system(&self.path_of(base), "fallocate")(error.into())),
        }
    }

    fn path_of(&self, base: Lsn) -> PathBuf {
        self.path.join(segment_file_name(base))
    }

    fn file(&self, base: Lsn) -> io::Result<Arc<Open>> {
        self.cache.get(base, || OpenOptions::new().read(true).write(true).open(self.path_of(base)))
    }

    fn found(&self, base: Lsn) -> Result<Arc<Open>, SegmentFileError> {
        let path = || self.path_of(base);
        self.file(base).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SegmentFileError::Missing { base, path: path() },
            _ => system(&path(), "open")(error),
        })
    }

    fn make(&self, path: &Path) -> Result<File, SegmentFileError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let bytes = self.layout.segment_bytes();
        let made = options.open(path).and_then(|file| {
            match (self.calls.allocate)(&file, bytes) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    if self.preallocates.swap(false, Ordering::Relaxed) {
                        let path = self.path.display();
                        log::warn!("{path}: no fallocate there: a full disk is found by a write only");
                    }
                    file.set_len(bytes)?;
                }
                outcome => outcome?,
            }
            Ok(file)
        });
        made.map_err(|error| {
            // Made a moment ago: half a file helps nobody.
            let _ = std::fs::remove_file(path);
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    SegmentFileError::NoSpace { path: path.to_owned(), bytes }
                }
                _ => system(path, "fallocate")(error),
            }
        })
    }

    fn check(&self) -> Result<(), SegmentFileError> {
        match self.failed.get() {
            None => Ok(()),
            Some((path, call, errno)) => {
                Err(SegmentFileError::Failed { path: path.clone(), call, errno: *errno })
            }
        }
    }

    fn fail(&self, base: Lsn, call: &'static str, error: &io::Error) -> SegmentFileError {
        self.fail_at(self.path_of(base), call, error)
    }

    fn fail_at(&self, path: PathBuf, call: &'static str, error: &io::Error) -> SegmentFileError {
        let errno = error.raw_os_error().unwrap_or_default();
        let (path, call, errno) = self.failed.get_or_init(|| (path, call, errno)).clone();
        log::error!("{call} of {}: {error}: nothing more is written there", path.display());
        SegmentFileError::Failed { path, call, errno }
    }
}

fn system(path: &Path, call: &'static str) -> impl FnOnce(io::Error) -> SegmentFileError {
    let path = path.to_owned();
    move |error| SegmentFileError::System { path, call, error }
}

/// Room for all of the file, without writing it.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    #[cfg(test)]
    if crate::sim::files::is_full() {
        return Err(io::ErrorKind::StorageFull.into());
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::INTR) => {}
            outcome => return outcome.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
