//! A segment as it lies in the ring, for whoever looks at it without the dataset's lock: another may come in its place meanwhile, so
//! what is read counts only when it matches its checksum.

use super::engine::Engine;
use super::follower::Stage;
use super::ring_memory::RingMemory;
use super::state::Role;
use super::sums::Table;
use crate::base::{BlockSize, DatasetId, Lsn};
use crate::segment::{Packed, Scan, SegmentHead};

/// What was found there.
#[derive(Debug)]
pub(super) struct RingSegment {
    memory: RingMemory,
    pub(super) head: SegmentHead,
    packed: Packed,
    sums: Table,
    scan: Scan,
}

impl Engine {
    /// The segment at `base`, if the ring has it.
    pub(super) fn ring_segment(&self, base: Lsn) -> Option<RingSegment> {
        let memory = {
            let state = self.shared.lock();
            match &state.role {
                Role::Primary(primary) if primary.log.packed(base).is_some() => primary.log.memory().clone(),
                Role::Secondary(secondary) => match &secondary.stage {
                    Stage::Following(following) => following.memory.clone(),
                    Stage::Waiting => return None,
                },
                Role::Primary(_) | Role::Undecided | Role::Failed { .. } => return None,
            }
        };
        RingSegment::find(memory, self.config.id, base)
    }
}

impl RingSegment {
    fn find(memory: RingMemory, dataset: DatasetId, base: Lsn) -> Option<Self> {
        let head = memory.head(dataset, base)?;
        let (mut packed, mut scan) = (Packed::default(), Scan::in_ring(head, Lsn::MAX));
        let Ok(sums) = Table::scanned(&mut scan, &memory.place(base), |extent| packed.push(extent));
        Some(Self { memory, head, packed, sums, scan })
    }

    /// The bytes at `lsn`, whatever they are; false when the segment has no payload there.
    pub(super) fn read(&self, lsn: Lsn, target: &mut [u8]) -> bool {
        self.packed.read(self.memory.place(self.head.base), lsn.since(self.head.base), target)
    }

    /// A block, if it matches its checksum.
    pub(super) fn read_good(&self, lsn: Lsn, size: BlockSize, target: &mut [u8]) -> bool {
        self.read(lsn, target)
            && self.sums.verify(lsn, size, target).is_ok()
            && self.memory.head(self.head.dataset, self.head.base).is_some()
    }

    /// The position behind the last record.
    pub(super) const fn end(&self) -> Lsn {
        self.scan.end()
    }

    /// The table as the file has it, and where it begins there.
    pub(super) fn table(&self) -> (u64, Vec<u8>) {
        let pieces = self.packed.table(0..self.scan.table_slots());
        (self.scan.table_start(), self.memory.place(self.head.base).gather(&pieces))
    }
}
