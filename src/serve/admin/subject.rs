//! What the socket's commands are carried out by.

use serde::{Deserialize, Serialize};

use super::{Event, NodeStatus, Reason, ResyncProgress};

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

    /// Lets a new and empty node take the peer's place, by the operator's word that the one before does not come back.
    ///
    /// # Errors
    /// The peer is there, or this node has nothing to give it.
    fn replace_peer(&self, dataset: &str) -> Result<(), AdminError>;

    /// Gives the mediator this node's configuration, by the operator's word that it is the one that counts. On return the mediator has it
    /// on its disk.
    ///
    /// # Errors
    /// The dataset has no mediator, it has a configuration of its own, or it does not answer.
    fn seed(&self, dataset: &str) -> Result<(), AdminError>;

    /// Hands the service of a dataset over to the other node; of the only one where none is named. On return that node serves.
    ///
    /// # Errors
    /// This one serves on, if it can; the text says why.
    fn switch(&self, dataset: Option<&str>) -> Result<SwitchReport, AdminError>;

    /// Whether the node may be stopped now without that a volume of this dataset, or of any, loses service or data. Changes nothing.
    ///
    /// # Errors
    /// The dataset is unknown. That it may not be stopped is no error but the report.
    fn can_stop(&self, dataset: Option<&str>) -> Result<StopReport, AdminError>;

    /// Reads all that is stored and compares it with its checksums; `repair`: what is bad is written again from the peer's data. Takes as
    /// long as reading takes.
    ///
    /// # Errors
    /// It could not be read to the end. Damage is no error but part of the report.
    fn scrub(&self, dataset: &str, repair: bool) -> Result<ScrubReport, AdminError>;

    /// Compares what both nodes have stored; `repair`: what is bad on one is written again from the other. Takes as long as reading takes.
    ///
    /// # Errors
    /// There is no peer to compare with, or it was lost. Differences are no error but part of the report.
    fn verify(&self, dataset: &str, volume: Option<&str>, repair: bool) -> Result<VerifyReport, AdminError>;

    /// What happened after the event numbered `sequence`, oldest first, as far as it is remembered. Quick.
    fn events_since(&self, sequence: u64) -> Vec<Event>;

    /// Asks the node to end in good order. Returns at once.
    fn stop(&self);
}

/// A switch that was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SwitchReport {
    /// Of what.
    pub dataset: String,
    /// The node that serves now.
    pub to: String,
    /// Microseconds for which requests were held, until their connections were ended.
    pub held_us: u64,
}

/// Whether a node may be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StopReport {
    /// As for all datasets that were asked about.
    pub can_stop: bool,
    /// Each of them.
    pub datasets: Vec<DatasetStop>,
}

/// Whether a node may be stopped, as for one dataset.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DatasetStop {
    /// Its name.
    pub dataset: String,
    /// Whether it may.
    pub can_stop: bool,
    /// Why.
    pub reason: Reason,
    /// How far a resync is; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync: Option<ResyncProgress>,
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
    /// Of those, how many were written again and are whole.
    #[serde(default)]
    pub repaired_blocks: u64,
    /// Where they are, as many as are told.
    #[serde(default)]
    pub ranges: Vec<RangeReport>,
    /// The first of them in words.
    pub damage: Vec<String>,
}

/// What a comparison of both nodes found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Volumes that were compared.
    pub volumes: u64,
    /// Bytes that were read on this node.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// Blocks that are not the same and good on both.
    pub differing_blocks: u64,
    /// Of those, how many were repaired.
    pub repaired_blocks: u64,
    /// Blocks that are good on neither node.
    pub unrecoverable_blocks: u64,
    /// Blocks that were written again each time they were looked at.
    pub moving_blocks: u64,
    /// Where they are, as many as are told.
    pub ranges: Vec<RangeReport>,
}

/// Blocks next to each other of which the same can be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeReport {
    /// The volume.
    pub volume: String,
    /// The first block.
    pub first_block: u64,
    /// How many.
    pub blocks: u64,
    /// Whose data is bad.
    pub side: Side,
    /// What became of it.
    pub outcome: Outcome,
}

/// Whose data is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Side {
    /// This node's does not match its checksum.
    Here,
    /// The peer's does not.
    Peer,
    /// Neither does.
    Both,
    /// Both match, and are not the same.
    Neither,
    /// The two maps have it at different positions.
    Maps,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// It was not to be repaired.
    Found,
    /// It is whole again.
    Repaired,
    /// It is not.
    Unrepaired,
    /// There is no good copy on either node.
    Unrecoverable,
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
