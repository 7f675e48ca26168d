//! A lane for many threads.
//!
//! Stores take the lane's lock for as long as the copy and the bookkeeping last; the doorbell, the fence and the
//! reaping, which cost more, are combined: one waiter does them for all (see `combine`). Whoever waits holds the
//! lock only while it advances the lane, never while it sleeps. Nor does who waits for the peer's disk
//! (`shared_durable`).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::combine::{Combiner, Role};
use super::given_up::GivenUp;
use super::sleeper::Sleeper;
use super::sync_group::SyncGroup;
use super::{Lane, LaneConfig, LaneStats, Polling, StoreError, Ticket, WaitError, Watermarks};
use crate::base::sync::{AtomicU64, Ordering};
use crate::base::{Deadline, Level, Sequence};
use crate::fabric::Armed;

/// Followers look for themselves this often, whatever the leader does.
const FOLLOW_MAX: Duration = Duration::from_millis(50);
/// Steps of a leader between two looks at the clock.
const STEPS_PER_CLOCK: u64 = 64;

/// A [`Lane`] shared by threads; clones are handles to the same lane. Stores of all threads have one order, the one
/// in which they took the lock.
#[derive(Debug, Clone)]
pub struct SharedLane {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    config: LaneConfig,
    stream: AtomicU64,
    lane: CachePadded<Mutex<Lane>>,
    acked: CachePadded<AtomicU64>,
    visible: AtomicU64,
    posted: AtomicU64,
    combiner: Combiner,
    pub(super) syncs: SyncGroup<GivenUp>,
    /// The queue's event, to sleep on without the lock. Replaced when the lane reconnects.
    event: Mutex<Option<Arc<OwnedFd>>>,
    /// Where the leader sleeps, on media that have an event.
    sleeper: Option<Sleeper>,
}

impl SharedLane {
    pub(super) fn new(lane: Lane) -> std::io::Result<Self> {
        let event = lane.event()?.map(Arc::new);
        let sleeper = event.as_ref().map(|_| Sleeper::new(lane.core.wake_fd())).transpose()?;
        let marks = lane.watermarks();
        Ok(Self {
            shared: Arc::new(Shared {
                config: lane.config,
                stream: AtomicU64::new(lane.stream.to_bits()),
                acked: CachePadded::new(AtomicU64::new(marks.acked.0)),
                visible: AtomicU64::new(marks.visible.0),
                posted: AtomicU64::new(marks.posted.0),
                lane: CachePadded::new(Mutex::new(lane)),
                combiner: Combiner::default(),
                syncs: SyncGroup::default(),
                event: Mutex::new(event),
                sleeper,
            }),
        })
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Lane> {
        self.shared.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Lane::store`].
    ///
    /// # Errors
    /// Nothing was stored, on neither side.
    #[inline]
    pub fn store(&self, offset: usize, data: &[u8]) -> Result<Ticket, StoreError> {
        if let Some(ticket) = self.lock().store_plainly(offset, data) {
            return Ok(ticket);
        }
        self.store_waiting(offset, data)
    }

    #[inline(never)]
    fn store_waiting(&self, offset: usize, data: &[u8]) -> Result<Ticket, StoreError> {
        self.waiting_for_room(|lane| lane.try_store(offset, data))
    }

    /// See [`Lane::try_store`].
    ///
    /// # Errors
    /// Nothing was stored, on neither side.
    pub fn try_store(&self, offset: usize, data: &[u8]) -> Result<Ticket, StoreError> {
        self.attempt(&mut self.lock(), |lane| lane.try_store(offset, data))
    }

    /// A store, which reaps when it finds the window full: a leader that sleeps must hear of it.
    #[inline]
    fn attempt<T>(&self, lane: &mut Lane, action: impl FnOnce(&mut Lane) -> T) -> T {
        let result = action(lane);
        if self.shared.sleeper.is_some() {
            self.publish(lane);
        }
        result
    }

    fn waiting_for_room(
        &self,
        mut attempt: impl FnMut(&mut Lane) -> Result<Ticket, StoreError>,
    ) -> Result<Ticket, StoreError> {
        let mut deadline = Deadline::within(self.shared.config.store_timeout);
        loop {
            let (error, oldest) = {
                let mut lane = self.lock();
                match self.attempt(&mut lane, &mut attempt) {
                    Err(error @ StoreError::WouldBlock { .. }) => {
                        (error, Sequence(lane.watermarks().acked.0 + 1))
                    }
                    other => return other,
                }
            };
            match self.reach(oldest, Level::Acked, &mut deadline) {
                Ok(()) => {}
                Err(WaitError::Deadline { .. }) => {
                    let in_flight = self.lock().watermarks().in_flight();
                    return Err(StoreError::Timeout { waited: self.shared.config.store_timeout, in_flight });
                }
                Err(WaitError::LinkLost { .. }) => return Err(self.lock().store_lost()),
                Err(_) => return Err(error),
            }
        }
    }

    /// See [`Lane::wait`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn wait(&self, ticket: Ticket, level: Level, mut deadline: Deadline) -> Result<(), WaitError> {
        self.check(ticket)?;
        if level <= Level::Visible && self.complete_plainly(ticket.sequence) {
            return Ok(());
        }
        self.wait_long(ticket, level, &mut deadline)
    }

    /// Through memory one look mostly is enough, when nobody else is at it.
    #[inline]
    fn complete_plainly(&self, target: Sequence) -> bool {
        let Ok(mut lane) = self.shared.lane.try_lock() else { return false };
        let complete = lane.complete_plainly();
        if complete.is_some() {
            self.publish(&lane);
        }
        complete.is_some_and(|acked| acked >= target)
    }

    #[inline(never)]
    fn wait_long(&self, ticket: Ticket, level: Level, deadline: &mut Deadline) -> Result<(), WaitError> {
        if level >= Level::Durable {
            return self.reach_durable(ticket.sequence, false, deadline);
        }
        self.reach(ticket.sequence, level, deadline)
    }

    #[inline]
    fn check(&self, ticket: Ticket) -> Result<(), WaitError> {
        let stream = self.shared.stream.load(Ordering::Acquire);
        if ticket.stream.to_bits() == stream { Ok(()) } else { Err(self.lock().stale(ticket)) }
    }

    /// See [`Lane::flush`].
    ///
    /// # Errors
    /// As there.
    pub fn flush(&self, level: Level, mut deadline: Deadline) -> Result<Sequence, WaitError> {
        let last = {
            let mut lane = self.lock();
            lane.look()?;
            self.publish(&lane);
            lane.watermarks().last
        };
        if level >= Level::Durable {
            self.reach_durable(last, true, &mut deadline)?;
        } else {
            self.reach(last, level, &mut deadline)?;
        }
        Ok(last)
    }

    /// See [`Lane::watermarks`].
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        self.lock().watermarks()
    }

    /// See [`Lane::stats`].
    #[must_use]
    pub fn stats(&self) -> LaneStats {
        self.lock().stats()
    }

    /// Runs `action` on the lane alone, for what the shared handle does not offer (reconnecting, holes).
    ///
    /// # Errors
    /// The process has no file descriptor left. What `action` did is done and the lane goes on; waiters spin.
    pub fn exclusively<T>(&self, action: impl FnOnce(&mut Lane) -> T) -> std::io::Result<T> {
        let mut lane = self.lock();
        let result = action(&mut lane);
        self.shared.stream.store(lane.stream.to_bits(), Ordering::Release);
        self.publish(&lane);
        let event = lane.event().map(|event| event.map(Arc::new));
        // Without the new event nobody sleeps: the old one would never come.
        let kept = event.as_ref().ok().and_then(Clone::clone);
        *self.shared.event.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        event.map(|_| result)
    }

    #[inline]
    fn mark(&self, level: Level) -> u64 {
        match level {
            Level::Posted => self.shared.posted.load(Ordering::Acquire),
            Level::Acked => self.shared.acked.load(Ordering::Acquire),
            Level::Visible => self.shared.visible.load(Ordering::Acquire),
            Level::Durable => 0,
        }
    }

    #[inline]
    fn publish(&self, lane: &Lane) {
        let marks = lane.watermarks();
        let before = (self.shared.visible.load(Ordering::Relaxed), self.shared.acked.load(Ordering::Relaxed));
        self.shared.posted.store(marks.posted.0, Ordering::Release);
        self.shared.visible.store(marks.visible.0, Ordering::Release);
        self.shared.acked.store(marks.acked.0, Ordering::Release);
        if let Some(sleeper) = &self.shared.sleeper
            && before != (marks.visible.0, marks.acked.0)
        {
            sleeper.wake();
        }
    }

    /// One step for all: posts what is open, reaps, publishes.
    fn advance(&self, lane: &mut Lane, level: Level) -> Result<(), WaitError> {
        let result = lane.advance(level);
        self.publish(lane);
        result
    }

    pub(super) fn reach(
        &self,
        target: Sequence,
        level: Level,
        deadline: &mut Deadline,
    ) -> Result<(), WaitError> {
        loop {
            if self.mark(level) >= target.0 {
                return Ok(());
            }
            // Mostly one step is enough, and nobody else is at it: no election then.
            if let Ok(mut lane) = self.shared.lane.try_lock() {
                self.advance(&mut lane, level)?;
                if self.mark(level) >= target.0 {
                    return Ok(());
                }
            }
            let Some(left) = deadline.remaining() else {
                return Err(WaitError::Deadline {
                    level,
                    wanted: target,
                    reached: Sequence(self.mark(level)),
                });
            };
            if let Role::Lead(_leadership) = self.shared.combiner.join(left.min(FOLLOW_MAX)) {
                self.lead(target, level, deadline)?;
            }
        }
    }

    /// Advances the lane until `target` is reached or the deadline passed.
    fn lead(&self, target: Sequence, level: Level, deadline: &mut Deadline) -> Result<(), WaitError> {
        let started = std::time::Instant::now();
        for step in 1u64.. {
            let armed = {
                let mut lane = self.lock();
                self.advance(&mut lane, level)?;
                if self.mark(level) >= target.0 {
                    return Ok(());
                }
                if self.sleeps_now(step, started) {
                    Some((lane.queue.arm(), lane.queue.wants_write()))
                } else {
                    None
                }
            };
            match armed {
                None if step.is_multiple_of(STEPS_PER_CLOCK) => std::thread::yield_now(),
                None => std::hint::spin_loop(),
                Some((Ok(Armed::PollAgain), _)) => {}
                Some((Ok(Armed::Sleep), wants_write)) => {
                    self.sleep(wants_write, deadline, || self.mark(level) >= target.0)
                }
                Some((Err(error), _)) => self.lock().fail(error),
            }
            if step.is_multiple_of(STEPS_PER_CLOCK) && deadline.remaining().is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn sleeps_now(&self, step: u64, started: std::time::Instant) -> bool {
        match self.shared.config.polling {
            Polling::Spin => false,
            Polling::Block => true,
            Polling::Adaptive(spin) => step.is_multiple_of(STEPS_PER_CLOCK) && started.elapsed() >= spin,
        }
    }

    fn sleep(&self, wants_write: bool, deadline: &mut Deadline, reached: impl FnOnce() -> bool) {
        let event = self.shared.event.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let left = deadline.remaining().unwrap_or_default().min(FOLLOW_MAX);
        match (event, &self.shared.sleeper) {
            (Some(event), Some(sleeper)) => {
                sleeper.sleep(event.as_fd(), wants_write, left, reached);
            }
            _ => std::thread::yield_now(),
        }
    }
}

#[cfg(all(test, not(loom), not(miri)))]
#[path = "shared_lane_tests.rs"]
pub(super) mod tests;
