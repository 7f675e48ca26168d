//! The contract that every medium fulfils: one-sided writes and reads into windows that a peer granted.
//!
//! ```text
//!  requester                                     responder
//!  Lane ── WorkRequest ──▶ Queue ══ medium ══▶ ExportedWindow ──▶ Mapping
//!       ◀── Completion ───
//! ```
//!
//! A side may be requester and responder at once, over queues of their own: windows are granted both ways.
//! The contract has the shape of an RDMA reliable connection, because that is the medium it is meant for:
//!
//! * [`Queue::post`] hands work requests over in order and says how many were taken; [`Queue::doorbell`] makes
//!   what was posted go; [`Queue::poll`] reaps completions. None of them blocks, none reads a clock.
//! * Completions are selective. A success completion means that *every* request posted before it on this queue
//!   completed, signaled or not.
//! * Requests take effect at the responder in post order. Nothing is ordered across queues.
//! * The first error is the cause and is final: all requests in flight fail together and every later call
//!   returns the same error. A queue is never revived; another is made.
//! * Nothing a queue carries touches a window that was not granted, or was revoked: see [`ExportedWindow`].

mod capability;
mod error;
#[allow(unsafe_code, reason = "a provider maps its peer's memory and speaks to the kernel")]
pub mod shm;
pub mod tcp;
#[cfg(feature = "rdma")]
#[allow(unsafe_code, reason = "a provider speaks to the device through the C libraries")]
pub mod verbs;
mod window;
mod work;

pub use capability::{Capabilities, SourceUse, check_built};
pub use error::QueueError;
pub use window::{Access, ExportedWindow, Grant, WindowGuard, WindowId};
pub use work::{Completion, Operation, WorkRequest};

use std::os::fd::BorrowedFd;

/// Whether a caller may sleep on the event descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Armed {
    /// The descriptor becomes readable at the next completion or failure.
    Sleep,
    /// There may be something already: poll again before sleeping.
    PollAgain,
}

/// One ordered stream of work requests to a peer. Used by one thread at a time.
pub trait Queue: Send {
    /// What this medium gives, with its limits.
    fn capabilities(&self) -> &Capabilities;

    /// Takes requests in order; returns how many. Fewer than given means the queue is full: poll, then post the rest.
    ///
    /// What was taken may go at once or wait for [`doorbell`](Self::doorbell). Whether the source memory may change
    /// afterwards is [`Capabilities::source`].
    ///
    /// # Errors
    /// The queue has failed, or a request lies outside the local mapping or its grant (nothing is taken then).
    fn post(&mut self, requests: &[WorkRequest]) -> Result<usize, QueueError>;

    /// The shortest way to mirror a store, on media whose post is a copy and whose completion is a look at memory, as long
    /// as the queue reaches one window only. What goes that way is in no order with requests that are posted and not
    /// complete.
    fn plain_way(&self) -> Option<shm::PlainWay> {
        None
    }

    /// Makes what was posted go. Once per batch.
    ///
    /// # Errors
    /// The queue has failed.
    fn doorbell(&mut self) -> Result<(), QueueError>;

    /// The next completion, if there is one. Also pushes out what the medium could not take earlier.
    ///
    /// # Errors
    /// The queue has failed: everything not yet completed has an unknown outcome.
    fn poll(&mut self) -> Result<Option<Completion>, QueueError>;

    /// How many requests can still be posted before completions must be reaped.
    fn free_slots(&self) -> usize;

    /// Prepares to sleep on [`event_fd`](Self::event_fd).
    ///
    /// # Errors
    /// The queue has failed.
    fn arm(&mut self) -> Result<Armed, QueueError>;

    /// System calls that this queue has made so far, where the medium counts them.
    fn syscalls(&self) -> Option<u64> {
        None
    }

    /// What to sleep on, for `POLLIN` (and `POLLOUT` when [`wants_write`](Self::wants_write)); `None` when completions
    /// never need a sleep on this medium.
    fn event_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Whether bytes wait for room in the medium.
    fn wants_write(&self) -> bool {
        false
    }
}
