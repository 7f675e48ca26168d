//! Mending stored data: blocks that do not match their checksums are written again where they belong, from the ring or from the peer.
//!
//! ```text
//!  broken blocks ─▶ by segment ─▶ the file's table knows them ──▶ in place: each block at its LSN, then a sync
//!                                └▶ it does not ─▶ table from the ring or the peer ─▶ the file made again, renamed
//! ```
//!
//! * What is written is checked against its record's checksum first, and read again afterwards; what nobody has is left as it is.
//! * It counts when it is synced.
//! * The peer is asked without a lock of the dataset's but the one that lets one mend at a time.
//! * A file takes another's place only while the role stands in which it was made: a segment that was cut off does not come back.
//! * While a node is being resynced its files are the resync's: nothing is mended.
//! * A segment that is still written is its writer's: of it only blocks are mended whose records its table has.
//!
//! A client that reads a bad block is served from the peer, and the block is mended by a thread of its own, so that the client
//! waits for no sync.

mod read;
mod remake;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::counters::count;
use super::pair::Pair;
use super::pair::compare::PIECE_BYTES_MAX;
use super::ring_segment::RingSegment;
use super::state::Role;
use super::stored::Look;
use super::sums::Table;
use crate::base::clock::Instant;
use crate::base::{BlockSize, Lsn, VolumeId};
use crate::segment::SegmentLayout;

/// How long who mends sleeps at most.
const NAP: Duration = Duration::from_secs(1);

/// Blocks of a volume that lie one behind the other in one segment, some of which are bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) volume: VolumeId,
    pub(super) first: u64,
    pub(super) lsn: Lsn,
    pub(super) size: BlockSize,
    pub(super) blocks: u64,
}

impl Broken {
    /// Adds a block to those found before it.
    pub(super) fn add(all: &mut Vec<Self>, look: &Look, block: u64, lsn: Lsn, layout: SegmentLayout) {
        let (volume, size) = (look.entry.id, look.entry.map.block_size());
        let follows = |last: &&mut Self| {
            last.volume == volume
                && last.first + last.blocks == block
                && last.lsn.plus(last.blocks << size.shift()) == lsn
                && layout.base(last.lsn) == layout.base(lsn)
        };
        match all.last_mut().filter(follows) {
            Some(last) => last.blocks += 1,
            None => all.push(Self { volume, first: block, lsn, size, blocks: 1 }),
        }
    }

    const fn bytes(&self) -> u64 {
        self.blocks << self.size.shift()
    }
}

/// Where good data may come from, and what tells that it is good.
struct Source<'a> {
    table: &'a Table,
    ring: Option<RingSegment>,
    /// Why the peer is not asked any more for this segment.
    silent: OnceCell<String>,
    /// Why it is not asked for any: it did not answer.
    gone: &'a OnceCell<String>,
}

impl Pair {
    /// Mends what reads found, until the dataset ends.
    pub(super) fn run_mender(&self) {
        while !self.stopping.load(Ordering::SeqCst) {
            let health = &self.engine.health;
            let waiting = health.take_waiting();
            if waiting.is_empty() {
                health.bell.nap(NAP);
                continue;
            }
            for (broken, outcome) in waiting.iter().zip(self.mend_all(&waiting)) {
                let what = self.engine.describe(broken);
                match outcome {
                    Ok(()) => health
                        .note("repaired", format!("{what}: served from the peer, and written again here")),
                    Err(why) => health
                        .note("not-repaired", format!("{what}: served from the peer; not repaired: {why}")),
                }
            }
        }
    }

    /// Mends blocks; of each whether it is whole now. A peer that did not answer for one segment is not asked for the next ones, and a node that
    /// ends goes no further.
    pub(super) fn mend_all(&self, broken: &[Broken]) -> Vec<Result<(), String>> {
        let mut by_segment: BTreeMap<Lsn, Vec<usize>> = BTreeMap::new();
        for (number, one) in broken.iter().enumerate() {
            by_segment.entry(self.engine.layout().base(one.lsn)).or_default().push(number);
        }
        let mut outcomes = vec![Ok(()); broken.len()];
        let gone = OnceCell::new();
        for (base, numbers) in by_segment {
            let these: Vec<_> = numbers.iter().map(|number| broken[*number].clone()).collect();
            let mended = match self.engine.check_running() {
                Ok(()) => self.mend(base, &these, &gone),
                Err(error) => vec![Err(error.to_string()); these.len()],
            };
            for (number, outcome) in numbers.into_iter().zip(mended) {
                outcomes[number] = outcome;
            }
        }
        outcomes
    }

    /// Mends blocks of one segment.
    fn mend(&self, base: Lsn, broken: &[Broken], gone: &OnceCell<String>) -> Vec<Result<(), String>> {
        let engine = &self.engine;
        let _alone = engine.health.mending.lock().unwrap_or_else(PoisonError::into_inner);
        let (epoch, is_closed) = {
            let state = engine.shared.lock();
            if matches!(&state.role, Role::Secondary(secondary) if secondary.resync.is_some()) {
                let why = "this node is being brought up to date: scrub again when that is done";
                return vec![Err(why.into()); broken.len()];
            }
            (state.epoch, engine.is_closed(base, super::keeper::durable(&state)))
        };
        if is_closed {
            engine.files.revisit(base);
        }
        engine.sums.forget(base);
        let knows = |table: &Table| broken.iter().all(|one| table.knows(one.lsn, one.size, one.blocks));
        let done = match Table::load(&engine.files, base) {
            Ok(table) if knows(&table) => self.mend_in_place(base, &table, broken, gone),
            Ok(_) | Err(_) if is_closed => self.remake(base, epoch, broken, gone),
            Ok(_) | Err(_) => Err("the segment is still being written: scrub again when it is full".into()),
        };
        engine.sums.forget(base);
        // What it is worth is what is there now.
        let judge = |one: &Broken| {
            let lacks = done.clone()?;
            let mut buffer = vec![0; usize::try_from(one.bytes()).expect("of one segment")];
            let read = engine.read_file(one.lsn, one.size, &mut buffer);
            read.map_err(|error| lacks.unwrap_or_else(|| error.to_string()))?;
            count(&engine.shared.counters.repaired_blocks, one.blocks);
            Ok(())
        };
        broken.iter().map(judge).collect()
    }

    /// Puts bad blocks where they belong; why not all of them, if nobody has some.
    ///
    /// # Errors
    /// The file could not be written or synced.
    fn mend_in_place(
        &self,
        base: Lsn,
        table: &Table,
        broken: &[Broken],
        gone: &OnceCell<String>,
    ) -> Result<Option<String>, String> {
        let files = &self.engine.files;
        let ring = self.engine.ring_segment(base);
        let source = Source { table, ring, silent: OnceCell::new(), gone };
        let mut lacks = None;
        for one in broken {
            for (lsn, blocks) in pieces(one.lsn, one.size, one.blocks) {
                let mut buffer =
                    vec![0; usize::try_from(blocks << one.size.shift()).expect("at most 32 KiB")];
                let had = self.own(&source, lsn, one.size, &mut buffer);
                let (good, why) = self.obtain(&source, lsn, one.size, &mut buffer, had);
                lacks = why.or(lacks);
                for (number, piece) in (0..blocks).zip(buffer.chunks_exact(block_bytes(one.size))) {
                    if (good & !had) >> number & 1 == 1 {
                        let at = lsn.since(base) + (number << one.size.shift());
                        files.put(base, at, piece).map_err(|error| error.to_string())?;
                    }
                }
            }
        }
        files.mended(base).map_err(|error| error.to_string())?;
        Ok(lacks)
    }

    /// Which of the blocks at `lsn` the file has, a bit for each, with their bytes.
    fn own(&self, source: &Source<'_>, lsn: Lsn, size: BlockSize, buffer: &mut [u8]) -> u64 {
        let base = self.engine.layout().base(lsn);
        if self.engine.files.read(base, lsn.since(base), buffer).is_err() {
            return 0;
        }
        good_of(source.table, lsn, size, buffer)
    }

    /// Adds to the blocks in `had` what the ring or the peer has of the others; which there are then, and why not all.
    fn obtain(
        &self,
        source: &Source<'_>,
        lsn: Lsn,
        size: BlockSize,
        buffer: &mut [u8],
        had: u64,
    ) -> (u64, Option<String>) {
        let count = buffer.len() / block_bytes(size);
        let all = u64::MAX >> (64 - count);
        let mut good = had;
        let mut take = |good: &mut u64, bytes: &[u8], said: u64| {
            let found = good_of(source.table, lsn, size, bytes) & said & !*good;
            let pieces =
                buffer.chunks_exact_mut(block_bytes(size)).zip(bytes.chunks_exact(block_bytes(size)));
            for (number, (to, from)) in pieces.enumerate() {
                if found >> number & 1 == 1 {
                    to.copy_from_slice(from);
                }
            }
            *good |= found;
        };
        if good != all
            && let Some(ring) = &source.ring
        {
            let mut bytes = vec![0; count * block_bytes(size)];
            if ring.read(lsn, &mut bytes) {
                take(&mut good, &bytes, all);
            }
        }
        if good == all {
            return (good, None);
        }
        let gone = source.gone.get().map(|why| source.silent.get_or_init(|| why.clone()));
        if let Some(why) = source.silent.get().or(gone) {
            return (good, Some(why.clone()));
        }
        let began = Instant::now();
        match self.engine.health.peer.blocks(lsn, size, count as u64) {
            Ok(fetched) => take(&mut good, &fetched.bytes, fetched.good),
            Err(error) => {
                let why = source.silent.get_or_init(|| error.to_string());
                if self.engine.health.peer.is_silent_since(began) {
                    source.gone.get_or_init(|| why.clone());
                }
                return (good, Some(why.clone()));
            }
        }
        (good, (good != all).then(|| "the peer's copy is damaged too".into()))
    }
}

/// Which of some blocks match their checksums, a bit for each.
fn good_of(table: &Table, lsn: Lsn, size: BlockSize, bytes: &[u8]) -> u64 {
    let mut good = 0;
    for (number, piece) in bytes.chunks_exact(block_bytes(size)).enumerate() {
        let at = lsn.plus((number as u64) << size.shift());
        good |= u64::from(table.verify(at, size, piece).is_ok()) << number;
    }
    good
}

/// A run of blocks in parts that one answer of the peer's has room for.
fn pieces(lsn: Lsn, size: BlockSize, blocks: u64) -> impl Iterator<Item = (Lsn, u64)> {
    let most = (PIECE_BYTES_MAX as u64 >> size.shift()).min(64);
    (0..blocks)
        .step_by(usize::try_from(most).expect("at most 64"))
        .map(move |done| (lsn.plus(done << size.shift()), most.min(blocks - done)))
}

fn block_bytes(size: BlockSize) -> usize {
    usize::try_from(size.bytes()).expect("at most 4096")
}
