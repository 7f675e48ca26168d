//! How a client's requests come to an end.

use std::io;

use super::wire::PAYLOAD_BYTES_MAX;

/// The payload of a refused request that is read and thrown away; at a longer one the connection ends.
pub(super) const DISCARDED_BYTES_MAX: u32 = 2 * PAYLOAD_BYTES_MAX;

/// How the requests of a client ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// As it should.
    #[error("the client disconnected")]
    Disconnected,
    /// Between two requests.
    #[error("the client closed the connection without a disconnect")]
    Closed,
    /// In the middle of a request.
    #[error("the client closed the connection in the middle of a request")]
    Truncated,
    /// While a commit or a flush was waited for.
    #[error("the client went away before its requests were answered")]
    Gone,
    /// The export is served elsewhere, or not as it was; requests that were not answered may have taken effect or not.
    #[error("the export is not served here any more as it was")]
    Moved,
    /// What should be a request does not begin as one.
    #[error("what should be a request begins with {found:#010x}")]
    NotARequest {
        /// Its first word.
        found: u32,
    },
    /// Nobody reads that much to throw it away.
    #[error("a refused write of {bytes} bytes: at most {DISCARDED_BYTES_MAX} are skipped")]
    TooLong {
        /// Its payload.
        bytes: u32,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
}
