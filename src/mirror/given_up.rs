//! A sync that was asked for, and that its waiter may give up at his deadline.
//!
//! The peer goes on with it all the same, and does nothing else for its owner until it has ended. So whoever waits next
//! does not ask for another, which would begin behind it, but waits for this: else waiters whose deadlines are shorter
//! than a sync would keep each other from ever seeing one end.

use super::PendingSync;
use super::ticket::Stream;
use crate::base::Sequence;

/// A sync under way, with what it covers.
pub(super) struct GivenUp {
    pub(super) sync: Box<dyn PendingSync>,
    /// Every store up to this one was visible when it was asked for.
    pub(super) visible: Sequence,
    /// The connection over which it was.
    pub(super) stream: Stream,
}

impl std::fmt::Debug for GivenUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GivenUp").field("visible", &self.visible).field("stream", &self.stream).finish()
    }
}
