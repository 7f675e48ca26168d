//! The checksums of what lies in segment files, so that a read gives nothing out that is not what was written.
//!
//! They stand in the segment's own table. That is read once, when the first block of the segment is, and kept as four bytes a block
//! while there is room for it; then the segment that was not read for longest is forgotten.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::segment_files::SegmentFiles;
use crate::base::{BlockSize, Lsn};
use crate::segment::{Fault, HEAD_BYTES, Salt, Scan, SegmentHead, SegmentSource, Verify};

/// Bytes of checksums that are kept: those of 64 GiB in blocks of 4096 bytes.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Bytes of the table that are read at a time.
const WINDOW_BYTES: u64 = 64 << 10;

/// Why what was read is not given out.
#[derive(Debug, thiserror::Error)]
pub(super) enum SumError {
    #[error("reading the segment's table: {0}")]
    Medium(#[from] io::Error),
    #[error("the segment at {base}: {why}")]
    Head { base: Lsn, why: String },
    #[error("the segment's table ends before {lsn}: {fault}")]
    NoRecord { lsn: Lsn, fault: Fault },
    #[error("the block at {lsn} has checksum {found:#010x}, its record says {recorded:#010x}")]
    Differs { lsn: Lsn, found: u32, recorded: u32 },
}

/// The checksums of one segment's payload blocks.
#[derive(Debug)]
struct SegmentSums {
    salt: Salt,
    /// By place, in blocks of `unit` bytes; of a larger block its first unit has it.
    sums: Vec<u32>,
    unit: BlockSize,
    /// Behind the last record, and what stands there.
    end: Lsn,
    fault: Fault,
    used: AtomicU64,
}

/// The checksums of the segments that were read last.
#[derive(Debug, Default)]
pub(super) struct Sums {
    segments: RwLock<HashMap<Lsn, Arc<SegmentSums>>>,
    uses: AtomicU64,
}

impl Sums {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Whether `data`, blocks read from `lsn` on in its segment's file, is what was written there.
    pub(super) fn verify(
        &self,
        files: &SegmentFiles,
        lsn: Lsn,
        size: BlockSize,
        data: &[u8],
    ) -> Result<(), SumError> {
        let base = files.layout().base(lsn);
        let segment = self.segment(files, base)?;
        let bytes = usize::try_from(size.bytes()).expect("at most 4096");
        for (index, block) in data.chunks_exact(bytes).enumerate() {
            let at = lsn.plus((index as u64) << size.shift());
            if at >= segment.end {
                return Err(SumError::NoRecord { lsn: at, fault: segment.fault.clone() });
            }
            let place = usize::try_from(at.since(base) >> segment.unit.shift()).expect("at most 2^30");
            let (found, recorded) = (segment.salt.checksum(block), segment.sums[place]);
            if found != recorded {
                return Err(SumError::Differs { lsn: at, found, recorded });
            }
        }
        Ok(())
    }

    /// The segment's file is another one now.
    pub(super) fn forget(&self, base: Lsn) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&base);
    }

    fn segment(&self, files: &SegmentFiles, base: Lsn) -> Result<Arc<SegmentSums>, SumError> {
        let uses = self.uses.fetch_add(1, Ordering::Relaxed);
        {
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(segment) = segments.get(&base) {
                segment.used.store(uses, Ordering::Relaxed);
                return Ok(segment.clone());
            }
        }
        let segment = Arc::new(SegmentSums::load(files, base)?);
        segment.used.store(uses, Ordering::Relaxed);
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.insert(base, segment.clone());
        let mut kept: usize = segments.values().map(|segment| segment.sums.len() * 4).sum();
        while kept > KEPT_BYTES_MAX && segments.len() > 1 {
            let oldest = segments.iter().min_by_key(|(_, segment)| segment.used.load(Ordering::Relaxed));
            let Some(oldest) = oldest.map(|(base, _)| *base) else { break };
            kept -= segments.remove(&oldest).map_or(0, |segment| segment.sums.len() * 4);
        }
        Ok(segment)
    }
}

impl SegmentSums {
    fn load(files: &SegmentFiles, base: Lsn) -> Result<Self, SumError> {
        let mut bytes = [0; HEAD_BYTES];
        files.read(base, 0, &mut bytes)?;
        let head =
            SegmentHead::decode(&bytes).map_err(|error| SumError::Head { base, why: error.to_string() })?;
        if head.base != base || head.layout != files.layout() {
            return Err(SumError::Head {
                base,
                why: format!("its head is of another segment, at {}", head.base),
            });
        }
        let source = Window { files, base, held: RefCell::default() };
        let mut scan = Scan::new(head, Verify::Slots);
        let mut found: Vec<(u64, u32)> = Vec::new();
        let mut unit = BlockSize::Large;
        let fault = loop {
            let first = found.len();
            let next = scan.next_with_sums(&source, |sum| found.push((0, sum)))?;
            match next {
                Ok((record, extent)) => {
                    if record.payload_bytes() > 0 && record.block_size == BlockSize::Small {
                        unit = BlockSize::Small;
                    }
                    for ((offset, _), index) in found[first..].iter_mut().zip(0_u64..) {
                        *offset = extent.payload.start + (index << record.block_size.shift());
                    }
                }
                Err(fault) => break fault,
            }
        };
        let mut sums =
            vec![0; usize::try_from(head.layout.segment_bytes() >> unit.shift()).expect("at most 2^30")];
        for (offset, sum) in found {
            sums[usize::try_from(offset >> unit.shift()).expect("at most 2^30")] = sum;
        }
        Ok(Self { salt: head.salt, sums, unit, end: scan.end(), fault, used: AtomicU64::new(0) })
    }
}

/// A segment's file, read a window at a time: slots lie side by side, and each by itself would be a system call.
struct Window<'a> {
    files: &'a SegmentFiles,
    base: Lsn,
    held: RefCell<(u64, Vec<u8>)>,
}

impl SegmentSource for Window<'_> {
    type Error = io::Error;

    fn read(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        let mut held = self.held.borrow_mut();
        let end = offset + target.len() as u64;
        if offset < held.0 || end > held.0 + held.1.len() as u64 {
            let segment = self.files.layout().segment_bytes();
            // The table grows towards lower offsets: what is read next lies before.
            let start = end.saturating_sub(WINDOW_BYTES).min(offset);
            let len = WINDOW_BYTES.max(target.len() as u64).min(segment - start);
            held.1.resize(usize::try_from(len).expect("at most 2^30"), 0);
            held.0 = start;
            let (start, window) = (held.0, &mut held.1);
            self.files.read(self.base, start, window)?;
        }
        let at = usize::try_from(offset - held.0).expect("at most 2^30");
        target.copy_from_slice(&held.1[at..at + target.len()]);
        Ok(())
    }
}
