//! What the threads of a dataset share, and the way from the ring to the disk.
//!
//! ```text
//!  whoever needs a position durable ─▶ takes the turn ─▶ [ lock: what to write ─▶ write ─▶ lock: written ]… ─▶ sync ─▶ durable
//! ```
//!
//! Destaging has one turn: a client that flushes takes it and does the work on its own thread, so no thread is woken for it; those
//! who come meanwhile find their position durable when they get it. Lock order: the turn, then the state.

use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;

use super::config::{DatasetConfig, Reads};
use super::counters::count;
use super::durable_mark::DurableMark;
use super::error::IoError;
use super::health::Health;
use super::holding::Holding;
use super::primary::Primary;
use super::read_lease::ReadLease;
use super::segment_files::{SegmentFileError, SegmentFiles};
use super::state::{Role, Shared, State};
use super::sums::Sums;
use super::usual::Usual;
use crate::base::clock::Instant;
use crate::base::locks::poisoning::Mutex;
use crate::base::{BlockSize, Lsn};
use crate::replica::Latencies;
use crate::segment::{Destage, SegmentLayout, Sync};

/// Bytes of a round of destaging at most: what comes meanwhile waits for the next, or a busy writer would put every sync off.
const ROUND_BYTES_MAX: u64 = 16 << 20;
/// Bytes of one write to a segment's file at most.
const WRITE_BYTES_MAX: u64 = 1 << 20;

/// Left free of segments, for checkpoints: room is given back only behind one, and to write one takes room.
pub(super) const KEPT_FREE_BYTES: u64 = 16 << 20;

/// Everything but the threads.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) config: DatasetConfig,
    pub(super) shared: Shared,
    pub(super) files: SegmentFiles,
    pub(super) mark: DurableMark,
    pub(super) sums: Sums,
    pub(super) health: Health,
    pub(super) lease: ReadLease,
    pub(super) holding: Holding,
    /// How long clients waited until what they wrote was committed, while it is measured: a resync goes by it.
    pub(super) commits: Latencies,
    pub(super) measures: AtomicBool,
    /// And how long they did in the pair.
    pub(super) usual: Usual,
    turn: Mutex<Turn>,
}

/// What only the one who destages knows.
#[derive(Debug, Default)]
struct Turn {
    /// Bytes written since the last sync, and since when.
    unsynced: u64,
    since: Option<Instant>,
}

/// How a round of destaging ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sluggish {
    /// Sync what was written.
    No,
    /// Only when much was written, or long ago.
    Yes,
}

/// Bytes written without a sync at most, while nobody waits for them.
const UNSYNCED_BYTES_MAX: u64 = 32 << 20;
/// How long they stay so at most.
const UNSYNCED_TIME_MAX: std::time::Duration = std::time::Duration::from_millis(250);

impl Engine {
    pub(super) fn new(
        config: DatasetConfig,
        state: State,
        files: SegmentFiles,
        mark: DurableMark,
        sums: Sums,
        health: Health,
    ) -> Self {
        let lease = ReadLease::new(config.arbiter.is_some() && config.reads == Reads::Lease);
        let holding = Holding::new(config.hold);
        Self {
            config,
            lease,
            holding,
            shared: Shared::new(state),
            files,
            mark,
            sums,
            health,
            commits: Latencies::default(),
            measures: AtomicBool::new(false),
            usual: Usual::new(),
            turn: Mutex::default(),
        }
    }

    /// Whether answers are confirmed by looks at the member's memory, and no lease is asked for.
    pub(super) fn confirms(&self) -> bool {
        self.config.reads == Reads::Confirm
    }

    /// Whether what waits for the peer goes on to wait.
    ///
    /// # Errors
    /// It has been held for too long.
    pub(super) fn hold(&self, epoch: u64, primary: &Primary) -> Result<(), IoError> {
        self.holding.check(epoch, primary, &self.shared.counters.hold_failures)
    }

    pub(super) const fn layout(&self) -> SegmentLayout {
        self.config.layout
    }

    /// Makes this node durable to `lsn`, on this thread, as far as that is committed; whether it is. What is not is not to be written yet, since
    /// the peer has to have it first, and may not have it for long: nobody keeps the turn for that.
    ///
    /// # Errors
    /// The role of `epoch` is over, or the disk failed: then the node is out of service.
    pub(super) fn destage_to(&self, epoch: u64, lsn: Lsn) -> Result<bool, IoError> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            {
                let mut state = self.shared.lock();
                let primary = state.primary(epoch)?;
                if primary.log.own_durable() >= lsn {
                    return Ok(true);
                }
                if primary.log.padded() < lsn {
                    primary.log.pad();
                }
                primary.push();
            }
            if !self.write_some(&mut turn, u64::MAX)? & !self.sync(&mut turn)? {
                return Ok(false);
            }
        }
    }

    /// Does what nobody may do who destages meanwhile, nor another who does the same.
    pub(super) fn in_turn<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Waits for whoever destages: what was to be destaged no more is in nobody's hands then.
    pub(super) fn wait_for_turn(&self) {
        self.in_turn(|| ());
    }

    /// Marks what the own disk of a primary has, which is to decide alone from now on.
    pub(super) fn mark_own(&self) {
        self.in_turn(|| {
            let marked = match &self.shared.lock().role {
                Role::Primary(primary) => primary.marked(),
                Role::Undecided | Role::Secondary(_) | Role::Failed { .. } => return,
            };
            self.mark.write(marked);
        });
    }

    /// One round of what can be destaged now; whether there was anything.
    ///
    /// # Errors
    /// The disk failed: then the node is out of service.
    pub(super) fn destage_round(&self, sluggish: Sluggish) -> Result<bool, IoError> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let wrote = self.write_some(&mut turn, ROUND_BYTES_MAX)?;
        // A segment's head is written when the one before is durable, so each that is behind takes a sync of its own.
        let is_behind = self.shared.lock().behind() >= self.layout().segment_bytes();
        let is_time = is_behind
            || turn.unsynced >= UNSYNCED_BYTES_MAX
            || turn.since.is_some_and(|since| since.elapsed() >= UNSYNCED_TIME_MAX);
        let synced = (sluggish == Sluggish::No || is_time) && self.sync(&mut turn)?;
        Ok(wrote | synced)
    }

    /// Gives up what was being written anew, when nobody follows any more.
    pub(super) fn abandon_renewals(&self) -> Result<(), SegmentFileError> {
        // Whoever is at it ends first: what it writes belongs into the new file.
        self.in_turn(|| self.files.abandon_renewals())
    }

    /// Writes what can be written, so much of it at most; whether there was anything.
    fn write_some(&self, turn: &mut Turn, most: u64) -> Result<bool, IoError> {
        let mut wrote = 0;
        while wrote < most {
            let (epoch, write, pieces, memory) = {
                let mut state = self.shared.lock();
                let epoch = state.epoch;
                let Some((write, pieces, memory)) = state.next_write(WRITE_BYTES_MAX) else {
                    return Ok(wrote > 0);
                };
                (epoch, write, pieces, memory)
            };
            let result = self.files.write(write.base, write.range.start, &pieces, memory.place(write.base));
            let mut state = self.shared.lock();
            if let Err(error) = result {
                return Err(self.out_of_service(&mut state, "write-failed", &error));
            }
            if state.epoch != epoch {
                return Ok(wrote > 0);
            }
            if let Some(destage) = state.destage() {
                destage.written(&write);
            }
            let bytes = write.range.end - write.range.start;
            count(&self.shared.counters.destaged_bytes, bytes);
            turn.unsynced += bytes;
            turn.since.get_or_insert_with(Instant::now);
            wrote += bytes;
        }
        Ok(true)
    }

    fn sync(&self, turn: &mut Turn) -> Result<bool, IoError> {
        let (epoch, sync, marked) = {
            let mut state = self.shared.lock();
            let epoch = state.epoch;
            let Some(sync) = state.destage().and_then(Destage::begin_sync) else {
                return Ok(false);
            };
            let marked = match &state.role {
                Role::Primary(primary) => primary.to_mark(&sync),
                Role::Undecided | Role::Secondary(_) | Role::Failed { .. } => None,
            };
            (epoch, sync, marked)
        };
        let bases: Vec<_> = sync.bases().collect();
        let result = self.files.sync(&bases);
        if let (Ok(()), Some(marked)) = (&result, marked) {
            self.mark.write(marked);
        }
        count(&self.shared.counters.syncs, 1);
        (turn.unsynced, turn.since) = (0, None);
        let mut state = self.shared.lock();
        if let Err(error) = result {
            return Err(self.out_of_service(&mut state, "sync-failed", &error));
        }
        if state.epoch == epoch {
            synced(&mut state, sync);
        }
        drop(state);
        self.shared.tell();
        Ok(true)
    }

    fn out_of_service(
        &self,
        state: &mut State,
        code: &'static str,
        error: &dyn std::fmt::Display,
    ) -> IoError {
        let why = format!("{error}; what the disk has is unknown from now on: serve from the peer");
        state.fail(code, why.clone());
        self.shared.tell();
        IoError::Failed(why)
    }

    /// Reads blocks from the segment's file and compares them with their checksums.
    ///
    /// # Errors
    /// The disk's, or they do not match: nothing of them means anything.
    pub(super) fn read_file(&self, lsn: Lsn, size: BlockSize, target: &mut [u8]) -> Result<(), IoError> {
        let base = self.layout().base(lsn);
        let medium = |error: std::io::Error| IoError::Medium(format!("the segment at {base}: {error}"));
        self.files.read(base, lsn.since(base), target).map_err(medium)?;
        self.sums.verify(&self.files, lsn, size, target).map_err(|error| IoError::Damaged(error.to_string()))
    }
}

fn synced(state: &mut State, sync: Sync) {
    match &mut state.role {
        Role::Primary(primary) => {
            primary.log.synced(sync);
            primary.settle();
        }
        Role::Secondary(secondary) => secondary.synced(sync),
        Role::Undecided | Role::Failed { .. } => {}
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::base::{BlockNumber, LogGeneration, Phase, VolumeId};
    use crate::memory::{MapOptions, Mapping};
    use crate::segment::{GenerationBegin, RecordKind, Request, Salt, SegmentHead};
    use crate::store::log::{Begin, Log, Payload};
    use crate::store::pair::rig::pair;
    use crate::store::primary::Mode;
    use crate::store::ring_memory::RingMemory;

    /// A new node serves, alone.
    pub(in crate::store) fn serve(engine: &Engine) {
        let (layout, places) = (engine.layout(), engine.config.places);
        let begin = GenerationBegin {
            generation: LogGeneration(1),
            predecessor: LogGeneration(0),
            fork: Lsn::ZERO,
            highest_known: Lsn::ZERO,
            ring_bytes: engine.config.ring_bytes(),
        };
        let salt = || Salt([3; 16]);
        let head = SegmentHead::first(engine.config.id, layout, begin, Phase(1), salt());
        engine.files.create(head.base).unwrap();
        let bytes = RingMemory::region_bytes(layout, places);
        let memory = Mapping::anonymous(bytes, MapOptions::default()).unwrap();
        let memory = RingMemory::new(Arc::new(memory), layout, places);
        let log = Log::begin(memory, Begin { head, durable: Lsn::ZERO }, salt);
        let primary = Primary::new(log, LogGeneration(1), Lsn::ZERO);
        engine.shared.lock().role = Role::Primary(Box::new(primary));
    }

    fn with_primary<T>(engine: &Engine, work: impl FnOnce(&mut Primary) -> T) -> T {
        work(engine.shared.lock().primary(1).unwrap())
    }

    fn append(engine: &Engine) -> Lsn {
        let (kind, volume, block) = (RecordKind::Write, VolumeId(0), BlockNumber(0));
        let request = Request { kind, volume, block, blocks: 1, block_size: BlockSize::Large };
        let payload = &mut Payload::Bytes(&[7; 4096]);
        with_primary(engine, |primary| primary.log.append(request, payload).unwrap().end)
    }

    #[test]
    fn nobody_keeps_the_turn_for_what_is_not_committed() {
        let directory = tempfile::tempdir().unwrap();
        let engine = pair(directory.path()).engine;
        serve(&engine);
        let first = append(&engine);
        assert_eq!(engine.destage_to(1, first), Ok(true));
        with_primary(&engine, |primary| primary.mode = Mode::Held { why: "a test".into() });
        let second = append(&engine);
        let (tell, told) = channel();
        let other = engine.clone();
        std::thread::spawn(move || tell.send(other.destage_to(1, second)));
        let told = told
            .recv_timeout(Duration::from_secs(60))
            .expect("it waits for a peer with the turn in its hands");
        assert_eq!(told, Ok(false));
        engine.wait_for_turn();
        // At this node's end its disk gets it all the same, and nobody is told.
        with_primary(&engine, Primary::write_out);
        assert_eq!(engine.destage_to(1, second), Ok(true));
        assert_eq!(with_primary(&engine, |primary| primary.committed()), first);
    }
}
