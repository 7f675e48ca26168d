//! The segments of a node that is being resynced: each is compared with what this node's file has, and only what is missing or wrong is asked
//! for.
//!
//! What the primary cannot read of a segment is noted, and does not keep the rest from coming: it is asked for once more when all else is here.

use super::damage::{is_damage, is_unclear};
use super::pull::{PullError, Puller, Session, with_staging};
use super::table::SegmentTable;
use super::wire::{Ask, AskedRun, OLDER_PIECE_BYTES, PIECE_BYTES, RUNS_MAX, Reply};
use crate::base::{BlockNumber, Lsn};
use crate::replica::{DataRun, Plan, SegmentPlan};
use crate::store::engine::KEPT_FREE_BYTES;
use crate::store::pair::Pair;
use crate::store::register::Register;
use crate::store::segment_files::{SegmentFileError, SegmentFiles};

/// Bytes that are filled in without a sync at most, and segments: the files of all of them are open.
const UNSYNCED_BYTES_MAX: u64 = 32 << 20;
const UNSYNCED_SEGMENTS_MAX: usize = 64;

pub(super) fn wrong(why: impl std::fmt::Display) -> PullError {
    PullError::Wrong(why.to_string())
}

/// What is to be asked for together: blocks of one segment or of several, since a question takes as long as to bring many blocks.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    piece: Piece,
    /// Segments that need nothing beyond it.
    segments: Vec<Lsn>,
    /// Where to begin again when it does not come.
    since: Option<Lsn>,
}

/// Blocks that are asked for together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Piece {
    runs: Vec<DataRun>,
    bytes: u64,
}

impl Piece {
    fn new(runs: Vec<DataRun>) -> Self {
        let bytes = runs.iter().map(DataRun::bytes).sum();
        Self { runs, bytes }
    }

    /// Its two halves; the block, when it is a single one.
    fn halves(&self) -> Result<[Self; 2], DataRun> {
        let [run] = self.runs[..] else {
            let (first, second) = self.runs.split_at(self.runs.len() / 2);
            return Ok([Self::new(first.to_vec()), Self::new(second.to_vec())]);
        };
        let half = run.count / 2;
        if half == 0 {
            Err(run)
        } else {
            Ok([(0, half), (half, run.count - half)]
                .map(|(at, count)| Self::new(vec![part_of(&run, at, count)])))
        }
    }
}

impl Puller {
    /// Makes room of what earlier attempts brought and nobody needs any more; whether there is enough then for what is lacking, beside what
    /// this node has and what the ring brings.
    pub(super) fn make_room(&self, pair: &Pair, session: &Session, plan: &Plan) -> Result<(), PullError> {
        let engine = &pair.engine;
        {
            let _filling = pair.filling();
            with_staging(pair, session, |_, _| ())?;
            for base in leftovers(&engine.files.list()?, session, plan) {
                log::info!("{}: the segment at {base} is not needed any more", engine.config.name);
                engine.files.remove(base)?;
                engine.sums.forget(base);
            }
            // Without the note what is void would count again, if a power cut brought it back.
            engine.files.sync_names()?;
        }
        let lacking = lacking_bytes(&engine.files, plan)?;
        let needed = lacking.saturating_add(engine.config.ring_bytes()).saturating_add(KEPT_FREE_BYTES);
        let free = engine.files.free_bytes()?;
        if free >= needed {
            return Ok(());
        }
        let path = engine.config.directory.display();
        Err(PullError::NoSpace(format!(
            "{lacking} bytes are lacking at {path}, which with what comes meanwhile need {needed}, and {free} are free: free some, or \
             empty the directory, to give up what this node has"
        )))
    }

    /// Brings one segment's file to what the plan has of it, but for what is [gathered](Gathered).
    pub(super) fn fill_segment(
        &mut self,
        pair: &Pair,
        session: &Session,
        plan: &Plan,
        segment: SegmentPlan<'_>,
    ) -> Result<(), PullError> {
        let base = segment.base();
        if pair.verified().contains(&base) {
            return with_staging(pair, session, |_, staging| staging.meter.skipped(segment.bytes()));
        }
        self.ask_for_tables(pair, session, plan, base)?;
        self.gather(pair, session, base, segment.runs())
    }

    /// Gives up what is gathered: all of it is looked at again. From where on, if there was something.
    pub(super) fn give_up_gathered(&mut self) -> Option<Lsn> {
        self.tables.clear();
        let base = std::mem::take(&mut self.gathered).since?;
        self.damage.forget_from(base);
        Some(base)
    }

    /// Brings the head and the table of the segment that has the log's end, from which this node reads its log again after a restart: also where
    /// nothing of it is live, and the ring goes on in another one.
    pub(super) fn fill_last(&mut self, pair: &Pair, session: &Session, plan: &Plan) -> Result<(), PullError> {
        let base = pair.engine.layout().base(Lsn(session.start.0.saturating_sub(1)));
        if session.start == Lsn::ZERO || base >= session.streamed || plan.segment(base).is_some() {
            return Ok(());
        }
        match self.bring_table(pair, session, base) {
            // In part: another session may need some of its data.
            Ok(_) => self.unsynced.add(base, false),
            Err(error) if is_damage(&error) => log::warn!("{}: {error}", pair.engine.config.name),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Brings what is live of some runs of one segment, as far as a piece is full of it; the rest is gathered.
    pub(super) fn gather(
        &mut self,
        pair: &Pair,
        session: &Session,
        base: Lsn,
        runs: impl Iterator<Item = DataRun>,
    ) -> Result<(), PullError> {
        self.gathered.since.get_or_insert(base);
        let is_new = match self.bring_table(pair, session, base) {
            Ok(is_new) => is_new,
            Err(error) if is_damage(&error) => {
                runs.for_each(|run| self.damage.note(run, &error));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut buffer = Vec::new();
        for run in runs {
            for part in parts(run) {
                for run in live(pair, session, &part)? {
                    buffer.resize(usize::try_from(run.bytes()).expect("a part of a piece"), 0);
                    if !is_new && pair.engine.read_file(run.lsn, run.block_size, &mut buffer).is_ok() {
                        with_staging(pair, session, |_, staging| staging.meter.skipped(run.bytes()))?;
                        continue;
                    }
                    let piece = &self.gathered.piece;
                    if piece.bytes + run.bytes() > PIECE_BYTES || piece.runs.len() == RUNS_MAX {
                        self.fetch_gathered(pair, session, Some(base))?;
                    }
                    self.gathered.piece.bytes += run.bytes();
                    self.gathered.piece.runs.push(run);
                }
            }
        }
        self.gathered.segments.push(base);
        if self.gathered.segments.len() + self.unsynced.segments() >= UNSYNCED_SEGMENTS_MAX {
            self.fetch_gathered(pair, session, None)?;
            self.sync(pair)?;
        }
        Ok(())
    }

    /// Fetches what is gathered; `within` the segment of which there is more.
    pub(super) fn fetch_gathered(
        &mut self,
        pair: &Pair,
        session: &Session,
        within: Option<Lsn>,
    ) -> Result<(), PullError> {
        let piece = std::mem::take(&mut self.gathered.piece);
        if piece.bytes > 0 {
            self.fetch(pair, session, &piece)?;
        }
        let segment_bytes = pair.engine.layout().segment_bytes();
        for base in std::mem::take(&mut self.gathered.segments) {
            let is_whole = !self.damage.touches(&(base..base.plus(segment_bytes)));
            self.unsynced.add(base, is_whole);
        }
        self.gathered.since = within;
        if self.unsynced.bytes >= UNSYNCED_BYTES_MAX {
            self.sync(pair)?;
        }
        Ok(())
    }

    /// Makes durable what was filled in.
    pub(super) fn sync(&mut self, pair: &Pair) -> Result<(), PullError> {
        let Unsynced { whole, in_part, .. } = std::mem::take(&mut self.unsynced);
        let _filling = pair.filling();
        // Whoever ended the resync may have removed them.
        let there = |bases: Vec<Lsn>| -> Vec<_> {
            bases.into_iter().filter(|base| pair.engine.files.exists(*base)).collect()
        };
        let (whole, in_part) = (there(whole), there(in_part));
        pair.engine.files.sync_filled(&[&whole[..], &in_part].concat())?;
        pair.verified().extend(whole);
        Ok(())
    }

    /// Makes the file's head and table what the primary's are; whether the file is new, and has nothing yet.
    fn bring_table(&mut self, pair: &Pair, session: &Session, base: Lsn) -> Result<bool, PullError> {
        let engine = &pair.engine;
        let (id, layout, files) = (engine.config.id, engine.layout(), &engine.files);
        let own = SegmentTable::read(files, id, base)?;
        let Some(bytes) = self.their_table(pair, session, base, own.as_ref())? else { return Ok(false) };
        let table = SegmentTable::decode(layout, id, base, &bytes).map_err(wrong)?;
        let _filling = pair.filling();
        with_staging(pair, session, |_, _| ())?;
        let (head, slots) = (table.head.encode(), (table.start, &table.bytes[..]));
        let known = own.filter(|own| own.head == table.head);
        if known.is_none() && base < session.old_end && files.exists(base) {
            return Err(wrong(format!(
                "the segment at {base} is another one here, and this node has the log to {}",
                session.old_end
            )));
        }
        let history = pair.register().contents().history.clone();
        let is_new = match known {
            Some(own) if own.outlasts(&table, session.old_end, &history).map_err(wrong)? => {
                log::warn!("{}: the primary has lost records of the segment at {base}", engine.config.name);
                return Ok(false);
            }
            Some(own) => {
                files.replace_table(base, own.start.min(table.start), &head, slots)?;
                false
            }
            None => {
                files.create_sparse(base)?;
                files.fill(base, 0, &head)?;
                files.fill(base, table.start, &table.bytes)?;
                true
            }
        };
        engine.sums.forget(base);
        Ok(is_new)
    }

    /// Fetches one piece, but for the blocks that the primary cannot read, which are noted.
    fn fetch(&mut self, pair: &Pair, session: &Session, piece: &Piece) -> Result<(), PullError> {
        match self.fetch_all(pair, session, piece) {
            // An older primary does not answer long ones.
            Err(error) if is_damage(&error) || piece.bytes > OLDER_PIECE_BYTES && is_unclear(&error) => {
                match piece.halves() {
                    Ok(halves) => halves.iter().try_for_each(|half| self.fetch(pair, session, half)),
                    Err(block) => {
                        self.damage.note(block, &error);
                        Ok(())
                    }
                }
            }
            fetched => fetched,
        }
    }

    fn fetch_all(&mut self, pair: &Pair, session: &Session, piece: &Piece) -> Result<(), PullError> {
        let asked =
            |run: &DataRun| AskedRun { lsn: run.lsn.0, count: run.count, shift: run.block_size.shift() };
        let runs: Vec<_> = piece.runs.iter().map(asked).collect();
        let reply = self.ask_in(pair, session, Ask::Data { runs })?;
        let Reply::Data { bytes } = reply else { return Err(wrong(format!("{reply:?} is no data"))) };
        if bytes as u64 != piece.bytes {
            return Err(wrong(format!("{bytes} bytes came, {} were asked for", piece.bytes)));
        }
        let data = Self::window(pair, bytes)?;
        let engine = &pair.engine;
        let _filling = pair.filling();
        with_staging(pair, session, |_, _| ())?;
        let mut rest = &data[..];
        for run in &piece.runs {
            let (part, behind) = rest.split_at(usize::try_from(run.bytes()).expect("a part of a piece"));
            engine.sums.verify(&engine.files, run.lsn, run.block_size, part).map_err(wrong)?;
            let base = engine.layout().base(run.lsn);
            engine.files.fill(base, run.lsn.since(base), part)?;
            rest = behind;
        }
        self.unsynced.bytes += piece.bytes;
        with_staging(pair, session, |_, staging| staging.meter.moved(piece.bytes))
    }
}

/// What was filled in and not synced.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Segments that have all that is needed of them then, and others.
    whole: Vec<Lsn>,
    in_part: Vec<Lsn>,
    bytes: u64,
}

impl Unsynced {
    fn add(&mut self, base: Lsn, is_whole: bool) {
        if is_whole { self.whole.push(base) } else { self.in_part.push(base) }
    }

    const fn segments(&self) -> usize {
        self.whole.len() + self.in_part.len()
    }
}

/// What is live of a run now. The rest need not come.
pub(super) fn live(pair: &Pair, session: &Session, run: &DataRun) -> Result<Vec<DataRun>, PullError> {
    with_staging(pair, session, |_, staging| {
        let map = staging.volumes().and_then(|volumes| volumes.get(run.volume));
        let live: Vec<_> = map.into_iter().flat_map(|entry| run.live_in(&entry.map)).collect();
        let dead = run.bytes() - live.iter().map(DataRun::bytes).sum::<u64>();
        staging.meter.skipped(dead);
        live
    })
}

/// Of the segments with a file those of an earlier attempt in which nothing that is lacking lives: not what this node has, nor what the ring
/// brings.
fn leftovers(bases: &[Lsn], session: &Session, plan: &Plan) -> Vec<Lsn> {
    let is_over =
        |base: &Lsn| (session.old_end..session.streamed).contains(base) && plan.segment(*base).is_none();
    bases.iter().copied().filter(is_over).collect()
}

/// Bytes of the plan for which the files of its segments have no room yet.
fn lacking_bytes(files: &SegmentFiles, plan: &Plan) -> Result<u64, SegmentFileError> {
    let mut lacking = 0;
    for segment in plan.segments() {
        let base = segment.base();
        let has = if files.exists(base) { files.allocated_bytes(base)? } else { 0 };
        lacking += segment.bytes().saturating_sub(has);
    }
    Ok(lacking)
}

/// A run in parts that each fit a piece.
fn parts(run: DataRun) -> impl Iterator<Item = DataRun> {
    let most = u32::try_from(PIECE_BYTES >> run.block_size.shift()).expect("small");
    (0..run.count).step_by(most as usize).map(move |at| part_of(&run, at, most.min(run.count - at)))
}

fn part_of(run: &DataRun, at: u32, count: u32) -> DataRun {
    let (block, lsn) = (run.block.0 + u64::from(at), run.lsn.plus(u64::from(at) << run.block_size.shift()));
    DataRun { block: BlockNumber(block), count, lsn, ..*run }
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod tests;
