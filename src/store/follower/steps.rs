//! What a secondary does with its ring, from the attachment of a primary on: takes records, makes files for them, and says how far it is.

use super::{Stage, Step};
use crate::base::Lsn;
use crate::node::Content;
use crate::store::engine::{Engine, KEPT_FREE_BYTES};
use crate::store::error::IoError;
use crate::store::medium::Holder;
use crate::store::pair::Pair;
use crate::store::ring_memory::{RingMemory, SecondaryWords, Trouble};
use crate::store::segment_files::SegmentFileError;
use crate::store::state::{Reason, Role};

/// Tells the primary how far this node is, in words that it fetches.
pub(in crate::store) fn publish(pair: &Pair) {
    let words = match &pair.engine.shared.lock().role {
        Role::Secondary(secondary) => secondary.words(),
        Role::Undecided | Role::Primary(_) => None,
        Role::Failed { .. } => {
            Some(SecondaryWords { durable: Lsn::ZERO, end: Lsn::ZERO, trouble: Trouble::Failed })
        }
    };
    if let (Some(words), Some(holder)) = (words, pair.holder()) {
        words.encode().into_iter().for_each(|(at, word)| holder.publish_word(at, word));
    }
}

/// A primary has attached, and its ring is here whole: begins to follow it.
pub(in crate::store) fn begin_to_follow(pair: &Pair) {
    let Some(holder) = pair.holder() else { return };
    let status = holder.status();
    let engine = &pair.engine;
    let is_whole =
        |since| status.content == Content::Complete && status.connected && status.generation > since;
    let follows_what_it_has = match &engine.shared.lock().role {
        Role::Secondary(secondary) => {
            matches!(secondary.stage, Stage::Waiting)
                && is_whole(secondary.since)
                && secondary.resync.is_none()
        }
        Role::Undecided | Role::Primary(_) | Role::Failed { .. } => false,
    };
    if follows_what_it_has && let Err(error) = pair.forget_resync() {
        log::warn!("{}: {error}", engine.config.name);
        return;
    }
    pair.read_where_it_lies(holder);
    let mut state = engine.shared.lock();
    let Role::Secondary(secondary) = &mut state.role else { return };
    if !matches!(secondary.stage, Stage::Waiting) || !is_whole(secondary.since) {
        return;
    }
    let config = &engine.config;
    let memory = RingMemory::new(holder.memory(), config.layout, config.places);
    let begun = secondary.begin(memory, config.id, status.generation, |base| engine.files.exists(base));
    let renews = secondary.renewed.map(|(base, _)| base);
    match begun {
        Ok(base) => {
            let made =
                if renews == Some(base) { engine.files.renew(base) } else { engine.files.create(base) };
            match made {
                Ok(()) if secondary.resync.is_some() => secondary.trouble = Trouble::None,
                Ok(()) => {
                    secondary.trouble = Trouble::None;
                    state.reason = Reason::new("following", "follows the primary");
                }
                Err(error) => {
                    secondary.stage = Stage::Waiting;
                    secondary.trouble = Trouble::NoSpace;
                    state.reason = Reason::new("no-space", error.to_string());
                }
            }
        }
        Err(error) => {
            secondary.trouble = Trouble::Failed;
            let reason = Reason::new("cannot-follow", error.to_string());
            if state.reason != reason {
                log::warn!("{}: {error}", config.name);
                state.reason = reason;
            }
        }
    }
}

impl Pair {
    /// The copy of the ring moves when somebody's access to it was taken away: a follower reads it where it lies now.
    pub(in crate::store) fn read_where_it_lies(&self, holder: &Holder) {
        let (status, engine) = (holder.status(), &self.engine);
        let mut state = engine.shared.lock();
        let Role::Secondary(secondary) = &mut state.role else { return };
        let has_moved = secondary.grant().is_some_and(|grant| grant != status.generation);
        if has_moved && status.content == Content::Complete {
            let memory = RingMemory::new(holder.memory(), engine.config.layout, engine.config.places);
            secondary.move_to(memory, status.generation);
        }
    }
}

impl Engine {
    /// Whether a follower has room for as much as may be in the ring already: if not the primary is told, and takes no more.
    pub(in crate::store) fn room(&self) -> Trouble {
        let needed = self.config.ring_bytes().saturating_add(KEPT_FREE_BYTES);
        match self.files.free_bytes() {
            Ok(free) if free < needed => Trouble::NoSpace,
            Ok(_) | Err(_) => Trouble::None, // what the system does not tell is found when a file is made
        }
    }

    /// Takes records from the ring; whether there were any.
    pub(in crate::store) fn follow_step(&self) -> Result<bool, IoError> {
        loop {
            let step = {
                let mut state = self.shared.lock();
                let state = &mut *state;
                let Role::Secondary(secondary) = &mut state.role else { return Ok(false) };
                secondary.step(&mut state.volumes, |base| self.files.exists(base))
            };
            match step {
                Ok(Step::Idle) => return Ok(false),
                Ok(Step::Moved) => return Ok(true),
                Ok(Step::NeedsFile(base)) => {
                    // Another thread may follow too, while it drains: what it has written is not to be made anew.
                    let made = self.in_turn(|| match self.files.exists(base) {
                        true => Ok(()),
                        false => self.files.create_leaving(base, KEPT_FREE_BYTES),
                    });
                    let trouble = self.room();
                    let mut state = self.shared.lock();
                    let Role::Secondary(secondary) = &mut state.role else { return Ok(false) };
                    match made {
                        Ok(()) => (secondary.trouble, secondary.is_stuck) = (trouble, false),
                        Err(SegmentFileError::NoSpace { .. }) => {
                            (secondary.trouble, secondary.is_stuck) = (Trouble::NoSpace, true);
                            return Ok(false);
                        }
                        Err(error) => {
                            secondary.trouble = Trouble::Failed;
                            let why = error.to_string();
                            state.fail("file-failed", why.clone());
                            return Err(IoError::Failed(why));
                        }
                    }
                }
                Err(error) => {
                    let mut state = self.shared.lock();
                    let why = format!("the log in the ring cannot be followed: {error}");
                    state.fail("cannot-follow", why.clone());
                    return Err(IoError::Failed(why));
                }
            }
        }
    }

    /// A segment that was written anew takes the old one's name when it has all that the old one had.
    pub(in crate::store) fn finish_renewal(&self) -> Result<(), IoError> {
        self.in_turn(|| self.finish_renewal_in_turn())
    }

    fn finish_renewal_in_turn(&self) -> Result<(), IoError> {
        let renewal = match &self.shared.lock().role {
            Role::Secondary(secondary) => secondary.renewal(),
            Role::Undecided | Role::Primary(_) | Role::Failed { .. } => None,
        };
        let Some(base) = renewal else { return Ok(()) };
        let result = self.files.finish_renewal(base);
        self.sums.forget(base);
        let mut state = self.shared.lock();
        match result {
            Ok(()) => {
                if let Role::Secondary(secondary) = &mut state.role {
                    secondary.renewed();
                }
                Ok(())
            }
            Err(error) => {
                let why = error.to_string();
                state.fail("file-failed", why.clone());
                Err(IoError::Failed(why))
            }
        }
    }
}
