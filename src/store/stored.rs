//! What this node has stored, block by block: read from its own files and compared with the checksums of their records.
//!
//! A *pass* is one walk over data. In each, the file of a segment that is complete is looked at anew once: whether it is still the file of that
//! name, and its table is read again, so that what was done to a file behind the node's back is seen. A segment that is still written
//! is left to its writer.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::error::IoError;
use super::health::Seen;
use super::ring_segment::RingSegment;
use super::volumes::Entry;
use crate::base::{BlockNumber, BlockSize, Lsn, VolumeId};
use crate::segment::{HEAD_BYTES, Scan, SegmentHead, Verify};

/// Bytes that are read at a time.
const READ_BYTES: u64 = 256 << 10;

/// A volume as it was at a moment.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) entry: Entry,
    /// The files have the log to there.
    pub(super) durable: Lsn,
}

/// What is stored for a block.
pub(super) enum Found<'a> {
    /// Data that matches its record's checksum.
    Good(&'a [u8]),
    /// Anything else, and why.
    Bad(&'a IoError),
    /// It is not in the files yet, or was written again since the look.
    Moving,
}

/// The same in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BlockState {
    /// It reads as zeroes.
    Hole,
    Good,
    Bad,
    Moving,
}

/// A block as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlockLook {
    pub(super) lsn: u64,
    pub(super) state: BlockState,
    /// The first bytes of its digest.
    pub(super) digest: u64,
}

/// A range of blocks as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RangeDigest {
    /// It is of the blocks before this one.
    pub(super) end: u64,
    /// Of which block has which LSN.
    pub(super) map: [u8; 16],
    /// Of the data of the blocks.
    pub(super) data: [u8; 16],
    /// Bytes that were read.
    pub(super) bytes: u64,
    pub(super) bad: u64,
    pub(super) moving: u64,
}

impl RangeDigest {
    /// Whether the blocks are the same here and there, all of them stored and good.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let is_whole = |digest: &Self| digest.bad == 0 && digest.moving == 0;
        is_whole(self) && is_whole(other) && self == other
    }
}

fn first_half(hasher: &blake3::Hasher) -> [u8; 16] {
    let digest = hasher.finalize();
    let (half, _) = digest.as_bytes().split_first_chunk().expect("of 32 bytes");
    *half
}

impl Engine {
    /// The volume now.
    pub(super) fn look(&self, volume: VolumeId) -> Option<Look> {
        let state = self.shared.lock();
        let entry = state.volumes.get(volume)?.clone();
        Some(Look { entry, durable: super::keeper::durable(&state) })
    }

    /// Whether nothing more comes into the segment, as far as `durable` tells.
    pub(super) fn is_closed(&self, base: Lsn, durable: Lsn) -> bool {
        self.layout().base(durable) > base
    }

    fn visit(&self, base: Lsn, durable: Lsn, seen: &mut Seen) {
        if self.is_closed(base, durable) && seen.insert(base) {
            self.files.revisit(base);
            self.sums.forget(base);
        }
    }

    /// Calls `each` for every block of the range that has data, in order, until `blocks_max` were looked at; where it ended.
    pub(super) fn each_stored(
        &self,
        look: &Look,
        range: Range<u64>,
        blocks_max: u64,
        seen: &mut Seen,
        each: &mut dyn FnMut(u64, Lsn, Found<'_>),
    ) -> u64 {
        let map = &look.entry.map;
        let size = map.block_size();
        let end = range.end.min(map.blocks());
        let mut buffer = vec![0; usize::try_from(READ_BYTES).expect("small")];
        let (mut block, mut looked) = (range.start, 0);
        while block < end && looked < blocks_max {
            let is_hole = map.lookup(BlockNumber(block)).is_none();
            let most = if is_hole { u64::MAX } else { (READ_BYTES >> size.shift()).min(blocks_max - looked) };
            let run = map.run(BlockNumber(block), most.min(end - block));
            if let Some(lsn) = run.lsn {
                let stored = (look.durable.0.saturating_sub(lsn.0) >> size.shift()).min(run.blocks);
                let bytes = usize::try_from(stored << size.shift()).expect("small");
                if stored > 0 {
                    self.visit(self.layout().base(lsn), look.durable, seen);
                    self.each_of_run(look, block, lsn, &mut buffer[..bytes], each);
                }
                for further in stored..run.blocks {
                    each(block + further, lsn.plus(further << size.shift()), Found::Moving);
                }
                looked += run.blocks;
            }
            block += run.blocks;
        }
        if looked < blocks_max { range.end } else { block }
    }

    fn each_of_run(
        &self,
        look: &Look,
        first: u64,
        lsn: Lsn,
        buffer: &mut [u8],
        each: &mut dyn FnMut(u64, Lsn, Found<'_>),
    ) {
        let size = look.entry.map.block_size();
        let is_whole = self.read_file(lsn, size, buffer).is_ok();
        let bytes = usize::try_from(size.bytes()).expect("at most 4096");
        for (block, piece) in (first..).zip(buffer.chunks_exact_mut(bytes)) {
            let at = lsn.plus((block - first) << size.shift());
            let read = if is_whole { Ok(()) } else { self.read_file(at, size, piece) };
            match read {
                Ok(()) => each(block, at, Found::Good(piece)),
                // Or it was written again, and its old place given back.
                Err(_) if !self.is_at(look.entry.id, block, at) => each(block, at, Found::Moving),
                Err(error) => each(block, at, Found::Bad(&error)),
            }
        }
    }

    /// Whether the block's data is there now.
    pub(super) fn is_at(&self, volume: VolumeId, block: u64, lsn: Lsn) -> bool {
        let state = self.shared.lock();
        let now = state.volumes.get(volume).filter(|now| block < now.map.blocks());
        now.is_some_and(|now| now.map.lookup(BlockNumber(block)) == Some(lsn))
    }

    /// The digest of blocks as they are stored; of the first `blocks_max` with data.
    pub(super) fn digest(
        &self,
        look: &Look,
        range: Range<u64>,
        blocks_max: u64,
        seen: &mut Seen,
    ) -> RangeDigest {
        let (mut map, mut data) = (blake3::Hasher::new(), blake3::Hasher::new());
        let (mut bytes, mut bad, mut moving) = (0, 0, 0);
        let end = self.each_stored(look, range, blocks_max, seen, &mut |block, lsn, found| {
            map.update(&block.to_le_bytes()).update(&lsn.0.to_le_bytes());
            match found {
                Found::Good(piece) => {
                    data.update(piece);
                    bytes += piece.len() as u64;
                }
                Found::Bad(_) => bad += 1,
                Found::Moving => moving += 1,
            }
        });
        RangeDigest { end, map: first_half(&map), data: first_half(&data), bytes, bad, moving }
    }

    /// Each of a few blocks as it is stored.
    pub(super) fn detail(&self, look: &Look, range: Range<u64>, seen: &mut Seen) -> Vec<BlockLook> {
        let hole = BlockLook { lsn: 0, state: BlockState::Hole, digest: 0 };
        let len = usize::try_from(range.end - range.start).expect("a few blocks");
        let (first, mut blocks) = (range.start, vec![hole; len]);
        self.each_stored(look, range, u64::MAX, seen, &mut |block, lsn, found| {
            let (state, digest) = match found {
                Found::Good(piece) => {
                    let digest = blake3::hash(piece);
                    let (first, _) = digest.as_bytes().split_first_chunk().expect("of 32 bytes");
                    (BlockState::Good, u64::from_le_bytes(*first))
                }
                Found::Bad(_) => (BlockState::Bad, 0),
                Found::Moving => (BlockState::Moving, 0),
            };
            blocks[usize::try_from(block - first).expect("a few blocks")] =
                BlockLook { lsn: lsn.0, state, digest };
        });
        blocks
    }

    /// Data of at most 64 blocks of one segment, from its file or from the ring: a bit for each that matches its checksum; the others are
    /// zeroes.
    pub(super) fn stored_blocks(&self, lsn: Lsn, size: BlockSize, target: &mut [u8]) -> u64 {
        let bytes = usize::try_from(size.bytes()).expect("at most 4096");
        let count = target.len() / bytes;
        assert!(count <= 64, "{count} blocks, a bit for each of 64");
        if self.read_file(lsn, size, target).is_ok() {
            return u64::MAX >> (64 - count);
        }
        let mut good = 0;
        let mut ring: Option<Option<RingSegment>> = None;
        for (number, piece) in target.chunks_exact_mut(bytes).enumerate() {
            let at = lsn.plus((number * bytes) as u64);
            let is_good = self.read_file(at, size, piece).is_ok() || {
                let ring = ring.get_or_insert_with(|| self.ring_segment(self.layout().base(lsn)));
                ring.as_ref().is_some_and(|ring| ring.read_good(at, size, piece))
            };
            if is_good {
                good |= 1 << number;
            } else {
                piece.fill(0);
            }
        }
        good
    }

    /// The head of a segment's file, where its table begins, and whether nothing more comes into it.
    pub(super) fn stored_head(&self, base: Lsn) -> Result<(SegmentHead, u64, bool), String> {
        let mut bytes = [0; HEAD_BYTES];
        self.files.read(base, 0, &mut bytes).map_err(|error| error.to_string())?;
        let head = SegmentHead::decode_at(&bytes, self.config.id, base).map_err(|error| error.to_string())?;
        if head.layout != self.layout() {
            return Err(format!("the segment at {base} has other sizes"));
        }
        let (source, mut scan) = (self.files.source(base), Scan::new(head, Verify::Slots));
        while scan.next(&source).map_err(|error| error.to_string())?.is_ok() {}
        let durable = super::keeper::durable(&self.shared.lock());
        Ok((head, scan.table_start(), self.is_closed(base, durable)))
    }
}
