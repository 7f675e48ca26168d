//! The sleep of the thread that leads, and how another ends it.
//!
//! A leader sleeps on the queue's event without the lane's lock. Whoever takes the lock meanwhile and reaps also takes
//! the event away: the leader would sleep on, although what it waits for is there. So whoever reaped wakes it.
//!
//! ```text
//!  leader                            whoever reaped
//!  1. say that it sleeps             a. publish the watermarks
//!  2. full fence                     b. full fence
//!  3. look at the watermarks         c. does it sleep? wake it
//!     not reached → sleep
//! ```
//!
//! Of two full fences one comes first: either 3 sees the watermarks, or c sees the sleeper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use super::lane::sleep_on;
use crate::base::sync::{AtomicBool, Ordering, fence};

/// The place where the leader of a lane sleeps.
#[derive(Debug)]
pub(super) struct Sleeper {
    asleep: AtomicBool,
    wake: OwnedFd,
    /// Readable when `wake` or the link's event is.
    either: OwnedFd,
}

impl Sleeper {
    /// One that `lost`, the event of a lost link, wakes too.
    pub(super) fn new(lost: BorrowedFd<'_>) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let either = epoll::create(CreateFlags::CLOEXEC)?;
        for event in [wake.as_fd(), lost] {
            epoll::add(&either, event, EventData::new_u64(0), EventFlags::IN)?;
        }
        Ok(Self { asleep: AtomicBool::new(false), wake, either })
    }

    /// Sleeps until `event` comes, the link is lost, somebody wakes, or `most` has passed; not at all when `reached`.
    pub(super) fn sleep(
        &self,
        event: BorrowedFd<'_>,
        wants_write: bool,
        most: Duration,
        reached: impl FnOnce() -> bool,
    ) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let is_woken = !reached() && sleep_on(event, wants_write, self.either.as_fd(), most);
        self.asleep.store(false, Ordering::Relaxed);
        // What is written from now on ends the next sleep early, and is taken then.
        if is_woken {
            let mut counter = [0; 8];
            let _ = rustix::io::read(&self.wake, &mut counter);
        }
    }

    /// After the watermarks were published: ends the sleep, if somebody sleeps.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            // The counter cannot overflow: the sleeper takes it.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}
