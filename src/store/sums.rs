//! Checksums of the blocks in the segments' files: what a read gives is compared before anybody sees it.
//!
//! A segment's table has a checksum for each block of payload, also of those that were punched out since. The table is read once, into one
//! number for each position where a block of the volume's size can begin, and is kept while there is room. So a flipped bit on the disk,
//! a misdirected write and a hole where data should be are all found, and never served.
//!
//! A position that the table as it was read does not know may have been written since: then it is read again, once. A block that no
//! valid record has is a fault like one that does not match.
//!
//! Looking up takes a shared lock of one shard and allocates nothing.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use super::segment_files::SegmentFiles;
use crate::base::{BlockSize, Lsn};
use crate::segment::{
    Extent, HEAD_BYTES, HeadError, Salt, Scan, SegmentHead, SegmentLayout, SegmentSource, Verify,
};

/// Memory that the tables may take: enough for 60 GiB of log in blocks of 4096 bytes.
pub(super) const SUMS_BYTES_MAX: usize = 64 << 20;

/// Tables are spread over so many locks. Each keeps at least one table, whatever its size.
const SHARDS: usize = 8;

/// Why data from a file is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum SumError {
    /// It is not what was written.
    #[error(
        "the block at {lsn} has checksum {computed:#010x}, it was written with {wanted:#010x}: take it from the peer"
    )]
    Mismatch {
        /// The block.
        lsn: Lsn,
        /// What its bytes give.
        computed: u32,
        /// What they should give.
        wanted: u32,
    },
    /// No record of the segment has it.
    #[error("no valid record has the block at {lsn}: take it from the peer")]
    Unknown {
        /// The block.
        lsn: Lsn,
    },
    /// The segment's head is damaged.
    #[error("the segment at {base}: {error}")]
    Head {
        /// The segment.
        base: Lsn,
        /// What is wrong.
        #[source]
        error: HeadError,
    },
    /// The file cannot be read.
    #[error("reading the segment at {base}: {error}")]
    Medium {
        /// The segment.
        base: Lsn,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// Checksums of blocks of one size, by position.
#[derive(Debug, Default)]
struct Column {
    sums: Vec<u32>,
    /// A bit for each: whether it is one.
    known: Vec<u64>,
}

impl Column {
    fn set(&mut self, at: usize, sum: u32, places: usize) {
        if self.sums.is_empty() {
            self.sums = vec![0; places];
            self.known = vec![0; places.div_ceil(64)];
        }
        self.sums[at] = sum;
        self.known[at / 64] |= 1 << (at % 64);
    }

    fn get(&self, at: usize) -> Option<u32> {
        let known = self.known.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1);
        known.then(|| self.sums[at])
    }

    fn bytes(&self) -> usize {
        self.sums.len() * size_of::<u32>() + self.known.len() * size_of::<u64>()
    }
}

/// One segment's.
#[derive(Debug)]
pub(super) struct Table {
    base: Lsn,
    salt: Salt,
    small: Column,
    large: Column,
    /// By the clock of loads.
    used: AtomicU64,
}

impl Table {
    /// Of the segment's file as it is now.
    pub(super) fn load(files: &SegmentFiles, base: Lsn) -> Result<Self, SumError> {
        let medium = |error| SumError::Medium { base, error };
        let mut bytes = [0; HEAD_BYTES];
        files.read(base, 0, &mut bytes).map_err(medium)?;
        let head = SegmentHead::decode(&bytes).and_then(|head| {
            let is_right = head.base == base && head.layout == files.layout();
            if is_right { Ok(head) } else { Err(HeadError::Base { found: head.base, wanted: base }) }
        });
        let head = head.map_err(|error| SumError::Head { base, error })?;
        Self::of(head, &files.source(base)).map_err(medium)
    }

    /// Of the records that `source`, a file's bytes, has behind this head.
    pub(super) fn of<S: SegmentSource + ?Sized>(head: SegmentHead, source: &S) -> Result<Self, S::Error> {
        Self::scanned(&mut Scan::new(head, Verify::Slots), source, |_| ())
    }

    /// Of the records that a scan finds in `source`; each is told to `found`.
    pub(super) fn scanned<S: SegmentSource + ?Sized>(
        scan: &mut Scan,
        source: &S,
        mut found: impl FnMut(&Extent),
    ) -> Result<Self, S::Error> {
        let head = *scan.head();
        let (base, salt, used) = (head.base, head.salt, AtomicU64::new(0));
        let mut table = Self { base, salt, small: Column::default(), large: Column::default(), used };
        let mut sums = Vec::new();
        while let Ok((record, extent)) = scan.next_with_sums(source, |sum| sums.push(sum))? {
            found(&extent);
            let size = record.block_size;
            let first = index(extent.payload.start >> size.shift());
            let places = index(head.layout.segment_bytes() >> size.shift());
            let column = table.column_mut(size);
            for (at, sum) in (first..).zip(sums.drain(..)) {
                column.set(at, sum, places);
            }
        }
        Ok(table)
    }

    const fn column_mut(&mut self, size: BlockSize) -> &mut Column {
        match size {
            BlockSize::Small => &mut self.small,
            BlockSize::Large => &mut self.large,
        }
    }

    const fn column(&self, size: BlockSize) -> &Column {
        match size {
            BlockSize::Small => &self.small,
            BlockSize::Large => &self.large,
        }
    }

    /// Whether it has a checksum for each of these blocks of the segment.
    pub(super) fn knows(&self, lsn: Lsn, size: BlockSize, blocks: u64) -> bool {
        let first = index(lsn.since(self.base) >> size.shift());
        (first..first + index(blocks)).all(|at| self.column(size).get(at).is_some())
    }

    /// Compares blocks of the segment with their checksums.
    ///
    /// # Errors
    /// The first that does not match, or that no record has.
    pub(super) fn verify(&self, lsn: Lsn, size: BlockSize, data: &[u8]) -> Result<(), SumError> {
        let column = self.column(size);
        let first = index(lsn.since(self.base) >> size.shift());
        for (number, block) in data.chunks_exact(index(size.bytes())).enumerate() {
            let at = || lsn.plus((number as u64) << size.shift());
            let Some(wanted) = column.get(first + number) else {
                return Err(SumError::Unknown { lsn: at() });
            };
            let computed = self.salt.checksum(block);
            if computed != wanted {
                return Err(SumError::Mismatch { lsn: at(), computed, wanted });
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.small.bytes() + self.large.bytes()
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("segments have at most 2^30 bytes")
}

#[derive(Debug, Default)]
struct Shard {
    tables: HashMap<Lsn, Arc<Table>>,
    bytes: usize,
}

/// Tables of segments, those used last.
#[derive(Debug)]
pub(super) struct Sums {
    layout: SegmentLayout,
    shards: [RwLock<Shard>; SHARDS],
    shard_bytes: usize,
    /// Counts loads.
    clock: AtomicU64,
}

impl Sums {
    /// None yet; they may take `bytes_max`, or one table for each shard if that is more.
    pub(super) fn new(layout: SegmentLayout, bytes_max: usize) -> Self {
        let shards = std::array::from_fn(|_| RwLock::default());
        Self { layout, shards, shard_bytes: bytes_max / SHARDS, clock: AtomicU64::new(0) }
    }

    /// Compares blocks that were read at `lsn` with what was written there.
    ///
    /// # Errors
    /// A block is not what was written, or nobody knows.
    ///
    /// # Panics
    /// When `data` is not whole blocks of one segment.
    pub(super) fn verify(
        &self,
        files: &SegmentFiles,
        lsn: Lsn,
        size: BlockSize,
        data: &[u8],
    ) -> Result<(), SumError> {
        let base = self.layout.base(lsn);
        let len = data.len() as u64;
        assert!(
            lsn.0.is_multiple_of(size.bytes())
                && len.is_multiple_of(size.bytes())
                && lsn.since(base) + len <= self.layout.segment_bytes(),
            "{len} bytes at {lsn} in blocks of {}",
            size.bytes()
        );
        if let Some(table) = self.find(base) {
            match table.verify(lsn, size, data) {
                Err(SumError::Unknown { .. }) => {}
                outcome => return outcome,
            }
        }
        let table = Arc::new(Table::load(files, base)?);
        self.enter(table.clone());
        table.verify(lsn, size, data)
    }

    /// A table that has checksums for these blocks: the one at hand, or that of the file as it is now.
    pub(super) fn knowing(
        &self,
        files: &SegmentFiles,
        lsn: Lsn,
        size: BlockSize,
        blocks: u64,
    ) -> Option<Arc<Table>> {
        let base = self.layout.base(lsn);
        let knows = |table: &Arc<Table>| table.knows(lsn, size, blocks);
        let known = self.find(base).filter(knows);
        known.or_else(|| Table::load(files, base).ok().map(Arc::new).filter(knows))
    }

    /// Takes a table that comes from elsewhere, until the segment is forgotten.
    pub(super) fn adopt(&self, table: Arc<Table>) {
        self.enter(table);
    }

    /// Forgets a segment that is removed or written anew, or whose file is to be looked at again.
    pub(super) fn forget(&self, base: Lsn) {
        let mut shard = self.write(base);
        let removed = shard.tables.remove(&base);
        shard.bytes -= removed.map_or(0, |table| table.bytes());
    }

    fn shard(&self, base: Lsn) -> &RwLock<Shard> {
        &self.shards[index(base.0 / self.layout.segment_bytes() % SHARDS as u64)]
    }

    fn write(&self, base: Lsn) -> RwLockWriteGuard<'_, Shard> {
        self.shard(base).write().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, base: Lsn) -> Option<Arc<Table>> {
        let shard = self.shard(base).read().unwrap_or_else(PoisonError::into_inner);
        let table = shard.tables.get(&base)?;
        let now = self.clock.load(Ordering::Relaxed);
        // Written only when it changes, so that readers do not take the line from each other.
        if table.used.load(Ordering::Relaxed) != now {
            table.used.store(now, Ordering::Relaxed);
        }
        Some(table.clone())
    }

    fn enter(&self, table: Arc<Table>) {
        let base = table.base;
        table.used.store(self.clock.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let mut shard = self.write(base);
        shard.bytes += table.bytes();
        if let Some(replaced) = shard.tables.insert(base, table) {
            shard.bytes -= replaced.bytes();
        }
        while shard.bytes > self.shard_bytes && shard.tables.len() > 1 {
            let others = shard.tables.iter().filter(|(other, _)| **other != base);
            let oldest = others.min_by_key(|(_, table)| table.used.load(Ordering::Relaxed));
            let oldest = oldest.map(|(oldest, _)| *oldest).expect("there is another");
            let removed = shard.tables.remove(&oldest);
            shard.bytes -= removed.map_or(0, |table| table.bytes());
        }
    }
}

#[cfg(test)]
#[path = "sums_tests.rs"]
mod tests;
