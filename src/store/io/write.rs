//! Writing: whole blocks go to the log as they are; a range with a gap at its ends reads the blocks there first, and writes them whole if
//! nobody changed them meanwhile.

use std::time::Duration;

use super::{Blocks, Gone, Mark, Source, Volume, size};
use crate::base::locks::MutexGuard;
use crate::base::{BlockNumber, Lsn};
use crate::memory::{MapOptions, Mapping, VolatileSlice};
use crate::segment::{RecordKind, Request, split};
use crate::store::counters::count;
use crate::store::engine::Engine;
use crate::store::error::IoError;
use crate::store::log::{Appended, Full, Payload};
use crate::store::state::{Role, State};
use crate::store::volumes::VolumeError;

/// How often one who waits for room looks again.
const ROOM_NAP: Duration = Duration::from_millis(5);

/// A block, and where it lay.
type Seen = (u64, Option<Lsn>);

/// What becomes of some blocks, as one record says it.
#[derive(Debug, Clone, Copy)]
struct Change {
    kind: RecordKind,
    block: BlockNumber,
    count: u32,
}

impl Volume {
    /// Takes the write: on return its bytes are in the log, in this node's memory. It is acknowledged when [`commit`](Self::commit)
    /// returned for the mark, not before.
    ///
    /// A write of more than a record holds is several of them, and a crash may leave some. Waits while the ring is full, and asks `gone` now
    /// and then whether anybody still waits for the answer.
    ///
    /// # Errors
    /// Part of it may have been written.
    pub fn write(&self, offset: u64, source: Source<'_>, gone: Gone<'_>) -> Result<Mark, IoError> {
        let counters = &self.engine.shared.counters;
        match source {
            Source::Bytes(bytes) => {
                count(&counters.writes, 1);
                count(&counters.write_bytes, bytes.len() as u64);
                self.write_bytes(offset, bytes, gone)
            }
            Source::Fill { len, fill } => {
                count(&counters.writes, 1);
                count(&counters.write_bytes, len);
                let mut state = self.engine.shared.lock();
                let blocks = self.blocks(&state, offset, len)?;
                if blocks.before + blocks.behind > 0 {
                    drop(state);
                    return self.write_bytes(offset, &collect(len, fill)?, gone);
                }
                let mut mark = Mark::default();
                for (block, count) in split(BlockNumber(blocks.first), blocks.count, self.record_blocks()) {
                    let change = Change { kind: RecordKind::Write, block, count };
                    let appended;
                    (state, appended) = self.append(state, change, &mut Payload::Fill(&mut *fill), gone)?;
                    mark = Mark(appended.end.0);
                    if !appended.is_whole {
                        return Err(IoError::Payload);
                    }
                }
                Ok(mark)
            }
        }
    }

    fn write_bytes(&self, offset: u64, bytes: &[u8], gone: Gone<'_>) -> Result<Mark, IoError> {
        let state = self.engine.shared.lock();
        let blocks = self.blocks(&state, offset, bytes.len() as u64)?;
        if blocks.before + blocks.behind == 0 {
            let written = self.write_whole(state, blocks.first, bytes, &[], gone)?;
            return Ok(written.unwrap_or_default());
        }
        drop(state);
        self.write_with_gaps(&blocks, bytes, gone)
    }

    /// Writes whole blocks from `first` on, unless one of those that were `seen` at a position was moved before its record found a place;
    /// `None` then, with a part written perhaps.
    fn write_whole<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        first: u64,
        bytes: &[u8],
        seen: &[Seen],
        gone: Gone<'_>,
    ) -> Result<Option<Mark>, IoError> {
        let block_bytes = self.block_bytes();
        let total = (bytes.len() / block_bytes) as u64;
        let mut mark = Mark::default();
        for (block, count) in split(BlockNumber(first), total, self.record_blocks()) {
            let from = size(block.0 - first) * block_bytes;
            let piece = &bytes[from..from + count as usize * block_bytes];
            let (kind, mut payload) = if is_zero(piece) {
                (RecordKind::WriteZeroes, Payload::None)
            } else {
                (RecordKind::Write, Payload::Bytes(piece))
            };
            let change = Change { kind, block, count };
            let Some(appended) = self.append_seen(state, change, &mut payload, seen, gone)? else {
                return Ok(None);
            };
            mark = Mark(appended.1.end.0);
            state = appended.0;
        }
        Ok(Some(mark))
    }

    /// Reads the blocks at the ends, and writes all of them if those are what they were.
    fn write_with_gaps(&self, blocks: &Blocks, bytes: &[u8], gone: Gone<'_>) -> Result<Mark, IoError> {
        let block_bytes = self.block_bytes();
        let mut whole = vec![0; size(blocks.count) * block_bytes];
        let ends = [blocks.first, blocks.first + blocks.count - 1];
        loop {
            let mut seen = ends.map(|block| (block, None));
            for (block, lsn) in &mut seen {
                let at = size(*block - blocks.first) * block_bytes;
                *lsn = self.read_block(*block, &mut whole[at..at + block_bytes])?;
            }
            whole[blocks.before..blocks.before + bytes.len()].copy_from_slice(bytes);
            let state = self.engine.shared.lock();
            let entry = self.entry(&state)?;
            if ends.iter().any(|block| *block >= entry.map.blocks()) {
                continue; // cut off meanwhile: the next look says so
            }
            if let Some(mark) = self.write_whole(state, blocks.first, &whole, &seen, gone)? {
                return Ok(mark);
            }
        }
    }

    /// Makes the blocks that lie wholly in the range read as zeroes and gives their room back.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn trim(&self, offset: u64, len: u64, gone: Gone<'_>) -> Result<Mark, IoError> {
        self.zero(RecordKind::Trim, offset, len, gone)
    }

    /// Makes the range read as zeroes. Takes no room, but for blocks that lie in it in part.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_zeroes(&self, offset: u64, len: u64, gone: Gone<'_>) -> Result<Mark, IoError> {
        let mut mark = self.zero(RecordKind::WriteZeroes, offset, len, gone)?;
        let block = self.block_size.bytes();
        let (head, tail) = (offset.next_multiple_of(block) - offset, (offset + len) % block);
        if head + tail > 0 {
            let zeroes = [0; 4096];
            if head + tail >= len && offset / block == (offset + len - 1) / block {
                return self.write_bytes(offset, &zeroes[..size(len)], gone);
            }
            if head > 0 {
                mark = mark.max(self.write_bytes(offset, &zeroes[..size(head)], gone)?);
            }
            if tail > 0 {
                mark = mark.max(self.write_bytes(offset + len - tail, &zeroes[..size(tail)], gone)?);
            }
        }
        Ok(mark)
    }

    fn zero(&self, kind: RecordKind, offset: u64, len: u64, gone: Gone<'_>) -> Result<Mark, IoError> {
        count(&self.engine.shared.counters.trims, 1);
        let mut state = self.engine.shared.lock();
        self.blocks(&state, offset, len)?;
        let shift = self.block_size.shift();
        let first = offset.div_ceil(self.block_size.bytes());
        let end = (offset + len) >> shift;
        let mut mark = Mark::default();
        for (block, count) in split(BlockNumber(first), end.saturating_sub(first), u32::MAX) {
            let appended;
            (state, appended) =
                self.append(state, Change { kind, block, count }, &mut Payload::None, gone)?;
            mark = Mark(appended.end.0);
        }
        Ok(mark)
    }

    /// Appends one record and does what it says to the map; waits for room.
    fn append<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        change: Change,
        payload: &mut Payload<'_>,
        gone: Gone<'_>,
    ) -> Result<(MutexGuard<'a, State>, Appended), IoError> {
        let appended = self.append_seen(state, change, payload, &[], gone)?;
        Ok(appended.expect("nothing was seen that could be moved"))
    }

    /// The same, unless one of its blocks that was `seen` lies elsewhere when there is room: others may have written meanwhile.
    fn append_seen<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        change: Change,
        payload: &mut Payload<'_>,
        seen: &[Seen],
        gone: Gone<'_>,
    ) -> Result<Option<(MutexGuard<'a, State>, Appended)>, IoError> {
        let Change { kind, block, count: blocks } = change;
        let request = Request { kind, volume: self.id, block, blocks, block_size: self.block_size };
        loop {
            self.engine.hold(self.epoch, state.serving(self.epoch)?)?;
            let State { role: Role::Primary(primary), volumes, .. } = &mut *state else {
                return Err(IoError::RoleChanged);
            };
            let entry = volumes.get_mut(self.id).ok_or(IoError::Deleted)?;
            let last = block.0 + u64::from(blocks);
            if last > entry.map.blocks() {
                let bytes = entry.map.blocks() << self.block_size.shift();
                let (offset, len) = (block.0 << self.block_size.shift(), u64::from(blocks));
                return Err(IoError::OutOfRange { offset, len: len << self.block_size.shift(), bytes });
            }
            let is_own = |at: u64| (block.0..last).contains(&at);
            if seen.iter().any(|(at, lsn)| is_own(*at) && entry.map.lookup(BlockNumber(*at)) != *lsn) {
                return Ok(None);
            }
            if kind == RecordKind::Write && primary.peer_is_full() {
                return Err(IoError::NoSpace("the peer's disk is full".into()));
            }
            match primary.log.append(request, payload) {
                Ok(appended) => {
                    entry.map.apply(&appended.record(&request)).map_err(VolumeError::from)?;
                    if kind != RecordKind::Write {
                        primary.emptied = appended.end;
                    }
                    return Ok(Some((state, appended)));
                }
                Err(full) => state = self.engine.wait_for_room(state, self.epoch, full, gone)?,
            }
        }
    }
}

impl Engine {
    /// Waits for a place in the ring, or for a file; both come by themselves, unless a disk is full, or the link is lost: then the ring
    /// stays full until somebody decides, or nobody waits any more.
    pub(in crate::store) fn wait_for_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        epoch: u64,
        full: Full,
        gone: Gone<'_>,
    ) -> Result<MutexGuard<'a, State>, IoError> {
        let primary = state.serving(epoch)?;
        primary.push();
        self.hold(epoch, primary)?;
        if full == Full::File
            && let Some(why) = &primary.no_file
        {
            return Err(IoError::NoSpace(why.clone()));
        }
        if full == Full::Ring && primary.peer_is_full() {
            return Err(IoError::NoSpace("the peer's disk is full".into()));
        }
        self.shared.bell().ring();
        self.shared.wait(&mut state, ROOM_NAP);
        if MutexGuard::unlocked(&mut state, gone) { Err(IoError::Gone) } else { Ok(state) }
    }
}

/// The bytes, in memory of this process alone: part of a block is written with what is around it.
fn collect(len: u64, fill: &mut dyn FnMut(VolatileSlice<'_>) -> bool) -> Result<Vec<u8>, IoError> {
    let memory = Mapping::anonymous(size(len), MapOptions::default());
    let memory = memory.map_err(|error| IoError::Medium(error.to_string()))?;
    if fill(memory.slice()) { Ok(memory.slice().to_vec()) } else { Err(IoError::Payload) }
}

/// Whether all bytes are zero: mostly the first few tell.
fn is_zero(bytes: &[u8]) -> bool {
    let (head, words) = bytes.split_at(bytes.len().min(64));
    head.iter().all(|byte| *byte == 0)
        && words.chunks(512).all(|chunk| chunk.iter().fold(0, |a, b| a | b) == 0)
}
