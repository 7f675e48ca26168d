//! A queue of any medium, with the one that is worth inlining kept in sight of the compiler.
//!
//! Through shared memory a whole store costs less than a hundred instructions; a call through a table of functions,
//! with its request built in memory and its answer returned through memory, would be a good part of that, and each
//! such write waits in the processor's store buffer behind the very stores that are to be mirrored.

use std::os::fd::BorrowedFd;

use super::shm::{PlainWay, ShmQueue};
use super::{Armed, Capabilities, Completion, Queue, QueueError, WorkRequest};

/// A queue of some medium. The tag is a byte of its own: found by a comparison with a niche it would cost more.
#[repr(u8)]
pub enum AnyQueue {
    /// Memory that is mapped here.
    Shm(ShmQueue),
    /// Anything else.
    Other(Box<dyn Queue>),
}

macro_rules! delegate {
    ($self:ident, $queue:ident => $call:expr) => {
        match $self {
            AnyQueue::Shm($queue) => $call,
            AnyQueue::Other($queue) => $call,
        }
    };
}

impl Queue for AnyQueue {
    fn capabilities(&self) -> &Capabilities {
        delegate!(self, queue => queue.capabilities())
    }

    #[inline]
    fn post(&mut self, requests: &[WorkRequest]) -> Result<usize, QueueError> {
        delegate!(self, queue => queue.post(requests))
    }

    fn plain_way(&self) -> Option<PlainWay> {
        delegate!(self, queue => queue.plain_way())
    }

    #[inline]
    fn doorbell(&mut self) -> Result<(), QueueError> {
        delegate!(self, queue => queue.doorbell())
    }

    #[inline]
    fn poll(&mut self) -> Result<Option<Completion>, QueueError> {
        delegate!(self, queue => queue.poll())
    }

    fn free_slots(&self) -> usize {
        delegate!(self, queue => queue.free_slots())
    }

    fn arm(&mut self) -> Result<Armed, QueueError> {
        delegate!(self, queue => queue.arm())
    }

    fn syscalls(&self) -> Option<u64> {
        delegate!(self, queue => queue.syscalls())
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        delegate!(self, queue => queue.event_fd())
    }

    fn wants_write(&self) -> bool {
        delegate!(self, queue => queue.wants_write())
    }
}
