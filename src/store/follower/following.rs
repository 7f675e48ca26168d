//! Where a follower is in the ring: what it has found, what of it is to be written to files, and where that lies.

use std::collections::VecDeque;

use crate::base::{DatasetId, Generation, Lsn};
use crate::memory::Piece;
use crate::segment::{Destage, DestageWrite, Extent, Packed, Record, RecordKind, Scan, SegmentHead};
use crate::store::ring_memory::{PrimaryWords, RingMemory};
use crate::store::volumes::{CHANGE_BYTES, VolumeChange, VolumeError};

/// After so many looks in a row that found nothing one asks whether there is something behind, and after as many more that is believed. They are a
/// millisecond apart at least, unless nothing comes any more.
const IDLE_MAX: u32 = 2000;

/// Where a follower is in the ring.
#[derive(Debug)]
pub(in crate::store) struct Following {
    pub(in crate::store) memory: RingMemory,
    pub(super) dataset: DatasetId,
    pub(super) scan: Scan,
    pub(super) destage: Destage,
    /// Where the records lie that are not durable, by rising base of their segments.
    pub(super) packed: VecDeque<(Lsn, Packed)>,
    pub(super) flushed: Lsn,
    /// Looks since the last record.
    pub(super) idle: u32,
    pub(super) grant: Generation,
}

impl Following {
    /// The head of the segment that continues the log behind the last record, if it is there.
    pub(super) fn next_head(&self) -> Option<SegmentHead> {
        self.next_head_behind(&self.scan)
    }

    fn next_head_behind(&self, scan: &Scan) -> Option<SegmentHead> {
        let (head, end) = (scan.head(), scan.end());
        let continues = |next: &SegmentHead| {
            next.previous_end == end
                && next.base > head.base
                && (next.generation == head.generation || next.begins_generation())
        };
        let next = self.memory.head(self.dataset, head.end()).filter(continues);
        next.or_else(|| {
            // A generation begins elsewhere, and says so.
            let words = self.memory.primary()?;
            (words.generation > head.generation)
                .then(|| self.memory.heads(self.dataset).into_iter().find(continues))
                .flatten()
        })
    }

    /// To where the log goes in the memory, looked at or not.
    #[cfg(test)]
    pub(in crate::store) fn reach(&self) -> Lsn {
        let mut scan = self.scan.clone();
        loop {
            let place = self.memory.place(scan.head().base);
            while let Ok(Ok(_)) = scan.next(&place) {}
            match self.next_head_behind(&scan) {
                Some(head) => scan = Scan::in_ring(head, Lsn::ZERO),
                None => return scan.end(),
            }
        }
    }

    /// Takes note that a look found no record here. Whether what should be here is not coming any more: a later segment is there whose records
    /// come behind it, and posts come in order. What a reconnection sends again does not, and a look is no look at everything at once; so
    /// only what stays so is damage.
    pub(super) fn is_damaged(&mut self) -> bool {
        self.idle += 1;
        if self.idle < IDLE_MAX {
            return false;
        }
        // A primary's word is no such sign: what is sent again by a reconnection may come in any order.
        if self.later_segments().is_none() {
            self.idle = 0;
        }
        self.idle >= 2 * IDLE_MAX
    }

    /// To where the ring has the log beyond the last record that was found, by the heads of later segments, if there are such.
    fn later_segments(&self) -> Option<Lsn> {
        let (head, end) = (self.scan.head(), self.scan.end());
        let heads = self.memory.heads(self.dataset).into_iter();
        let later = heads.filter(|next| next.generation >= head.generation && next.base > head.base);
        later.map(|next| next.previous_end).filter(|position| *position > end).max()
    }

    /// The same when nothing more comes, and by the primary's word of a flush too: both come behind what they are about.
    pub(super) fn goes_on_to(&self) -> Option<Lsn> {
        let flushed = self.memory.primary().map(|words| words.flush).filter(|flush| *flush > self.scan.end());
        self.later_segments().max(flushed)
    }

    pub(super) fn enter(&mut self, head: SegmentHead) {
        self.destage.pad(self.scan.end());
        self.destage.open(head);
        self.packed.push_back((head.base, Packed::default()));
        self.scan = Scan::in_ring(head, Lsn::ZERO);
    }

    /// Of which segments all is durable, and nothing more is to be written.
    pub(super) fn forget(&mut self, durable: Lsn) {
        let (newest, layout) = (self.scan.head().base, self.memory.layout());
        while let Some((base, _)) = self.packed.front()
            && *base < newest
            && base.plus(layout.segment_bytes()) <= durable
        {
            self.packed.pop_front();
        }
    }

    /// The next part of the log to be written to a file, and the pieces of the memory of which it consists.
    pub(super) fn next_write(&mut self, bytes_max: u64) -> Option<(DestageWrite, Vec<Piece>)> {
        let write = self.destage.next_write(bytes_max)?;
        let found = self.packed.iter().find(|(base, _)| *base == write.base);
        let Some((_, packed)) = found else { unreachable!("what is not written yet is kept") };
        let pieces = write.pieces(packed);
        Some((write, pieces))
    }

    /// What a record of the table of volumes says.
    pub(super) fn change(
        &self,
        record: &Record,
        extent: &Extent,
    ) -> Result<Option<VolumeChange>, VolumeError> {
        if record.kind != RecordKind::Volume {
            return Ok(None);
        }
        let mut bytes = [0; CHANGE_BYTES];
        let at = usize::try_from(extent.payload_in_ring().start).expect("at most 2^30");
        self.memory.place(self.scan.head().base).read(at, &mut bytes);
        VolumeChange::decode(record.volume, &bytes).map(Some)
    }

    pub(super) fn take_words(&mut self, applied: Lsn, primary_durable: &mut Lsn) {
        let Some(PrimaryWords { flush, own_durable, .. }) = self.memory.primary() else { return };
        // The word travels behind the records that it is about, so all of them are here.
        if flush > self.flushed && flush <= applied {
            self.flushed = flush;
            self.destage.pad(flush);
        }
        *primary_durable = own_durable.max(*primary_durable);
    }
}
