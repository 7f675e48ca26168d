//! Reading all that is stored, and comparing it with its checksums.

use std::time::{Duration, Instant};

use super::counters::count;
use super::engine::Engine;
use super::volumes::Entry;
use crate::base::{BlockNumber, Lsn};

/// Bytes that are read at a time.
const PIECE_BYTES: u64 = 256 << 10;
/// Places of damage that are told.
const TOLD_MAX: usize = 100;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scrubbed {
    /// Segments that blocks were read from.
    pub segments: u64,
    /// Blocks compared.
    pub blocks: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Blocks that do not match.
    pub damaged_blocks: u64,
    /// Where the first of them are, in words.
    pub damage: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Engine {
    /// Compares what the volumes have now; what was not written to the files yet is left out.
    pub(super) fn scrub(&self) -> Scrubbed {
        let began = Instant::now();
        let mut found = Scrubbed::default();
        let (volumes, durable) = {
            let state = self.shared.lock();
            (state.volumes.clone(), super::keeper::durable(&state))
        };
        let mut segments = std::collections::BTreeSet::new();
        let mut buffer = vec![0; usize::try_from(PIECE_BYTES).expect("small")];
        for entry in volumes.entries() {
            let (mut block, shift) = (0, entry.map.block_size().shift());
            while block < entry.map.blocks() {
                let most = (entry.map.blocks() - block).min(PIECE_BYTES >> shift);
                let run = entry.map.run(BlockNumber(block), most);
                if let Some(lsn) = run.lsn
                    && lsn.0 + (run.blocks << shift) <= durable.0
                {
                    segments.insert(self.layout().base(lsn));
                    let bytes = usize::try_from(run.blocks << shift).expect("small");
                    self.compare(entry, block, lsn, &mut buffer[..bytes], &mut found);
                }
                block += run.blocks;
            }
        }
        found.segments = segments.len() as u64;
        found.took = began.elapsed();
        count(&self.shared.counters.damaged_blocks, found.damaged_blocks);
        found
    }

    fn compare(&self, entry: &Entry, first: u64, lsn: Lsn, buffer: &mut [u8], found: &mut Scrubbed) {
        let size = entry.map.block_size();
        let blocks = buffer.len() as u64 >> size.shift();
        found.blocks += blocks;
        found.bytes += buffer.len() as u64;
        if self.read_file(lsn, size, buffer).is_ok() {
            return;
        }
        // Which of them, and whether it still counts.
        let bytes = usize::try_from(size.bytes()).expect("at most 4096");
        for (block, piece) in (first..).zip(buffer.chunks_exact_mut(bytes)) {
            let at = lsn.plus((block - first) << size.shift());
            let Err(error) = self.read_file(at, size, piece) else { continue };
            let state = self.shared.lock();
            let now = state.volumes.get(entry.id).filter(|now| block < now.map.blocks());
            if now.is_none_or(|now| now.map.lookup(BlockNumber(block)) != Some(at)) {
                continue; // written again meanwhile, and its old place given back
            }
            drop(state);
            found.damaged_blocks += 1;
            if found.damage.len() < TOLD_MAX {
                found.damage.push(format!("volume {:?}, block {block}: {error}", entry.name));
            }
        }
    }
}
