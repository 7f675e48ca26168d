//! One-sided looks at words that the peer writes into its own copy.
//!
//! A fetch brings a few aligned words of the peer's copy to the same place of the local memory. They are the peer's words:
//! this side stores to none of them, so neither the prefix rule nor an unknown range has to do with them.
//!
//! ```text
//!  idle ── try_fetch ──▶ wanted ── posted ──▶ under way ── completed ──▶ idle
//!                          ▲                      │ a new queue
//!                          └──────────────────────┘
//! ```
//!
//! Through memory a fetch is a load of each word and a look at the grant behind it, and is done at once. On the other
//! media it is a read request with a completion of its own. Behind the writes of the lane it is one more request in the
//! same order; so its completion also says that those are acknowledged, as that of any request does. It waits for no
//! store, and no store waits for it.

use super::wait::{FETCH, Pause};
use super::{ByteRange, Lane};
use crate::base::{Deadline, Sequence};
use crate::fabric::Operation;
use crate::memory::FEW_WORDS_BYTES_MAX;
use crate::mirror::{StoreError, WaitError};

/// Where the fetch of a lane stands; there is one at a time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fetch {
    /// None was asked for, or the last one is done.
    Idle,
    /// Asked for, and not posted to the present queue.
    Wanted(ByteRange),
    /// Posted.
    UnderWay {
        range: ByteRange,
        /// The last store that was posted before it, and the last that a flush posted before it covers.
        posted: Sequence,
        flushed: Sequence,
    },
}

impl Fetch {
    #[inline]
    pub(super) const fn is_under_way(&self) -> bool {
        matches!(self, Self::UnderWay { .. })
    }

    /// What becomes of it when the queue is replaced.
    pub(super) const fn again(self) -> Self {
        match self {
            Self::Idle => Self::Idle,
            Self::Wanted(range) | Self::UnderWay { range, .. } => Self::Wanted(range),
        }
    }
}

impl Lane {
    /// Most bytes of a fetch.
    pub const FETCH_BYTES_MAX: usize = FEW_WORDS_BYTES_MAX;

    /// Begins to bring `len` bytes at `offset` of the peer's copy to the same place of the local memory; both are
    /// multiples of 8. Never waits: [`fetch_done`](Self::fetch_done) tells when they are there. What comes was in the
    /// peer's copy at some moment after this call; each aligned word of 8 bytes is whole, over RDMA as far as the devices
    /// read and write it in one.
    ///
    /// The range belongs to the peer: store nothing there. See
    /// [`Holder::publish_word`](crate::node::Holder::publish_word).
    ///
    /// # Errors
    /// Nothing was begun; [`StoreError::WouldBlock`] when the medium has no room, or a fetch is under way.
    ///
    /// # Panics
    /// When the range is not of whole words, has more than [`FETCH_BYTES_MAX`](Self::FETCH_BYTES_MAX) bytes, or lies
    /// outside the region.
    pub fn try_fetch(&mut self, offset: usize, len: usize) -> Result<(), StoreError> {
        let size = self.core.memory().len();
        let words = offset.is_multiple_of(8) && len.is_multiple_of(8) && len <= Self::FETCH_BYTES_MAX;
        assert!(
            words,
            "a fetch is of at most {} bytes in aligned words, not of {len} at {offset}",
            Self::FETCH_BYTES_MAX
        );
        assert!(offset <= size && len <= size - offset, "a fetch of {len} bytes at {offset} of {size}");
        if self.core.lost() {
            return Err(self.store_lost());
        }
        if self.fetch.is_under_way() {
            self.reap().map_err(|error| self.store_failed(error))?;
        }
        if self.fetch.is_under_way() {
            return Err(self.would_block());
        }
        self.begin_fetch(ByteRange { offset, len });
        if matches!(self.fetch, Fetch::Wanted(_)) && !self.core.lost() {
            self.push_out_and_reap().map_err(|error| self.store_failed(error))?;
            self.begin_fetch(ByteRange { offset, len });
        }
        if matches!(self.fetch, Fetch::Wanted(_)) {
            self.fetch = Fetch::Idle;
            return Err(self.would_block());
        }
        Ok(())
    }

    /// Whether the last fetch that was begun is done, as of now. Never waits. One that a reconnection cut off is begun
    /// again here.
    ///
    /// # Errors
    /// [`WaitError::LinkLost`]: the local bytes are as they were, or as the peer's were.
    pub fn fetch_done(&mut self) -> Result<bool, WaitError> {
        if matches!(self.fetch, Fetch::Idle) {
            return Ok(true);
        }
        if self.core.lost() {
            return Err(self.wait_lost());
        }
        self.reap().map_err(|error| self.wait_failed(error))?;
        if let Fetch::Wanted(range) = self.fetch {
            self.begin_fetch(range);
            if self.core.lost() {
                return Err(self.wait_lost());
            }
        }
        Ok(matches!(self.fetch, Fetch::Idle))
    }

    /// [`try_fetch`](Self::try_fetch), waiting until it is done.
    ///
    /// # Errors
    /// [`WaitError::FetchDeadline`], after which it may be done yet, and [`WaitError::LinkLost`].
    ///
    /// # Panics
    /// As there.
    pub fn fetch(&mut self, offset: usize, len: usize, mut deadline: Deadline) -> Result<(), WaitError> {
        let mut pause = Pause::default();
        let mut begun = false;
        loop {
            // One that was begun before may have to end first.
            if self.fetch_done()? {
                if begun {
                    return Ok(());
                }
                match self.try_fetch(offset, len) {
                    Ok(()) => {
                        begun = true;
                        continue;
                    }
                    Err(StoreError::WouldBlock { .. }) => {}
                    Err(_) => return Err(self.wait_lost()),
                }
            }
            if !self.pause(&mut pause, &mut deadline) {
                return Err(WaitError::FetchDeadline { offset, len });
            }
        }
    }

    /// Takes a fetch as far as it goes now. It stays wanted where there is no room, or the link is lost.
    fn begin_fetch(&mut self, range: ByteRange) {
        self.fetch = Fetch::Wanted(range);
        if self.has_way {
            if self.way.fetch(range.offset, range.len) {
                self.fetch = Fetch::Idle;
                return;
            }
            // The queue knows why.
            match self.queue.poll() {
                Ok(completion) => {
                    completion.into_iter().for_each(|completion| self.note_completion(completion))
                }
                Err(error) => self.fail(error),
            }
            return;
        }
        let posted = self.marks.posted();
        if self.post(Operation::Read, FETCH | posted.0, range.offset, range.len, true) {
            self.fetch = Fetch::UnderWay { range, posted, flushed: self.flush_posted };
            self.signaled = posted;
            self.ring();
        }
    }

    /// A completion came that says of every store to `done` that it is acknowledged; `own`: it is the fetch's. A request
    /// that was posted behind the fetch says as much of it.
    #[inline]
    pub(super) fn note_fetch(&mut self, done: Sequence, own: bool) {
        let Fetch::UnderWay { posted, flushed, .. } = self.fetch else { return };
        if own || done > posted {
            if !self.capabilities.visible_on_completion {
                self.marks.flush(flushed);
            }
            self.fetch = Fetch::Idle;
        }
    }
}
