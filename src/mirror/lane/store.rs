//! The taking half of a lane: a store is admitted, copied into the local memory and given its place.
//!
//! Most stores through shared memory go the plain way: one predicate, two copies, one entry in the ring of
//! recent stores, one count. It is kept free of everything else, since what is written besides waits in the processor's store buffer
//! behind the bytes to be mirrored.

use super::super::window::Run;
use super::super::{ByteRange, Hole, LostReason, StoreError, Ticket};
use super::Lane;
use crate::base::Deadline;
use crate::fabric::SourceUse;
use crate::mirror::hole::HOLES_MAX;

impl Lane {
    /// Stores `data` at `offset` in the local memory and queues it for the peer. Never waits.
    ///
    /// On return the local copy has the bytes; the peer has them when the ticket's level says so. What was taken goes
    /// to the peer by itself once half of the depth has gathered; `poll`, `flush` and `wait` send the rest.
    ///
    /// # Errors
    /// Nothing was stored, on neither side; [`StoreError::WouldBlock`] when the window is full.
    #[inline]
    pub fn try_store(&mut self, offset: usize, data: &[u8]) -> Result<Ticket, StoreError> {
        if let Some(ticket) = self.store_plainly(offset, data) {
            return Ok(ticket);
        }
        self.admit(offset, data.len())?;
        self.core.memory().slice().write(offset, data);
        Ok(self.append(offset, data.len()))
    }

    /// [`try_store`](Self::try_store) that waits for room, at most [`store_timeout`](super::LaneConfig::store_timeout).
    ///
    /// # Errors
    /// Nothing was stored, on neither side.
    #[inline]
    pub fn store(&mut self, offset: usize, data: &[u8]) -> Result<Ticket, StoreError> {
        if let Some(ticket) = self.store_plainly(offset, data) {
            return Ok(ticket);
        }
        self.store_waiting(offset, data)
    }

    #[inline(never)]
    fn store_waiting(&mut self, offset: usize, data: &[u8]) -> Result<Ticket, StoreError> {
        self.admit_waiting(offset, data.len())?;
        self.core.memory().slice().write(offset, data);
        Ok(self.append(offset, data.len()))
    }

    /// The plain way, when a store of this range needs nothing but its two copies: what `admit` would find out, in one
    /// look. `None` takes nothing.
    #[inline(always)]
    pub(in crate::mirror) fn store_plainly(&mut self, offset: usize, data: &[u8]) -> Option<Ticket> {
        let plain = self.marks.plain()?;
        if self.core.lost() || !self.way.store(offset, data) {
            return None;
        }
        let sequence = plain.sequence();
        self.recent.record(sequence, offset, data.len());
        plain.finish(&mut self.marks, data.len());
        Some(Ticket { stream: self.stream, sequence })
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

    /// Reserves a range to be filled in place: see [`Hole`]. Waits like [`store`](Self::store) for room, and on every
    /// medium until no store of this lane to the range is in flight: the medium may still read it, and a reconnection
    /// would send what the hole holds by then in that store's name.
    ///
    /// # Errors
    /// Nothing was reserved.
    pub fn reserve(&mut self, offset: usize, len: usize) -> Result<Hole, StoreError> {
        let mut deadline = Deadline::within(self.config.store_timeout);
        loop {
            match self.try_reserve(offset, len) {
                Err(StoreError::WouldBlock { .. }) => {
                    self.wait_for_room(ByteRange { offset, len }, true, &mut deadline)?;
                }
                other => return other,
            }
        }
    }

    /// [`reserve`](Self::reserve) that never waits.
    ///
    /// # Errors
    /// Nothing was reserved; [`StoreError::WouldBlock`] also while a store to the range is in flight.
    pub fn try_reserve(&mut self, offset: usize, len: usize) -> Result<Hole, StoreError> {
        if self.holes.len() == HOLES_MAX {
            return Err(StoreError::TooManyHoles(self.holes.len()));
        }
        self.admit(offset, len)?;
        let range = ByteRange { offset, len };
        self.quieten(range)?;
        self.holes.push(range);
        self.plan();
        Ok(Hole { lane: self.stream.lane(), range, memory: self.core.memory().clone() })
    }

    /// Ends a hole: what it holds now is a store.
    ///
    /// # Errors
    /// When there is no room in time or the link is lost; the range is no longer reserved, and after a reconnection
    /// both copies agree on it.
    pub fn seal(&mut self, hole: Hole) -> Result<Ticket, StoreError> {
        let ByteRange { offset, len } = hole.range;
        let place =
            self.holes.iter().position(|range| *range == hole.range && hole.lane == self.stream.lane());
        self.holes.swap_remove(place.ok_or(StoreError::StrangeHole)?);
        self.plan();
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

    /// Whether a store may be taken now; makes room for it in the order of things.
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
        if self.capabilities.source == SourceUse::UntilCompleted {
            self.quieten(ByteRange { offset, len })?;
        }
        Ok(())
    }

    /// Looks once whether no request in flight has bytes of `range`.
    fn quieten(&mut self, range: ByteRange) -> Result<(), StoreError> {
        if !self.overlaps(range) {
            return Ok(());
        }
        self.push_out_and_reap().map_err(|error| self.store_failed(error))?;
        if self.overlaps(range) { Err(self.would_block()) } else { Ok(()) }
    }

    fn admit_waiting(&mut self, offset: usize, len: usize) -> Result<(), StoreError> {
        match self.admit(offset, len) {
            Err(StoreError::WouldBlock { .. }) => {}
            other => return other,
        }
        let quiet = self.capabilities.source == SourceUse::UntilCompleted;
        let mut deadline = Deadline::within(self.config.store_timeout);
        loop {
            self.wait_for_room(ByteRange { offset, len }, quiet, &mut deadline)?;
            match self.admit(offset, len) {
                Err(StoreError::WouldBlock { .. }) => {}
                other => return other,
            }
        }
    }

    #[cold]
    fn check_holes(&self, offset: usize, len: usize) -> Result<(), StoreError> {
        let range = ByteRange { offset, len };
        self.holes.iter().find(|hole| hole.overlaps(range)).map_or(Ok(()), |hole| {
            Err(StoreError::OpenHole { offset, len, hole_offset: hole.offset, hole_len: hole.len })
        })
    }

    /// Gives the store its place, and lets a full batch go.
    fn append(&mut self, offset: usize, len: usize) -> Ticket {
        self.marks.take(len);
        let last = self.marks.last();
        if self.at_once() {
            self.recent.record(last, offset, len);
        }
        if self.has_open {
            self.open.len += len;
            self.open.end = last;
            self.stats.coalesced += 1;
        } else {
            self.open = Run { end: last, offset, len };
            self.open_posted = 0;
            self.has_open = true;
        }
        if self.at_once() {
            // One that finds no room stays open: `admit` posts it before the next.
            self.close(true);
            self.plan();
        } else if last.0 - self.rung.0 >= self.batch && self.close(true) {
            self.ring();
        }
        Ticket { stream: self.stream, sequence: last }
    }
}
