//! The configuration register of a dataset: who has to have a write before it is acknowledged, and who serves.
//!
//! Changed by compare-and-set on its id only. Where the word of the operator is the arbiter, each node keeps the register in a file of its
//! own: `mirrorbus promote` and `mirrorbus alone` are the operator's vouching that the other node does not serve.
//!
//! It keeps the history of the log's generations too: a node that returns is told by it where its log and the newer one part.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::{LogGeneration, Lsn};
pub use crate::cluster::Configuration;
use crate::node::files::{read_checked, write_checked};

/// Generations that are remembered. A node that left before the oldest is copied whole.
pub(super) const HISTORY_MAX: usize = 1024;

/// A generation, and where it left the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The generation.
    pub generation: u64,
    /// The one that it continues.
    pub predecessor: u64,
    /// The position up to which it does.
    pub fork: u64,
    /// The node that began it.
    pub by: String,
}

/// How far a node's log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(super) struct Position {
    /// Of its last record. Compared first.
    pub(super) generation: u64,
    /// Behind the last record.
    pub(super) end: u64,
    /// Behind every position that the node knows to have been given out.
    pub(super) highest: u64,
}

impl Position {
    pub(super) const fn end(&self) -> Lsn {
        Lsn(self.end)
    }

    pub(super) const fn generation(&self) -> LogGeneration {
        LogGeneration(self.generation)
    }
}

/// What the register holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Contents {
    pub(super) configuration: Option<Configuration>,
    /// By rising generation.
    pub(super) history: Vec<Fork>,
    /// A peer was a member once, so one without any log has lost it, or is another.
    #[serde(default)]
    pub(super) had_peer: bool,
    /// The operator vouches that the peer is new: it may be without any log, until one has become a member.
    #[serde(default)]
    pub(super) awaits_new_peer: bool,
    /// Under the configuration of this id this node does not take over: the other one goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) renounced: Option<u64>,
}

/// Why the register was not read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The file.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        #[source]
        error: std::io::Error,
    },
    /// Not what this program wrote.
    #[error("{path} is damaged: {why}; take the peer's copy of the dataset")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Somebody changed it meanwhile.
    #[error("the configuration is {found}, not {expected}: it was changed meanwhile")]
    Changed {
        /// The id that the change was for.
        expected: u64,
        /// The id that it has.
        found: u64,
    },
}

/// The register of a pair, as far as this node may ask for changes of it.
pub(super) trait Register: Send + std::fmt::Debug {
    /// What it holds.
    fn contents(&self) -> &Contents;

    /// Changes it if it still has the id `expected` (0: none yet). Durable on return.
    fn compare_and_set(&mut self, expected: u64, next: Contents) -> Result<(), RegisterError>;

    /// The id that it has; 0 for none.
    fn id(&self) -> u64 {
        self.contents().configuration.as_ref().map_or(0, |configuration| configuration.id)
    }
}

/// The register in this node's file, changed by the operator's word.
#[derive(Debug)]
pub(super) struct LocalRegister {
    path: PathBuf,
    contents: Contents,
}

impl LocalRegister {
    /// Of the dataset in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Self, RegisterError> {
        let path = directory.join("register");
        let damaged = |why: String| RegisterError::Damaged { path: path.clone(), why };
        let text = read_checked(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => damaged(error.to_string()),
            _ => RegisterError::File { path: path.clone(), error },
        })?;
        let contents = match text {
            Some(text) => serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?,
            None => Contents::default(),
        };
        Ok(Self { path, contents })
    }
}

impl Register for LocalRegister {
    fn contents(&self) -> &Contents {
        &self.contents
    }

    fn compare_and_set(&mut self, expected: u64, next: Contents) -> Result<(), RegisterError> {
        let found = self.id();
        if found != expected {
            return Err(RegisterError::Changed { expected, found });
        }
        let next = next.after(&self.contents);
        let json = serde_json::to_string(&next).expect("numbers and names");
        write_checked(&self.path, &json)
            .map_err(|error| RegisterError::File { path: self.path.clone(), error })?;
        self.contents = next;
        Ok(())
    }
}

impl Contents {
    /// With one more generation.
    pub(super) fn with_fork(&self, fork: Fork) -> Self {
        let mut next = self.clone();
        next.history.retain(|old| old.generation < fork.generation);
        next.history.push(fork);
        let surplus = next.history.len().saturating_sub(HISTORY_MAX);
        next.history.drain(..surplus);
        next
    }

    /// With note taken of a peer that becomes a member.
    fn after(mut self, before: &Self) -> Self {
        let has_peer =
            self.configuration.as_ref().is_some_and(|configuration| configuration.members.len() > 1);
        if has_peer && self.configuration != before.configuration {
            (self.had_peer, self.awaits_new_peer) = (true, false);
        }
        self
    }

    /// With the history of a log that this node's is the first part of, as far as it was told.
    pub(super) fn with_history(&self, told: &[Fork]) -> Self {
        let mut next = self.clone();
        if let Some(first) = told.first() {
            next.history.retain(|old| old.generation < first.generation);
            next.history.extend_from_slice(told);
            let surplus = next.history.len().saturating_sub(HISTORY_MAX);
            next.history.drain(..surplus);
        }
        next
    }

    /// How a generation began, if that is known.
    pub(super) fn begun(&self, generation: LogGeneration) -> Option<&Fork> {
        self.history.iter().find(|fork| fork.generation == generation.0)
    }

    /// Where a log that ends at `position` leaves the log that this history is of, whose last generation is `generation`: its end, if
    /// all of it is in there. `None` when it has a generation that is not in the history.
    ///
    /// Its last generation need not be one that the log went on from: one of which nothing became durable at whoever began it is set aside,
    /// and somebody may have followed it meanwhile.
    pub(super) fn common(&self, position: &Position, generation: LogGeneration) -> Option<Lsn> {
        if position.generation == 0 {
            return Some(position.end());
        }
        let (mut ours, mut theirs, mut lowest) = (generation.0, position.generation, position.end);
        // The later of the two cannot be the other's: what both have was before it began.
        while ours != theirs {
            let later = ours.max(theirs);
            let fork = self.begun(LogGeneration(later))?;
            lowest = lowest.min(fork.fork);
            let earlier = if ours == later { &mut ours } else { &mut theirs };
            *earlier = fork.predecessor;
        }
        Some(Lsn(lowest))
    }
}

/// `next`, unless what is there is later. Of one id are what the mediator holds and what a node has noted that went on alone by an election, which
/// the mediator does not know of yet: that is the later one.
pub(super) fn newer(last: Option<&Configuration>, next: Configuration) -> Configuration {
    match last {
        Some(last) if last.id > next.id => last.clone(),
        Some(last) if last.id == next.id && last.members.len() < next.members.len() => last.clone(),
        Some(_) | None => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(generation: u64, end: u64) -> Position {
        Position { generation, end, highest: end }
    }

    #[test]
    fn the_file_is_read_back_and_guarded() {
        let directory = tempfile::tempdir().unwrap();
        let mut register = LocalRegister::open(directory.path()).unwrap();
        assert_eq!((register.id(), register.contents()), (0, &Contents::default()));
        let configuration =
            Configuration { id: 7, members: vec!["a".into(), "b".into()], primary: "a".into(), floor: 5 };
        let contents = Contents { configuration: Some(configuration), had_peer: true, ..Contents::default() };
        let next = contents.with_fork(Fork { generation: 1, predecessor: 0, fork: 0, by: "a".into() });
        register.compare_and_set(0, next.clone()).unwrap();
        assert_eq!(LocalRegister::open(directory.path()).unwrap().contents(), &next);
        let changed = register.compare_and_set(0, Contents::default());
        assert!(matches!(changed, Err(RegisterError::Changed { expected: 0, found: 7 })));
        let path = directory.path().join("register");
        let text = std::fs::read_to_string(&path).unwrap().replace("\"a\"", "\"c\"");
        std::fs::write(&path, text).unwrap();
        assert!(matches!(LocalRegister::open(directory.path()), Err(RegisterError::Damaged { .. })));
    }

    #[test]
    fn logs_part_at_the_lowest_fork_between_them() {
        let mut contents = Contents::default();
        for (generation, predecessor, fork) in [(1, 0, 0), (2, 1, 1000), (4, 2, 5000), (5, 4, 4000)] {
            contents = contents.with_fork(Fork { generation, predecessor, fork, by: "a".into() });
        }
        let common = |generation, end| contents.common(&position(generation, end), LogGeneration(5));
        assert_eq!(common(5, 9000), Some(Lsn(9000)));
        assert_eq!(common(4, 9000), Some(Lsn(4000)));
        assert_eq!(common(2, 3000), Some(Lsn(3000)));
        assert_eq!(common(1, 1200), Some(Lsn(1000)));
        assert_eq!(common(3, 1200), None, "nobody here continued that one");
        let aside = contents.with_fork(Fork { generation: 6, predecessor: 4, fork: 4500, by: "b".into() });
        let common_of_6 = |end| aside.common(&position(5, end), LogGeneration(6));
        assert_eq!(common_of_6(9000), Some(Lsn(4000)), "5 was set aside where it left 4");
        assert_eq!(common_of_6(3000), Some(Lsn(3000)));
        assert_eq!(common(0, 0), Some(Lsn(0)), "a new node has nothing");
        let mut other = Contents::default();
        other = other.with_fork(Fork { generation: 4, predecessor: 3, fork: 7, by: "b".into() });
        let told = other.with_history(&contents.history[2..]);
        assert_eq!(told.history, contents.history[2..], "what was void is forgotten");
        assert_eq!(contents.with_history(&told.history), contents);
    }
}
