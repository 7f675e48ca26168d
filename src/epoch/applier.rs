//! The holder's work: epochs that are whole go from the ring into the image.
//!
//! ```text
//!           whole epochs are found                              nobody needs them any more
//!  ring ───────────────────────────▶ sync ─▶ image ─▶ sync ─▶ APPLIED ─▶ sync ─▶ FREE ─▶ the owner may write there
//!                                     (a)            (b)                  (c)
//! ```
//!
//! The syncs are there for a copy in a file on a disk, and for the loss of power; without one of them what was written before it may be
//! missing while what was written after it is there.
//!
//! * (a): no byte of an epoch is in the image on the disk before the whole epoch is in the ring there, to be applied once more.
//! * (b): the position moves on the disk only after the image has all before it.
//! * (c): an epoch in the ring is overwritten only after the position behind it is on the disk: the search begins there after a
//!   crash, and would find something else in its place. It waits for the next (a), or for a moment with nothing to apply.
//!
//! A memory, or a file of which the system says that it does not outlive the power, has no syncs.

use std::io;
use std::sync::Arc;

use super::applied::{Applied, read_applied, write_applied};
use super::layout::{EpochLayout, LogId, words};
use super::log::{Cursor, Next, has_epochs, next_epoch, read_head};
use super::record::Commit;
use crate::base::Generation;
use crate::memory::{Mapping, VolatileSlice};

/// Bytes that are applied while the copy is kept from moving: some hundred microseconds.
const PIECE: usize = 1 << 20;
/// Epochs that are applied together.
const TOGETHER_MAX: usize = 256;

/// The holder's copy.
pub(super) trait Copy {
    /// The copy, and the generation that it is of; `None` while it is not whole.
    fn look(&self) -> Option<(Arc<Mapping>, Generation)>;

    /// Runs `action` on the copy if it is whole and still of this generation; nobody attaches, fences or moves it meanwhile.
    fn change<T>(&self, generation: Generation, action: impl FnOnce(VolatileSlice<'_>) -> T) -> Option<T>;

    /// Whether [`sync`](Self::sync) brings the copy to something that outlives the power.
    fn outlives_power(&self) -> bool;

    /// Returns when all that was written before is on stable storage.
    fn sync(&self) -> io::Result<()>;
}

/// Why epochs are not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// Another generation came; begin anew.
    Moved,
    /// What stands in the copy.
    Bad(String),
    /// A sync failed.
    Sync(String),
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is nothing whole that may be applied.
    Nothing,
    /// It was broken off, and is to be done again at once: something whole may be there, or in the image in part.
    Again,
    /// So many epochs were applied.
    Applied {
        /// How many.
        count: usize,
        /// Whether that was all that there was.
        all: bool,
    },
}

/// One holder's.
#[derive(Debug)]
pub(super) struct Applier {
    layout: EpochLayout,
    /// The log of which an epoch is in the image in part.
    midway: Option<LogId>,
    /// Why it does not go on, of the log with this id or of no log.
    trouble: Option<(Option<LogId>, String)>,
    sync_failed: bool,
}

/// What one look found.
struct Found {
    generation: Generation,
    log: LogId,
    free: u64,
    applied: Applied,
    epochs: Vec<Commit>,
}

impl Applier {
    pub(super) const fn new(layout: EpochLayout) -> Self {
        Self { layout, midway: None, trouble: None, sync_failed: false }
    }

    /// Why nothing is applied, if something is wrong.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|(_, why)| why.as_str())
    }

    /// Whether the image of a copy that is whole is one epoch, and not in part another.
    pub(super) const fn between_epochs(&self) -> bool {
        self.midway.is_none()
    }

    /// Steps until nothing whole is left, or `late` says that there is no more time; whether it came so far. An owner that goes on
    /// meanwhile does not hold it up.
    pub(super) fn apply_all(&mut self, copy: &impl Copy, mut late: impl FnMut() -> bool) -> bool {
        loop {
            match self.step(copy) {
                Step::Nothing | Step::Applied { all: true, .. } => return true,
                Step::Again | Step::Applied { all: false, .. } if late() => return false,
                Step::Again | Step::Applied { all: false, .. } => {}
            }
        }
    }

    /// Applies what is whole.
    pub(super) fn step(&mut self, copy: &impl Copy) -> Step {
        match self.try_step(copy) {
            Ok(step) => step,
            Err(Trouble::Moved) => Step::Again,
            Err(Trouble::Sync(why)) => {
                log::error!(
                    "epochs are applied without syncs from here on, and power loss may mix them: {why}"
                );
                self.sync_failed = true;
                Step::Again
            }
            Err(Trouble::Bad(why)) => {
                let log = copy.look().and_then(|(memory, _)| read_head(memory.slice(), self.layout).ok());
                if self.trouble() != Some(&why) {
                    log::error!("epochs are not applied: {why}");
                }
                self.trouble = Some((log, why));
                Step::Nothing
            }
        }
    }

    fn try_step(&mut self, copy: &impl Copy) -> Result<Step, Trouble> {
        let Some((memory, generation)) = copy.look() else { return Ok(Step::Nothing) };
        let region = memory.slice();
        let ring = self.layout.ring_bytes() as u64;
        if region.load_word(words::HOLDS) != ring && has_epochs(region) {
            let stored = copy.change(generation, |region| region.store_word(words::HOLDS, ring));
            stored.ok_or(Trouble::Moved)?;
        }
        let log = read_head(region, self.layout).map_err(Trouble::Bad)?;
        match &self.trouble {
            Some((Some(of), why)) if *of == log => return Err(Trouble::Bad(why.clone())),
            _ => self.trouble = None,
        }
        if self.midway.is_some_and(|of| of != log) {
            // A push replaced it.
            self.midway = None;
        }
        let applied = read_applied(region, self.layout, log).map_err(Trouble::Bad)?;
        if region.load_word(words::NUMBER) != applied.number {
            let stored = copy.change(generation, |region| region.store_word(words::NUMBER, applied.number));
            stored.ok_or(Trouble::Moved)?;
        }
        let free = region.load_word(words::FREE);
        let mut found = Found { generation, log, free, applied, epochs: Vec::new() };
        let mut bad = None;
        let mut after = applied;
        while found.epochs.len() < TOGETHER_MAX {
            match next_epoch(region, self.layout, log, after) {
                Next::Nothing => break,
                Next::Bad(why) => {
                    bad = Some(why);
                    break;
                }
                Next::Epoch(commit) => {
                    after = commit.applied();
                    found.epochs.push(commit);
                }
            }
        }
        let syncs = copy.outlives_power() && !self.sync_failed;
        let count = found.epochs.len();
        self.apply(copy, &found, syncs)?;
        match (bad, count) {
            (Some(why), _) => Err(Trouble::Bad(why)),
            (None, 0) => Ok(Step::Nothing),
            (None, _) => Ok(Step::Applied { count, all: count < TOGETHER_MAX }),
        }
    }

    fn apply(&mut self, copy: &impl Copy, found: &Found, syncs: bool) -> Result<(), Trouble> {
        let sync =
            || if syncs { copy.sync().map_err(|error| Trouble::Sync(error.to_string())) } else { Ok(()) };
        let free = |position: u64| {
            let stored = copy.change(found.generation, |region| region.store_word(words::FREE, position));
            stored.ok_or(Trouble::Moved)
        };
        if !found.epochs.is_empty() || found.free != found.applied.position.0 {
            sync()?;
            free(found.applied.position.0)?;
        }
        let Some(last) = found.epochs.last() else { return Ok(()) };
        for commit in &found.epochs {
            let mut cursor = Cursor::new(commit);
            let layout = self.layout;
            let midway = &mut self.midway;
            let mut piece = |region: VolatileSlice<'_>| {
                *midway = Some(found.log);
                cursor.apply(region, layout, PIECE)
            };
            while !copy.change(found.generation, &mut piece).ok_or(Trouble::Moved)?.map_err(Trouble::Bad)? {}
        }
        sync()?;
        let written = copy.change(found.generation, |region| {
            write_applied(region, found.log, last.applied());
            region.store_word(words::NUMBER, last.number);
        });
        written.ok_or(Trouble::Moved)?;
        self.midway = None;
        if syncs { Ok(()) } else { free(last.end().0) }
    }
}

#[cfg(test)]
#[path = "applier_tests.rs"]
mod tests;
