//! The waiting half of a lane: posting what is open, reaping completions, sleeping.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Lane, Polling};
use crate::base::{Deadline, Level, Sequence};
use crate::fabric::{Armed, Completion, Operation, QueueError};
use crate::mirror::{ByteRange, LostReason, SharedLane, StoreError, Ticket, WaitError, Watermarks};

/// Marks the completion of a flush request among the ids of stores.
const FLUSH: u64 = 1 << 63;
/// Marks the completion of a fetch.
pub(super) const FETCH: u64 = 1 << 62;
/// Polls between two looks at the clock while spinning.
const SPINS_PER_CLOCK: u32 = 64;

/// Where a waiter stands between two polls.
#[derive(Debug, Default)]
pub(super) struct Pause {
    spins: u32,
    /// When the clock was read first.
    began: Option<Instant>,
}

impl Lane {
    /// Posts what is open, reaps what completed, and returns how far the stores have come. Never waits.
    ///
    /// # Errors
    /// [`WaitError::LinkLost`].
    pub fn poll(&mut self) -> Result<Watermarks, WaitError> {
        if self.core.lost() {
            return Err(self.wait_lost());
        }
        self.push_out(false);
        self.reap().map_err(|error| self.wait_failed(error))?;
        Ok(self.marks.all())
    }

    /// Brings every store taken so far to `level`; returns the last of them.
    ///
    /// At `Durable` it asks the peer for a sync, whether or not there was a store since the last: on return the whole
    /// copy, as it was when this was called, is on the peer's stable storage, with what attaching moved.
    ///
    /// # Errors
    /// See [`wait`](Self::wait). [`WaitError::LinkLost`] also when nothing is in flight.
    pub fn flush(&mut self, level: Level, mut deadline: Deadline) -> Result<Sequence, WaitError> {
        let last = self.marks.last();
        self.look()?;
        match level {
            Level::Durable => self.reach_durable(last, true, &mut deadline)?,
            _ => self.reach(last, level, &mut deadline)?,
        }
        Ok(last)
    }

    /// Whether the link is lost, as far as this side can see without waiting, even with nothing in flight.
    pub(in crate::mirror) fn look(&mut self) -> Result<(), WaitError> {
        if self.core.lost() {
            return Err(self.wait_lost());
        }
        if self.has_way && self.complete_plainly().is_some() {
            return Ok(());
        }
        let idle = !self.completions_come();
        if !self.at_once() {
            // A queue may have failed with nothing in flight, and knows.
            let looked = if idle { self.queue.poll() } else { Ok(None) };
            return looked.map(|_| ()).map_err(|error| self.wait_failed(error));
        }
        if idle {
            // Through memory an empty request is a look at the grant. Its completion is of what is acknowledged.
            self.post(Operation::Write, self.marks.posted().0, 0, 0, true);
            return self.queue.poll().map(|_| ()).map_err(|error| self.wait_failed(error));
        }
        self.reap().map_err(|error| self.wait_failed(error))
    }

    /// Waits until the store of `ticket`, and with it every earlier store of this lane, reached `level`.
    ///
    /// # Errors
    /// [`WaitError::Deadline`], [`WaitError::LinkLost`], [`WaitError::StaleTicket`] and, for `Durable`,
    /// [`WaitError::Unsupported`] or [`WaitError::SyncFailed`].
    #[inline]
    pub fn wait(&mut self, ticket: Ticket, level: Level, deadline: Deadline) -> Result<(), WaitError> {
        if ticket.stream != self.stream {
            return Err(self.stale(ticket));
        }
        // Through memory one look mostly is enough.
        if level <= Level::Visible && self.complete_plainly().is_some_and(|acked| acked >= ticket.sequence) {
            return Ok(());
        }
        let (within, at) = deadline.into_parts();
        self.wait_long(ticket.sequence, level, within, at)
    }

    /// Whether the ticket is of this lane, and not of before a reconnection.
    #[must_use]
    pub fn is_own(&self, ticket: Ticket) -> bool {
        ticket.stream == self.stream
    }

    #[inline(never)]
    fn wait_long(
        &mut self,
        target: Sequence,
        level: Level,
        within: Duration,
        at: Option<Instant>,
    ) -> Result<(), WaitError> {
        self.reach(target, level, &mut Deadline::from_parts(within, at))
    }

    /// The plain way, when everything posted is complete as of now, and visible: up to which store. `None` says nothing;
    /// on media without that way it always comes, after a fence.
    #[inline(always)]
    pub(in crate::mirror) fn complete_plainly(&mut self) -> Option<Sequence> {
        self.way.complete().then(|| self.marks.acknowledge_posted())
    }

    /// Shares the lane among threads: see [`SharedLane`].
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn into_shared(self) -> std::io::Result<SharedLane> {
        SharedLane::new(self)
    }

    #[cold]
    pub(in crate::mirror) fn stale(&self, ticket: Ticket) -> WaitError {
        WaitError::StaleTicket {
            sequence: ticket.sequence,
            lane: ticket.stream.lane(),
            session: ticket.stream.session(),
            this_lane: self.stream.lane(),
            this_session: self.stream.session(),
        }
    }

    pub(super) fn reach(
        &mut self,
        target: Sequence,
        level: Level,
        deadline: &mut Deadline,
    ) -> Result<(), WaitError> {
        if self.marks.at(level) >= target {
            return Ok(());
        }
        if level == Level::Durable {
            return self.reach_durable(target, false, deadline);
        }
        let mut pause = Pause::default();
        loop {
            self.advance(level)?;
            if self.marks.at(level) >= target {
                return Ok(());
            }
            if !self.pause(&mut pause, deadline) {
                return Err(WaitError::Deadline { level, wanted: target, reached: self.marks.at(level) });
            }
        }
    }

    /// One step towards `level` for everything taken so far.
    #[inline]
    pub(in crate::mirror) fn advance(&mut self, level: Level) -> Result<(), WaitError> {
        if self.core.lost() {
            return Err(self.wait_lost());
        }
        let gone = (self.rung, self.flush_posted);
        self.push_out(level >= Level::Visible && !self.capabilities().visible_on_completion);
        if (self.rung, self.flush_posted) != gone && !self.capabilities().one_sided {
            // What answers it is a round trip away, and a look is a system call: the next step looks, or the sleep ends at
            // once. Elsewhere a look costs less than to be woken for what a device that is near has done already.
            return Ok(());
        }
        self.reap().map_err(|error| self.wait_failed(error))
    }

    /// Posts what is open and makes everything posted go, with a completion to come for it. With `flush` that is the
    /// completion of a flush behind it, in the same doorbell, which tells of the writes too.
    #[inline]
    pub(super) fn push_out(&mut self, flush: bool) {
        if self.at_once() && !self.has_open {
            return;
        }
        if self.has_open && !self.close(!flush) {
            // No room: what was posted must go for room to come, and then there may be some at once.
            self.ring();
            if self.core.lost() || !self.close(!flush) {
                return;
            }
        }
        let posted = self.marks.posted();
        let (told, operation, mark) = if flush {
            (self.flush_posted, Operation::Flush, FLUSH)
        } else {
            (self.signaled, Operation::Write, 0)
        };
        if told < posted && self.post(operation, mark | posted.0, 0, 0, true) {
            self.signaled = posted;
            if flush {
                self.flush_posted = posted;
            }
            self.ring();
        } else if self.rung < posted {
            self.ring();
        }
    }

    /// Takes all completions there are.
    #[inline]
    pub(super) fn reap(&mut self) -> Result<(), QueueError> {
        if self.has_way && self.complete_plainly().is_some() {
            return Ok(());
        }
        while self.completions_come() {
            let Some(completion) = self.queue.poll()? else { break };
            self.note_completion(completion);
        }
        Ok(())
    }

    /// Whether anything that was posted is not known to be complete.
    #[inline]
    fn completions_come(&self) -> bool {
        self.marks.acked() < self.marks.posted()
            || self.marks.visible() < self.flush_posted
            || self.fetch.is_under_way()
    }

    #[inline]
    pub(super) fn note_completion(&mut self, completion: Completion) {
        self.stats.completions += 1;
        let done = Sequence(completion.wr_id & !(FLUSH | FETCH));
        if completion.wr_id & FLUSH != 0 {
            self.marks.flush(done);
        } else {
            self.marks.acknowledge(done);
        }
        self.note_fetch(done, completion.wr_id & FETCH != 0);
        self.in_flight.retire(done);
    }

    /// [`reap`](Self::reap) after [`push_out`](Self::push_out).
    pub(super) fn push_out_and_reap(&mut self) -> Result<(), QueueError> {
        self.push_out(false);
        self.reap()
    }

    /// The window is full: looks once whether it still is.
    pub(super) fn make_room(&mut self) -> Result<(), StoreError> {
        self.push_out_and_reap().map_err(|error| self.store_failed(error))?;
        if self.marks.in_flight() >= self.config.depth { Err(self.would_block()) } else { Ok(()) }
    }

    /// Waits until something completed, so that an admission is worth another try; `quiet`: of one that nothing in
    /// flight may share a byte of `range` with.
    pub(super) fn wait_for_room(
        &mut self,
        range: ByteRange,
        quiet: bool,
        deadline: &mut Deadline,
    ) -> Result<(), StoreError> {
        let acked = self.marks.acked();
        let mut pause = Pause::default();
        loop {
            if self.core.lost() {
                return Err(self.store_lost());
            }
            self.push_out_and_reap().map_err(|error| self.store_failed(error))?;
            let room = !self.has_open && self.marks.in_flight() < self.config.depth;
            if self.marks.acked() > acked || (room && !(quiet && self.overlaps(range))) {
                return Ok(());
            }
            if !self.pause(&mut pause, deadline) {
                let in_flight = self.marks.in_flight();
                return Err(StoreError::Timeout { waited: self.config.store_timeout, in_flight });
            }
        }
    }

    /// Passes the time until the next poll; `false` when the deadline has passed.
    pub(super) fn pause(&mut self, pause: &mut Pause, deadline: &mut Deadline) -> bool {
        pause.spins = pause.spins.wrapping_add(1);
        let sleeps = match self.config.polling {
            Polling::Spin => false,
            Polling::Block => true,
            Polling::Adaptive(spin) => {
                pause.spins.is_multiple_of(SPINS_PER_CLOCK)
                    && pause.began.get_or_insert_with(Instant::now).elapsed() >= spin
            }
        };
        if !sleeps {
            std::hint::spin_loop();
            return !pause.spins.is_multiple_of(SPINS_PER_CLOCK) || deadline.remaining().is_some();
        }
        let Some(left) = deadline.remaining() else { return false };
        match self.queue.arm() {
            Ok(Armed::PollAgain) => true,
            Ok(Armed::Sleep) => {
                self.stats.sleeps += 1;
                self.sleep(left);
                true
            }
            Err(error) => {
                self.fail(error);
                true
            }
        }
    }

    fn sleep(&self, most: Duration) {
        let wake = self.core.wake_fd();
        let Some(event) = self.queue.event_fd() else {
            // Media without an event complete while they are polled.
            std::thread::yield_now();
            return;
        };
        sleep_on(event, self.queue.wants_write(), wake, most);
    }

    /// A descriptor of the queue's event, to sleep on while others have the lane; `None` where the medium has
    /// none.
    pub(in crate::mirror) fn event(&self) -> std::io::Result<Option<OwnedFd>> {
        self.queue.event_fd().map(|event| event.try_clone_to_owned()).transpose()
    }

    #[cold]
    pub(in crate::mirror) fn wait_lost(&self) -> WaitError {
        let reason = self.core.lost_reason().unwrap_or(LostReason::Closed);
        WaitError::LinkLost { reason, acked: self.marks.acked(), last: self.marks.last() }
    }

    #[cold]
    pub(in crate::mirror) fn wait_failed(&mut self, error: QueueError) -> WaitError {
        self.fail(error);
        self.wait_lost()
    }

    #[cold]
    pub(super) fn store_failed(&mut self, error: QueueError) -> StoreError {
        self.fail(error);
        self.store_lost()
    }
}

/// Sleeps until `event` or `wake` is ready, for `most` at most; whether `wake` is.
pub(in crate::mirror) fn sleep_on(
    event: std::os::fd::BorrowedFd<'_>,
    wants_write: bool,
    wake: std::os::fd::BorrowedFd<'_>,
    most: Duration,
) -> bool {
    let flags = if wants_write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut fds = [PollFd::from_borrowed_fd(event, flags), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(most.subsec_nanos()),
    };
    // An interrupted or failed sleep is a short one: the caller polls again and looks at its deadline.
    let _ = rustix::event::poll(&mut fds, Some(&timeout));
    !fds[1].revents().is_empty()
}
