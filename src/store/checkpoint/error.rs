//! Why a checkpoint is not read or written.

use std::io;
use std::path::PathBuf;

use super::record::RecordError;
use crate::base::{DatasetId, Lsn, VolumeId};
use crate::volume::LeafError;

/// Why a checkpoint is not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// There is none.
    #[error("there is no checkpoint at {}: without it the volumes are unknown; copy the peer's dataset", path.display())]
    Missing {
        /// Where it should be.
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
    /// The disk has no room for it. The one before is whole, and it may be tried again.
    #[error("no room for the checkpoint: free some; until then the log is kept longer")]
    NoSpace,
    /// The key-value file, or what is below it, failed.
    #[error("the checkpoint's file: {error}")]
    Storage {
        /// What it said.
        #[source]
        error: Box<redb::Error>,
    },
    /// The key-value file is so damaged that its library gave up.
    #[error("the checkpoint's file is damaged: {why}; copy the peer's dataset")]
    Broken {
        /// What the library said.
        why: String,
    },
    /// A key-value file that is no checkpoint.
    #[error("the file is no checkpoint: it has no table {table:?}")]
    NoTable {
        /// What it should have.
        table: &'static str,
    },
    /// A value is damaged.
    #[error("the checkpoint's {what} is damaged: {error}; copy the peer's dataset")]
    Record {
        /// Which.
        what: String,
        /// What is wrong.
        #[source]
        error: RecordError,
    },
    /// A leaf does not fit its volume.
    #[error("the checkpoint's map of volume {volume} is damaged: {error}; copy the peer's dataset")]
    Leaf {
        /// The volume.
        volume: VolumeId,
        /// What is wrong.
        #[source]
        error: LeafError,
    },
    /// Data that the checkpoint cannot know of.
    #[error("the checkpoint at {position} has volume {volume}'s data at {lsn}, which is not before it")]
    Position {
        /// The volume.
        volume: VolumeId,
        /// The data.
        lsn: Lsn,
        /// The checkpoint.
        position: Lsn,
    },
    /// Parts are missing, or there are too many.
    #[error("the checkpoint has {found} {what}, it should have {wanted}; copy the peer's dataset")]
    Count {
        /// Of what.
        what: String,
        /// What is there.
        found: u64,
        /// What should be.
        wanted: u64,
    },
    /// Another dataset's.
    #[error("the checkpoint is dataset {found}'s, not {wanted}'s")]
    Dataset {
        /// What it says.
        found: DatasetId,
        /// Whose it should be.
        wanted: DatasetId,
    },
    /// Writing failed before.
    #[error("writing the checkpoint failed before; it is not tried again: replace the disk")]
    Failed,
}

impl CheckpointError {
    pub(super) fn storage(error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Self::NoSpace
            }
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Broken { why: "it is no key-value file of redb".to_owned() }
            }
            redb::Error::Corrupted(why) => Self::Broken { why },
            error => Self::Storage { error: Box::new(error) },
        }
    }
}
