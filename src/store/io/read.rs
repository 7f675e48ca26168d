//! Reading: from the ring while the segment lies there, else from its file, against the checksums; from the peer where those do not match.

use super::{ExtentRun, MAP_RUNS_MAX, Mark, Volume, size};
use crate::base::{BlockNumber, Lsn};
use crate::store::counters::count;
use crate::store::error::IoError;
use crate::store::mend::Broken;
#[cfg(test)]
use crate::store::world::{Defect, breaks};

impl Volume {
    /// Reads. The bytes may be given out when [`commit`](Self::commit) returned for the mark. The target may lie in a
    /// [`TrackedMemory`](crate::memory::TrackedMemory): what is read into it is found as a store.
    ///
    /// # Errors
    /// `target` holds nothing that means anything.
    pub fn read(&self, offset: u64, target: &mut [u8]) -> Result<Mark, IoError> {
        let counters = &self.engine.shared.counters;
        count(&counters.reads, 1);
        count(&counters.read_bytes, target.len() as u64);
        let blocks = self.blocks(&self.engine.shared.lock(), offset, target.len() as u64)?;
        let block_bytes = self.block_bytes();
        let mut mark = Mark::default();
        let (mut block, mut rest) = (blocks.first, target);
        let mut buffer = [0; 4096];
        while !rest.is_empty() {
            let skip = if block == blocks.first { blocks.before } else { 0 };
            let whole = rest.len() / block_bytes;
            if skip == 0 && whole > 0 {
                let (done, used) = self.read_run(block, &mut rest[..whole * block_bytes])?;
                mark = mark.max(used);
                block += done as u64;
                rest = &mut rest[done * block_bytes..];
            } else {
                let part = rest.len().min(block_bytes - skip);
                let (_, used) = self.read_run(block, &mut buffer[..block_bytes])?;
                mark = mark.max(used);
                rest[..part].copy_from_slice(&buffer[skip..skip + part]);
                block += 1;
                rest = &mut rest[part..];
            }
        }
        Ok(mark)
    }

    /// One block, and the position that it was read from.
    pub(super) fn read_block(&self, block: u64, target: &mut [u8]) -> Result<Option<Lsn>, IoError> {
        loop {
            let lsn = {
                let mut state = self.engine.shared.lock();
                state.serving(self.epoch)?;
                let entry = self.entry(&state)?;
                self.check(entry, block << self.block_size.shift(), self.block_size.bytes())?;
                entry.map.lookup(BlockNumber(block))
            };
            self.read_run(block, target)?;
            let mut state = self.engine.shared.lock();
            state.serving(self.epoch)?;
            let entry = self.entry(&state)?;
            if block < entry.map.blocks() && entry.map.lookup(BlockNumber(block)) == lsn {
                return Ok(lsn);
            }
        }
    }

    /// Reads blocks that lie one behind the other, at most as many as `target` has room for; how many.
    fn read_run(&self, block: u64, target: &mut [u8]) -> Result<(usize, Mark), IoError> {
        let block_bytes = self.block_bytes();
        let most = (target.len() / block_bytes) as u64;
        let mut failed: Option<(Lsn, IoError)> = None;
        loop {
            let mut state = self.engine.shared.lock();
            state.serving(self.epoch)?;
            let entry = self.entry(&state)?;
            self.check(entry, block << self.block_size.shift(), most << self.block_size.shift())?;
            let run = entry.map.run(BlockNumber(block), most);
            let done = size(run.blocks);
            let target = &mut target[..done * block_bytes];
            let Some(lsn) = run.lsn else {
                target.fill(0);
                #[cfg(test)]
                if breaks(Defect::ReadsTrimsThatAreNotCommitted) {
                    return Ok((done, Mark::default()));
                }
                // What took its blocks out may not be committed yet.
                return Ok((done, Mark(state.serving(self.epoch)?.emptied.0)));
            };
            let mark = Mark(lsn.0 + target.len() as u64);
            #[cfg(test)]
            let mark = if breaks(Defect::ReadsWhatIsNotCommitted) { Mark::default() } else { mark };
            // It failed, and nobody has moved the block since: the data is damaged.
            if let Some((_, error)) = failed.take_if(|(at, _)| *at == lsn) {
                drop(state);
                let (volume, size) = (self.id, self.block_size);
                let broken = Broken { volume, first: block, lsn, size, blocks: run.blocks };
                return self.engine.read_from_peer(&broken, target, error).map(|()| (done, mark));
            }
            if state.serving(self.epoch)?.log.read(lsn, target) {
                return Ok((done, mark));
            }
            drop(state);
            match self.engine.read_file(lsn, self.block_size, target) {
                Ok(()) => return Ok((done, mark)),
                // Perhaps it was written again and its old place given back: look again.
                Err(error) => failed = Some((lsn, error)),
            }
        }
    }

    /// What is stored where, from `offset` on, in at most `most` parts; perhaps not to the end. May be told when [`commit`](Self::commit) returned for the
    /// mark.
    ///
    /// # Errors
    /// The range is none, or the volume is not served here any more.
    pub fn extents(&self, offset: u64, len: u64, most: usize) -> Result<(Vec<ExtentRun>, Mark), IoError> {
        // A map of many runs takes long to walk: writers, and the lease, do not wait for that.
        let (map, mark, blocks) = {
            let mut state = self.engine.shared.lock();
            let mark = Mark(state.serving(self.epoch)?.log.end().0);
            (self.entry(&state)?.map.clone(), mark, self.blocks(&state, offset, len)?)
        };
        let mut runs: Vec<ExtentRun> = Vec::new();
        let (mut block, end) = (blocks.first, blocks.first + blocks.count);
        for _ in 0..MAP_RUNS_MAX {
            if block == end {
                break;
            }
            let run = map.run(BlockNumber(block), end - block);
            let hole = run.lsn.is_none();
            let bytes = run.blocks << self.block_size.shift();
            let is_full = runs.len() == most;
            match runs.last_mut().filter(|last| last.hole == hole) {
                Some(last) => last.bytes += bytes,
                None if is_full => break,
                None => runs.push(ExtentRun { bytes, hole }),
            }
            block += run.blocks;
        }
        // From whole blocks to what was asked.
        if let Some(first) = runs.first_mut() {
            first.bytes -= blocks.before as u64;
        }
        if let Some(last) = runs.last_mut().filter(|_| block == end) {
            last.bytes -= blocks.behind as u64;
        }
        Ok((runs, mark))
    }
}
