//! The secondary's side: a thread that asks the primary for what this node lacks, one question at a time, while the tender follows the ring.
//!
//! ```text
//!  Idle ──ring arrived──▶ Maps ──▶ Segments ──▶ Damaged ──all here, synced──▶ Whole ──checkpoint by the keeper──▶ told the primary ──▶ Idle
//!                           └───────────┴───────────┴── told to follow anew, or promoted ──▶ Idle
//!                           └───────────┴───────────┴── no room ──▶ GivesUp ──told the primary──▶ GaveUp
//! ```

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::damage::Damage;
use super::fill::{Gathered, Unsynced};
use super::maps::fetch_maps;
use super::tables::Tables;
use super::wire::{Ask, Reply};
use crate::base::Lsn;
use crate::node::CallError;
use crate::replica::Plan;
use crate::store::follower::Stage as FollowerStage;
use crate::store::medium::Inquirer;
use crate::store::pair::Pair;
use crate::store::ring_memory::{RingMemory, WINDOW_BYTES};
use crate::store::segment_files::SegmentFileError;
use crate::store::state::{Reason, Role, State};
use crate::store::volumes::VolumeError;

/// Between two looks whether there is something to do.
const REST: Duration = Duration::from_millis(20);
/// After something failed that may be well again soon, and after an answer that was wrong.
const RETRY_TIME: Duration = Duration::from_millis(300);
const RETRY_TIME_LONG: Duration = Duration::from_secs(5);
/// How long an answer may take; what takes longer is asked for again. The first one waits until the primary has all on its disk, the last
/// one of the maps until it has a digest, and both go on where they were.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Why it does not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum PullError {
    /// This node is not resynced any more, or in another session.
    #[error("the resync is over")]
    Over,
    #[error("the primary does not answer: {0}")]
    Call(#[from] CallError),
    #[error("the primary refuses ({code}): {text}")]
    Refused { code: String, text: String },
    #[error("what the primary sends is wrong: {0}")]
    Wrong(String),
    #[error(transparent)]
    File(#[from] SegmentFileError),
    /// What it cannot read, when all else is here.
    #[error("the primary cannot read {0}")]
    Damaged(String),
    /// As when it comes by the ring.
    #[error("the log in the ring cannot be followed: {0}")]
    Follow(#[from] VolumeError),
    /// A disk that is too small for both what this node has and what it is to have.
    #[error("{0}")]
    NoSpace(String),
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Nothing,
    Pull(Session),
    /// To tell the primary that all is here.
    Tell {
        session: u64,
    },
}

/// A resync as it was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) number: u64,
    epoch: u64,
    /// The maps come as the log before made them.
    pub(super) start: Lsn,
    /// Segments from here on come by the ring.
    pub(super) streamed: Lsn,
    /// What this node has is before.
    pub(super) old_end: Lsn,
}

#[cfg(test)]
impl Session {
    pub(super) const fn for_tests(old_end: Lsn, streamed: Lsn) -> Self {
        Self { number: 7, epoch: 1, start: streamed, streamed, old_end }
    }
}

#[derive(Debug)]
enum Stage {
    Maps,
    /// Segments before `from` are done, or [gathered](Gathered).
    Segments {
        plan: Plan,
        from: Lsn,
    },
    /// All is done but what the primary could not read.
    Damaged,
    Whole,
    /// The primary is to be told that it does not go on: a word for machines, and a sentence.
    GivesUp {
        code: String,
        text: String,
    },
    /// And it was.
    GaveUp,
}

/// What the thread remembers.
#[derive(Debug)]
pub(in crate::store) struct Puller {
    inquirer: Option<Inquirer>,
    session: Option<Session>,
    stage: Stage,
    pub(super) unsynced: Unsynced,
    pub(super) damage: Damage,
    pub(super) gathered: Gathered,
    pub(super) tables: Tables,
    has_failed: bool,
}

impl Puller {
    pub(in crate::store) fn new() -> Self {
        Self {
            inquirer: None,
            session: None,
            stage: Stage::Maps,
            unsynced: Unsynced::default(),
            damage: Damage::default(),
            gathered: Gathered::default(),
            tables: Tables::default(),
            has_failed: false,
        }
    }

    /// Pulls until the dataset ends.
    pub(in crate::store) fn run(&mut self, pair: &Pair) {
        while !pair.stopping.load(Ordering::SeqCst) {
            match self.step(pair) {
                Ok(true) if std::mem::take(&mut self.has_failed) => {
                    pair.explain(Reason::new("resyncing", "is brought up to date by the primary again"));
                }
                Ok(true) => {}
                Ok(false) => pair.puller.nap(REST),
                Err(PullError::Over) => self.session = None,
                Err(error) => {
                    (self.inquirer, self.has_failed) = (None, true);
                    self.failed(pair, &error);
                    let is_wrong = matches!(error, PullError::Wrong(_));
                    pair.puller.nap(if is_wrong { RETRY_TIME_LONG } else { RETRY_TIME });
                }
            }
        }
    }

    /// One step; whether there is more to do at once.
    fn step(&mut self, pair: &Pair) -> Result<bool, PullError> {
        let session = match task(pair) {
            Task::Nothing => {
                (self.inquirer, self.session) = (None, None);
                return Ok(false);
            }
            Task::Tell { session } => {
                self.tell(pair, session, Ask::Finished)?;
                if let Role::Secondary(secondary) = &mut pair.engine.shared.lock().role {
                    secondary.resynced = None;
                }
                self.has_failed = false;
                return Ok(true);
            }
            Task::Pull(session) => session,
        };
        if self.session != Some(session) {
            (self.session, self.stage) = (Some(session), Stage::Maps);
            (self.unsynced, self.damage) = (Unsynced::default(), Damage::default());
            (self.gathered, self.tables) = (Gathered::default(), Tables::default());
        }
        self.pull(pair, &session)
    }

    /// One step of a resync.
    fn pull(&mut self, pair: &Pair, session: &Session) -> Result<bool, PullError> {
        match std::mem::replace(&mut self.stage, Stage::Maps) {
            Stage::Maps => {
                let plan = fetch_maps(self, pair, session)?;
                self.make_room(pair, session, &plan)?;
                self.stage = Stage::Segments { plan, from: Lsn::ZERO };
            }
            Stage::Segments { plan, from } => {
                let (filled, next) = match plan.next_segment(from) {
                    Some(segment) => {
                        let done = segment.base().plus(pair.engine.layout().segment_bytes());
                        (self.fill_segment(pair, session, &plan, segment), Some(done))
                    }
                    None => {
                        let fetched = self.fetch_gathered(pair, session, None);
                        (fetched.and_then(|()| self.fill_last(pair, session, &plan)), None)
                    }
                };
                self.stage = match (&filled, next) {
                    (Err(_), _) => {
                        let from = self.give_up_gathered().map_or(from, |base| base.min(from));
                        Stage::Segments { plan, from }
                    }
                    (Ok(()), Some(from)) => Stage::Segments { plan, from },
                    (Ok(()), None) => Stage::Damaged,
                };
                filled?;
            }
            Stage::Damaged => {
                self.stage = Stage::Damaged;
                self.fill_damaged(pair, session)?;
                self.stage = Stage::Whole;
                with_staging(pair, session, |_, staging| staging.is_whole = true)?;
                pair.keeper.ring();
            }
            Stage::GivesUp { code, text } => {
                let told =
                    self.tell(pair, session.number, Ask::GivesUp { code: code.clone(), text: text.clone() });
                if let Err(error) = told {
                    log::debug!("{}: {error}", pair.engine.config.name);
                    (self.stage, self.inquirer) = (Stage::GivesUp { code, text }, None);
                    pair.puller.nap(RETRY_TIME);
                    return Ok(false);
                }
                self.stage = Stage::GaveUp;
                return Ok(false);
            }
            ends @ (Stage::Whole | Stage::GaveUp) => {
                self.stage = ends;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells the primary how it ends.
    fn tell(&mut self, pair: &Pair, session: u64, ask: Ask) -> Result<(), PullError> {
        match self.ask(pair, session, (0, 0), ask) {
            Ok(_) => Ok(()),
            // It heard before, and its answer was lost.
            Err(PullError::Refused { code, .. }) if code == "no-session" => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks, and tells how much of the session is left to do.
    pub(super) fn ask_in(&mut self, pair: &Pair, session: &Session, ask: Ask) -> Result<Reply, PullError> {
        let amounts = with_staging(pair, session, |_, staging| staging.meter.amounts())?;
        self.ask(pair, session.number, amounts, ask)
    }

    /// Asks, and tells how much is left to do.
    pub(super) fn ask(
        &mut self,
        pair: &Pair,
        session: u64,
        amounts: (u64, u64),
        ask: Ask,
    ) -> Result<Reply, PullError> {
        let config = &pair.engine.config;
        let inquirer = match &mut self.inquirer {
            Some(inquirer) => inquirer,
            none => none.insert(Inquirer::connect(&config.peer, pair.keys(), ANSWER_TIME)?),
        };
        let answer = inquirer.ask(&Pair::resync_question(session, amounts, ask), ANSWER_TIME)?;
        match Pair::resync_answer(&answer) {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err((code, text))) => Err(PullError::Refused { code, text }),
            Err(why) => Err(PullError::Wrong(why)),
        }
    }

    /// What an answer says that lies in the window, copied out: nobody can change it any more.
    pub(super) fn window(pair: &Pair, bytes: usize) -> Result<Vec<u8>, PullError> {
        if bytes > WINDOW_BYTES {
            return Err(PullError::Wrong(format!("{bytes} bytes are in a window of {WINDOW_BYTES}")));
        }
        let holder = pair.holder().ok_or(PullError::Over)?;
        let config = &pair.engine.config;
        let memory = RingMemory::new(holder.memory(), config.layout, config.places);
        let mut copy = vec![0; bytes];
        memory.window().1.read(0, &mut copy);
        Ok(copy)
    }

    /// Says why it does not go on; a full disk is to be told to the primary too, which goes on without this node.
    fn failed(&mut self, pair: &Pair, error: &PullError) {
        let code = match error {
            PullError::NoSpace(_) | PullError::File(SegmentFileError::NoSpace { .. }) => "no-space",
            PullError::File(error) => {
                pair.engine.shared.lock().fail("file-failed", error.to_string());
                return;
            }
            PullError::Follow(_) => {
                pair.engine.shared.lock().fail("cannot-follow", error.to_string());
                return;
            }
            PullError::Over
            | PullError::Call(_)
            | PullError::Refused { .. }
            | PullError::Wrong(_)
            | PullError::Damaged(_) => "resync-waits",
        };
        pair.explain(Reason::new(code, format!("being brought up to date, and stopped: {error}")));
        if code == "no-space" {
            self.stage = Stage::GivesUp { code: code.to_owned(), text: error.to_string() };
        }
    }
}

/// What there is to do now.
fn task(pair: &Pair) -> Task {
    let state = pair.engine.shared.lock();
    let State { role: Role::Secondary(secondary), epoch, .. } = &*state else { return Task::Nothing };
    if !matches!(secondary.stage, FollowerStage::Following(_)) {
        return Task::Nothing;
    }
    if let Some(session) = secondary.resynced {
        return Task::Tell { session };
    }
    let Some(staging) = &secondary.resync else { return Task::Nothing };
    let Some((start, streamed)) = staging.begun() else { return Task::Nothing };
    let (number, old_end) = (staging.session, staging.old.end());
    Task::Pull(Session { number, epoch: *epoch, start, streamed, old_end })
}

/// Looks at the staging of this session, if it still is.
pub(super) fn with_staging<T>(
    pair: &Pair,
    session: &Session,
    work: impl FnOnce(&crate::store::volumes::Volumes, &mut super::Staging) -> T,
) -> Result<T, PullError> {
    let mut state = pair.engine.shared.lock();
    let is_same = state.epoch == session.epoch;
    let State { role: Role::Secondary(secondary), volumes, .. } = &mut *state else {
        return Err(PullError::Over);
    };
    let staging = secondary.resync.as_mut().filter(|staging| is_same && staging.session == session.number);
    staging.map(|staging| work(volumes, staging)).ok_or(PullError::Over)
}

#[cfg(test)]
#[path = "pull_tests.rs"]
mod tests;
