//! Reading all that is stored on this node, and comparing it with its checksums; what is bad is mended from the ring or the peer.
//!
//! What is found comes first, then what is mended: so the ranges that are told are exact, even where a whole segment is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::CommandError;
use super::counters::count;
use super::health::{CheckKind, Seen};
use super::mend::Broken;
use super::pair::Pair;
use super::ranges::{BadRange, Outcome, Ranges, Side};
use super::stored::Found;
use super::throttle::Throttle;
use crate::base::VolumeId;
use crate::base::clock::Instant;

/// Blocks with data between two looks whether to rest: some megabytes.
const STEP_BLOCKS: u64 = 1024;
/// Runs of bad blocks that one scrub mends at most; the next mends more.
const BROKEN_MAX: usize = 1 << 16;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scrubbed {
    /// Segments that blocks were read from.
    pub segments: u64,
    /// Blocks compared.
    pub blocks: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Blocks that did not match.
    pub damaged_blocks: u64,
    /// Of those, how many are whole again.
    pub repaired_blocks: u64,
    /// Where they are, as many as are told.
    pub ranges: Vec<BadRange>,
    /// How long it took.
    pub took: Duration,
}

impl Pair {
    /// Compares what the volumes have now; what was not written to the files yet is left out.
    pub(super) fn scrub(&self, repairs: bool) -> Result<Scrubbed, CommandError> {
        let engine = &self.engine;
        let began = Instant::now();
        let mut found = Scrubbed::default();
        let (ids, total) = engine.stored_volumes();
        let check = engine.health.begin(CheckKind::Scrub, total)?;
        let (mut seen, mut broken, mut whys) = (Seen::new(), Vec::new(), BTreeMap::new());
        let mut throttle = Throttle::new(engine);
        for id in ids {
            let mut block = 0;
            while let Some(look) = engine.look(id).filter(|look| block < look.entry.map.blocks()) {
                engine.check_running()?;
                let before = found.bytes;
                let range = block..look.entry.map.blocks();
                block =
                    engine.each_stored(&look, range, STEP_BLOCKS, &mut seen, &mut |block, lsn, stored| {
                        let bytes = look.entry.map.block_size().bytes();
                        match stored {
                            Found::Moving => return,
                            Found::Good(_) => {}
                            Found::Bad(error) => {
                                found.damaged_blocks += 1;
                                if broken.len() < BROKEN_MAX {
                                    Broken::add(&mut broken, &look, block, lsn, engine.layout());
                                    whys.entry(broken.len() - 1).or_insert_with(|| error.to_string());
                                }
                            }
                        }
                        (found.blocks, found.bytes) = (found.blocks + 1, found.bytes + bytes);
                    });
                check.add(found.bytes - before);
                throttle.rest();
            }
        }
        found.segments = seen.len() as u64;
        count(&engine.shared.counters.damaged_blocks, found.damaged_blocks);
        self.judge(&mut found, &broken, &whys, repairs);
        found.took = began.elapsed();
        Ok(found)
    }

    fn judge(&self, found: &mut Scrubbed, broken: &[Broken], whys: &BTreeMap<usize, String>, repairs: bool) {
        let outcomes = if repairs { self.mend_all(broken) } else { Vec::new() };
        let mut ranges = Ranges::default();
        for (number, one) in broken.iter().enumerate() {
            let why = whys.get(&number).cloned().unwrap_or_default();
            let (outcome, why) = match outcomes.get(number) {
                None => (Outcome::Found, why),
                Some(Ok(())) => {
                    found.repaired_blocks += one.blocks;
                    (Outcome::Repaired, why)
                }
                Some(Err(not)) => (Outcome::Unrepaired, format!("{why}; {not}")),
            };
            ranges.add(&self.engine.name_of(one.volume), one.first, one.blocks, Side::Here, outcome, &why);
        }
        found.ranges = ranges.into_vec();
    }
}

impl super::engine::Engine {
    /// The volumes, and how many bytes of them are stored.
    pub(super) fn stored_volumes(&self) -> (Vec<VolumeId>, u64) {
        let state = self.shared.lock();
        let entries = state.volumes.entries();
        let bytes = entries.iter().map(|entry| entry.map.mapped() << entry.map.block_size().shift()).sum();
        (entries.iter().map(|entry| entry.id).collect(), bytes)
    }

    pub(super) fn name_of(&self, volume: VolumeId) -> String {
        let state = self.shared.lock();
        state.volumes.get(volume).map_or_else(|| format!("number {volume}"), |entry| entry.name.clone())
    }

    /// Whether the dataset goes on.
    pub(super) fn check_running(&self) -> Result<(), CommandError> {
        let state = self.shared.lock();
        if state.stopping { Err(super::IoError::Stopping.into()) } else { Ok(()) }
    }
}
