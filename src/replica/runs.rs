//! What differs between two maps of a volume, in runs: how the peer's map is made what this node's was.

use std::iter::Peekable;

use crate::base::{BlockNumber, Lsn, VolumeId};
use crate::volume::{BlockMap, Change, Diff};

/// Blocks of a volume in order whose data follow each other in the log, or that have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapRun {
    /// Which volume.
    pub volume: VolumeId,
    /// The first block.
    pub block: BlockNumber,
    /// How many; at least one.
    pub count: u64,
    /// Where the first one's data is; that of the others follows it. `None`: zeroes.
    pub lsn: Option<Lsn>,
}

/// Why runs from a peer are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Shorter than what it says is in it.
    #[error("a frame of runs ends at byte {at}, in the middle of its {field}")]
    Short {
        /// Its length.
        at: usize,
        /// What is cut off.
        field: &'static str,
    },
    /// Damaged.
    #[error("a frame of runs has checksum {found:#010x}, not {computed:#010x}")]
    Checksum {
        /// What it says.
        found: u32,
        /// Of its bytes.
        computed: u32,
    },
    /// A number that no sender writes.
    #[error("a frame of runs says at byte {at} {field} {value}: written by another version, or by a defect")]
    Field {
        /// Where.
        at: usize,
        /// Of what.
        field: &'static str,
        /// The number.
        value: u64,
    },
    /// The run goes beyond the volume.
    #[error("a run of {count} blocks from {block}, of a volume of {blocks}: the tables of volumes differ")]
    Range {
        /// Its first.
        block: u64,
        /// How many.
        count: u64,
        /// What the volume has.
        blocks: u64,
    },
    /// Its data would lie where none can be.
    #[error(
        "a run of {count} blocks with data from {lsn}: it is to end before {position}, in whole blocks of {block_bytes}"
    )]
    Position {
        /// Where it begins.
        lsn: Lsn,
        /// How many.
        count: u64,
        /// Of which the maps are.
        position: Lsn,
        /// A block's.
        block_bytes: u64,
    },
}

impl MapRun {
    /// Enters it in the peer's map of the volume, to become the map at `position`. What the map has from there on stays: it is newer.
    ///
    /// # Errors
    /// It does not fit; then nothing was changed.
    pub fn apply(&self, map: &mut BlockMap, position: Lsn) -> Result<(), RunError> {
        let Self { block, count, .. } = *self;
        let blocks = map.blocks();
        if block.0.checked_add(count).is_none_or(|end| end > blocks) {
            return Err(RunError::Range { block: block.0, count, blocks });
        }
        let block_bytes = map.block_size().bytes();
        match self.lsn {
            Some(lsn) => {
                let end = count.checked_mul(block_bytes).and_then(|bytes| lsn.0.checked_add(bytes));
                let fits = end.is_some_and(|end| end <= position.0.min(Lsn::MAX.0));
                if lsn == Lsn::ZERO || !lsn.0.is_multiple_of(block_bytes) || !fits {
                    return Err(RunError::Position { lsn, count, position, block_bytes });
                }
                map.write(block, count, lsn);
            }
            // Later than all before the position, and earlier than what lies at it.
            None if position.0 > 1 => map.trim(block, count, Lsn(position.0 - 1)),
            None => {}
        }
        Ok(())
    }
}

/// The longest runs that differ between two maps of one volume, in the order of blocks.
///
/// What the new map is too small for is left out: the table of volumes says that it was cut off.
#[derive(Debug)]
pub struct MapRuns<'a> {
    changes: Peekable<Diff<'a>>,
    volume: VolumeId,
    blocks: u64,
    block_bytes: u64,
}

impl<'a> MapRuns<'a> {
    /// Of what makes `old` to `new`, from block `first` on.
    ///
    /// # Panics
    /// When the block sizes differ.
    #[must_use]
    pub fn new(volume: VolumeId, old: &'a BlockMap, new: &'a BlockMap, first: BlockNumber) -> Self {
        let changes = old.diff_from(new, first).peekable();
        Self { changes, volume, blocks: new.blocks(), block_bytes: new.block_size().bytes() }
    }
}

impl Iterator for MapRuns<'_> {
    type Item = MapRun;

    fn next(&mut self) -> Option<MapRun> {
        let blocks = self.blocks;
        let Change { block, new: lsn, .. } = self.changes.next_if(|change| change.block.0 < blocks)?;
        let mut run = MapRun { volume: self.volume, block, count: 1, lsn };
        loop {
            let end = BlockNumber(run.block.0 + run.count);
            let data_end = run.lsn.map(|lsn| lsn.plus(run.count * self.block_bytes));
            let follows = |change: &Change| change.block == end && end.0 < blocks && change.new == data_end;
            if self.changes.next_if(follows).is_none() {
                return Some(run);
            }
            run.count += 1;
        }
    }
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
