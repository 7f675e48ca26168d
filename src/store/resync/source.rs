//! The primary's side: it answers what the node asks that it brings up to date, from its own files, into the window.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::meter::{Meter, ResyncStatus};
use super::table::SegmentTable;
use super::wire::{Ask, AskedRun, DAMAGED, PIECE_BYTES, RUNS_MAX, Reply, VolumeRow};
use crate::base::clock::Instant;
use crate::base::{BlockNumber, BlockSize, Deadline, Level, Lsn, VolumeId};
use crate::replica::{Cursor, Throttle, frame};
use crate::store::checkpoint::Snapshot;
use crate::store::counters::count;
use crate::store::engine::Engine;
use crate::store::medium::Lane;
use crate::store::pair::Pair;
use crate::store::ring_memory::{RingMemory, WINDOW_BYTES};
use crate::store::state::{Bell, Role};

/// How long a piece may be on its way to the peer's memory.
const PLACE_TIME: Duration = Duration::from_secs(10);
/// How long an answer is put off at most, for the sake of clients.
const PUT_OFF_TIME: Duration = Duration::from_secs(2);
/// How long is rested at once.
const NAP_MAX: Duration = Duration::from_millis(20);

/// The maps that a resync goes by.
#[derive(Debug)]
pub(in crate::store) struct Roots {
    /// All of the log before where the peer begins to follow. What they have stays in the files as long as the resync lasts.
    pub(in crate::store) now: Snapshot,
    /// The peer is known to have what these have; empty at position 0 when nothing is known.
    pub(in crate::store) since: Snapshot,
}

/// A resync, as the state of a primary has it.
#[derive(Debug)]
pub(in crate::store) struct Source {
    pub(in crate::store) session: u64,
    pub(in crate::store) roots: Arc<Roots>,
    meter: Meter,
}

impl Source {
    pub(in crate::store) fn new(session: u64, roots: Arc<Roots>) -> Self {
        Self { session, roots, meter: Meter::new() }
    }

    /// How far it is.
    pub(in crate::store) fn status(&mut self) -> ResyncStatus {
        self.meter.status()
    }
}

/// The way of its pieces into the peer's memory.
#[derive(Debug)]
pub(in crate::store) struct Carrier {
    session: u64,
    lane: Lane,
    memory: RingMemory,
    began: Instant,
    throttle: Throttle,
    /// The table that was asked for last: a long one is asked for in parts.
    table: Option<(Lsn, Vec<u8>)>,
}

/// Why something is not answered: a word for machines, and a sentence.
pub(in crate::store) type Refusal = (&'static str, String);

fn refuse(code: &'static str, text: impl Into<String>) -> Refusal {
    (code, text.into())
}

impl Carrier {
    pub(in crate::store) fn new(engine: &Engine, session: u64, lane: Lane, memory: RingMemory) -> Self {
        let counts = engine.commits.counts();
        let throttle = Throttle::new(Duration::ZERO, crate::replica::Counts::default(), counts);
        Self { session, lane, memory, began: Instant::now(), throttle, table: None }
    }

    /// Puts bytes into the window; they are in the peer's memory on return.
    fn place(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        assert!(bytes.len() <= WINDOW_BYTES, "{} bytes for the window", bytes.len());
        if bytes.is_empty() {
            return Ok(0);
        }
        let failed = |error: &dyn std::fmt::Display| refuse("link-lost", error.to_string());
        let (at, _) = self.memory.window();
        self.lane.store(at, bytes).map_err(|error| failed(&error))?;
        let placed = self.lane.flush(Level::Visible, Deadline::within(PLACE_TIME));
        placed.map_err(|error| failed(&error))?;
        Ok(bytes.len())
    }

    /// Waits until a piece may go without clients feeling it.
    fn wait_for_clients(&mut self, engine: &Engine, bell: &Bell) {
        let asked = Instant::now();
        while asked.elapsed() < PUT_OFF_TIME {
            let wait = self.throttle.wait(self.began.elapsed(), &engine.commits.counts());
            if wait.is_zero() {
                return;
            }
            bell.nap(wait.min(NAP_MAX));
        }
    }
}

/// What a session is answered from.
struct Session<'a> {
    engine: &'a Engine,
    /// Rung when the node ends; a primary has no other use for it.
    bell: &'a Bell,
    epoch: u64,
    roots: Arc<Roots>,
}

impl Pair {
    /// Answers a node that is being resynced. It says how much there is to do, and how much of that is left.
    ///
    /// # Errors
    /// It is not, any more, or what it asks for cannot be had.
    pub(in crate::store) fn answer_resync(
        &self,
        session: u64,
        (total, left): (u64, u64),
        ask: &Ask,
    ) -> Result<Reply, Refusal> {
        let mut carrier = self.carrier();
        let gone = || refuse("no-session", format!("there is no resync {session:016x} here any more"));
        let (epoch, roots) = {
            let mut state = self.engine.shared.lock();
            let epoch = state.epoch;
            let Role::Primary(primary) = &mut state.role else { return Err(gone()) };
            let source = primary.resync.as_mut().filter(|source| source.session == session);
            let source = source.ok_or_else(gone)?;
            source.meter.told(total, left);
            (epoch, source.roots.clone())
        };
        if matches!(ask, Ask::Finished | Ask::GivesUp { .. }) {
            // The lane goes first: a link that is lost from now on is put on new queues with all lanes that there are.
            drop(carrier.take());
            self.engine.measures.store(false, Ordering::Relaxed);
            self.end_source(session, ask);
            return Ok(Reply::Done);
        }
        let carrier = carrier.as_mut().filter(|carrier| carrier.session == session).ok_or_else(gone)?;
        let session = Session { engine: &self.engine, bell: &self.puller, epoch, roots };
        let reply = session.answer(carrier, ask)?;
        if let (Reply::Data { bytes }, Role::Primary(primary)) = (&reply, &mut self.engine.shared.lock().role)
            && let Some(source) = &mut primary.resync
        {
            source.meter.moved(*bytes as u64);
        }
        Ok(reply)
    }
}

impl Session<'_> {
    fn answer(&self, carrier: &mut Carrier, ask: &Ask) -> Result<Reply, Refusal> {
        match ask {
            Ask::Volumes => self.volumes(carrier),
            Ask::Maps { volume, block } => self.maps(carrier, *volume, *block),
            Ask::Table { base, digest, at } => self.table(carrier, Lsn(*base), digest.as_deref(), *at),
            Ask::Data { runs } => self.data(carrier, runs),
            Ask::Finished | Ask::GivesUp { .. } => Ok(Reply::Done),
        }
    }

    fn volumes(&self, carrier: &mut Carrier) -> Result<Reply, Refusal> {
        let Roots { now, since } = &*self.roots;
        // What is asked for from now on is read from the files.
        let durable = self.engine.destage_to(self.epoch, now.position);
        if !durable.map_err(|error| refuse("cannot-read", error.to_string()))? {
            return Err(refuse("cannot-read", format!("not all before {} is committed", now.position)));
        }
        let row = |entry: &crate::store::volumes::Entry| VolumeRow {
            id: entry.id.0,
            name: entry.name.clone(),
            shift: entry.map.block_size().shift(),
            blocks: entry.map.blocks(),
        };
        let rows: Vec<_> = now.volumes.entries().iter().map(row).collect();
        let json = serde_json::to_vec(&rows).expect("names and numbers");
        if json.len() > WINDOW_BYTES {
            return Err(refuse("too-long", format!("the table of volumes has {} bytes", json.len())));
        }
        let bytes = self.tables(carrier, &json)?;
        Ok(Reply::Volumes { bytes, since: since.position.0, next: now.volumes.next() })
    }

    fn maps(&self, carrier: &mut Carrier, volume: u32, block: u64) -> Result<Reply, Refusal> {
        let Roots { now, since } = &*self.roots;
        let pairs = now.volumes.entries().iter().map(|entry| {
            let old = since.volumes.get(entry.id).map(|old| &old.map);
            (entry.id, old, &entry.map)
        });
        let from = Cursor { volume: VolumeId(volume), block: BlockNumber(block) };
        let (bytes, next) = frame(pairs, from, WINDOW_BYTES);
        let digest = if next.is_none() { now.volumes.digest() } else { String::new() };
        let bytes = self.tables(carrier, &bytes)?;
        Ok(Reply::Maps { bytes, next: next.map(|next| (next.volume.0, next.block.0)), digest })
    }

    fn table(
        &self,
        carrier: &mut Carrier,
        base: Lsn,
        digest: Option<&str>,
        at: u64,
    ) -> Result<Reply, Refusal> {
        let Engine { config, files, .. } = self.engine;
        if at == 0 || carrier.table.as_ref().is_none_or(|(known, _)| *known != base) {
            let unclear = || refuse("unclear", format!("no segment begins at {base}"));
            if config.layout.base(base) != base || base >= self.roots.now.position {
                return Err(unclear());
            }
            let table = SegmentTable::read(files, config.id, base);
            let table = table.map_err(|error| refuse("cannot-read", error.to_string()))?;
            let table = table
                .ok_or_else(|| refuse(DAMAGED, format!("the segment at {base} has no valid head here")))?;
            let wanted = SegmentTable::wanted_end(files, config.id, base);
            let wanted = wanted.map_err(|error| refuse("cannot-read", error.to_string()))?;
            let end = table.end();
            if end < wanted {
                let text =
                    format!("the records of the segment at {base} end at {end} here, and went to {wanted}");
                return Err(refuse(DAMAGED, text));
            }
            if digest == Some(&table.digest()) {
                return Ok(Reply::SameTable);
            }
            carrier.table = Some((base, table.encode()));
        }
        let all = carrier.table.as_ref().map(|(_, bytes)| &bytes[..]).unwrap_or_default();
        let rest = usize::try_from(at).ok().and_then(|at| all.get(at..));
        let rest = rest.ok_or_else(|| refuse("unclear", format!("byte {at} of a table of {}", all.len())))?;
        let (part, all) = (rest[..rest.len().min(WINDOW_BYTES)].to_vec(), all.len());
        let bytes = self.tables(carrier, &part)?;
        Ok(Reply::Table { bytes, all })
    }

    fn data(&self, carrier: &mut Carrier, runs: &[AskedRun]) -> Result<Reply, Refusal> {
        let mut parts = Vec::with_capacity(runs.len().min(RUNS_MAX));
        let mut all = 0;
        for run in runs {
            let (lsn, size, bytes) = self.check(run)?;
            all += bytes;
            parts.push((lsn, size, bytes));
        }
        if all > PIECE_BYTES || runs.len() > RUNS_MAX {
            return Err(refuse("unclear", format!("{all} bytes of {} runs in one piece", runs.len())));
        }
        carrier.wait_for_clients(self.engine, self.bell);
        let began = carrier.began.elapsed();
        let mut piece = vec![0; index(all)];
        let mut at = 0;
        for (lsn, size, bytes) in parts {
            let target = &mut piece[at..at + index(bytes)];
            let read = self.engine.read_file(lsn, size, target);
            read.map_err(|error| refuse(DAMAGED, error.to_string()))?;
            at += index(bytes);
        }
        let bytes = carrier.place(&piece)?;
        carrier.throttle.moved(began, carrier.began.elapsed(), all);
        let counters = &self.engine.shared.counters;
        count(&counters.resync_pieces, 1);
        count(&counters.resync_data_bytes, all);
        Ok(Reply::Data { bytes })
    }

    /// Where a run lies, if it can be one.
    fn check(&self, run: &AskedRun) -> Result<(Lsn, BlockSize, u64), Refusal> {
        let layout = self.engine.layout();
        let unclear = || refuse("unclear", format!("no data can be {run:?}"));
        let size = BlockSize::from_shift(run.shift).ok_or_else(unclear)?;
        let (lsn, bytes) = (Lsn(run.lsn), u64::from(run.count) << size.shift());
        let fits = lsn < self.roots.now.position
            && lsn.0.is_multiple_of(size.bytes())
            && bytes > 0
            && lsn.since(layout.base(lsn)) + bytes <= layout.segment_bytes();
        if fits { Ok((lsn, size, bytes)) } else { Err(unclear()) }
    }

    fn tables(&self, carrier: &mut Carrier, bytes: &[u8]) -> Result<usize, Refusal> {
        let placed = carrier.place(bytes)?;
        count(&self.engine.shared.counters.resync_table_bytes, placed as u64);
        Ok(placed)
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a piece fits the window")
}
