//! The segments of a node that is being resynced: each is compared with what this node's file has, and only what is missing or wrong is asked
//! for.

use super::pull::{PullError, Puller, Session, with_staging};
use super::table::SegmentTable;
use super::wire::{Ask, AskedRun, PIECE_BYTES, RUNS_MAX, Reply};
use crate::base::{BlockNumber, Lsn};
use crate::replica::{DataRun, Plan, SegmentPlan};
use crate::segment::HEAD_BYTES;
use crate::store::pair::Pair;
use crate::store::tender::KEPT_FREE_BYTES;

/// Bytes that are filled in without a sync at most, and segments: the files of all of them are open.
const UNSYNCED_BYTES_MAX: u64 = 32 << 20;
const UNSYNCED_SEGMENTS_MAX: usize = 64;

fn wrong(why: impl std::fmt::Display) -> PullError {
    PullError::Wrong(why.to_string())
}

/// Blocks that are asked for together.
#[derive(Debug, Default)]
struct Piece {
    runs: Vec<DataRun>,
    bytes: u64,
}

impl Puller {
    /// Whether there is room for what is lacking, beside what this node has and what the ring brings.
    pub(super) fn check_room(&self, pair: &Pair, plan: &Plan) -> Result<(), PullError> {
        let engine = &pair.engine;
        let needed = plan.bytes().saturating_add(engine.config.ring_bytes()).saturating_add(KEPT_FREE_BYTES);
        let free = engine.files.free_bytes()?;
        if free >= needed {
            return Ok(());
        }
        let (path, lacking) = (engine.config.directory.display(), plan.bytes());
        Err(PullError::NoSpace(format!(
            "{lacking} bytes are lacking at {path}, which with what comes meanwhile need {needed}, and {free} are free: free some, or \
             empty the directory, to give up what this node has"
        )))
    }

    /// Brings one segment's file to what the plan has of it.
    pub(super) fn fill_segment(
        &mut self,
        pair: &Pair,
        session: &Session,
        segment: SegmentPlan<'_>,
    ) -> Result<(), PullError> {
        let base = segment.base();
        if pair.verified().contains(&base) {
            return with_staging(pair, session, |_, staging| staging.meter.skipped(segment.bytes()));
        }
        let is_new = self.bring_table(pair, session, base)?;
        let mut piece = Piece::default();
        let mut buffer = vec![0; usize::try_from(PIECE_BYTES).expect("small")];
        for run in segment.runs() {
            for part in parts(run) {
                let live = with_staging(pair, session, |_, staging| {
                    let map = staging.volumes().and_then(|volumes| volumes.get(part.volume));
                    let live: Vec<_> = map.into_iter().flat_map(|entry| part.live_in(&entry.map)).collect();
                    let dead = part.bytes() - live.iter().map(DataRun::bytes).sum::<u64>();
                    staging.meter.skipped(dead);
                    live
                })?;
                for run in live {
                    let target = &mut buffer[..usize::try_from(run.bytes()).expect("a part of a piece")];
                    if !is_new && pair.engine.read_file(run.lsn, run.block_size, target).is_ok() {
                        with_staging(pair, session, |_, staging| staging.meter.skipped(run.bytes()))?;
                        continue;
                    }
                    if piece.bytes + run.bytes() > PIECE_BYTES || piece.runs.len() == RUNS_MAX {
                        self.fetch(pair, session, base, &std::mem::take(&mut piece))?;
                    }
                    piece.bytes += run.bytes();
                    piece.runs.push(run);
                }
            }
        }
        if piece.bytes > 0 {
            self.fetch(pair, session, base, &piece)?;
        }
        self.unsynced.0.push(base);
        let (segments, bytes) = (self.unsynced.0.len(), self.unsynced.1);
        if bytes >= UNSYNCED_BYTES_MAX || segments >= UNSYNCED_SEGMENTS_MAX {
            self.sync(pair)?;
        }
        Ok(())
    }

    /// Makes durable what was filled in.
    pub(super) fn sync(&mut self, pair: &Pair) -> Result<(), PullError> {
        let (segments, _) = std::mem::take(&mut self.unsynced);
        let _filling = pair.filling();
        // Whoever ended the resync may have removed them.
        let segments: Vec<_> = segments.into_iter().filter(|base| pair.engine.files.exists(*base)).collect();
        pair.engine.files.sync(&segments)?;
        pair.verified().extend(segments);
        Ok(())
    }

    /// Makes the file's head and table what the primary's are; whether the file is new, and has nothing yet.
    fn bring_table(&mut self, pair: &Pair, session: &Session, base: Lsn) -> Result<bool, PullError> {
        let engine = &pair.engine;
        let (id, layout, files) = (engine.config.id, engine.layout(), &engine.files);
        let own = SegmentTable::read(files, id, base)?;
        let mut digest = own.as_ref().map(SegmentTable::digest);
        let mut bytes = Vec::new();
        loop {
            let ask = Ask::Table { base: base.0, digest: digest.take(), at: bytes.len() as u64 };
            let amounts = with_staging(pair, session, |_, staging| staging.meter.amounts())?;
            match self.ask(pair, session.number, amounts, ask)? {
                Reply::SameTable if own.is_some() => return Ok(false),
                Reply::Table { bytes: part @ 1.., all } => {
                    bytes.extend_from_slice(&Self::window(pair, part)?);
                    let most = usize::try_from(layout.segment_bytes()).expect("at most 2^30") + HEAD_BYTES;
                    if bytes.len() > all || all > most {
                        return Err(wrong(format!("{} bytes of a table of {all}", bytes.len())));
                    }
                    if bytes.len() == all {
                        break;
                    }
                }
                other => return Err(wrong(format!("{other:?} is no table of the segment at {base}"))),
            }
        }
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
        let is_new = match known {
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

    /// Fetches one piece.
    fn fetch(&mut self, pair: &Pair, session: &Session, base: Lsn, piece: &Piece) -> Result<(), PullError> {
        let asked =
            |run: &DataRun| AskedRun { lsn: run.lsn.0, count: run.count, shift: run.block_size.shift() };
        let runs: Vec<_> = piece.runs.iter().map(asked).collect();
        let amounts = with_staging(pair, session, |_, staging| staging.meter.amounts())?;
        let reply = self.ask(pair, session.number, amounts, Ask::Data { runs })?;
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
            engine.files.fill(base, run.lsn.since(base), part)?;
            rest = behind;
        }
        self.unsynced.1 += piece.bytes;
        with_staging(pair, session, |_, staging| staging.meter.moved(piece.bytes))
    }
}

/// A run in parts that each fit a piece.
fn parts(run: DataRun) -> impl Iterator<Item = DataRun> {
    let most = u32::try_from(PIECE_BYTES >> run.block_size.shift()).expect("small");
    (0..run.count).step_by(most as usize).map(move |at| DataRun {
        block: BlockNumber(run.block.0 + u64::from(at)),
        count: most.min(run.count - at),
        lsn: run.lsn.plus(u64::from(at) << run.block_size.shift()),
        ..run
    })
}
