//! Waiting until an answer may leave, and until it is durable.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Gone, Mark, Volume};
use crate::base::Lsn;
use crate::base::clock::Instant;
use crate::base::locks::MutexGuard;
use crate::base::threads::{is_alone, yield_now};
use crate::store::config::Durability;
use crate::store::counters::count;
use crate::store::engine::Engine;
use crate::store::error::IoError;
use crate::store::link::Wait;
use crate::store::primary::{HandOver, Mode};
use crate::store::state::{Shared, State};
use crate::store::usual::Usual;
#[cfg(test)]
use crate::store::world::{Defect, breaks};

/// For so long one looks without a sleep: a round trip to a near peer takes less, and to be woken takes as long.
const SPIN_TIME: Duration = Duration::from_micros(50);
/// Looks between two at the clock.
const LOOKS_PER_CLOCK: u32 = 4;

/// Naps become longer by so much, to so much, where nothing tells that something came.
const NAP_STEP: Duration = Duration::from_micros(20);
const NAP_MAX: Duration = Duration::from_millis(2);
/// Longest sleep where something does: then one looks whether the client is still there.
const SLEEP_MAX: Duration = Duration::from_millis(20);

impl Volume {
    /// Returns when everything up to `mark` is committed: in both nodes' memory, or on the own disk where the node serves alone. Asks
    /// `gone` now and then whether anybody still waits for the answer.
    ///
    /// # Errors
    /// The answer must not be given.
    pub fn commit(&self, mark: Mark, gone: Gone<'_>) -> Result<(), IoError> {
        self.engine.commit(self.epoch, mark, gone)
    }

    /// Whether everything up to `mark` is committed, without waiting for it. Where the node serves alone its own threads bring the log to the disk
    /// by and by; [`commit`](Self::commit) does it at once. Where each answer is confirmed by a look at the peer
    /// ([`Reads::Confirm`](crate::store::Reads)) this waits for that look, some 20 ms at most.
    ///
    /// # Errors
    /// The answer must not be given.
    pub fn try_commit(&self, mark: Mark) -> Result<bool, IoError> {
        let engine = &self.engine;
        if engine.confirms() {
            return match engine.commit(self.epoch, mark, &|| true) {
                Err(IoError::Gone) => Ok(false),
                other => other.map(|()| true),
            };
        }
        let mut state = engine.shared.lock();
        let primary = state.serving(self.epoch)?;
        primary.push();
        let may_answer =
            primary.hand_over == HandOver::No && (!primary.has_member() || engine.lease.is_live());
        if primary.committed().0 >= mark.0 && may_answer {
            return Ok(true);
        }
        engine.hold(self.epoch, primary)?;
        if primary.writes_through() && primary.log.padded().0 < mark.0 {
            // The disk takes whole blocks only.
            primary.log.pad();
        }
        Ok(false)
    }

    /// Refuses a mark that no write of this handle gave: what a handle of an earlier service gave may be void.
    ///
    /// # Errors
    /// [`IoError::StrangeMark`], or it is not served here any more.
    pub fn check_mark(&self, mark: Mark) -> Result<(), IoError> {
        let mut state = self.engine.shared.lock();
        let log = &state.serving(self.epoch)?.log;
        let (first, end) = (log.first.0, log.end().0);
        // 0 is of a write of nothing.
        if mark.0 == 0 || (first..=end).contains(&mark.0) {
            return Ok(());
        }
        Err(IoError::StrangeMark { mark: mark.0, first, end })
    }

    /// Everything that was acknowledged before is durable when this returns, as the dataset's durability says: on both nodes'
    /// storage, or in both memories.
    ///
    /// # Errors
    /// Nothing is known of it then.
    pub fn flush(&self, gone: Gone<'_>) -> Result<(), IoError> {
        count(&self.engine.shared.counters.flushes, 1);
        let mut state = self.engine.shared.lock();
        let primary = state.serving(self.epoch)?;
        if self.engine.config.durability == Durability::Memory && primary.has_member() {
            let end = primary.log.end();
            drop(state);
            return self.commit(Mark(end.0), gone);
        }
        let end = primary.log.pad();
        // The peer begins with its part while this node does its own.
        primary.push();
        drop(state);
        self.commit(Mark(end.0), gone)?;
        let (mut pause, mut is_here) = (Pause::default(), false);
        loop {
            if !is_here {
                is_here = self.engine.destage_to(self.epoch, end)?;
            }
            let mut state = self.engine.shared.lock();
            let primary = state.serving(self.epoch)?;
            primary.push();
            primary.ask_peer();
            let is_open = primary.hand_over == HandOver::No;
            #[cfg(test)]
            if is_open && is_here && breaks(Defect::FlushesHereOnly) {
                return Ok(());
            }
            if is_open && is_here && (!primary.has_member() || primary.log.peer_durable() >= end) {
                return Ok(());
            }
            self.engine.hold(self.epoch, primary)?;
            let wait = if pause.spins() { Wait::Look } else { Wait::Other };
            if pause.pass(&self.engine.shared, state, wait) && gone() {
                return Err(IoError::Gone);
            }
        }
    }
}

impl Engine {
    /// The one gate: [`Volume::commit`], and changes of the table of volumes.
    pub(in crate::store) fn commit(&self, epoch: u64, mark: Mark, gone: Gone<'_>) -> Result<(), IoError> {
        let measures = self.measures.load(Ordering::Relaxed);
        let began = (measures || Usual::measures(mark.0)).then(Instant::now);
        let (mut pause, mut proof, mut doubts) = (Pause::default(), None, None);
        #[cfg(test)]
        let was_live = breaks(Defect::LooksAtTheLeaseOnce) && self.lease.is_live();
        loop {
            let mut state = self.shared.lock();
            let primary = state.serving(epoch)?;
            let doubts = *doubts.get_or_insert(primary.doubts);
            if proof.is_none() && self.confirms() && primary.has_member() {
                proof = Some(primary.proof(Lsn(mark.0)));
            }
            primary.push();
            if std::mem::take(&mut pause.has_watched) {
                // Another has to watch, if what came was for this one; told under the lock, so that nobody is about to wait.
                self.shared.tell();
            }
            let is_committed = primary.committed().0 >= mark.0;
            // What was read is the newest only as long as the peer serves nothing.
            let is_open = primary.hand_over == HandOver::No;
            #[cfg(test)]
            let is_open = is_open || breaks(Defect::AnswersWhileItHandsOver);
            let may_answer = is_open
                && (!primary.has_member()
                    || proof.map_or_else(|| self.lease.is_live(), |proof| primary.is_confirmed(proof)));
            #[cfg(test)]
            let may_answer = may_answer || was_live;
            if is_committed && may_answer {
                // What waited for a lost link says nothing of the pair.
                let is_usual = primary.mode == Mode::Mirrored && primary.doubts == doubts;
                drop(state);
                if let Some(began) = began {
                    match (measures, is_usual) {
                        (true, _) => self.commits.record(began.elapsed()),
                        (false, true) => self.usual.record(began.elapsed()),
                        (false, false) => {}
                    }
                }
                return Ok(());
            }
            self.hold(epoch, primary)?;
            if primary.writes_through() && primary.log.own_durable().0 < mark.0 {
                drop(state);
                // Not all of it, where the link was lost meanwhile: the next look says so.
                self.destage_to(epoch, Lsn(mark.0))?;
                continue;
            }
            let wait = match pause.spins() {
                true => Wait::Look,
                // A lease does not come over the medium.
                false if is_committed && proof.is_none() => Wait::Other,
                false => primary.wait(),
            };
            if pause.pass(&self.shared, state, wait) && gone() {
                return Err(IoError::Gone);
            }
        }
    }
}

/// How one waits: first without a sleep, then until something comes, or longer and longer.
#[derive(Debug, Default)]
struct Pause {
    /// Since the clock was first looked at: what is there at once takes no look.
    began: Option<Instant>,
    looks: u32,
    has_spun: bool,
    has_watched: bool,
    naps: u32,
}

impl Pause {
    fn elapsed(&mut self) -> Duration {
        self.began.get_or_insert_with(Instant::now).elapsed()
    }

    /// Whether it is too early for a sleep.
    fn spins(&mut self) -> bool {
        if !self.has_spun && self.looks.is_multiple_of(LOOKS_PER_CLOCK) {
            // On the only processor it is the others' time that is spent, and theirs what is waited for.
            self.has_spun = self.elapsed() >= SPIN_TIME || is_alone();
        }
        self.looks = self.looks.wrapping_add(1);
        !self.has_spun
    }

    /// Lets go of the state for a while; whether it is time to ask if anybody still waits.
    fn pass(&mut self, shared: &Shared, mut state: MutexGuard<'_, State>, wait: Wait) -> bool {
        match wait {
            Wait::Look => {
                drop(state);
                // Behind that, it is a last look before a sleep.
                if !self.has_spun {
                    yield_now();
                }
                return false;
            }
            Wait::Watch(watch) => {
                drop(state);
                watch.sleep(SLEEP_MAX);
                self.has_watched = true;
            }
            Wait::Other => {
                self.naps = self.naps.saturating_add(1);
                shared.wait(&mut state, NAP_STEP.saturating_mul(self.naps).min(NAP_MAX));
            }
        }
        self.elapsed() >= SLEEP_MAX
    }
}
