//! What of a volume the peer lacks, as far as is known here.

use super::{MAP_RUNS_MAX, Mark, Volume};
use crate::base::{BlockNumber, Lsn};
use crate::store::error::IoError;

/// A part of a volume that the peer has, or lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LackRun {
    /// Bytes.
    pub bytes: u64,
    /// Whether what is stored there is at or behind the position to which the peer is known to have the log.
    pub lacks: bool,
}

impl Volume {
    /// What the peer lacks from `offset` on, in at most `most` parts, perhaps not to the end: nothing while the two are mirrored. Trimmed blocks are not told of, since
    /// nothing is stored there. May be told when [`commit`](Self::commit) returned for the mark.
    ///
    /// # Errors
    /// The range is none, or the volume is not served here any more.
    pub fn unreplicated(&self, offset: u64, len: u64, most: usize) -> Result<(Vec<LackRun>, Mark), IoError> {
        let (map, mark, from, blocks) = {
            let mut state = self.engine.shared.lock();
            let marker = state.marker;
            let primary = state.serving(self.epoch)?;
            let (mark, from) = (Mark(primary.log.end().0), primary.peer_lacks_from(marker));
            (self.entry(&state)?.map.clone(), mark, from, self.blocks(&state, offset, len)?)
        };
        let shift = self.block_size.shift();
        let mut runs: Vec<LackRun> = Vec::new();
        let (mut block, end) = (blocks.first, blocks.first + blocks.count);
        for _ in 0..MAP_RUNS_MAX {
            if block == end {
                break;
            }
            let run = map.run(BlockNumber(block), end - block);
            let (count, lacks) = part(run.lsn, run.blocks, shift, from);
            let is_full = runs.len() == most;
            match runs.last_mut().filter(|last| last.lacks == lacks) {
                Some(last) => last.bytes += count << shift,
                None if is_full => break,
                None => runs.push(LackRun { bytes: count << shift, lacks }),
            }
            block += count;
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

/// How many of the first blocks of a run the peer has, or lacks.
fn part(lsn: Option<Lsn>, blocks: u64, shift: u8, from: Option<Lsn>) -> (u64, bool) {
    let (Some(lsn), Some(from)) = (lsn, from) else { return (blocks, false) };
    let has = (from.0.saturating_sub(lsn.0) >> shift).min(blocks);
    if has > 0 { (has, false) } else { (blocks, true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_parted_where_the_peer_ends() {
        let at = Some(Lsn(8192));
        assert_eq!(part(None, 5, 12, Some(Lsn(0))), (5, false));
        assert_eq!(part(at, 5, 12, None), (5, false));
        assert_eq!(part(at, 5, 12, Some(Lsn(8192))), (5, true));
        assert_eq!(part(at, 5, 12, Some(Lsn(8192 + 4096))), (1, false));
        assert_eq!(part(at, 5, 12, Some(Lsn(8192 + 4095))), (5, true));
        assert_eq!(part(at, 5, 12, Some(Lsn(1 << 20))), (5, false));
    }
}
