//! A dataset's volumes as NBD exports.
//!
//! An export is a volume as it was opened: when the node's role or generation changes, its requests fail, and the client connects
//! again, to whichever node serves then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::metrics::LatencyRecorder;
use super::nbd::{
    Export, ExportError, ExportErrorKind, ExportName, Exports, ExtentRun, Extents, Mark, Payload,
    PeerExtents, PeerRun,
};
use crate::memory::VolatileSlice;
use crate::store::{self, Dataset, IoError, Source, Volume};

/// How long clients of a dataset waited.
#[derive(Debug, Default)]
pub struct Waits {
    /// For reads, to the bytes.
    pub(super) read: LatencyRecorder,
    /// For what was taken together, to its acknowledgment.
    pub(super) write: LatencyRecorder,
    /// For flushes.
    pub(super) flush: LatencyRecorder,
}

/// The volumes of one dataset.
#[derive(Debug, Clone)]
pub struct DatasetExports {
    dataset: Arc<Dataset>,
    waits: Arc<Waits>,
}

impl DatasetExports {
    /// Of `dataset`; what clients wait for goes to `waits`.
    #[must_use]
    pub const fn new(dataset: Arc<Dataset>, waits: Arc<Waits>) -> Self {
        Self { dataset, waits }
    }
}

impl Exports for DatasetExports {
    fn open(&self, name: &str) -> Option<Arc<dyn Export>> {
        let volumes = self.dataset.volumes();
        let name = match (name, volumes.as_slice()) {
            ("", [only]) => only.name.as_str(),
            ("", _) => return None,
            (name, _) => name,
        };
        let volume = self.dataset.volume(name).ok()?;
        Some(Arc::new(VolumeExport { volume, waits: self.waits.clone(), taken: AtomicBool::new(false) }))
    }

    fn list(&self) -> Vec<ExportName> {
        let describe = |volume: store::VolumeInfo| ExportName {
            description: format!("{} bytes in blocks of {}", volume.bytes(), volume.block_size.bytes()),
            name: volume.name,
        };
        self.dataset.volumes().into_iter().map(describe).collect()
    }
}

/// One volume.
#[derive(Debug)]
struct VolumeExport {
    volume: Volume,
    waits: Arc<Waits>,
    /// Something was taken since the last acknowledgment.
    taken: AtomicBool,
}

fn told(error: IoError) -> ExportError {
    let kind = match &error {
        IoError::OutOfRange { .. } => ExportErrorKind::OutOfRange,
        IoError::NoSpace(_) => ExportErrorKind::NoSpace,
        IoError::RoleChanged | IoError::Stopping | IoError::Gone | IoError::Deleted => {
            ExportErrorKind::ShuttingDown
        }
        IoError::Failed(_)
        | IoError::HeldTooLong { .. }
        | IoError::Damaged(_)
        | IoError::Medium(_)
        | IoError::Payload
        | IoError::StrangeMark { .. }
        | IoError::Volume(_) => ExportErrorKind::Io,
    };
    ExportError::new(kind, error.to_string())
}

fn mark(mark: store::Mark) -> Mark {
    Mark(mark.0)
}

impl Export for VolumeExport {
    fn moved(&self) -> bool {
        self.volume.moved()
    }

    fn size(&self) -> u64 {
        // Of a volume that is no more nothing can be read.
        self.volume.info().map_or(0, |info| info.bytes())
    }

    fn block_bytes(&self) -> u32 {
        1 << self.volume.block_size().shift()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<Mark, ExportError> {
        let began = Instant::now();
        let read = self.volume.read(offset, target).map(mark).map_err(told);
        self.waits.read.record(began.elapsed());
        read
    }

    fn write(&self, offset: u64, payload: Payload<'_>, gone: &dyn Fn() -> bool) -> Result<Mark, ExportError> {
        self.taken.store(true, Ordering::Relaxed);
        let taken = match payload {
            Payload::Bytes(bytes) => self.volume.write(offset, Source::Bytes(bytes), gone),
            Payload::Fill(fill) => {
                let len = fill.bytes() as u64;
                let mut take = |memory: VolatileSlice<'_>| fill.fill(memory).is_ok();
                self.volume.write(offset, Source::Fill { len, fill: &mut take }, gone)
            }
        };
        taken.map(mark).map_err(told)
    }

    fn trim(&self, offset: u64, len: u64, gone: &dyn Fn() -> bool) -> Result<Mark, ExportError> {
        self.volume.trim(offset, len, gone).map(mark).map_err(told)
    }

    /// Volumes are thin: a later write may find no room, whatever was asked for before.
    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        _keep_allocated: bool,
        gone: &dyn Fn() -> bool,
    ) -> Result<Mark, ExportError> {
        self.volume.write_zeroes(offset, len, gone).map(mark).map_err(told)
    }

    fn commit(&self, mark: Mark, gone: &dyn Fn() -> bool) -> Result<(), ExportError> {
        if !self.taken.swap(false, Ordering::Relaxed) {
            return self.volume.commit(store::Mark(mark.0), gone).map_err(told);
        }
        let began = Instant::now();
        let committed = self.volume.commit(store::Mark(mark.0), gone).map_err(told);
        self.waits.write.record(began.elapsed());
        committed
    }

    fn flush(&self, gone: &dyn Fn() -> bool) -> Result<(), ExportError> {
        let began = Instant::now();
        let flushed = self.volume.flush(gone).map_err(told);
        self.waits.flush.record(began.elapsed());
        flushed
    }

    fn extents(&self, offset: u64, len: u64, most: usize) -> Result<Extents, ExportError> {
        let (runs, mark) = self.volume.extents(offset, len, most).map_err(told)?;
        let runs = runs.into_iter().map(|run| ExtentRun { bytes: run.bytes, hole: run.hole }).collect();
        Ok(Extents { runs, mark: Mark(mark.0) })
    }

    fn has_peer(&self) -> bool {
        true
    }

    fn unreplicated(&self, offset: u64, len: u64, most: usize) -> Result<PeerExtents, ExportError> {
        let (runs, mark) = self.volume.unreplicated(offset, len, most).map_err(told)?;
        let runs = runs.into_iter().map(|run| PeerRun { bytes: run.bytes, lacks: run.lacks }).collect();
        Ok(PeerExtents { runs, mark: Mark(mark.0) })
    }
}
