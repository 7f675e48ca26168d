//! Where a thread sleeps until something comes for a lane that several threads use, each under a lock of their own.
//!
//! [`SharedLane`](super::SharedLane) has such a place inside; this one is for an owner that has more than the lane under its lock.
//!
//! ```text
//!  under the lock: reap ─▶ not there yet? ─▶ watch, arm ─▶ [ lock released ] ─▶ sleep ─▶ lock, reap …
//!  who else reaps, under the lock: reap ─▶ something came? ─▶ note
//! ```
//!
//! One thread watches at a time: the event of a queue is taken away by whoever looks. The others wait for that one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::sleeper::Sleeper;
use super::{Lane, WaitError};
use crate::base::sync::{AtomicBool, AtomicU64, Ordering};
use crate::fabric::Armed;

/// The place.
#[derive(Debug)]
pub(crate) struct Arrivals {
    event: OwnedFd,
    sleeper: Sleeper,
    /// How often something came.
    count: AtomicU64,
    is_watched: AtomicBool,
}

impl Arrivals {
    /// For a lane as it is: a reconnection takes another. `None` where the medium has no event.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub(crate) fn of(lane: &Lane) -> io::Result<Option<Self>> {
        let Some(event) = lane.event()? else { return Ok(None) };
        Ok(Some(Self {
            event,
            sleeper: Sleeper::new(lane.core.wake_fd())?,
            count: AtomicU64::new(0),
            is_watched: AtomicBool::new(false),
        }))
    }

    /// Something came and was reaped: the one who sleeps has to look.
    pub(crate) fn note(&self) {
        self.count.fetch_add(1, Ordering::Release);
        self.sleeper.wake();
    }

    /// To be called under the owner's lock, after a look; `None` while another watches.
    pub(crate) fn watch(self: &Arc<Self>) -> Option<Watch> {
        if self.is_watched.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(Watch {
            seen: self.count.load(Ordering::Acquire),
            arrivals: Arc::clone(self),
            wants_write: false,
        })
    }
}

impl Lane {
    /// Prepares for a sleep at its [`Arrivals`], after a poll.
    ///
    /// # Errors
    /// The link is lost.
    pub(crate) fn arm(&mut self) -> Result<Armed, WaitError> {
        if self.core.lost() {
            return Err(self.wait_lost());
        }
        self.queue.arm().map_err(|error| self.wait_failed(error))
    }

    /// Whether bytes wait for room in the medium.
    pub(crate) fn wants_write(&self) -> bool {
        self.queue.wants_write()
    }
}

/// One who watches, from the look on.
#[derive(Debug)]
#[must_use = "sleep, without the lock"]
pub(crate) struct Watch {
    arrivals: Arc<Arrivals>,
    seen: u64,
    /// Whether the queue has bytes that wait for room in the medium.
    pub(crate) wants_write: bool,
}

impl Watch {
    /// Sleeps until something came since the look, the link is lost, or `most` has passed. The queue must have been armed since the look.
    pub(crate) fn sleep(self, most: Duration) {
        let Arrivals { event, sleeper, count, .. } = &*self.arrivals;
        sleeper.sleep(event.as_fd(), self.wants_write, most, || count.load(Ordering::Acquire) != self.seen);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.arrivals.is_watched.store(false, Ordering::Release);
    }
}

#[cfg(all(test, not(loom), not(miri)))]
#[path = "arrivals_tests.rs"]
mod tests;
