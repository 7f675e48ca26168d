//! A segment's file as scans and replay read it: piece by piece, and each piece of the disk once.
//!
//! A scan asks for 64 bytes of the table, then for a block of payload, and so on: the table runs to the front, payloads to the back. Two
//! windows, one for each, make few large reads of that.

use std::cell::RefCell;
use std::io;

use super::SegmentFiles;
use crate::base::Lsn;
use crate::segment::SegmentSource;

/// Bytes of a window.
const WINDOW_BYTES: usize = 64 << 10;

/// Bytes that lie in memory.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

/// One segment's file. What was read once is not looked at again while it lies in a window, so make another to see what was written
/// since.
#[derive(Debug)]
pub struct FileSource<'a> {
    files: &'a SegmentFiles,
    base: Lsn,
    /// The one used last comes first.
    windows: RefCell<[Window; 2]>,
}

impl<'a> FileSource<'a> {
    pub(super) fn new(files: &'a SegmentFiles, base: Lsn) -> Self {
        Self { files, base, windows: RefCell::default() }
    }

    /// The segment.
    #[must_use]
    pub const fn base(&self) -> Lsn {
        self.base
    }
}

impl Window {
    fn copy(&self, offset: u64, target: &mut [u8]) -> bool {
        let found = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let found = found.and_then(|at| self.bytes.get(at..)?.get(..target.len()));
        found.map(|bytes| target.copy_from_slice(bytes)).is_some()
    }
}

impl SegmentSource for FileSource<'_> {
    type Error = io::Error;

    fn read(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        let mut windows = self.windows.borrow_mut();
        if windows[0].copy(offset, target) {
            return Ok(());
        }
        if windows[1].copy(offset, target) {
            windows.swap(0, 1);
            return Ok(());
        }
        let window = WINDOW_BYTES as u64;
        let start = offset - offset % window;
        if offset + target.len() as u64 > start + window {
            return self.files.read(self.base, offset, target);
        }
        windows.swap(0, 1);
        let first = &mut windows[0];
        first.start = start;
        first.bytes.resize(WINDOW_BYTES, 0);
        if let Err(error) = self.files.read(self.base, start, &mut first.bytes) {
            first.bytes.clear();
            return Err(error);
        }
        let copied = first.copy(offset, target);
        assert!(copied, "{} bytes at {offset} lie in the window from {start}", target.len());
        Ok(())
    }
}
