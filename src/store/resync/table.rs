//! Head and table of a segment, as both nodes say them: what of the file's bytes says something, and zeroes between.
//!
//! Two nodes' files of one segment may differ in bytes that mean nothing: slots that a flush left out. So what is compared, and sent, is made
//! from the records that a scan finds.

use std::convert::Infallible;
use std::ops::Range;

use crate::base::{DatasetId, Lsn};
use crate::segment::{Extent, HEAD_BYTES, Scan, SegmentHead, SegmentLayout, SegmentSource, Verify};
use crate::store::register::Fork;
use crate::store::segment_files::{SegmentFileError, SegmentFiles};

/// Why a table that a peer sent is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::store) enum TableError {
    #[error("{bytes} bytes are no head and table")]
    Size { bytes: usize },
    #[error(transparent)]
    Head(#[from] crate::segment::HeadError),
    #[error("its records take the table from {found}, it begins at {start}")]
    Records { found: u64, start: u64 },
    #[error(
        "the segment at {base} has other records before {limit} than this node, whose log goes to {old_end}"
    )]
    Differs { base: Lsn, limit: Lsn, old_end: Lsn },
}

/// One segment's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct SegmentTable {
    pub(in crate::store) head: SegmentHead,
    /// Where the table begins in the segment.
    pub(in crate::store) start: u64,
    /// From there to the segment's end.
    pub(in crate::store) bytes: Vec<u8>,
}

/// As a scan reads it: payloads are none of it.
impl SegmentSource for SegmentTable {
    type Error = Infallible;

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), Infallible> {
        target.fill(0);
        let from = offset.checked_sub(self.start).map(index);
        if let Some(bytes) = from.and_then(|from| self.bytes.get(from..from + target.len())) {
            target.copy_from_slice(bytes);
        }
        Ok(())
    }
}

impl SegmentTable {
    /// That of the segment at `base` as its file has it; `None` when there is no file with a valid head.
    ///
    /// # Errors
    /// The disk's.
    pub(in crate::store) fn read(
        files: &SegmentFiles,
        dataset: DatasetId,
        base: Lsn,
    ) -> Result<Option<Self>, SegmentFileError> {
        if !files.exists(base) {
            return Ok(None);
        }
        let medium = |error| SegmentFileError::System { path: base.to_string().into(), call: "read", error };
        let mut head = [0; HEAD_BYTES];
        files.read(base, 0, &mut head).map_err(medium)?;
        let head = SegmentHead::decode_at(&head, dataset, base);
        let Some(head) = head.ok().filter(|head| head.layout == files.layout()) else { return Ok(None) };
        Self::scanned(head, &files.source(base), Lsn::MAX).map(Some).map_err(medium)
    }

    /// To where the segment at `base` must have records, by what the next head says of the log before it; `base` when that says nothing.
    ///
    /// # Errors
    /// The disk's.
    pub(in crate::store) fn wanted_end(
        files: &SegmentFiles,
        dataset: DatasetId,
        base: Lsn,
    ) -> Result<Lsn, SegmentFileError> {
        let behind = base.plus(files.layout().segment_bytes());
        let next = match files.exists(behind) {
            true => Some(behind),
            false => files.list()?.into_iter().find(|next| *next > base),
        };
        let Some(next) = next else { return Ok(base) };
        let head = files.head(dataset, next, Lsn::MAX)?;
        // Others may have been between, and been given back.
        Ok(head.map(|head| head.previous_end).filter(|end| (base..=behind).contains(end)).unwrap_or(base))
    }

    /// Of the records in `source` that end at `limit` or before.
    fn scanned<S: SegmentSource>(head: SegmentHead, source: &S, limit: Lsn) -> Result<Self, S::Error> {
        let layout = head.layout;
        let mut scan = Scan::new(head, Verify::Slots);
        let mut slots: Vec<Range<u64>> = Vec::new();
        let mut start = layout.segment_bytes();
        while let Ok((_, Extent { end, slots: range, .. })) = scan.next(source)? {
            if end > limit {
                break;
            }
            slots.push(layout.slots(&range));
            start = scan.table_start();
        }
        let mut bytes = vec![0; index(layout.segment_bytes() - start)];
        for range in slots {
            source.read(range.start, &mut bytes[index(range.start - start)..index(range.end - start)])?;
        }
        Ok(Self { head, start, bytes })
    }

    /// What it is of the records that end at `limit` or before.
    pub(in crate::store) fn cut(&self, limit: Lsn) -> Self {
        match Self::scanned(self.head, self, limit) {
            Ok(table) => table,
            Err(never) => match never {},
        }
    }

    /// Where its records end.
    pub(in crate::store) fn end(&self) -> Lsn {
        let mut scan = Scan::new(self.head, Verify::Slots);
        loop {
            match scan.next(self) {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return scan.end(),
                Err(never) => match never {},
            }
        }
    }

    /// Whether a node with the log to `old_end` keeps this, of its own file, when it is sent `theirs` under the same head: where that ends
    /// earlier, and no generation of the history left this one there, a disk has lost what is missing, and it is not this node's.
    ///
    /// # Errors
    /// The other has other records of the log that this node has.
    pub(in crate::store) fn outlasts(
        &self,
        theirs: &Self,
        old_end: Lsn,
        history: &[Fork],
    ) -> Result<bool, TableError> {
        let (end, their_end) = (self.end(), theirs.end());
        if their_end < end && self.cut(their_end) == *theirs {
            let leaves = |fork: &Fork| fork.predecessor == self.head.generation.0 && fork.fork <= their_end.0;
            return Ok(their_end < old_end || !history.iter().any(leaves));
        }
        let (base, limit) = (self.head.base, end.min(old_end));
        if base < limit && theirs.cut(limit) != self.cut(limit) {
            return Err(TableError::Differs { base, limit, old_end });
        }
        Ok(false)
    }

    /// Its bytes: the head's, then the table's.
    pub(in crate::store) fn encode(&self) -> Vec<u8> {
        let mut all = self.head.encode().to_vec();
        all.extend_from_slice(&self.bytes);
        all
    }

    /// What a peer sent of the segment at `base`.
    ///
    /// # Errors
    /// It is none.
    pub(in crate::store) fn decode(
        layout: SegmentLayout,
        dataset: DatasetId,
        base: Lsn,
        all: &[u8],
    ) -> Result<Self, TableError> {
        let size = TableError::Size { bytes: all.len() };
        let (head, bytes) = all.split_first_chunk::<HEAD_BYTES>().ok_or(size.clone())?;
        let head = SegmentHead::decode_at(head, dataset, base)?;
        let most = layout.segment_bytes() - layout.payload_start();
        let len = bytes.len() as u64;
        if head.layout != layout || len > most || !len.is_multiple_of(layout.device_block_bytes()) {
            return Err(size);
        }
        let start = layout.segment_bytes() - len;
        let table = Self { head, start, bytes: bytes.to_vec() };
        let found = table.cut(Lsn::MAX).start;
        if found == start { Ok(table) } else { Err(TableError::Records { found, start }) }
    }

    /// Equal on two nodes when all of it is.
    pub(in crate::store) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.head.encode()).update(&self.bytes);
        hasher.finalize().to_hex().to_string()
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("segments have at most 2^30 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockNumber, BlockSize, LogGeneration, Phase, VolumeId};
    use crate::memory::{MapOptions, Mapping};
    use crate::segment::testing::file_with;
    use crate::segment::{Append, GenerationBegin, RecordKind, Request, Salt};

    const BYTES: u64 = 1 << 16;
    const DATASET: DatasetId = DatasetId::from_bytes([5; 16]);

    fn layout() -> SegmentLayout {
        SegmentLayout::new(BYTES, 4096).unwrap()
    }

    fn base() -> Lsn {
        Lsn(BYTES)
    }

    /// Writes the segment's file as one node would that had `garbage` in its memory; where its records end.
    fn write(files: &SegmentFiles, garbage: u8, records: u32) -> Vec<Lsn> {
        write_of(files, VolumeId(1), garbage, records)
    }

    /// The same head, and other records.
    fn write_other(files: &SegmentFiles) {
        write_of(files, VolumeId(2), 0, 12);
    }

    fn write_of(files: &SegmentFiles, volume: VolumeId, garbage: u8, records: u32) -> Vec<Lsn> {
        let (fork, ring_bytes) = (Lsn::ZERO, BYTES);
        let (generation, predecessor) = (LogGeneration(1), LogGeneration(0));
        let begin = GenerationBegin { generation, predecessor, fork, highest_known: fork, ring_bytes };
        let head = SegmentHead::first(DATASET, layout(), begin, Phase(1), Salt([3; 16]));
        assert_eq!(head.base, base());
        let memory = Mapping::anonymous(index(BYTES), MapOptions::default()).unwrap();
        memory.slice().write(0, &head.encode());
        let (mut log, mut ends) = (Append::new(head), Vec::new());
        for number in 0..records {
            let (block, block_size) = (BlockNumber(0), BlockSize::Small);
            let kind = if number % 4 == 3 { RecordKind::Trim } else { RecordKind::Write };
            let blocks = 1 + number % 7;
            let place = log.reserve(Request { kind, volume, block, blocks, block_size }).unwrap();
            let bytes = place.payload().end - place.payload().start;
            ends.push(place.end());
            log.fill(place, &vec![7; index(bytes)], memory.slice());
            if number % 5 == 4 {
                log.pad();
            }
        }
        files.create_sparse(base()).unwrap();
        files.fill(base(), 0, &file_with(&head, &memory, garbage)).unwrap();
        ends
    }

    #[test]
    fn what_means_nothing_does_not_count_and_all_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let files = SegmentFiles::open(directory.path(), layout()).unwrap();
        let table = || SegmentTable::read(&files, DATASET, base()).unwrap();
        assert_eq!(table(), None);
        files.create_sparse(base()).unwrap();
        assert_eq!(table(), None, "never begun");
        let ends = write(&files, 0, 12);
        let first = table().unwrap();
        write(&files, 0xa5, 12);
        let second = table().unwrap();
        assert_eq!((first.digest(), &first), (second.digest(), &second), "other bytes between");
        write(&files, 0xa5, 11);
        let shorter = table().unwrap();
        assert_ne!(shorter.digest(), first.digest());
        assert_eq!(first.cut(ends[10]), shorter);
        assert_eq!(first.cut(ends[11]), first);
        assert_eq!(first.cut(base()).bytes.len(), 0, "no record");
        let all = first.encode();
        let decode = |all: &[u8]| SegmentTable::decode(layout(), DATASET, base(), all);
        assert_eq!(decode(&all), Ok(first.clone()));
        assert!(decode(&all[..100]).is_err() && decode(&all[..all.len() - 64]).is_err());
        assert!(SegmentTable::decode(layout(), DATASET, Lsn(2 * BYTES), &all).is_err());
        // A flipped bit of a record shortens the table, and that is seen; none of what counts is taken over changed.
        for at in 0..all.len() {
            let mut damaged = all.clone();
            damaged[at] ^= 0x10;
            let changed = decode(&damaged).is_ok_and(|table| table.cut(Lsn::MAX) != first);
            assert!(!changed || table_is_prefix(&decode(&damaged).unwrap(), &first), "byte {at}");
        }
    }

    #[test]
    fn a_table_that_lost_its_end_does_not_take_the_place_of_one_that_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let files = SegmentFiles::open(directory.path(), layout()).unwrap();
        let ends = write(&files, 0, 12);
        let whole = SegmentTable::read(&files, DATASET, base()).unwrap().unwrap();
        assert_eq!(whole.end(), ends[11]);
        let short = whole.cut(ends[5]);
        assert_eq!((short.end(), short.cut(Lsn::MAX)), (ends[5], short.clone()));
        let (before, old_end, all) = (Lsn::ZERO, ends[8], ends[11]);
        for end in [before, ends[3], old_end, all] {
            assert_eq!(whole.outlasts(&short, end, &[]), Ok(true), "{end}");
            assert_eq!(short.outlasts(&whole, end, &[]), Ok(false), "{end}: what is lacking is taken over");
            assert_eq!(whole.outlasts(&whole, end, &[]), Ok(false));
        }
        // A generation left this one there: what lies behind is void, unless this node has it.
        let fork = |predecessor, fork: Lsn| Fork { generation: 9, predecessor, fork: fork.0, by: "a".into() };
        assert_eq!(whole.outlasts(&short, ends[5], &[fork(1, ends[5])]), Ok(false));
        assert_eq!(whole.outlasts(&short, ends[6], &[fork(1, ends[5])]), Ok(true));
        assert_eq!(whole.outlasts(&short, ends[5], &[fork(1, ends[6])]), Ok(true), "it left behind that");
        assert_eq!(whole.outlasts(&short, ends[5], &[fork(2, ends[5])]), Ok(true), "another generation");
        // Other records under one head.
        files.remove(base()).unwrap();
        write_other(&files);
        let other = SegmentTable::read(&files, DATASET, base()).unwrap().unwrap();
        assert!(matches!(whole.outlasts(&other, old_end, &[]), Err(TableError::Differs { .. })));
        assert_eq!(whole.outlasts(&other, before, &[]), Ok(false), "nothing that counts");
    }

    #[test]
    fn the_next_head_says_how_far_the_records_go() {
        let directory = tempfile::tempdir().unwrap();
        let files = SegmentFiles::open(directory.path(), layout()).unwrap();
        let end = *write(&files, 0, 12).last().unwrap();
        let wanted = || SegmentTable::wanted_end(&files, DATASET, base()).unwrap();
        assert_eq!(wanted(), base(), "nothing behind");
        let first = SegmentTable::read(&files, DATASET, base()).unwrap().unwrap();
        let next = |at: u64, end| {
            let head = SegmentHead { base: Lsn(at * BYTES), previous_end: end, ..first.head };
            files.create_sparse(head.base).unwrap();
            files.fill(head.base, 0, &head.encode()).unwrap();
        };
        next(4, Lsn(4 * BYTES - 64));
        assert_eq!(wanted(), base(), "others were between");
        next(4, end);
        assert_eq!(wanted(), end);
        next(2, end);
        assert_eq!((wanted(), first.end()), (end, end));
        // A slot rots: what is found ends early, and that is known.
        let slot = BYTES - 5 * 64;
        let mut byte = [0];
        files.read(base(), slot, &mut byte).unwrap();
        files.fill(base(), slot, &[byte[0] ^ 1]).unwrap();
        let found = SegmentTable::read(&files, DATASET, base()).unwrap().unwrap();
        assert!(found.end() < wanted(), "{} {}", found.end(), wanted());
        files.fill(Lsn(2 * BYTES), 0, &[0; 128]).unwrap();
        assert_eq!(wanted(), base(), "never begun");
    }

    /// Whether it has the first records of `whole`, and no others.
    fn table_is_prefix(table: &SegmentTable, whole: &SegmentTable) -> bool {
        let cut = table.cut(Lsn::MAX);
        let (source, mut scan) = (&cut, Scan::new(cut.head, Verify::Slots));
        while let Ok(Ok(_)) = scan.next(source) {}
        whole.cut(scan.end()) == cut
    }
}
