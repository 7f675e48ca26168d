//! The holder's work: epochs that are whole go from the ring into the image.
//!
//! ```text
//!           whole epochs are found                              nobody needs them any more
//!  ring ───────────────────────────▶ sync ─▶ image ─▶ sync ─▶ NUMBER, APPLIED ─▶ sync ─▶ FREE ─▶ the owner may write there
//!                                     (a)            (b)                        (c)
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

use super::layout::{EpochLayout, LogId, Position, words};
use super::log::{Cursor, Next, next_epoch, read_applied, read_head};
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

/// One holder's.
#[derive(Debug)]
pub(super) struct Applier {
    layout: EpochLayout,
    /// Why it does not go on, of the log with this id or of no log.
    trouble: Option<(Option<LogId>, String)>,
    sync_failed: bool,
}

/// What one look found.
struct Found {
    generation: Generation,
    applied: Position,
    epochs: Vec<Commit>,
}

impl Applier {
    pub(super) const fn new(layout: EpochLayout) -> Self {
        Self { layout, trouble: None, sync_failed: false }
    }

    /// Why nothing is applied, if something is wrong.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|(_, why)| why.as_str())
    }

    /// Applies what is whole; how many epochs.
    pub(super) fn step(&mut self, copy: &impl Copy) -> usize {
        match self.try_step(copy) {
            Ok(count) => count,
            Err(Trouble::Moved) => 0,
            Err(Trouble::Sync(why)) => {
                log::error!(
                    "epochs are applied without syncs from here on, and power loss may mix them: {why}"
                );
                self.sync_failed = true;
                0
            }
            Err(Trouble::Bad(why)) => {
                let log = copy.look().and_then(|(memory, _)| read_head(memory.slice(), self.layout).ok());
                if self.trouble() != Some(&why) {
                    log::error!("epochs are not applied: {why}");
                }
                self.trouble = Some((log, why));
                0
            }
        }
    }

    fn try_step(&mut self, copy: &impl Copy) -> Result<usize, Trouble> {
        let Some((memory, generation)) = copy.look() else { return Ok(0) };
        let region = memory.slice();
        let log = read_head(region, self.layout).map_err(Trouble::Bad)?;
        match &self.trouble {
            Some((Some(of), why)) if *of == log => return Err(Trouble::Bad(why.clone())),
            _ => self.trouble = None,
        }
        let (applied, _) = read_applied(region).map_err(Trouble::Bad)?;
        let mut found = Found { generation, applied, epochs: Vec::new() };
        let mut bad = None;
        let mut position = applied;
        while found.epochs.len() < TOGETHER_MAX {
            match next_epoch(region, self.layout, log, position) {
                Next::Nothing => break,
                Next::Bad(why) => {
                    bad = Some(why);
                    break;
                }
                Next::Epoch(commit) => {
                    position = commit.end();
                    found.epochs.push(commit);
                }
            }
        }
        let syncs = copy.outlives_power() && !self.sync_failed;
        let count = found.epochs.len();
        self.apply(copy, &found, region.load_word(words::FREE), syncs)?;
        bad.map_or(Ok(count), |why| Err(Trouble::Bad(why)))
    }

    fn apply(&self, copy: &impl Copy, found: &Found, free: u64, syncs: bool) -> Result<(), Trouble> {
        let sync =
            || if syncs { copy.sync().map_err(|error| Trouble::Sync(error.to_string())) } else { Ok(()) };
        let publish = |word: usize, value: u64| {
            let stored = copy.change(found.generation, |region| region.store_word(word, value));
            stored.ok_or(Trouble::Moved)
        };
        if !found.epochs.is_empty() || free != found.applied.0 {
            sync()?;
            publish(words::FREE, found.applied.0)?;
        }
        let Some(last) = found.epochs.last() else { return Ok(()) };
        for commit in &found.epochs {
            let mut cursor = Cursor::new(commit);
            let mut piece = |region: VolatileSlice<'_>| cursor.apply(region, self.layout, PIECE);
            while !copy.change(found.generation, &mut piece).ok_or(Trouble::Moved)?.map_err(Trouble::Bad)? {}
        }
        sync()?;
        publish(words::NUMBER, last.number)?;
        publish(words::APPLIED, last.end().0)?;
        if syncs { Ok(()) } else { publish(words::FREE, last.end().0) }
    }
}

#[cfg(test)]
#[path = "applier_tests.rs"]
mod tests;
