//! The note that a node is being resynced, and what it has until that is done: `resync` in its directory.
//!
//! Two lines like the register's: a checksum, and JSON with `from`, the position that the node had. While it is there, what the files have
//! behind that position is no part of the node's log.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::node::files::{read_checked, sync_directory, write_checked};
use crate::store::durable_mark::DurableMark;
use crate::store::register::Position;

/// Why the note was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        #[source]
        error: std::io::Error,
    },
    /// Not what this program wrote.
    #[error("{} is damaged: {why}: empty the directory, and the node is brought up to date by its peer", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    from: Position,
}

/// The note of one directory.
#[derive(Debug)]
pub(in crate::store) struct Note {
    path: PathBuf,
    from: Option<Position>,
    /// It could not be written or removed: the file may say something else than is known here.
    is_uncertain: bool,
}

impl Note {
    /// Of the dataset in `directory`.
    ///
    /// # Errors
    /// It is damaged: what counts of the log is not known.
    pub(in crate::store) fn open(directory: &Path) -> Result<Self, NoteError> {
        let path = directory.join("resync");
        let damaged = |why: String| NoteError::Damaged { path: path.clone(), why };
        let text = read_checked(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => damaged(error.to_string()),
            _ => NoteError::File { path: path.clone(), error },
        })?;
        let contents: Option<Contents> = match text {
            Some(text) => Some(serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?),
            None => None,
        };
        Ok(Self { path, from: contents.map(|contents| contents.from), is_uncertain: false })
    }

    /// What the node has while it is being resynced; `None` when it is not.
    pub(in crate::store) const fn from(&self) -> Option<Position> {
        self.from
    }

    /// From now on the node has the log to `from`, whatever its files have, and whatever the mark says that it had. Durable on return.
    ///
    /// # Errors
    /// The system's; the note is what it was, as far as is known here, and may be the new one after a crash.
    pub(in crate::store) fn write(&mut self, from: Position, mark: &DurableMark) -> Result<(), NoteError> {
        if self.from == Some(from) && !self.is_uncertain {
            return Ok(());
        }
        mark.remove().map_err(|error| NoteError::File { path: mark.path().to_owned(), error })?;
        let text = serde_json::to_string(&Contents { from }).expect("numbers");
        self.is_uncertain = true;
        let written = write_checked(&self.path, &text);
        written.map_err(|error| NoteError::File { path: self.path.clone(), error })?;
        (self.from, self.is_uncertain) = (Some(from), false);
        Ok(())
    }

    /// The files are the node's log again. Durable on return.
    ///
    /// # Errors
    /// The system's; after a crash the note may be there or not.
    pub(in crate::store) fn remove(&mut self) -> Result<(), NoteError> {
        if self.from.is_none() && !self.is_uncertain {
            return Ok(());
        }
        self.is_uncertain = true;
        let removed = match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => sync_directory(self.path.parent().unwrap_or(Path::new("."))),
        };
        removed.map_err(|error| NoteError::File { path: self.path.clone(), error })?;
        (self.from, self.is_uncertain) = (None, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DatasetId, LogGeneration, Lsn};
    use crate::store::durable_mark::Marked;

    #[test]
    fn it_is_read_back_guarded_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut note = Note::open(directory.path()).unwrap();
        assert_eq!(note.from(), None);
        let from = Position { generation: 3, end: 4096, highest: 8192 };
        let mark = DurableMark::open(directory.path(), DatasetId::from_bytes([1; 16]));
        mark.write(Marked { generation: LogGeneration(3), durable: Lsn(8192) });
        note.write(from, &mark).unwrap();
        assert_eq!((mark.marked(), mark.path().exists()), (None, false), "the log is shorter now");
        assert_eq!(Note::open(directory.path()).unwrap().from(), Some(from));
        let path = directory.path().join("resync");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("4096", "4097")).unwrap();
        assert!(matches!(Note::open(directory.path()), Err(NoteError::Damaged { .. })));
        note.remove().unwrap();
        note.remove().unwrap();
        assert_eq!(Note::open(directory.path()).unwrap().from(), None);
    }

    #[test]
    fn what_could_not_be_written_or_removed_is_not_taken_for_granted() {
        let directory = tempfile::tempdir().unwrap();
        let (there, away) = (directory.path().join("node"), directory.path().join("away"));
        std::fs::create_dir(&there).unwrap();
        let mut note = Note::open(&there).unwrap();
        let from = Position { generation: 3, end: 4096, highest: 8192 };
        let mark = DurableMark::open(directory.path(), DatasetId::from_bytes([1; 16]));
        std::fs::rename(&there, &away).unwrap();
        assert!(note.write(from, &mark).is_err());
        std::fs::rename(&away, &there).unwrap();
        // As if it had been written, and that were not known.
        std::fs::copy(written(directory.path(), from).join("resync"), there.join("resync")).unwrap();
        assert_eq!(note.from(), None);
        note.remove().unwrap();
        assert!(!there.join("resync").exists(), "it would count after a restart");

        note.write(from, &mark).unwrap();
        std::fs::rename(&there, &away).unwrap();
        assert!(note.remove().is_err());
        std::fs::rename(&away, &there).unwrap();
        std::fs::remove_file(there.join("resync")).unwrap();
        note.write(from, &mark).unwrap();
        assert_eq!(Note::open(&there).unwrap().from(), Some(from), "it has to be there while it counts");
    }

    /// A directory with a note.
    fn written(directory: &Path, from: Position) -> PathBuf {
        let path = directory.join("written");
        std::fs::create_dir(&path).unwrap();
        let mark = DurableMark::open(&path, DatasetId::from_bytes([1; 16]));
        Note::open(&path).unwrap().write(from, &mark).unwrap();
        path
    }
}
