//! The posting half of a lane: runs become work requests.

use super::Lane;
use crate::fabric::{Operation, QueueError, WorkRequest};
use crate::mirror::{LostReason, StoreError};

impl Lane {
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
            let wr_id = if ends { self.open.end.0 } else { self.marks.posted().0 };
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
        if !self.at_once() {
            self.in_flight.push(self.open);
        }
        self.marks.post(self.open.end);
        self.has_open = false;
        self.plan();
        true
    }

    /// One request to the queue, counted; `false` when it was not taken.
    pub(super) fn post(
        &mut self,
        operation: Operation,
        wr_id: u64,
        offset: usize,
        len: usize,
        signaled: bool,
    ) -> bool {
        let taken = self.hand_over(operation, wr_id, offset, len, signaled);
        if taken {
            self.stats.requests += 1;
            self.stats.signaled += u64::from(signaled);
            self.unsignaled = if signaled { 0 } else { self.unsignaled + 1 };
        }
        taken
    }

    #[inline]
    fn hand_over(
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
            Ok(taken) => taken == 1,
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    pub(super) fn ring(&mut self) {
        self.rung = self.marks.posted();
        self.stats.doorbells += 1;
        if let Err(error) = self.queue.doorbell() {
            self.fail(error);
        }
    }

    #[cold]
    pub(in crate::mirror) fn fail(&mut self, error: QueueError) {
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
    pub(in crate::mirror) fn store_lost(&self) -> StoreError {
        let reason = self.core.lost_reason().unwrap_or(LostReason::Closed);
        StoreError::LinkLost { reason, acked: self.marks.acked(), last: self.marks.last() }
    }
}
