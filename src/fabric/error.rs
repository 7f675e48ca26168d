//! Why a queue ended.

use super::WindowId;
use crate::base::Generation;

/// The cause of a queue's end, or of a request that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The holder revoked the grant: what was not acknowledged by then never will be under this grant.
    #[error("the peer revoked the grant of generation {granted}")]
    Revoked {
        /// Generation that was granted.
        granted: Generation,
    },
    /// The peer, or the way to it, is gone.
    #[error("the peer is gone: {why}")]
    PeerGone {
        /// What was seen.
        why: String,
    },
    /// The peer broke the protocol or the data did not pass its checksum; nothing of it entered any memory.
    #[error("broken protocol: {why}")]
    Protocol {
        /// What was expected and what came.
        why: String,
    },
    /// A request lies outside the local mapping or the window.
    #[error("{len} bytes at {offset} lie outside window {window:?} of {limit} bytes")]
    OutOfRange {
        /// The window asked.
        window: WindowId,
        /// First byte.
        offset: usize,
        /// Bytes.
        len: usize,
        /// Bytes that the window has.
        limit: usize,
    },
    /// The file behind the mapping was cut short by somebody else; the pages read as zero now.
    #[error("the file behind the {side} mapping was truncated while in use")]
    MappingLost {
        /// `local` or `peer's`.
        side: &'static str,
    },
    /// A system call failed.
    #[error("{call} failed: {error}")]
    System {
        /// The call.
        call: &'static str,
        /// What it said.
        error: String,
    },
}
