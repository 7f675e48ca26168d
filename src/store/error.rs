//! Why a dataset does not open, or a request of a client is not carried out.

use super::volumes::VolumeError;

/// Why a read, a write or a flush was not done.
///
/// After an error a write may or may not take effect, as on any disk; what was acknowledged before stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IoError {
    /// Beyond the volume's end.
    #[error("{len} bytes at {offset} of a volume of {bytes} bytes")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The volume's.
        bytes: u64,
    },
    /// No room on a disk of the pair. What was acknowledged is safe, and reads go on: free some space, or trim.
    #[error("no space: {0}")]
    NoSpace(String),
    /// The node's role or generation changed since the volume was opened: open it again, where it is served now.
    #[error("the dataset is not served here as it was when the volume was opened: connect again")]
    RoleChanged,
    /// The volume is no more.
    #[error("the volume was deleted")]
    Deleted,
    /// The dataset ends.
    #[error("the node is stopping")]
    Stopping,
    /// The node is out of service for this dataset.
    #[error("out of service: {0}")]
    Failed(String),
    /// Stored data does not match its checksum: nothing of it is given out.
    #[error("damaged data: {0}; repair it from the peer")]
    Damaged(String),
    /// Reading a file failed.
    #[error("reading: {0}")]
    Medium(String),
    /// It was held for too long, since the link to the peer is lost and it is not decided which node goes on. What is asked for then fails at once.
    #[error(
        "held for {seconds} s, as the link to the peer is lost and it is not decided which node goes on: a write may have taken effect or not"
    )]
    HeldTooLong {
        /// How long one is held.
        seconds: u64,
    },
    /// No request gave this mark.
    #[error(
        "mark {mark}, though this service began its log at {first}, which ends at {end}: no write of this handle gave it"
    )]
    StrangeMark {
        /// The mark.
        mark: u64,
        /// Where the log of this service begins.
        first: u64,
        /// Where the log ends.
        end: u64,
    },
    /// The client went away before it was answered.
    #[error("the client is gone")]
    Gone,
    /// Its payload could not be received whole.
    #[error("the payload was not received whole")]
    Payload,
    /// The table of volumes does not allow it.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}
