//! What goes wrong with the files of segments.

use std::io;
use std::path::PathBuf;

use crate::base::Lsn;
use crate::segment::HeadError;

/// What goes wrong with a segment's file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentFileError {
    /// The disk has no room for a segment. Nothing is left of the file.
    #[error("{}: no room for the {bytes} bytes of a segment: free some, or make the file system larger", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// What it needs.
        bytes: u64,
    },
    /// The segment was begun already.
    #[error("{} is a segment that was begun; no position of a log is given twice", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The segment has no file.
    #[error("no file of the segment at {base}: {}", path.display())]
    Missing {
        /// The segment.
        base: Lsn,
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{}: {call} failed: {error}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The call.
        call: &'static str,
        /// What it said.
        #[source]
        error: io::Error,
    },
    /// The file system cannot do it.
    #[error("{}: the file system has no {call}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it has not.
        call: &'static str,
    },
    /// A write or a sync failed before. What the disk has is unknown, and a later success would prove nothing.
    #[error("{call} of {} failed before with os error {errno}; it is not tried again: replace the disk", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// The call.
        call: &'static str,
        /// The system's number; 0 for none.
        errno: i32,
    },
    /// The head is damaged of a segment that may have the end of the log.
    #[error("{}: {error}: the disk damaged it; take the peer's copy of the dataset", path.display())]
    Head {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: HeadError,
    },
    /// A file that belongs to another log or another program.
    #[error("{}: {error}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What its head says.
        #[source]
        error: HeadError,
    },
}

impl From<SegmentFileError> for io::Error {
    fn from(error: SegmentFileError) -> Self {
        let kind = match &error {
            SegmentFileError::NoSpace { .. } => io::ErrorKind::StorageFull,
            SegmentFileError::Exists { .. } => io::ErrorKind::AlreadyExists,
            SegmentFileError::Missing { .. } => io::ErrorKind::NotFound,
            SegmentFileError::System { error, .. } => error.kind(),
            SegmentFileError::Unsupported { .. } => io::ErrorKind::Unsupported,
            SegmentFileError::Failed { .. } => io::ErrorKind::Other,
            SegmentFileError::Head { .. } | SegmentFileError::Foreign { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
