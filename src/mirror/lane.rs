//! The exclusive lane: stores, in order, without a lock and without a locked instruction.
//!
//! ```text
//!            try_store                close                 doorbell            completion
//!  (nothing) ─────────▶ open run ─────────────▶ in flight ────────────▶ (moves) ───────────▶ (retired)
//!                        ▲     │ a store that continues it joins
//!                        └─────┘
//! ```
//!
//! At most one run is open. It is closed, that is handed to the queue, before any store that does not simply
//! continue it touches the local memory; so what the queue reads is what was stored, and coalescing never moves
//! bytes across a store in between. On media where a post costs no more than the copy, each store is posted at once.

use std::sync::Arc;
use std::time::Duration;

use super::window::{InFlight, Run};
use super::{ByteRange, Hole, LaneStats, LostReason, RegionCore, StoreError, Ticket, Unknown, Watermarks};
use crate::base::{Deadline, Sequence};
use crate::fabric::{Capabilities, Operation, Queue, QueueError, SourceUse, WindowId, WorkRequest};

/// How a waiting lane waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polling {
    /// Keeps a processor busy: the shortest latency.
    Spin,
    /// Sleeps at once.
    Block,
    /// Spins for this long, then sleeps.
    Adaptive(Duration),
}

/// How a lane is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneConfig {
    /// Stores in flight at most: 1 to [`Lane::DEPTH_MAX`].
    pub depth: usize,
    /// How it waits.
    pub polling: Polling,
    /// How long [`Lane::store`] waits for room.
    pub store_timeout: Duration,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            depth: 256,
            polling: Polling::Adaptive(Duration::from_micros(50)),
            store_timeout: Duration::from_secs(10),
        }
    }
}

/// An ordered stream of stores into a region. Used by one thread at a time; see
/// [`into_shared`](Lane::into_shared) for more.
pub struct Lane {
    pub(super) core: Arc<RegionCore>,
    pub(super) queue: Box<dyn Queue>,
    pub(super) config: LaneConfig,
    pub(super) id: u32,
    pub(super) session: u32,
    /// The peer's window that mirrors the region.
    window: WindowId,
    capabilities: Capabilities,
    pub(super) marks: Watermarks,
    /// The open run; meaningful while `has_open`.
    open: Run,
    has_open: bool,
    /// Bytes of the open run already handed to the queue. A run partly handed over takes no more stores.
    open_posted: usize,
    pub(super) in_flight: InFlight,
    /// Stores that start a batch on their own: a quarter of the depth, so that four batches are under way.
    batch: u64,
    /// The last store of which a completion was asked for.
    pub(super) signaled: Sequence,
    /// The last store before the last doorbell.
    pub(super) rung: Sequence,
    /// Requests posted since the last signaled one, and how many are allowed: unsignaled requests hold their places
    /// in the queue until a later signaled one completes.
    unsignaled: usize,
    unsignaled_max: usize,
    /// The last store that a posted flush covers, for media where a completion is not yet visibility.
    pub(super) flush_posted: Sequence,
    holes: Vec<ByteRange>,
    pub(super) stats: LaneStats,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("id", &self.id)
            .field("session", &self.session)
            .field("marks", &self.marks)
            .finish()
    }
}

impl Lane {
    /// Most stores in flight.
    pub const DEPTH_MAX: usize = 4096;

    /// A lane over `queue`, whose peer grants `window` for the region.
    ///
    /// # Panics
    /// When `config.depth` is 0 or above [`DEPTH_MAX`](Self::DEPTH_MAX).
    #[must_use]
    pub fn new(core: Arc<RegionCore>, queue: Box<dyn Queue>, window: WindowId, config: LaneConfig) -> Self {
        assert!(
            (1..=Self::DEPTH_MAX).contains(&config.depth),
            "a lane's depth is 1 to 4096, not {}",
            config.depth
        );
        let capabilities = queue.capabilities().clone();
        Self {
            id: core.enter_lane(),
            core,
            config,
            session: 1,
            window,
            marks: Watermarks::default(),
            open: Run::default(),
            has_open: false,
            open_posted: 0,
            in_flight: InFlight::new(config.depth + 1),
            batch: (config.depth as u64 / 4).max(1),
            signaled: Sequence(0),
            rung: Sequence(0),
            unsignaled: 0,
            unsignaled_max: (capabilities.depth_max / 4).max(1),
            flush_posted: Sequence(0),
            holes: Vec::with_capacity(super::hole::HOLES_MAX),
            stats: LaneStats { sessions: 1, ..LaneStats::default() },
            capabilities,
            queue,
        }
    }

    /// What the medium gives.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// How it was made.
    #[must_use]
    pub const fn config(&self) -> LaneConfig {
        self.config
    }

    /// How far the stores have come, as of the last call that looked.
    #[inline]
    #[must_use]
    pub const fn watermarks(&self) -> Watermarks {
        self.marks
    }

    /// Counts of what it did.
    #[must_use]
    pub const fn stats(&self) -> LaneStats {
        self.stats
    }

    /// Stores `data` at `offset` in the local memory and queues it for the peer. Never waits.
    ///
    /// On return the local copy has the bytes; the peer has them when the ticket's level says so. What was taken goes
    /// to the peer by itself once a quarter of the depth has gathered; `poll`, `flush` and `wait` send the rest.
    ///
    /// # Errors
    /// Nothing was stored, on neither side; [`StoreError::WouldBlock`] when the window is full.
    #[inline]
    pub fn try_store(&mut self, offset: usize, data: &[u8]) -> Result<Ticket, StoreError> {
        self.admit(offset, data.len())?;
        self.core.memory().slice().write(offset, data);
        Ok(self.append(offset, data.len()))
    }

    /// [`try_store`](Self::try_store) that waits for room, at most [`LaneConfig::store_timeout`].
    ///
    /// # Errors
    /// Nothing was stored, on neither side.
    #[inline]
    pub fn store(&mut self, offset: usize, data: &[u8]) -> Result<Ticket, StoreError> {
        self.admit_waiting(offset, data.len())?;
        self.core.memory().slice().write(offset, data);
        Ok(self.append(offset, data.len()))
    }

    /// Stores `parts`, one behind the other, as one store. Waits for room like [`store`](Self::store).
    ///
    /// # Errors
    /// Nothing was stored, on neither side.
    pub fn store_v(&mut self, offset: usize, parts: &[&[u8]]) -> Result<Ticket, StoreError> {
        let size = self.core.memory().len();
        let len = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.len()));
        let len = len.ok_or(StoreError::OutOfRange { offset, len: usize::MAX, size })?;
        self.admit_waiting(offset, len)?;
        let mut at = offset;
        for part in parts {
            self.core.memory().slice().write(at, part);
            at += part.len();
        }
        Ok(self.append(offset, len))
    }

    /// Reserves a range to be filled in place: see [`Hole`]. Waits for room like [`store`](Self::store), since the
    /// range must not be the source of a request.
    ///
    /// # Errors
    /// Nothing was reserved.
    pub fn reserve(&mut self, offset: usize, len: usize) -> Result<Hole, StoreError> {
        if self.holes.len() == super::hole::HOLES_MAX {
            return Err(StoreError::TooManyHoles(self.holes.len()));
        }
        self.admit_waiting(offset, len)?;
        let mut deadline = Deadline::within(self.config.store_timeout);
        // The application writes the range from now on, whatever else this lane does: nothing may still read it.
        while self.has_open && !self.close(false) {
            self.wait_for_room(&mut deadline)?;
        }
        let range = ByteRange { offset, len };
        self.holes.push(range);
        Ok(Hole { lane: self.id, range, memory: self.core.memory().clone() })
    }

    /// Ends a hole: what it holds now is a store.
    ///
    /// # Errors
    /// When there is no room in time or the link is lost; the range is no longer reserved, and after a reconnection
    /// both copies agree on it.
    pub fn seal(&mut self, hole: Hole) -> Result<Ticket, StoreError> {
        let ByteRange { offset, len } = hole.range;
        let place = self.holes.iter().position(|range| *range == hole.range && hole.lane == self.id);
        self.holes.swap_remove(place.ok_or(StoreError::StrangeHole)?);
        match self.admit_waiting(offset, len) {
            Ok(()) => Ok(self.append(offset, len)),
            Err(error) => {
                // The local memory has changed under no store's name: let the reconnection carry it.
                self.core.leave_orphans(vec![hole.range]);
                if !self.core.lost() {
                    self.core.lose(LostReason::Control(format!("a sealed hole found no room: {error}")));
                }
                Err(error)
            }
        }
    }

    /// Ends a hole that was not filled, or only in part: its bytes mean nothing but are equal on both sides.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub fn void(&mut self, hole: Hole) -> Result<Ticket, StoreError> {
        self.seal(hole)
    }

    /// The range of every hole that is neither sealed nor void.
    #[must_use]
    pub fn open_holes(&self) -> &[ByteRange] {
        &self.holes
    }

    /// What is known of the stores: everything to `acked` is at the peer; the ranges after it may be. Complete in
    /// itself only after the link was lost; reconnecting re-sends the ranges.
    #[must_use]
    pub fn unknown(&self) -> Unknown {
        let mut ranges = self.in_flight.ranges();
        if self.has_open {
            ranges.push(ByteRange { offset: self.open.offset, len: self.open.len });
        }
        super::merge_ranges(&mut ranges);
        Unknown { acked: self.marks.acked, last: self.marks.last, ranges }
    }

    /// Goes on over a new queue, after the ranges in [`unknown`](Self::unknown) were placed at the peer: everything
    /// taken so far is acknowledged then. Tickets from before are stale.
    pub fn resume(&mut self, queue: Box<dyn Queue>, window: WindowId) {
        self.capabilities = queue.capabilities().clone();
        self.queue = queue;
        self.window = window;
        self.session += 1;
        self.stats.sessions += 1;
        self.in_flight.clear();
        self.has_open = false;
        self.open_posted = 0;
        self.unsignaled = 0;
        let last = self.marks.last;
        self.marks =
            Watermarks { last, posted: last, acked: last, visible: last, durable: self.marks.durable };
        self.signaled = last;
        self.rung = last;
        self.flush_posted = last;
    }

    /// Whether a store may be taken now; makes room for it in the order of things.
    #[inline]
    fn admit(&mut self, offset: usize, len: usize) -> Result<(), StoreError> {
        let size = self.core.memory().len();
        if len > size || offset > size - len {
            return Err(StoreError::OutOfRange { offset, len, size });
        }
        if self.core.lost() {
            return Err(self.store_lost());
        }
        if !self.holes.is_empty() {
            self.check_holes(offset, len)?;
        }
        if self.marks.in_flight() >= self.config.depth {
            self.make_room()?;
        }
        let continues = self.has_open
            && self.open_posted == 0
            && offset == self.open.offset + self.open.len
            && self.open.len + len <= self.capabilities.coalesce_bytes_max;
        if self.has_open && !continues && !self.close(false) {
            return Err(self.would_block());
        }
        if self.capabilities.source == SourceUse::UntilCompleted && self.in_flight.overlaps(offset, len) {
            self.push_out_and_reap().map_err(|error| self.store_failed(error))?;
            if self.in_flight.overlaps(offset, len) {
                return Err(self.would_block());
            }
        }
        Ok(())
    }

    #[inline]
    fn admit_waiting(&mut self, offset: usize, len: usize) -> Result<(), StoreError> {
        match self.admit(offset, len) {
            Err(StoreError::WouldBlock { .. }) => {}
            other => return other,
        }
        let mut deadline = Deadline::within(self.config.store_timeout);
        loop {
            self.wait_for_room(&mut deadline)?;
            match self.admit(offset, len) {
                Err(StoreError::WouldBlock { .. }) => {}
                other => return other,
            }
        }
    }

    #[cold]
    fn check_holes(&self, offset: usize, len: usize) -> Result<(), StoreError> {
        let overlaps = |hole: &&ByteRange| hole.offset < offset + len && offset < hole.offset + hole.len;
        self.holes.iter().find(overlaps).map_or(Ok(()), |hole| {
            Err(StoreError::OpenHole { offset, len, hole_offset: hole.offset, hole_len: hole.len })
        })
    }

    /// Gives the store its place, and lets a full batch go.
    #[inline]
    fn append(&mut self, offset: usize, len: usize) -> Ticket {
        self.marks.last.0 += 1;
        self.stats.stores += 1;
        self.stats.bytes += len as u64;
        if self.has_open {
            self.open.len += len;
            self.open.end = self.marks.last;
            self.stats.coalesced += 1;
        } else {
            self.open = Run { end: self.marks.last, offset, len };
            self.open_posted = 0;
            self.has_open = true;
        }
        if self.capabilities.coalesce_bytes_max == 0 {
            self.close(true);
        } else if self.marks.last.0 - self.rung.0 >= self.batch && self.close(true) {
            self.ring();
        }
        Ticket { lane: self.id, session: self.session, sequence: self.marks.last }
    }

    /// Hands the open run to the queue; `false` when the queue took only part of it or failed, which the caller sees
    /// by `core.lost()`.
    #[inline]
    pub(super) fn close(&mut self, signaled: bool) -> bool {
        debug_assert!(self.has_open);
        loop {
            let rest = self.open.len - self.open_posted;
            let len = rest.min(self.capabilities.message_bytes_max);
            let ends = len == rest;
            // A request in the middle of a run completes all stores before the run.
            let wr_id = if ends { self.open.end.0 } else { self.marks.posted.0 };
            let signal = (signaled && ends) || self.unsignaled >= self.unsignaled_max;
            let offset = self.open.offset + self.open_posted;
            if !self.post(Operation::Write, wr_id, offset, len, signal) {
                return false;
            }
            self.open_posted += len;
            if ends {
                if signal {
                    self.signaled = self.open.end;
                }
                break;
            }
        }
        self.in_flight.push(self.open);
        self.marks.posted = self.open.end;
        self.has_open = false;
        true
    }

    pub(super) fn post(
        &mut self,
        operation: Operation,
        wr_id: u64,
        offset: usize,
        len: usize,
        signaled: bool,
    ) -> bool {
        let request = WorkRequest {
            wr_id,
            operation,
            window: self.window,
            local_offset: offset,
            remote_offset: offset,
            len,
            signaled,
        };
        match self.queue.post(std::slice::from_ref(&request)) {
            Ok(1) => {
                self.stats.requests += 1;
                self.stats.signaled += u64::from(signaled);
                self.unsignaled = if signaled { 0 } else { self.unsignaled + 1 };
                true
            }
            Ok(_) => false,
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    pub(super) fn ring(&mut self) {
        self.rung = self.marks.posted;
        self.stats.doorbells += 1;
        if let Err(error) = self.queue.doorbell() {
            self.fail(error);
        }
    }

    /// Whether a run is open.
    #[inline]
    pub(super) const fn has_open(&self) -> bool {
        self.has_open
    }

    #[cold]
    pub(super) fn fail(&mut self, error: QueueError) {
        self.core.lose(match error {
            QueueError::Revoked { .. } => LostReason::Revoked(error.to_string()),
            other => LostReason::Queue(other),
        });
    }

    #[cold]
    pub(super) fn would_block(&mut self) -> StoreError {
        if self.core.lost() {
            return self.store_lost();
        }
        self.stats.would_block += 1;
        StoreError::WouldBlock { in_flight: self.marks.in_flight() }
    }

    #[cold]
    pub(super) fn store_lost(&self) -> StoreError {
        let reason = self.core.lost_reason().unwrap_or(LostReason::Closed);
        StoreError::LinkLost { reason, acked: self.marks.acked, last: self.marks.last }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let unknown = self.unknown();
        let mut ranges = unknown.ranges;
        ranges.extend_from_slice(&self.holes);
        if !ranges.is_empty() {
            self.core.leave_orphans(ranges);
        }
        self.core.leave_lane();
    }
}
