//! A disk in memory, for tests of the server: sparse by blocks, with failures and delays on request.

#![allow(dead_code, reason = "each user has its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mirrorbus::memory::{MapOptions, Mapping};
use mirrorbus::serve::nbd::{
    Export, ExportError, ExportErrorKind, ExportName, Exports, ExtentRun, Extents, Mark, Payload,
};

/// What is stored or not.
const BLOCK_BYTES: u64 = 4096;
/// No block fails.
const NOWHERE: u64 = u64::MAX;

/// The disk.
pub(crate) struct Memory {
    mapping: Mapping,
    stored: Vec<AtomicBool>,
    read_only: bool,
    /// Taken.
    pub(crate) taken: AtomicU64,
    /// Committed.
    pub(crate) committed: AtomicU64,
    /// Calls of `commit`.
    pub(crate) commits: AtomicU64,
    /// Calls of `flush`.
    pub(crate) flushes: AtomicU64,
    /// Payloads that were received straight into the disk's memory.
    pub(crate) fills: AtomicU64,
    /// Calls that found no place at once.
    pub(crate) waits: AtomicU64,
    /// Calls that gave up because the client was gone.
    pub(crate) given_up: AtomicU64,
    /// Commits wait as long as it is set.
    pub(crate) hold: AtomicBool,
    /// Nothing finds a place as long as it is set.
    pub(crate) full: AtomicBool,
    /// Commits fail as long as it is set.
    pub(crate) fail_commits: AtomicBool,
    /// Flushes fail as long as it is set.
    pub(crate) fail_flushes: AtomicBool,
    /// Reads and writes that touch this byte fail.
    pub(crate) bad_byte: AtomicU64,
}

impl Memory {
    pub(crate) fn new(bytes: u64, read_only: bool) -> Arc<Self> {
        let blocks = usize::try_from(bytes.div_ceil(BLOCK_BYTES)).unwrap();
        let bytes = usize::try_from(bytes).unwrap();
        Arc::new(Self {
            mapping: Mapping::anonymous(bytes, MapOptions::default()).unwrap(),
            stored: (0..blocks).map(|_| AtomicBool::new(false)).collect(),
            read_only,
            taken: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            fills: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            hold: AtomicBool::new(false),
            full: AtomicBool::new(false),
            fail_commits: AtomicBool::new(false),
            fail_flushes: AtomicBool::new(false),
            bad_byte: AtomicU64::new(NOWHERE),
        })
    }

    /// What is on it.
    pub(crate) fn content(&self) -> Vec<u8> {
        self.mapping.slice().to_vec()
    }

    /// Puts `bytes` on it, past the server.
    pub(crate) fn put(&self, offset: u64, bytes: &[u8]) {
        self.write(offset, Payload::Bytes(bytes), &|| false).unwrap();
    }

    fn check(&self, offset: u64, len: u64) -> Result<usize, ExportError> {
        let bad = self.bad_byte.load(Ordering::Relaxed);
        if (offset..offset + len).contains(&bad) {
            return Err(ExportError::new(ExportErrorKind::Io, format!("byte {bad} is bad")));
        }
        if !self.mapping.slice().contains(usize::try_from(offset).unwrap(), usize::try_from(len).unwrap()) {
            return Err(ExportError::new(ExportErrorKind::OutOfRange, "beyond the end"));
        }
        Ok(usize::try_from(offset).unwrap())
    }

    fn wait_for_room(&self, gone: &dyn Fn() -> bool) -> Result<(), ExportError> {
        self.waits.fetch_add(u64::from(self.full.load(Ordering::Acquire)), Ordering::AcqRel);
        while self.full.load(Ordering::Acquire) {
            if gone() {
                self.given_up.fetch_add(1, Ordering::AcqRel);
                return Err(ExportError::new(ExportErrorKind::ShuttingDown, "nobody waits"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn mark(&self) -> Mark {
        Mark(self.taken.fetch_add(1, Ordering::AcqRel) + 1)
    }

    fn store(&self, offset: u64, len: u64, stored: bool) {
        let blocks = if stored {
            offset / BLOCK_BYTES..(offset + len).div_ceil(BLOCK_BYTES)
        } else {
            offset.div_ceil(BLOCK_BYTES)..(offset + len) / BLOCK_BYTES
        };
        for block in blocks {
            self.stored[usize::try_from(block).unwrap()].store(stored, Ordering::Release);
        }
    }
}

impl Export for Memory {
    fn size(&self) -> u64 {
        self.mapping.slice().len() as u64
    }

    fn block_bytes(&self) -> u32 {
        4096
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<Mark, ExportError> {
        let at = self.check(offset, target.len() as u64)?;
        self.mapping.slice().read(at, target);
        Ok(Mark(self.taken.load(Ordering::Acquire)))
    }

    fn write(&self, offset: u64, payload: Payload<'_>, gone: &dyn Fn() -> bool) -> Result<Mark, ExportError> {
        self.wait_for_room(gone)?;
        let len = payload.bytes();
        let at = self.check(offset, len as u64)?;
        match payload {
            Payload::Bytes(bytes) => self.mapping.slice().write(at, bytes),
            Payload::Fill(fill) => {
                self.fills.fetch_add(1, Ordering::Relaxed);
                // In two parts, as a store would that splits it.
                for (at, len) in [(at, len / 2), (at + len / 2, len - len / 2)] {
                    let part = self.mapping.slice().subslice(at, len).expect("checked");
                    fill.fill(part).map_err(|error| {
                        ExportError::new(ExportErrorKind::Io, format!("the payload broke off: {error}"))
                    })?;
                }
            }
        }
        self.store(offset, len as u64, true);
        Ok(self.mark())
    }

    fn trim(&self, offset: u64, len: u64, gone: &dyn Fn() -> bool) -> Result<Mark, ExportError> {
        self.write_zeroes(offset, len, false, gone)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        keep_allocated: bool,
        gone: &dyn Fn() -> bool,
    ) -> Result<Mark, ExportError> {
        self.wait_for_room(gone)?;
        let at = self.check(offset, len)?;
        self.mapping.slice().fill(at, usize::try_from(len).unwrap(), 0);
        self.store(offset, len, keep_allocated);
        Ok(self.mark())
    }

    fn commit(&self, mark: Mark, gone: &dyn Fn() -> bool) -> Result<(), ExportError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        while self.hold.load(Ordering::Acquire) {
            if gone() {
                self.given_up.fetch_add(1, Ordering::AcqRel);
                return Err(ExportError::new(ExportErrorKind::ShuttingDown, "nobody waits"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.fail_commits.load(Ordering::Acquire) {
            return Err(ExportError::new(ExportErrorKind::NoSpace, "no commit today"));
        }
        self.committed.fetch_max(mark.0, Ordering::AcqRel);
        Ok(())
    }

    fn flush(&self, _gone: &dyn Fn() -> bool) -> Result<(), ExportError> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        if self.fail_flushes.load(Ordering::Acquire) {
            return Err(ExportError::new(ExportErrorKind::Io, "no flush today"));
        }
        Ok(())
    }

    fn extents(&self, offset: u64, len: u64, most: usize) -> Result<Extents, ExportError> {
        self.check(offset, len)?;
        let (mut at, end) = (offset, offset + len);
        let mut runs: Vec<ExtentRun> = Vec::new();
        while at < end {
            let hole = !self.stored[usize::try_from(at / BLOCK_BYTES).unwrap()].load(Ordering::Acquire);
            let next = ((at / BLOCK_BYTES + 1) * BLOCK_BYTES).min(end);
            let count = runs.len();
            match runs.last_mut() {
                Some(run) if run.hole == hole => run.bytes += next - at,
                Some(_) if count == most => break,
                Some(_) | None => runs.push(ExtentRun { bytes: next - at, hole }),
            }
            at = next;
        }
        Ok(Extents { runs, mark: Mark(self.taken.load(Ordering::Acquire)) })
    }
}

/// Disks by name.
pub(crate) struct Disks(pub(crate) Vec<(ExportName, Arc<Memory>)>);

impl Disks {
    /// One, named `disk`.
    pub(crate) fn one(disk: &Arc<Memory>) -> Arc<Self> {
        Self::of(&[("disk", disk)])
    }

    pub(crate) fn of(disks: &[(&str, &Arc<Memory>)]) -> Arc<Self> {
        let named =
            |name: &str| ExportName { name: name.into(), description: format!("the {name} in memory") };
        Arc::new(Self(disks.iter().map(|(name, disk)| (named(name), Arc::clone(disk))).collect()))
    }
}

impl Exports for Disks {
    fn open(&self, name: &str) -> Option<Arc<dyn Export>> {
        let found = match self.0.as_slice() {
            [(_, only)] if name.is_empty() => Some(only),
            all => all.iter().find(|(named, _)| named.name == name).map(|(_, disk)| disk),
        };
        found.map(|disk| Arc::clone(disk) as Arc<dyn Export>)
    }

    fn list(&self) -> Vec<ExportName> {
        self.0.iter().map(|(named, _)| named.clone()).collect()
    }
}
