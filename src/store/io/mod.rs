//! What a client does with a volume: every request runs on the client's own thread, from its bytes to the peer's memory.
//!
//! ```text
//!  write ─▶ lock ─▶ place in the ring, payload, slots, map ─▶ unlock ─▶ mark
//!  commit(mark) ─▶ lock ─▶ post, poll ─▶ unlock ─▶ … until everything before the mark is with both
//! ```
//!
//! **The reply gate.** No answer leaves, to a read, a write or a flush, before [`Volume::commit`] returned for the mark that it
//! gave: every position that the answer depends on is committed then, in the role and generation in which the request came.

mod commit;
mod lacks;
mod read;
mod write;

use std::sync::Arc;

pub use lacks::LackRun;

use super::engine::Engine;
use super::error::IoError;
use super::state::State;
use super::volumes::{Entry, VolumeInfo};
use crate::base::{BlockSize, VolumeId};
use crate::memory::VolatileSlice;

/// How far the log must be committed before an answer may leave. Ordered: later is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mark(pub u64);

/// Tells whether nobody waits for an answer any more. It is asked with nothing held.
pub type Gone<'a> = &'a dyn Fn() -> bool;

/// What is to be written.
pub enum Source<'a> {
    /// Bytes of the caller's.
    Bytes(&'a [u8]),
    /// So many bytes, which the caller puts into the memory that it is given, piece by piece and in order; they must be
    /// there to take, since others wait meanwhile. False when they are not: the piece is given up.
    Fill {
        /// Bytes in all.
        len: u64,
        /// Fills one piece.
        fill: &'a mut dyn FnMut(VolatileSlice<'_>) -> bool,
    },
}

/// Runs of a map that are looked at for one answer: as many as there can be in one read.
const MAP_RUNS_MAX: u32 = 1 << 17;

/// A part of a volume, data or hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentRun {
    /// Bytes.
    pub bytes: u64,
    /// Whether nothing is stored there: it reads as zeroes.
    pub hole: bool,
}

/// A volume, opened. Ends to work when the node's role or generation changes: open it again then. A clone is the same.
#[derive(Debug, Clone)]
pub struct Volume {
    pub(super) engine: Arc<Engine>,
    pub(super) epoch: u64,
    pub(super) id: VolumeId,
    pub(super) block_size: BlockSize,
}

/// Blocks that a range of bytes touches.
struct Blocks {
    first: u64,
    count: u64,
    /// Bytes before the range in the first block.
    before: usize,
    /// Bytes behind it in the last.
    behind: usize,
}

impl Volume {
    /// What it is now.
    ///
    /// # Errors
    /// It is not served here any more.
    pub fn info(&self) -> Result<VolumeInfo, IoError> {
        let mut state = self.engine.shared.lock();
        state.serving(self.epoch)?;
        Ok(self.entry(&state)?.info())
    }

    /// Whether it works no more, since the node's role or generation changed, or it has handed the service over.
    #[must_use]
    pub fn moved(&self) -> bool {
        matches!(self.engine.shared.lock().serving(self.epoch), Err(IoError::RoleChanged))
    }

    /// Bytes of a block: what is aligned to them costs least.
    #[must_use]
    pub const fn block_size(&self) -> BlockSize {
        self.block_size
    }

    fn entry<'a>(&self, state: &'a State) -> Result<&'a Entry, IoError> {
        state.volumes.get(self.id).ok_or(IoError::Deleted)
    }

    fn check(&self, entry: &Entry, offset: u64, len: u64) -> Result<(), IoError> {
        let bytes = entry.map.blocks() << self.block_size.shift();
        match offset.checked_add(len) {
            Some(end) if end <= bytes => Ok(()),
            _ => Err(IoError::OutOfRange { offset, len, bytes }),
        }
    }

    fn blocks(&self, state: &State, offset: u64, len: u64) -> Result<Blocks, IoError> {
        self.check(self.entry(state)?, offset, len)?;
        let (block, shift) = (self.block_size.bytes(), self.block_size.shift());
        let (first, end) = (offset >> shift, (offset + len).div_ceil(block));
        let behind = (end << shift) - (offset + len);
        Ok(Blocks { first, count: end - first, before: size(offset % block), behind: size(behind) })
    }

    const fn block_bytes(&self) -> usize {
        1 << self.block_size.shift()
    }

    fn record_blocks(&self) -> u32 {
        self.engine.layout().payload_blocks_max(self.block_size)
    }
}

/// A number of bytes or blocks that a buffer holds.
fn size(count: u64) -> usize {
    usize::try_from(count).expect("it was checked against a buffer")
}
