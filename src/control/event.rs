//! What a control connection reports, and where it stands.

use super::{Channel, Ended, Hello};
use crate::base::SessionId;

/// What happened, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer is authenticated; messages can be sent.
    Established {
        /// The version in use.
        version: u16,
        /// What the peer says of itself.
        peer: Hello,
        /// Name of this connection, equal on both sides and never the same again.
        session: SessionId,
    },
    /// The peer sent a message.
    Message {
        /// The service.
        channel: Channel,
        /// Its body.
        body: Vec<u8>,
    },
    /// Nothing was heard of the peer for [`Hello::silence`].
    PeerSilent,
    /// The peer is heard again.
    PeerHeard,
    /// The end; nothing comes after it.
    Closed {
        /// Who ended it, and why.
        reason: Ended,
    },
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The peer is not authenticated yet.
    Handshaking,
    /// Messages go both ways.
    Established,
    /// This side said that it closes and waits for the peer's answer.
    Closing,
    /// Ended in good order.
    Closed,
    /// Ended by an error.
    Failed,
}
