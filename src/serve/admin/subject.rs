//! What the socket's commands are carried out by.

use serde::{Deserialize, Serialize};

use super::{Event, NodeStatus};

/// A node as its operators see it. Each call may come from several threads at once.
pub trait Subject: Send + Sync {
    /// How it is. Quick: takes no lock that is held across a wait.
    fn status(&self) -> NodeStatus;

    /// Makes a volume of `bytes`, whole blocks of `block_bytes`. On return it is on the stable storage of each node that the
    /// dataset's durability asks for.
    ///
    /// # Errors
    /// The dataset is unknown or not served here, or the volume cannot be so.
    fn create_volume(
        &self,
        dataset: &str,
        name: &str,
        bytes: u64,
        block_bytes: u32,
    ) -> Result<(), AdminError>;

    /// Gives a volume another size. What lies beyond a smaller one is gone.
    ///
    /// # Errors
    /// As [`create_volume`](Self::create_volume).
    fn resize_volume(&self, dataset: &str, name: &str, bytes: u64) -> Result<(), AdminError>;

    /// Ends a volume and all in it.
    ///
    /// # Errors
    /// As [`create_volume`](Self::create_volume).
    fn delete_volume(&self, dataset: &str, name: &str) -> Result<(), AdminError>;

    /// Makes this node the primary. `flushed_only`: even if what was acknowledged and not flushed may be lost.
    ///
    /// # Errors
    /// The other node may be primary, or this one's data is too old; the text says what would help.
    fn promote(&self, dataset: &str, flushed_only: bool) -> Result<(), AdminError>;

    /// Lets the primary go on without its peer, whose copy is outdated from then on.
    ///
    /// # Errors
    /// This node is not primary.
    fn alone(&self, dataset: &str) -> Result<(), AdminError>;

    /// Reads all that is stored and compares it with its checksums. Takes as long as reading takes.
    ///
    /// # Errors
    /// It could not be read to the end. Damage is no error but part of the report.
    fn scrub(&self, dataset: &str) -> Result<ScrubReport, AdminError>;

    /// What happened after the event numbered `sequence`, oldest first, as far as it is remembered. Quick.
    fn events_since(&self, sequence: u64) -> Vec<Event>;

    /// Asks the node to end in good order. Returns at once.
    fn stop(&self);
}

/// What a scrub found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Segments that were read.
    pub segments: u64,
    /// Blocks whose checksum was compared.
    pub blocks: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// Blocks that do not match their checksum.
    pub damaged_blocks: u64,
    /// Where the first of them are, in words.
    pub damage: Vec<String>,
}

/// A command that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{text}")]
pub struct AdminError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what, with numbers, and a way out.
    pub text: String,
}

impl AdminError {
    /// One.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Kinds of refusals and failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The line is no request.
    BadRequest,
    /// Such a dataset is not on this node.
    NoSuchDataset,
    /// Such a volume is not in the dataset.
    NoSuchVolume,
    /// There is one of that name already.
    Exists,
    /// This node is not the dataset's primary.
    NotPrimary,
    /// It would not be safe.
    Refused,
    /// Too many at a time.
    Busy,
    /// No room.
    NoSpace,
    /// Not done in time; it may still be.
    TimedOut,
    /// It was tried and went wrong.
    Failed,
}
