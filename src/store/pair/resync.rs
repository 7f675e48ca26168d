//! A resync as a move of the pair: the primary begins it, the secondary agrees to it, and either may end it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::hello::{Answer, Hello, Question};
use super::obey::{MOVES_TIME, refused};
use super::{ANSWER_TIME, Pair};
use crate::base::Lsn;
use crate::base::clock::Instant;
use crate::base::locks::MutexGuard as Held;
use crate::base::locks::poisoning::MutexGuard;
use crate::mirror::LaneConfig;
use crate::node::random_bytes;
use crate::store::checkpoint::Snapshot;
use crate::store::follower::Stage;
use crate::store::resync::{Ask, Carrier, Note, NoteError, Reply, Roots, Source, Staging};
use crate::store::state::{Reason, Role, State};

/// Stores of the window in flight at most: a piece is several on media with short ones.
const WINDOW_DEPTH: usize = 64;
/// How long a peer is left alone that said that it cannot be resynced.
const REST_TIME: Duration = Duration::from_secs(5);
/// One that could not be attached so often in a row is left alone, for a multiple of the time for which clients waited for that, but for such
/// a moment.
const VAIN_FREEZES_MAX: u32 = 3;
const FREEZE_FREE: Duration = Duration::from_secs(1);
const REST_PER_FREEZE: u32 = 10;
const FREEZE_REST_MAX: Duration = Duration::from_secs(60);

impl Pair {
    pub(in crate::store) fn note(&self) -> MutexGuard<'_, Note> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::store) fn filling(&self) -> Held<'_, ()> {
        self.filling.lock()
    }

    pub(in crate::store) fn verified(&self) -> MutexGuard<'_, std::collections::BTreeSet<Lsn>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::store) fn carrier(&self) -> MutexGuard<'_, Option<Carrier>> {
        self.carrier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The question of a node that is being resynced, as bytes.
    pub(in crate::store) fn resync_question(session: u64, (total, left): (u64, u64), ask: Ask) -> Vec<u8> {
        serde_json::to_vec(&Question::Resync { session, total, left, ask }).expect("names and numbers")
    }

    /// The answer to it, or the code and the text of a refusal.
    ///
    /// # Errors
    /// It is no answer to such a question.
    pub(in crate::store) fn resync_answer(bytes: &[u8]) -> Result<Result<Reply, (String, String)>, String> {
        match serde_json::from_slice(bytes).map_err(|error| error.to_string())? {
            Answer::Resync(reply) => Ok(Ok(reply)),
            Answer::Refused { code, text } => Ok(Err((code, text))),
            Answer::Hello(_) | Answer::Following { .. } | Answer::Noted | Answer::Granted => {
                Err("an answer to something else".into())
            }
        }
    }

    /// Begins to bring a peer up to date that has the log to `end`, further back than the ring reaches.
    pub(super) fn resync(&self, theirs: &Hello, end: Lsn) -> Result<(), Reason> {
        let engine = &self.engine;
        let failed = |error: &dyn std::fmt::Display| Reason::new("cannot-resync", error.to_string());
        let session = u64::from_le_bytes(random_bytes().map_err(|error| failed(&error))?);
        match self.ask(&Question::BeResynced { from: self.hello(), session }, ANSWER_TIME)? {
            Answer::Noted => {}
            Answer::Refused { code, text } => {
                let text = format!("the peer is not to be brought up to date ({code}): {text}");
                return Err(Reason::new("peer-refuses", text));
            }
            Answer::Hello(_) | Answer::Following { .. } | Answer::Granted | Answer::Resync(_) => {
                return Err(Reason::new("peer-unclear", "the peer answers something else"));
            }
        }
        // What both are known to have: the marker's maps, if the peer's log goes so far.
        let since = {
            let marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
            let is_of_both = |marker: &&Snapshot| {
                #[cfg(test)]
                if crate::store::world::breaks(crate::store::world::Defect::TrustsAnyMarker) {
                    return true;
                }
                marker.position <= end
            };
            marker.snapshot().filter(is_of_both).cloned().unwrap_or_default()
        };
        // Before the state, like whoever answers; and before anything is frozen, since an answer takes its time.
        let mut carrier = self.carrier();
        let frozen = Instant::now();
        let (memory, epoch, roots) = {
            let mut state = engine.shared.lock();
            let (epoch, volumes) = (state.epoch, state.volumes.clone());
            let State { role: Role::Primary(primary), .. } = &mut *state else { return Ok(()) };
            let start = primary.log.end();
            // What the open segment has comes by the ring, to a peer that has nothing of it.
            let durable = primary.log.open_from(start);
            if !primary.meet(engine.config.id, start, durable) {
                return Err(failed(&format_args!("the ring does not have the end of the log, {start}")));
            }
            primary.log.set_frozen(true);
            let now = Snapshot { position: start, generation: primary.generation, volumes };
            (primary.log.memory().clone(), epoch, Arc::new(Roots { now, since }))
        };
        let start = roots.now.position;
        let lane = LaneConfig { depth: WINDOW_DEPTH, ..LaneConfig::default() };
        let link = self.push(memory.mapping().clone()).and_then(|link| {
            let lane = link.region.lane(lane).map_err(|error| error.to_string())?;
            Ok((link, lane))
        });
        self.attached(epoch, frozen, link, |primary, (link, lane)| {
            primary.attach(link);
            primary.resync = Some(Box::new(Source::new(session, roots)));
            *carrier = Some(Carrier::new(engine, session, lane, memory));
            engine.measures.store(true, Ordering::Relaxed);
            let node = &theirs.node;
            log::info!("{}: {node} has the log to {end}, is brought up to {start}", engine.config.name);
            Reason::new("resyncing", format!("{node} was away for long, or is new: it is brought up to date"))
        })
    }

    /// Nobody is brought up to date any more.
    pub(super) fn end_carrier(&self) {
        let is_over = match &self.engine.shared.lock().role {
            Role::Primary(primary) => primary.resync.is_none(),
            Role::Undecided | Role::Secondary(_) | Role::Failed { .. } => true,
        };
        if is_over && let Ok(mut carrier) = self.carrier.try_lock() {
            self.engine.measures.store(false, Ordering::Relaxed);
            let ended = carrier.take();
            drop(carrier);
            drop(ended);
        }
    }

    /// The peer says that it has everything, or that it gives up.
    pub(in crate::store) fn end_source(&self, session: u64, ask: &Ask) {
        let mut state = self.engine.shared.lock();
        let State { role: Role::Primary(primary), reason, .. } = &mut *state else { return };
        if primary.resync.as_ref().is_none_or(|source| source.session != session) {
            return;
        }
        match ask {
            Ask::GivesUp { code, text } => {
                primary.be_alone();
                let text = format!("the peer cannot be brought up to date ({code}): {text}");
                drop(state);
                self.leave_alone(Reason::new("peer-no-space", text));
            }
            Ask::Finished
            | Ask::Volumes
            | Ask::Maps { .. }
            | Ask::Table { .. }
            | Ask::Tables { .. }
            | Ask::Data { .. } => {
                primary.resync = None;
                *reason = Reason::new("catching-up", "the peer was brought up to date, and is let in");
                drop(state);
            }
        }
        self.bell.ring();
    }

    /// The peer is not invited for so long, if not for longer already.
    pub(super) fn rest_for(&self, time: Duration) {
        let mut until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Some(Instant::now() + time));
    }

    /// The peer could not be attached, and clients waited for so long: if that goes on, they come before another attempt.
    pub(super) fn rest_after_freeze(&self, waited: Duration) {
        let waited = waited.saturating_sub(FREEZE_FREE);
        if !waited.is_zero() && self.vain_freezes.fetch_add(1, Ordering::SeqCst) >= VAIN_FREEZES_MAX {
            self.rest_for((waited * REST_PER_FREEZE).min(FREEZE_REST_MAX));
        }
    }

    /// The peer may be invited.
    pub(super) fn end_rest(&self) {
        self.vain_freezes.store(0, Ordering::SeqCst);
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The peer is not invited for a while.
    pub(super) fn leave_alone(&self, reason: Reason) {
        self.rest_for(REST_TIME);
        self.engine.shared.tell();
        self.explain(reason);
    }

    /// Whether the peer is to be left alone now.
    pub(super) fn rests(&self) -> bool {
        let until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Agrees to be resynced: what this node has from now on, until all is here, is what it has now.
    pub(super) fn be_resynced(&self, from: &Hello, session: u64) -> Answer {
        let Some(_moves) = self.moves.try_lock_for(MOVES_TIME) else {
            return refused("busy", "this node is making a move of its own".into());
        };
        let _filling = self.filling();
        let old = {
            let state = self.engine.shared.lock();
            match &state.role {
                Role::Secondary(secondary) if matches!(secondary.stage, Stage::Waiting) => {
                    super::position(&state)
                }
                Role::Secondary(_) | Role::Undecided | Role::Primary(_) | Role::Failed { .. } => {
                    return refused(
                        "not-waiting",
                        "this node waits for no ring: ask it to follow first".into(),
                    );
                }
            }
        };
        if let Err(error) = self.note().write(old, &self.engine.mark) {
            return refused("cannot-note", error.to_string());
        }
        if let Err(error) = self.remove_beyond(from.position.end().max(old.end())) {
            return refused("cannot-remove", error.to_string());
        }
        // What was passed over as overwritten may live again, if the primary has lost what overwrote it.
        self.verified().clear();
        let mut state = self.engine.shared.lock();
        if let State { role: Role::Secondary(secondary), reason, .. } = &mut *state {
            secondary.resync = Some(Box::new(Staging::new(session, old)));
            let text = format!(
                "is brought up to date by {}, and has what it had until that is done: the log to {}",
                from.node,
                old.end()
            );
            *reason = Reason::new("resyncing", text);
        }
        Answer::Noted
    }

    /// All is here, and a checkpoint has it: this node's maps are the staging maps from now on. The caller has `filling`; whether there was
    /// something to end.
    ///
    /// # Errors
    /// The note is still there; nothing else has changed.
    pub(in crate::store) fn end_staging(&self, session: u64) -> Result<bool, NoteError> {
        let is_this = |staging: &Staging| staging.is_whole && staging.session == session;
        let is_whole = match &self.engine.shared.lock().role {
            Role::Secondary(secondary) => secondary.resync.as_deref().is_some_and(is_this),
            Role::Undecided | Role::Primary(_) | Role::Failed { .. } => false,
        };
        if !is_whole {
            return Ok(false);
        }
        self.note().remove()?;
        let mut state = self.engine.shared.lock();
        let State { role: Role::Secondary(secondary), volumes, reason, .. } = &mut *state else {
            return Ok(false);
        };
        if let Some(staging) = secondary.resync.take()
            && let Some(whole) = staging.volumes()
        {
            *volumes = whole.clone();
            secondary.resynced = Some(staging.session);
            *reason = Reason::new("following", "follows the primary, brought up to date by it");
        }
        drop(state);
        self.puller.ring();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Generation, LogGeneration};
    use crate::node::HolderGate;
    use crate::store::follower::Secondary;
    use crate::store::keeper::Keeper;
    use crate::store::pair::obey::PairGate;
    use crate::store::pair::rig::pair;
    use crate::store::volumes::Volumes;

    fn give_up(pair: &Pair) {
        let mut state = pair.engine.shared.lock();
        let Role::Secondary(secondary) = &mut state.role else { panic!("{:?}", state.role) };
        assert!(secondary.give_up_resync());
    }

    #[test]
    fn what_only_a_newer_build_asks_is_unclear() {
        let directory = tempfile::tempdir().unwrap();
        let pair = Arc::new(pair(directory.path()));
        let question = br#"{"Resync":{"session":7,"total":0,"left":0,"ask":{"Unheard":{"of":[]}}}}"#;
        let answer = PairGate(Arc::downgrade(&pair)).answer(question);
        let (code, text) = Pair::resync_answer(&answer).unwrap().unwrap_err();
        assert_eq!(code, "unclear", "{text}");
    }

    #[test]
    fn a_note_stays_while_its_resync_is_under_way() {
        let directory = tempfile::tempdir().unwrap();
        let pair = pair(directory.path());
        let secondary = Secondary::new(Lsn(1 << 20), LogGeneration(1), Lsn(1 << 20), Generation::default());
        pair.engine.shared.lock().role = Role::Secondary(Box::new(secondary));
        assert_eq!(pair.be_resynced(&pair.hello(), 1), Answer::Noted);
        // A thread that saw a whole ring before the primary's word came.
        pair.forget_resync().unwrap();
        assert_eq!(pair.note().from().map(|old| old.end()), Some(Lsn(1 << 20)));
        give_up(&pair);
        pair.forget_resync().unwrap();
        assert_eq!(pair.note().from(), None);
    }

    /// A primary that restarted may have nothing more than a peer that its ring does not reach, and nobody writes.
    #[test]
    fn a_resync_that_had_nothing_to_bring_ends() {
        let directory = tempfile::tempdir().unwrap();
        let pair = pair(directory.path());
        let end = Lsn(1 << 20);
        let volumes = Volumes::restore(Vec::new(), 0);
        let there = Snapshot { position: end, generation: LogGeneration(1), volumes: volumes.clone() };
        pair.checkpoint.lock().unwrap().write(&there).unwrap();
        let mut secondary = Secondary::new(end, LogGeneration(1), end, Generation::default());
        secondary.primary_durable = end;
        {
            let mut state = pair.engine.shared.lock();
            state.checkpoint = end;
            state.role = Role::Secondary(Box::new(secondary));
        }
        assert_eq!(pair.be_resynced(&pair.hello(), 7), Answer::Noted);
        let mut keeper = Keeper::new(&pair);
        let resynced = |keeper: &mut Keeper| {
            keeper.look(&pair, false).unwrap();
            let Role::Secondary(secondary) = &pair.engine.shared.lock().role else { panic!("it follows") };
            secondary.resynced
        };
        assert_eq!(resynced(&mut keeper), None, "not all is here");
        if let Role::Secondary(secondary) = &mut pair.engine.shared.lock().role
            && let Some(staging) = &mut secondary.resync
        {
            staging.begin(end, end);
            staging.arrive(volumes);
            staging.is_whole = true;
        }
        assert_eq!(resynced(&mut keeper), Some(7));
        assert_eq!(pair.note().from(), None);
    }

    #[test]
    fn what_lies_behind_the_primary_s_log_is_gone_before_a_resync() {
        let directory = tempfile::tempdir().unwrap();
        let pair = pair(directory.path());
        let secondary = Secondary::new(Lsn(1 << 20), LogGeneration(1), Lsn(1 << 20), Generation::default());
        pair.engine.shared.lock().role = Role::Secondary(Box::new(secondary));
        (1..8).for_each(|number| pair.engine.files.create(Lsn(number << 20)).unwrap());
        // An attempt before brought some; the rest is of a generation that the primary knows nothing of.
        let mut from = pair.hello();
        from.position.end = (3 << 20) + 4096;
        assert_eq!(pair.be_resynced(&from, 1), Answer::Noted);
        assert_eq!(pair.engine.files.list().unwrap(), [1, 2, 3].map(|number| Lsn(number << 20)));
    }

    #[test]
    fn another_resync_passes_over_nothing_because_of_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let pair = pair(directory.path());
        let secondary = Secondary::new(Lsn(1 << 20), LogGeneration(1), Lsn(1 << 20), Generation::default());
        pair.engine.shared.lock().role = Role::Secondary(Box::new(secondary));
        let from = pair.hello();
        assert_eq!(pair.be_resynced(&from, 1), Answer::Noted);
        pair.verified().insert(Lsn(2 << 20));
        // The primary lost power, and with it what had overwritten blocks of that segment.
        assert_eq!(pair.be_resynced(&from, 2), Answer::Noted);
        assert!(pair.verified().is_empty());
    }
}
