//! The marker: a snapshot of the maps at a position that both nodes have durable, kept until the pair is whole again and a newer one is there.
//!
//! ```text
//!  log  ────────┬─────────────────────┬──────────── ▶ end
//!             marker              checkpoint
//!   both nodes have all before    all before is in the maps here
//! ```
//!
//! What a peer may lack that was away is what differs between the marker's maps and those of now. And a node whose own checkpoint has what
//! turned out to be void goes back to its marker, which lies before any fork.
//!
//! A file of the same form as the checkpoint, beside it. It is written after the checkpoint of the same snapshot, so it never lies behind that;
//! a crash between leaves an older marker, which is as true as before. Reclaim leaves alone what its maps have. A marker that is lost or
//! damaged costs a full copy, nothing else: so the dataset is opened without it.

use std::path::{Path, PathBuf};

use super::checkpoint::{Checkpoint, CheckpointError, Snapshot};
use crate::base::{DatasetId, Lsn};

/// The file of one dataset's marker, if there is one.
#[derive(Debug)]
pub(super) struct Marker {
    path: PathBuf,
    dataset: DatasetId,
    file: Option<Checkpoint>,
}

impl Marker {
    /// Opens the marker at `path`. Of a dataset that `is_new` one at position 0 is made: both nodes have nothing.
    ///
    /// # Errors
    /// It is another dataset's, or cannot be made.
    pub(super) fn open(path: &Path, dataset: DatasetId, is_new: bool) -> Result<Self, CheckpointError> {
        let file = match Checkpoint::open(path, dataset, is_new) {
            Ok(file) => Some(file),
            Err(CheckpointError::Missing { .. }) => None,
            Err(
                error @ (CheckpointError::Dataset { .. }
                | CheckpointError::System { .. }
                | CheckpointError::NoSpace),
            ) => return Err(error),
            Err(error) => {
                log::warn!(
                    "{}: {error}; until there is a new marker, a peer is copied whole",
                    path.display()
                );
                None
            }
        };
        Ok(Self { path: path.to_owned(), dataset, file })
    }

    /// What it says.
    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        self.file.as_ref().map(Checkpoint::snapshot)
    }

    /// Where it lies.
    pub(super) fn position(&self) -> Option<Lsn> {
        self.snapshot().map(|snapshot| snapshot.position)
    }

    /// Moves it to `now`, which both nodes have durable; on return it is there, durably. One that lies there or behind stays.
    ///
    /// # Errors
    /// [`NoSpace`](CheckpointError::NoSpace) may be tried again, other errors are kept. It is where it was.
    pub(super) fn advance(&mut self, now: &Snapshot) -> Result<(), CheckpointError> {
        match &mut self.file {
            Some(file) if file.snapshot().position >= now.position => Ok(()),
            Some(file) => file.write(now),
            None => {
                self.file = Some(Checkpoint::begin(&self.path, self.dataset, now)?);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[path = "marker_tests.rs"]
mod tests;
