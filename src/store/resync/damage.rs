//! What the primary cannot read: it is asked for again when all else is here, until it can, or until nobody needs it any more.

use std::ops::Range;

use super::fill::live;
use super::pull::{PullError, Puller, Session, with_staging};
use super::wire::{DAMAGED, UNCLEAR};
use crate::base::Lsn;
use crate::replica::DataRun;
use crate::store::pair::Pair;

/// Runs that the primary could not read.
#[derive(Debug, Default)]
pub(super) struct Damage {
    runs: Vec<DataRun>,
    /// What it said of the first one.
    why: Option<String>,
}

/// Whether the primary answers, and cannot read what was asked for.
pub(super) fn is_damage(error: &PullError) -> bool {
    matches!(error, PullError::Refused { code, .. } if code == DAMAGED)
}

/// Whether it does not answer such a question.
pub(super) fn is_unclear(error: &PullError) -> bool {
    matches!(error, PullError::Refused { code, .. } if code == UNCLEAR)
}

impl Damage {
    pub(super) fn note(&mut self, run: DataRun, error: &PullError) {
        log::debug!("block {} of volume {}: {error}", run.block, run.volume);
        self.runs.push(run);
        self.why.get_or_insert_with(|| error.to_string());
    }

    /// Whether a run here is one of them.
    pub(super) fn touches(&self, range: &Range<Lsn>) -> bool {
        self.runs.iter().any(|run| range.contains(&run.lsn))
    }

    /// What lies from there on is looked at again.
    pub(super) fn forget_from(&mut self, from: Lsn) {
        self.runs.retain(|run| run.lsn < from);
        if self.runs.is_empty() {
            self.why = None;
        }
    }
}

impl Puller {
    /// Asks once more for what the primary could not read, as far as it is still needed.
    ///
    /// # Errors
    /// [`Damaged`](PullError::Damaged) when it still cannot.
    pub(super) fn fill_damaged(&mut self, pair: &Pair, session: &Session) -> Result<(), PullError> {
        let mut noted = std::mem::take(&mut self.damage);
        // The primary's files may be mended by now.
        self.tables.clear();
        // Each segment's together.
        noted.runs.sort_unstable_by_key(|run| run.lsn);
        if let Err(error) = self.fill_noted(pair, session, &noted.runs) {
            // What came meanwhile is found by its checksums.
            self.give_up_gathered();
            self.damage = noted;
            return Err(error);
        }
        self.sync(pair)?;
        let Damage { runs, why: Some(why) } = &self.damage else { return Ok(()) };
        let Some(first) = runs.first() else { return Ok(()) };
        let name = with_staging(pair, session, |_, staging| {
            let entry = staging.volumes().and_then(|volumes| volumes.get(first.volume));
            entry.map_or_else(|| first.volume.to_string(), |entry| entry.name.clone())
        })?;
        let blocks: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        Err(PullError::Damaged(format!(
            "block {} of the volume {name:?}: {why}; {blocks} such blocks in all: write them anew, or trim them",
            first.block
        )))
    }

    fn fill_noted(&mut self, pair: &Pair, session: &Session, noted: &[DataRun]) -> Result<(), PullError> {
        let layout = pair.engine.layout();
        for runs in noted.chunk_by(|a, b| layout.base(a.lsn) == layout.base(b.lsn)) {
            let mut needed = Vec::new();
            for run in runs {
                needed.extend(live(pair, session, run)?);
            }
            if let Some(first) = needed.first() {
                self.gather(pair, session, layout.base(first.lsn), needed.iter().copied())?;
            }
        }
        self.fetch_gathered(pair, session, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockNumber, BlockSize, VolumeId};

    #[test]
    fn what_lies_behind_where_it_goes_on_is_forgotten_and_nothing_else() {
        let run = |lsn| DataRun {
            volume: VolumeId(1),
            block: BlockNumber(7),
            count: 1,
            lsn: Lsn(lsn),
            block_size: BlockSize::Large,
        };
        let error = PullError::Refused { code: DAMAGED.to_owned(), text: "a test says so".to_owned() };
        let mut damage = Damage::default();
        [0x9000, 0x1000, 0x5000].into_iter().for_each(|lsn| damage.note(run(lsn), &error));
        assert!(damage.touches(&(Lsn(0x5000)..Lsn(0x6000))) && !damage.touches(&(Lsn(0x2000)..Lsn(0x5000))));
        damage.forget_from(Lsn(0x5000));
        assert_eq!((damage.runs.clone(), damage.why.is_some()), (vec![run(0x1000)], true));
        damage.forget_from(Lsn(0x1000));
        assert_eq!((damage.runs.len(), damage.why), (0, None));
    }
}
