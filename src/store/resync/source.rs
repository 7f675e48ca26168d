//! The primary's side: it answers what the node asks that it brings up to date, from its own files, into the window.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::carrier::{Carrier, Refusal, refuse};
use super::meter::{Meter, ResyncStatus};
use super::table::SegmentTable;
use super::wire::{
    Ask, AskedRun, DAMAGED, PIECE_BYTES, RUNS_MAX, Reply, TABLES_MAX, UNCLEAR, VolumeRow, WantedTable,
};
use crate::base::clock::Instant;
use crate::base::{BlockNumber, BlockSize, Level, Lsn, VolumeId};
use crate::replica::{Cursor, frame, pack_sparse};
use crate::store::checkpoint::Snapshot;
use crate::store::counters::count;
use crate::store::engine::Engine;
use crate::store::pair::Pair;
use crate::store::ring_memory::WINDOW_BYTES;
use crate::store::segment_files::SegmentFileError;
use crate::store::state::{Bell, Role};

/// For so long tables are read for one answer, and one at least: those that are the same take time, too, and nothing goes over for them.
const TABLES_TIME: Duration = Duration::from_secs(1);

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

/// What is left of a run that was asked for.
#[derive(Debug)]
struct Part {
    lsn: Lsn,
    size: BlockSize,
    bytes: u64,
}

/// What a session is answered from.
pub(super) struct Session<'a> {
    pub(super) engine: &'a Engine,
    /// Rung when the node ends; a primary has no other use for it.
    pub(super) bell: &'a Bell,
    stopping: &'a AtomicBool,
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
            count(&self.engine.shared.counters.resync_questions, 1);
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
        let session =
            Session { engine: &self.engine, bell: &self.puller, stopping: &self.stopping, epoch, roots };
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
            Ask::Tables { wanted } => self.tables(carrier, wanted),
            Ask::Data { runs } => self.data(carrier, runs),
            Ask::Finished | Ask::GivesUp { .. } => Ok(Reply::Done),
        }
    }

    /// Whether the resync of this number has ended, or the node does.
    pub(super) fn is_over(&self, number: u64) -> bool {
        let is_ours = |source: &Source| source.session == number;
        let goes_on = match &self.engine.shared.lock().role {
            Role::Primary(primary) => primary.resync.as_deref().is_some_and(is_ours),
            Role::Undecided | Role::Secondary(_) | Role::Failed { .. } => false,
        };
        !goes_on || self.stopping.load(Ordering::SeqCst)
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
        let bytes = self.place_tables(carrier, &json)?;
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
        let bytes = self.place_tables(carrier, &bytes)?;
        Ok(Reply::Maps { bytes, next: next.map(|next| (next.volume.0, next.block.0)), digest })
    }

    fn table(
        &self,
        carrier: &mut Carrier,
        base: Lsn,
        digest: Option<&str>,
        at: u64,
    ) -> Result<Reply, Refusal> {
        if at == 0 || carrier.table.as_ref().is_none_or(|(known, _)| *known != base) {
            let table = self.read_table(base)?;
            if digest == Some(&table.digest()) {
                return Ok(Reply::SameTable);
            }
            carrier.table = Some((base, table.encode()));
        }
        let all = carrier.table.as_ref().map(|(_, bytes)| &bytes[..]).unwrap_or_default();
        let rest = usize::try_from(at).ok().and_then(|at| all.get(at..));
        let rest = rest.ok_or_else(|| refuse(UNCLEAR, format!("byte {at} of a table of {}", all.len())))?;
        let (part, all) = (rest[..rest.len().min(WINDOW_BYTES)].to_vec(), all.len());
        let bytes = self.place_tables(carrier, &part)?;
        Ok(Reply::Table { bytes, all })
    }

    /// Head and table of a segment, if its file has all of them.
    fn read_table(&self, base: Lsn) -> Result<SegmentTable, Refusal> {
        let Engine { config, files, .. } = self.engine;
        if config.layout.base(base) != base || base >= self.roots.now.position {
            return Err(refuse(UNCLEAR, format!("no segment begins at {base}")));
        }
        let failed = |error: SegmentFileError| refuse("cannot-read", error.to_string());
        let table = SegmentTable::read(files, config.id, base).map_err(failed)?;
        let table =
            table.ok_or_else(|| refuse(DAMAGED, format!("the segment at {base} has no valid head here")))?;
        let wanted = SegmentTable::wanted_end(files, config.id, base).map_err(failed)?;
        let end = table.end();
        if end < wanted {
            let lost =
                format!("the records of the segment at {base} end at {end} here, and went to {wanted}");
            return Err(refuse(DAMAGED, lost));
        }
        Ok(table)
    }

    /// The tables of several segments, up to the first that does not fit or cannot be had: whoever asks for that one alone is told why.
    fn tables(&self, carrier: &mut Carrier, wanted: &[WantedTable]) -> Result<Reply, Refusal> {
        if !(1..=TABLES_MAX).contains(&wanted.len()) {
            return Err(refuse(UNCLEAR, format!("{} tables by one question", wanted.len())));
        }
        let (asked, mut rest) = (Instant::now(), wanted);
        let (mut told, mut all, mut at) = (Vec::with_capacity(wanted.len()), Vec::new(), 0);
        let mut spent = Duration::ZERO;
        loop {
            let began = carrier.begin_step(asked, self)?;
            let most = at + index(carrier.throttle.step());
            // One byte more than is placed now: what comes last is to be visible, with all before, and so has to be something.
            while all.len() <= most
                && let [next, behind @ ..] = rest
            {
                let goes_on = self.append_table(next, &mut told, &mut all)
                    && spent + (carrier.began.elapsed() - began) < TABLES_TIME;
                rest = if goes_on { behind } else { &[] };
            }
            let end = all.len().min(most);
            let placed = carrier.end_step(began, at, &all[at..end], end == all.len())?;
            spent += carrier.began.elapsed() - began;
            count(&self.engine.shared.counters.resync_table_bytes, placed as u64);
            if end == all.len() {
                return Ok(Reply::Tables { bytes: told });
            }
            at = end;
        }
    }

    /// Puts one table behind others, unless it is the same; false when it cannot be had, or does not fit the window.
    fn append_table(&self, wanted: &WantedTable, told: &mut Vec<Option<usize>>, all: &mut Vec<u8>) -> bool {
        let Ok(table) = self.read_table(Lsn(wanted.base)) else { return false };
        if wanted.digest.as_ref() == Some(&table.digest()) {
            told.push(None);
            return true;
        }
        let Some(bytes) = pack_sparse(&table.encode(), WINDOW_BYTES - all.len()) else { return false };
        all.extend_from_slice(&bytes);
        told.push(Some(bytes.len()));
        true
    }

    fn data(&self, carrier: &mut Carrier, runs: &[AskedRun]) -> Result<Reply, Refusal> {
        let mut parts = VecDeque::with_capacity(runs.len().min(RUNS_MAX));
        let mut all = 0;
        for run in runs {
            let part = self.check(run)?;
            all += part.bytes;
            parts.push_back(part);
        }
        if all > PIECE_BYTES || runs.len() > RUNS_MAX {
            return Err(refuse(UNCLEAR, format!("{all} bytes of {} runs in one piece", runs.len())));
        }
        let (asked, mut at) = (Instant::now(), 0);
        let mut buffer = vec![0; index(all)];
        while !parts.is_empty() {
            let began = carrier.begin_step(asked, self)?;
            let bytes = self.read_step(&mut parts, carrier.throttle.step(), &mut buffer)?;
            at += carrier.end_step(began, at, &buffer[..bytes], parts.is_empty())?;
            count(&self.engine.shared.counters.resync_data_bytes, bytes as u64);
        }
        count(&self.engine.shared.counters.resync_pieces, 1);
        Ok(Reply::Data { bytes: at })
    }

    /// Reads what comes next of these parts, `most` bytes of it at most; how many they are.
    fn read_step(&self, parts: &mut VecDeque<Part>, most: u64, buffer: &mut [u8]) -> Result<usize, Refusal> {
        let mut read = 0;
        while let Some(part) = parts.front_mut() {
            // Whole blocks: each has one checksum.
            let bytes = part.bytes.min((most - read) / part.size.bytes() * part.size.bytes());
            if bytes == 0 {
                break;
            }
            let target = &mut buffer[index(read)..index(read + bytes)];
            let came = self.engine.read_file(part.lsn, part.size, target);
            came.map_err(|error| refuse(DAMAGED, error.to_string()))?;
            (part.lsn, part.bytes) = (part.lsn.plus(bytes), part.bytes - bytes);
            if part.bytes == 0 {
                parts.pop_front();
            }
            read += bytes;
        }
        Ok(index(read))
    }

    /// Where a run lies, if it can be one.
    fn check(&self, run: &AskedRun) -> Result<Part, Refusal> {
        let layout = self.engine.layout();
        let unclear = || refuse(UNCLEAR, format!("no data can be {run:?}"));
        let size = BlockSize::from_shift(run.shift).ok_or_else(unclear)?;
        let (lsn, bytes) = (Lsn(run.lsn), u64::from(run.count) << size.shift());
        let fits = lsn < self.roots.now.position
            && lsn.0.is_multiple_of(size.bytes())
            && bytes > 0
            && lsn.since(layout.base(lsn)) + bytes <= layout.segment_bytes();
        if fits { Ok(Part { lsn, size, bytes }) } else { Err(unclear()) }
    }

    fn place_tables(&self, carrier: &mut Carrier, bytes: &[u8]) -> Result<usize, Refusal> {
        let placed = carrier.place(0, bytes, Level::Visible)?;
        count(&self.engine.shared.counters.resync_table_bytes, placed as u64);
        Ok(placed)
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a piece fits the window")
}
