//! Applying records of the log to a volume's map.

use super::BlockMap;
use crate::segment::{Record, RecordKind};

/// A record that does not fit the volume that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// It goes beyond the volume's end.
    #[error(
        "a record for {count} blocks from {block}, of a volume of {blocks}: the volume table is older or newer than the log"
    )]
    Range {
        /// The record's first.
        block: u64,
        /// How many.
        count: u32,
        /// What the volume has.
        blocks: u64,
    },
    /// It is in other blocks.
    #[error("a record in blocks of {found} bytes, of a volume in blocks of {wanted}")]
    BlockSize {
        /// The record's.
        found: u64,
        /// The volume's.
        wanted: u64,
    },
}

impl BlockMap {
    /// Does what a record for this volume says. Zeroes are not stored: blocks that were written with them are unmapped, as by a trim.
    /// Phase markers, void records and those of the table of volumes change no block.
    ///
    /// # Errors
    /// The record does not fit the volume; then nothing was changed.
    pub fn apply(&mut self, record: &Record) -> Result<(), ApplyError> {
        if matches!(record.kind, RecordKind::PhaseMarker | RecordKind::Void | RecordKind::Volume) {
            return Ok(());
        }
        if record.block_size != self.block_size() {
            let (found, wanted) = (record.block_size.bytes(), self.block_size().bytes());
            return Err(ApplyError::BlockSize { found, wanted });
        }
        let (block, count) = (record.block, record.blocks);
        if block.0.checked_add(count.into()).is_none_or(|end| end > self.blocks()) {
            return Err(ApplyError::Range { block: block.0, count, blocks: self.blocks() });
        }
        match record.kind {
            RecordKind::Write => self.write(block, count.into(), record.lsn),
            RecordKind::Trim | RecordKind::WriteZeroes => self.trim(block, count.into(), record.lsn),
            RecordKind::PhaseMarker | RecordKind::Void | RecordKind::Volume => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockNumber, BlockSize, Lsn, VolumeId};

    fn record(kind: RecordKind, block: u64, blocks: u32, lsn: u64) -> Record {
        let (block, block_size) = (BlockNumber(block), BlockSize::Small);
        let (lsn, durable) = (Lsn(lsn), Lsn::ZERO);
        Record { kind, volume: VolumeId(1), block, blocks, block_size, lsn, durable, sequence: 0 }
    }

    #[test]
    fn each_kind_does_what_it_says() {
        let mut map = BlockMap::new(BlockSize::Small, 100);
        for (kind, block, blocks, lsn) in [
            (RecordKind::Write, 10, 10, 4096),
            (RecordKind::Trim, 12, 1, 16384),
            (RecordKind::WriteZeroes, 19, 2, 16896),
            (RecordKind::Void, 10, 5, 17408),
            (RecordKind::PhaseMarker, 1 << 60, 0, 32768),
        ] {
            assert_eq!(map.apply(&record(kind, block, blocks, lsn)), Ok(()));
        }
        let mapped: Vec<_> = (0..100).filter(|block| map.lookup(BlockNumber(*block)).is_some()).collect();
        assert_eq!(mapped, [10, 11, 13, 14, 15, 16, 17, 18]);
        assert_eq!(map.lookup(BlockNumber(18)), Some(Lsn(4096 + 8 * 512)));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let mut map = BlockMap::new(BlockSize::Small, 100);
        for (block, count) in [(100, 1), (99, 2), (u64::MAX, 1)] {
            let error = map.apply(&record(RecordKind::Write, block, count, 4096)).unwrap_err();
            assert_eq!(error, ApplyError::Range { block, count, blocks: 100 });
        }
        let large = Record { block_size: BlockSize::Large, ..record(RecordKind::Trim, 0, 1, 4096) };
        assert!(matches!(map.apply(&large), Err(ApplyError::BlockSize { .. })));
        assert_eq!(map.mapped(), 0);
    }
}
