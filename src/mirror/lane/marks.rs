//! How far the stores of a lane have come, kept so that the commonest store writes as little as possible.
//!
//! What is counted per store (stores and their bytes) is one [`Pair`], and what an acknowledgment moves is another. The
//! other watermarks follow: `posted` is behind `last` by the stores that were not handed over, and on media where a
//! completion is visibility `visible` is `acked`. So a store that is handed over at once need not write `posted`, nor
//! its acknowledgment `visible`.

use crate::base::{Level, Sequence};
use crate::memory::Pair;
use crate::mirror::Watermarks;

/// The watermarks of one lane. Invariant: durable ≤ visible ≤ acked ≤ posted ≤ last.
#[derive(Debug)]
pub(super) struct Marks {
    /// Stores taken, and their bytes.
    taken: Pair,
    /// The last store acknowledged, and the last that may be taken plainly before another acknowledgment.
    acked_and_room: Pair,
    /// How many stores may be taken plainly without an acknowledgment, 0 where none may; and the stores taken and not
    /// handed over, which are the newest ones.
    plain_and_unposted: Pair,
    /// What flushes proved; counts only where a completion is not yet visibility.
    flushed: Sequence,
    visible_on_completion: bool,
    durable: Sequence,
}

impl Marks {
    /// No store yet.
    pub(super) fn new(visible_on_completion: bool) -> Self {
        Self {
            taken: Pair::new(0, 0),
            acked_and_room: Pair::new(0, 0),
            plain_and_unposted: Pair::new(0, 0),
            flushed: Sequence(0),
            visible_on_completion,
            durable: Sequence(0),
        }
    }

    #[inline(always)]
    pub(super) fn last(&self) -> Sequence {
        Sequence(self.taken.first())
    }

    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.taken.second()
    }

    #[inline(always)]
    pub(super) fn posted(&self) -> Sequence {
        Sequence(self.taken.first() - self.plain_and_unposted.second())
    }

    #[inline(always)]
    pub(super) fn acked(&self) -> Sequence {
        Sequence(self.acked_and_room.first())
    }

    #[inline]
    pub(super) fn visible(&self) -> Sequence {
        if self.visible_on_completion { self.acked() } else { self.flushed }
    }

    #[inline]
    pub(super) const fn durable(&self) -> Sequence {
        self.durable
    }

    /// Stores taken and not acknowledged.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "it is at most a lane's depth")]
    pub(super) fn in_flight(&self) -> usize {
        (self.taken.first() - self.acked_and_room.first()) as usize
    }

    pub(super) fn at(&self, level: Level) -> Sequence {
        match level {
            Level::Posted => self.posted(),
            Level::Acked => self.acked(),
            Level::Visible => self.visible(),
            Level::Durable => self.durable(),
        }
    }

    #[inline]
    pub(super) fn all(&self) -> Watermarks {
        Watermarks {
            last: self.last(),
            posted: self.posted(),
            acked: self.acked(),
            visible: self.visible(),
            durable: self.durable,
        }
    }

    /// Says how many stores may be taken plainly without an acknowledgment; 0: none.
    pub(super) fn allow_plainly(&mut self, stores: u64) {
        self.plain_and_unposted = Pair::new(stores, self.plain_and_unposted.second());
        self.move_acked(self.acked_and_room.first(), stores);
    }

    /// The next store, if it may be taken plainly; it counts once [`finish`](Plain::finish)ed.
    #[inline(always)]
    pub(super) fn plain(&self) -> Option<Plain> {
        let taken = self.taken;
        (taken.first() < self.acked_and_room.second()).then_some(Plain { taken })
    }

    /// A store of `len` bytes was taken.
    pub(super) fn take(&mut self, len: usize) {
        self.taken = self.taken.count(len as u64);
        let (plain, unposted) = self.plain_and_unposted.words();
        self.plain_and_unposted = Pair::new(plain, unposted + 1);
    }

    /// Every store to `end` was handed over.
    pub(super) fn post(&mut self, end: Sequence) {
        assert!(self.posted() <= end && end <= self.last(), "{end} of {self:?}");
        self.plain_and_unposted = Pair::new(self.plain_and_unposted.first(), self.last().0 - end.0);
    }

    /// Everything that was handed over is acknowledged; up to where that is.
    #[inline(always)]
    pub(super) fn acknowledge_posted(&mut self) -> Sequence {
        let (plain, unposted) = self.plain_and_unposted.words();
        let acked = self.taken.first() - unposted;
        self.move_acked(acked, plain);
        Sequence(acked)
    }

    #[inline(always)]
    fn move_acked(&mut self, acked: u64, plain: u64) {
        self.acked_and_room = Pair::new(acked, acked + plain);
    }

    /// Every store to `done`, which was handed over, is acknowledged.
    pub(super) fn acknowledge(&mut self, done: Sequence) {
        assert!(done <= self.posted(), "completion of store {done}, {} posted", self.posted());
        self.move_acked(self.acked().max(done).0, self.plain_and_unposted.first());
    }

    /// Every store to `done`, which was handed over, is visible, and with that acknowledged.
    pub(super) fn flush(&mut self, done: Sequence) {
        self.acknowledge(done);
        self.flushed = self.flushed.max(done);
    }

    /// Every store to `done`, which is visible, is durable.
    pub(super) fn make_durable(&mut self, done: Sequence) {
        self.durable = self.durable.max(done);
    }

    /// Everything taken so far was placed at the peer by other means.
    pub(super) fn place_all(&mut self, visible_on_completion: bool) {
        self.visible_on_completion = visible_on_completion;
        self.post(self.last());
        self.acknowledge_posted();
        self.flushed = self.last();
    }
}

/// A store that is being taken plainly.
#[derive(Debug)]
pub(super) struct Plain {
    taken: Pair,
}

impl Plain {
    /// Its number.
    #[inline(always)]
    pub(super) fn sequence(&self) -> Sequence {
        Sequence(self.taken.first() + 1)
    }

    /// It was taken and handed over, with `len` bytes.
    #[inline(always)]
    pub(super) fn finish(self, marks: &mut Marks, len: usize) {
        marks.taken = self.taken.count(len as u64);
    }
}
