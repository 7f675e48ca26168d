//! What can end a control connection or refuse a message, with numbers and the way out.
//!
//! [`ControlError`] is final: the connection or handshake that returned it returns the same from then on.

use std::time::Duration;

use super::noise::RecordError;
use super::preface::{RefusalCode, VersionRange};

/// Why a control connection or the handshake of a data stream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The first bytes are not ours.
    #[error(
        "the peer speaks something else: its first 8 bytes are {found:02x?}; is the address the right one?"
    )]
    NotMirrorbus {
        /// What came where the magic stands.
        found: [u8; 8],
    },
    /// The preface has our magic and makes no sense.
    #[error("malformed preface: {why}")]
    Preface {
        /// Field and value.
        why: String,
    },
    /// The version ranges do not meet.
    #[error("peer speaks versions {peer}, we speak {own}: bring both sides to a common version")]
    Versions {
        /// What the peer offers.
        peer: VersionRange,
        /// What this side offers.
        own: VersionRange,
    },
    /// No key of one side is a key of the other, or the handshake was tampered with.
    #[error(
        "no common key: compare key files on both sides; rotation: every responder must hold the new key before an \
         initiator puts it first. An altered or replayed handshake looks the same"
    )]
    Authentication,
    /// The peer said no, in the clear.
    #[error("the peer refused: {0}")]
    Refused(RefusalCode),
    /// A length beyond its bound.
    #[error("{what} of {len} bytes, the limit is {max}")]
    Oversize {
        /// Which length.
        what: &'static str,
        /// What was announced.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The handshake was not done in time.
    #[error("the handshake was not done within {limit:?}")]
    HandshakeTimeout {
        /// The bound.
        limit: Duration,
    },
    /// A record failed; the connection is cut because what follows could not be trusted.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An authenticated peer sent what this version does not allow.
    #[error("broken protocol: {why}")]
    Protocol {
        /// What was expected and what came.
        why: String,
    },
    /// The stream ended without an orderly close.
    #[error("the stream ended {during}")]
    Truncated {
        /// Where it stood.
        during: &'static str,
    },
    /// The application let events pile up.
    #[error("{max} events wait: drain poll_event after each handle_bytes of at most 64 KiB")]
    Undrained {
        /// The bound.
        max: usize,
    },
    /// The Noise implementation failed for no reason of the peer's, e.g. without random numbers.
    #[error("cryptography failed: {why}")]
    Cryptography {
        /// What it said.
        why: String,
    },
}

/// Why a message was not taken. Nothing of it was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Channel 0 belongs to the connection itself.
    #[error("channel 0 is the connection's own")]
    ReservedChannel,
    /// The body is too long.
    #[error("message of {len} bytes, the limit is {max}: split it")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The peer does not take messages as fast as they are sent.
    #[error("{queued} bytes wait to be sent and {len} more pass the limit of {max}: transmit first")]
    Full {
        /// Bytes that wait.
        queued: usize,
        /// Bytes that this message takes.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The handshake is still going on.
    #[error("not established yet")]
    NotEstablished,
    /// The connection is closing or closed.
    #[error("the connection is closed")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Failed(ControlError),
}

macro_rules! close_reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a side closes in good order. Carried as a number; a number from a newer peer is kept as it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CloseReason {
            $($(#[$doc])* $name,)*
            /// A reason that this build does not know.
            Other(u16),
        }

        impl CloseReason {
            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$name => $code,)*
                    Self::Other(code) => code,
                }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_code(code: u16) -> Self {
                match code {
                    $($code => Self::$name,)*
                    other => Self::Other(other),
                }
            }
        }

        impl std::fmt::Display for CloseReason {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)*
                    Self::Other(code) => write!(f, "reason {code}"),
                }
            }
        }
    };
}

close_reasons! {
    /// The work is done.
    Finished = 0, "finished";
    /// The process is going down.
    Stopping = 1, "stopping";
    /// Another connection took this one's place.
    Replaced = 2, "replaced by another connection";
    /// The grant was revoked.
    Revoked = 3, "revoked";
    /// Nothing was heard of the peer for too long.
    Silence = 4, "nothing was heard for too long";
    /// The layer above could not make sense of a message.
    Protocol = 5, "a message made no sense";
    /// What was asked for cannot be given; a message before this one says why.
    Refused = 6, "refused";
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// This side closed.
    ByUs(CloseReason),
    /// The peer closed.
    ByPeer(CloseReason),
    /// It failed.
    Failed(ControlError),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ByUs(reason) => write!(f, "closed by this side: {reason}"),
            Self::ByPeer(reason) => write!(f, "closed by the peer: {reason}"),
            Self::Failed(cause) => write!(f, "failed: {cause}"),
        }
    }
}
