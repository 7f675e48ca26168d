//! What a store gives back, and how far stores have come.

use crate::base::{Level, Sequence};

/// A store's name: which lane, which connection of it, which store. Valid until the lane reconnects or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(super) lane: u32,
    pub(super) session: u32,
    pub(super) sequence: Sequence,
}

impl Ticket {
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
