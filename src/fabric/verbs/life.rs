//! Whether a queue still lives, as seen by the thread that uses it and by the thread that watches the device.
//!
//! The first cause stays: what fails afterwards, such as the flushing of everything in flight, follows from it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::EventfdFlags;

use super::VerbsError;
use crate::fabric::QueueError;

/// Shared by a queue and its watch.
#[derive(Debug)]
pub(super) struct QueueLife {
    failed: AtomicBool,
    cause: Mutex<Option<QueueError>>,
    event: OwnedFd,
}

impl QueueLife {
    pub(super) fn new() -> Result<Self, VerbsError> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| VerbsError::system("eventfd", error))?;
        Ok(Self { failed: AtomicBool::new(false), cause: Mutex::new(None), event })
    }

    /// Readable once it failed.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Ends it, for this cause unless there was one before; returns the cause that counts.
    pub(super) fn fail(&self, cause: QueueError) -> QueueError {
        let mut slot = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = slot.get_or_insert(cause).clone();
        self.failed.store(true, Ordering::Release);
        // The counter cannot overflow: each queue has few reasons to fail.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        cause
    }

    /// # Errors
    /// The cause, when it failed.
    #[inline]
    pub(super) fn check(&self) -> Result<(), QueueError> {
        if self.failed.load(Ordering::Acquire) { Err(self.cause()) } else { Ok(()) }
    }

    #[cold]
    fn cause(&self) -> QueueError {
        let slot = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone().unwrap_or_else(|| unreachable!("the cause is there before the flag"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_stays() {
        let life = QueueLife::new().unwrap();
        assert_eq!(life.check(), Ok(()));
        let first = QueueError::PeerGone { why: "first".into() };
        assert_eq!(life.fail(first.clone()), first);
        assert_eq!(life.fail(QueueError::PeerGone { why: "second".into() }), first);
        assert_eq!(life.check(), Err(first));
    }
}
