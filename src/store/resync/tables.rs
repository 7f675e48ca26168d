//! The heads and tables of the primary's segments. Those of several are asked for together, before their turn: a question takes as long as to bring
//! many of them.

use super::damage::is_unclear;
use super::fill::wrong;
use super::pull::{PullError, Puller, Session};
use super::table::SegmentTable;
use super::wire::{Ask, Reply, TABLES_MAX, WantedTable};
use crate::base::Lsn;
use crate::replica::{Plan, unpack_sparse};
use crate::segment::HEAD_BYTES;
use crate::store::pair::Pair;
use crate::store::ring_memory::WINDOW_BYTES;

/// What the primary told of segments whose turn has not come.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// By rising base. All of them were in the window at once.
    told: Vec<Told>,
    /// What it was asked for beside them, and did not tell: the digests of this node's own files need not be computed again.
    untold: Vec<WantedTable>,
    /// It is of an older build, and is asked for one at a time.
    one_by_one: bool,
}

/// Head and table of one segment.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    /// As it was asked for: where this node's own had that digest.
    wanted: WantedTable,
    /// Packed; nothing when they are the same as that.
    bytes: Option<Vec<u8>>,
}

impl Tables {
    /// What was told counts no more.
    pub(super) fn clear(&mut self) {
        self.told.clear();
        self.untold.clear();
    }

    fn has(&self, base: Lsn) -> bool {
        self.told.iter().any(|told| told.wanted.base == base.0)
    }

    /// Gives out what was told of a segment, if this node's own file is what it was then; what was told of those before is forgotten.
    fn take(&mut self, base: Lsn, digest: Option<&str>) -> Option<Told> {
        let at = self.told.iter().position(|told| told.wanted.base == base.0)?;
        let told = self.told.drain(..=at).next_back();
        told.filter(|told| told.wanted.digest.as_deref() == digest)
    }

    /// Remembers an answer: what `window` has, as long as [`bytes_told`] says.
    fn enter(&mut self, mut wanted: Vec<WantedTable>, bytes: &[Option<usize>], window: &[u8]) {
        self.untold = wanted.split_off(bytes.len());
        let mut rest = window;
        let told = wanted.into_iter().zip(bytes).map(|(wanted, bytes)| {
            let bytes = bytes.map(|bytes| {
                let (table, behind) = rest.split_at(bytes);
                rest = behind;
                table.to_vec()
            });
            Told { wanted, bytes }
        });
        self.told = told.collect();
    }
}

/// How many bytes of the window an answer to this question speaks of.
fn bytes_told(wanted: &[WantedTable], bytes: &[Option<usize>]) -> Result<usize, PullError> {
    if bytes.len() > wanted.len() {
        return Err(wrong(format!("{} tables came, {} were asked for", bytes.len(), wanted.len())));
    }
    let mut all = 0_usize;
    for (wanted, bytes) in wanted.iter().zip(bytes) {
        let base = Lsn(wanted.base);
        match bytes {
            Some(bytes @ 1..) => all = all.saturating_add(*bytes),
            Some(_) => return Err(wrong(format!("0 bytes are no table of the segment at {base}"))),
            None if wanted.digest.is_some() => {}
            None => {
                return Err(wrong(format!(
                    "the segment at {base}, of which there is none here, is the same"
                )));
            }
        }
        if all > WINDOW_BYTES {
            return Err(wrong(format!("tables of {all} bytes are in a window of {WINDOW_BYTES}")));
        }
    }
    Ok(all)
}

impl Puller {
    /// Asks for the table of the segment at `base`, which the plan has, and for those of the next ones, unless it was told already. It need
    /// not be told: then it is [asked for](Self::their_table) alone.
    pub(super) fn ask_for_tables(
        &mut self,
        pair: &Pair,
        session: &Session,
        plan: &Plan,
        base: Lsn,
    ) -> Result<(), PullError> {
        if self.tables.one_by_one || self.tables.has(base) {
            return Ok(());
        }
        let wanted = self.wanted(pair, plan, base)?;
        match self.ask_in(pair, session, Ask::Tables { wanted: wanted.clone() }) {
            Ok(Reply::Tables { bytes }) => {
                let all = bytes_told(&wanted, &bytes)?;
                self.tables.enter(wanted, &bytes, &Self::window(pair, all)?);
                Ok(())
            }
            Ok(other) => Err(wrong(format!("{other:?} is no tables"))),
            Err(error) if is_unclear(&error) => {
                self.tables.one_by_one = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What to ask for at `base`, with what this node's own files have of it.
    fn wanted(&mut self, pair: &Pair, plan: &Plan, base: Lsn) -> Result<Vec<WantedTable>, PullError> {
        let (files, id) = (&pair.engine.files, pair.engine.config.id);
        let segment_bytes = pair.engine.layout().segment_bytes();
        let bases = std::iter::successors(Some(base), |base| {
            plan.next_segment(base.plus(segment_bytes)).map(|segment| segment.base())
        });
        let untold = std::mem::take(&mut self.tables.untold);
        let needed = bases.filter(|base| !pair.verified().contains(base)).take(TABLES_MAX);
        needed
            .map(|base| match untold.iter().find(|untold| untold.base == base.0) {
                Some(known) => Ok(known.clone()),
                None => {
                    let own = SegmentTable::read(files, id, base)?;
                    Ok(WantedTable { base: base.0, digest: own.as_ref().map(SegmentTable::digest) })
                }
            })
            .collect()
    }

    /// Head and table of a segment as the primary has them; nothing when this node's `own` are the same.
    pub(super) fn their_table(
        &mut self,
        pair: &Pair,
        session: &Session,
        base: Lsn,
        own: Option<&SegmentTable>,
    ) -> Result<Option<Vec<u8>>, PullError> {
        let mut digest = own.map(SegmentTable::digest);
        let segment_bytes = pair.engine.layout().segment_bytes();
        let most = usize::try_from(segment_bytes).expect("at most 2^30") + HEAD_BYTES;
        if let Some(told) = self.tables.take(base, digest.as_deref()) {
            let Some(packed) = told.bytes else { return Ok(None) };
            let bytes = unpack_sparse(&packed, most);
            return bytes
                .map(Some)
                .ok_or_else(|| wrong(format!("no table of the segment at {base} is packed so")));
        }
        let mut bytes = Vec::new();
        loop {
            let ask = Ask::Table { base: base.0, digest: digest.take(), at: bytes.len() as u64 };
            match self.ask_in(pair, session, ask)? {
                Reply::SameTable if own.is_some() => return Ok(None),
                Reply::Table { bytes: part @ 1.., all } => {
                    bytes.extend_from_slice(&Self::window(pair, part)?);
                    if bytes.len() > all || all > most {
                        return Err(wrong(format!("{} bytes of a table of {all}", bytes.len())));
                    }
                    if bytes.len() == all {
                        return Ok(Some(bytes));
                    }
                }
                other => return Err(wrong(format!("{other:?} is no table of the segment at {base}"))),
            }
        }
    }
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
