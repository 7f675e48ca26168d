//! Waiting until an answer may leave, and until it is durable.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::{Mark, Volume};
use crate::base::Lsn;
use crate::store::config::Durability;
use crate::store::counters::count;
use crate::store::engine::Engine;
use crate::store::error::IoError;
use crate::store::state::{Shared, State};

/// Polls without a sleep while a commit is under way: about as long as a round trip to a near peer takes.
const SPINS: u32 = 400;

/// Longest sleep between two polls.
const NAP_MAX: Duration = Duration::from_millis(2);

impl Volume {
    /// Returns when everything up to `mark` is committed: in both nodes' memory, or on the own disk where the node serves alone. Asks
    /// `gone` now and then whether anybody still waits for the answer.
    ///
    /// # Errors
    /// The answer must not be given.
    pub fn commit(&self, mark: Mark, gone: &dyn Fn() -> bool) -> Result<(), IoError> {
        self.engine.commit(self.epoch, mark, gone)
    }

    /// Everything that was acknowledged before is durable when this returns, as the dataset's durability says: on both nodes'
    /// storage, or in both memories.
    ///
    /// # Errors
    /// Nothing is known of it then.
    pub fn flush(&self, gone: &dyn Fn() -> bool) -> Result<(), IoError> {
        count(&self.engine.shared.counters.flushes, 1);
        let mut state = self.engine.shared.lock();
        let primary = state.primary(self.epoch)?;
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
        self.engine.destage_to(self.epoch, end)?;
        let mut pause = Pause::default();
        loop {
            let mut state = self.engine.shared.lock();
            let primary = state.primary(self.epoch)?;
            primary.push();
            primary.ask_peer();
            if !primary.has_member() || primary.log.peer_durable() >= end {
                return Ok(());
            }
            if pause.wait(&self.engine.shared, state) && gone() {
                return Err(IoError::Gone);
            }
        }
    }
}

impl Engine {
    /// The one gate: [`Volume::commit`], and changes of the table of volumes.
    pub(in crate::store) fn commit(
        &self,
        epoch: u64,
        mark: Mark,
        gone: &dyn Fn() -> bool,
    ) -> Result<(), IoError> {
        let began = self.measures.load(Ordering::Relaxed).then(Instant::now);
        let mut pause = Pause::default();
        loop {
            let mut state = self.shared.lock();
            let primary = state.primary(epoch)?;
            primary.push();
            if primary.committed().0 >= mark.0 {
                drop(state);
                if let Some(began) = began {
                    self.commits.record(began.elapsed());
                }
                return Ok(());
            }
            if primary.writes_through() && primary.log.own_durable().0 < mark.0 {
                drop(state);
                self.destage_to(epoch, Lsn(mark.0))?;
            } else if pause.wait(&self.shared, state) && gone() {
                return Err(IoError::Gone);
            }
        }
    }
}

/// How one waits who polls: first without a sleep, then longer and longer.
#[derive(Debug, Default)]
struct Pause {
    polls: u32,
}

impl Pause {
    /// Lets go of the state for a while; whether it slept.
    fn wait(&mut self, shared: &Shared, mut state: MutexGuard<'_, State>) -> bool {
        self.polls = self.polls.saturating_add(1);
        if self.polls < SPINS {
            drop(state);
            std::thread::yield_now();
            return false;
        }
        let nap = Duration::from_micros(20 * u64::from(self.polls - SPINS + 1));
        shared.wait(&mut state, nap.min(NAP_MAX));
        true
    }
}
