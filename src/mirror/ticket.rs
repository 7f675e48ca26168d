//! What a store gives back, and how far stores have come.

use crate::base::{Level, Sequence};

/// One connection of one lane: both numbers in one word, so that a ticket is checked by one comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stream(u64);

impl Stream {
    pub(super) const fn new(lane: u32, session: u32) -> Self {
        Self((lane as u64) << 32 | session as u64)
    }

    pub(super) const fn lane(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub(super) const fn session(self) -> u32 {
        self.0 as u32
    }

    /// For a word that threads share.
    pub(super) const fn to_bits(self) -> u64 {
        self.0
    }

    /// The next connection of the same lane.
    pub(super) const fn next(self) -> Self {
        Self::new(self.lane(), self.session() + 1)
    }
}

/// A store's name: which lane, which connection of it, which store. Valid until the lane reconnects or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(super) stream: Stream,
    pub(super) sequence: Sequence,
}

impl Ticket {
    /// What it is made of, for programs that know no type of ours: a number for lane and connection, and the position.
    #[must_use]
    pub const fn to_parts(self) -> (u64, Sequence) {
        (self.stream.to_bits(), self.sequence)
    }

    /// Of what [`to_parts`](Self::to_parts) gave. One that was never given is stale, or names another store of the lane; a position beyond
    /// the lane's last is waited for until it is there.
    #[must_use]
    pub const fn from_parts(stream: u64, sequence: Sequence) -> Self {
        Self { stream: Stream(stream), sequence }
    }

    /// Position of the store on its lane.
    #[must_use]
    pub const fn sequence(self) -> Sequence {
        self.sequence
    }
}

/// For each level the last store that reached it, with all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// The last store that was taken.
    pub last: Sequence,
    /// Handed to the fabric.
    pub posted: Sequence,
    /// See [`Level::Acked`].
    pub acked: Sequence,
    /// See [`Level::Visible`].
    pub visible: Sequence,
    /// See [`Level::Durable`].
    pub durable: Sequence,
}

impl Watermarks {
    /// The watermark of `level`.
    #[inline]
    #[must_use]
    pub const fn at(&self, level: Level) -> Sequence {
        match level {
            Level::Posted => self.posted,
            Level::Acked => self.acked,
            Level::Visible => self.visible,
            Level::Durable => self.durable,
        }
    }

    /// Stores taken and not yet acknowledged.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "it is at most a lane's depth")]
    pub const fn in_flight(&self) -> usize {
        (self.last.0 - self.acked.0) as usize
    }
}
