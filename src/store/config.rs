//! How a dataset is opened, and why that fails.

use std::path::PathBuf;
use std::time::Duration;

use super::register::{Configuration, RegisterError};
use super::volumes::{VolumeError, blocks_of, check_name};
use crate::base::{BlockSize, DatasetId, FabricUrl, Lsn};
use crate::cluster::ArbiterError;
use crate::memory::{LockError, LockPolicy, MapError};
use crate::node::{CallError, HolderError, KeySet};
use crate::segment::{ReplayError, SegmentLayout};

/// What a flush, and a write that forces unit access, waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The storage of both nodes.
    #[default]
    Disk,
    /// The memory of both nodes: power loss of both loses what neither had destaged. While a node serves alone its own storage.
    Memory,
}

/// How a node that serves with a member beside it makes sure, before it answers, that this one does not serve already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reads {
    /// By a lease of the member, where an arbiter decides who serves: that costs an answer nothing, and takes clocks that go on.
    #[default]
    Lease,
    /// By a look at the member's memory for each batch of answers: no clock is asked.
    Confirm,
}

/// What becomes of requests that were held for too long, since it was not decided which node goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterHold {
    /// They are held on, and operators are told.
    #[default]
    Suspend,
    /// They fail, and so do those that come, until it is decided. A write that had been held may take effect all the same.
    Error,
}

/// For how long requests are held before something becomes of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldBound {
    /// So long.
    pub time: Duration,
    /// And then.
    pub after: AfterHold,
}

/// A volume to be made when the dataset begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Its name.
    pub name: String,
    /// Bytes; whole blocks.
    pub bytes: u64,
    /// Bytes of a block.
    pub block_size: BlockSize,
}

impl VolumeSpec {
    /// Whether there can be such a volume.
    ///
    /// # Errors
    /// [`VolumeError::Name`] or [`VolumeError::Size`].
    pub fn check(&self) -> Result<(), VolumeError> {
        check_name(&self.name)?;
        blocks_of(self.bytes, self.block_size).map(|_| ())
    }
}

/// How to open a dataset on this node.
#[derive(Debug, Clone)]
pub struct DatasetConfig {
    /// What people call it.
    pub name: String,
    /// What it is; the same on both nodes.
    pub id: DatasetId,
    /// This node's name; the peer has another.
    pub node: String,
    /// Where its files are.
    pub directory: PathBuf,
    /// Where the peer reaches this node's memory.
    pub listen: FabricUrl,
    /// Where this node reaches the peer's.
    pub peer: FabricUrl,
    /// Sizes of segments; the same on both nodes.
    pub layout: SegmentLayout,
    /// Segments in the ring; the same on both nodes.
    pub places: u64,
    /// What is promised by a flush.
    pub durability: Durability,
    /// How answers are allowed. Each node's own affair: whoever follows grants a lease if it is asked for one, and waits for its end.
    pub reads: Reads,
    /// For how long requests are held while the link is lost and nothing is decided; without it for as long as that takes.
    pub hold: Option<HoldBound>,
    /// With an arbiter, how long the other node is not heard before it is missed: how soon its loss is noticed, and nothing that is safe
    /// by it. From [`SILENCE_MIN`](Self::SILENCE_MIN) to [`SILENCE_MAX`](Self::SILENCE_MAX). Over TCP a connection counts as lost after so long too, if that is more than the usual two seconds.
    pub silence: Duration,
    /// Whether the ring is locked in memory.
    pub lock: LockPolicy,
    /// Volumes that are made when the dataset has none.
    pub volumes: Vec<VolumeSpec>,
    /// Who decides which node serves; without one, the operator.
    pub arbiter: Option<ArbiterConfig>,
}

/// The arbiter of a dataset; the same on both nodes.
#[derive(Debug, Clone)]
pub struct ArbiterConfig {
    /// Who it is.
    pub kind: ArbiterKind,
    /// The node that goes on when each of the two could; without one, that which serves.
    pub preferred: Option<String>,
}

/// Who keeps the register of a dataset outside of both nodes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ArbiterKind {
    /// A mediator.
    Mediator {
        /// Where it listens.
        url: FabricUrl,
        /// Its key, which is not the pair's.
        keys: KeySet,
    },
    /// etcd.
    #[cfg(feature = "etcd")]
    Etcd(crate::etcd::Gateway),
}

impl ArbiterConfig {
    /// If it is etcd, what the keys of the registers begin with.
    pub(super) fn etcd_prefix(&self) -> Option<String> {
        match &self.kind {
            ArbiterKind::Mediator { .. } => None,
            #[cfg(feature = "etcd")]
            ArbiterKind::Etcd(gateway) => Some(gateway.prefix().to_owned()),
        }
    }
}

impl DatasetConfig {
    /// Places of a ring at most.
    pub const PLACES_MAX: u64 = 4096;
    /// How long the other node is not heard before it is missed, unless it is said.
    pub const SILENCE: Duration = Duration::from_millis(500);
    /// And at least: several questions, of which one may be late.
    pub const SILENCE_MIN: Duration = Duration::from_millis(100);
    /// And at most: a minute.
    pub const SILENCE_MAX: Duration = Duration::from_secs(60);

    /// The usual sizes: a ring of 256 MiB in segments of 16 MiB.
    #[must_use]
    pub fn new(
        name: &str,
        id: DatasetId,
        node: &str,
        directory: PathBuf,
        listen: FabricUrl,
        peer: FabricUrl,
    ) -> Self {
        Self {
            name: name.to_owned(),
            id,
            node: node.to_owned(),
            directory,
            listen,
            peer,
            layout: SegmentLayout::DEFAULT,
            places: 16,
            durability: Durability::default(),
            reads: Reads::default(),
            hold: None,
            silence: Self::SILENCE,
            lock: LockPolicy::Required,
            volumes: Vec::new(),
            arbiter: None,
        }
    }

    /// Bytes of the ring.
    #[must_use]
    pub const fn ring_bytes(&self) -> u64 {
        self.places * self.layout.segment_bytes()
    }
}

/// Why a dataset does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its directory, or a file in it.
    #[error(transparent)]
    Directory(#[from] super::directory::DirectoryError),
    /// The operating system refused something.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// A segment's file.
    #[error(transparent)]
    File(#[from] super::segment_files::SegmentFileError),
    /// The checkpoint.
    #[error("{}: {error}", path.display())]
    Checkpoint {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: super::checkpoint::CheckpointError,
    },
    /// The register.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The note of a resync.
    #[error(transparent)]
    Note(#[from] super::resync::NoteError),
    /// What the node had before it was resynced is not whole any more.
    #[error(
        "this node was being brought up to date and had the log to {wanted}, but its files have it to {found} only: empty the directory, \
         and all is fetched from the peer"
    )]
    OldPoint {
        /// What the files have.
        found: Lsn,
        /// What the note says.
        wanted: Lsn,
    },
    /// The log.
    #[error("the log cannot be replayed: {0}")]
    Replay(#[from] ReplayError<std::io::Error>),
    /// What this node acknowledged while it served alone is not all there any more.
    #[error(
        "{segments}: the log ends at {end} ({why}), though this node served alone and acknowledged it to {durable}, as {} says: put these \
         segments back, from a backup or the peer; or remove {} to go on from {end}, without the writes behind it",
        mark.display(), mark.display()
    )]
    Lost {
        /// The files that are damaged or missing.
        segments: String,
        /// Where the log ends.
        end: Lsn,
        /// Where it ended when it was acknowledged.
        durable: Lsn,
        /// What was found at its end.
        why: String,
        /// The file that says so.
        mark: PathBuf,
    },
    /// A record does not fit the volumes.
    #[error("at {lsn} of the log: {error}")]
    Record {
        /// Where.
        lsn: Lsn,
        /// Why.
        #[source]
        error: VolumeError,
    },
    /// The checkpoint has what the log that is to be followed never had.
    #[error(
        "the checkpoint is at {checkpoint}, behind {fork} where the peer's log leaves this one, {}: empty the directory, to be copied whole",
        marker.map_or("and there is no marker".to_owned(), |marker| format!("and so is the marker at {marker}"))
    )]
    CheckpointBehindFork {
        /// Its position.
        checkpoint: Lsn,
        /// Where the logs part.
        fork: Lsn,
        /// Where the marker lies, if there is one.
        marker: Option<Lsn>,
    },
    /// The log between the marker and the fork is not there any more.
    #[error(
        "the checkpoint is at {checkpoint}, behind {fork} where the peer's log leaves this one, and the way back to there from the marker at \
         {marker} is gone: {error}; empty the directory, to be copied whole"
    )]
    NoWayBack {
        /// The checkpoint's position.
        checkpoint: Lsn,
        /// Where the logs part.
        fork: Lsn,
        /// The marker's position.
        marker: Lsn,
        /// What is missing.
        #[source]
        error: Box<Self>,
    },
    /// Nobody can reach this node's memory.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// No memory.
    #[error(transparent)]
    Map(#[from] MapError),
    /// It cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A ring that cannot be.
    #[error("a ring of {places} segments: at least 2 and at most 4096")]
    Places {
        /// How many.
        places: u64,
    },
    /// A silence after which no node can be missed, or none in time.
    #[error("a silence of {silence:?}: at least 100 ms and at most 60 s")]
    Silence {
        /// How long.
        silence: Duration,
    },
}

/// Why the operator's word was not followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Not in this state.
    #[error("{0}")]
    Refused(String),
    /// The table of volumes does not allow it.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// It could not be written.
    #[error(transparent)]
    Io(#[from] super::IoError),
    /// The register was not changed.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The note of a resync.
    #[error(transparent)]
    Note(#[from] super::resync::NoteError),
    /// What was needed for it could not be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Somebody else has changed the configuration.
    #[error("the arbiter holds {}, not configuration {expected}: it was changed meanwhile", describe(found.as_ref()))]
    Overtaken {
        /// The id that was known.
        expected: u64,
        /// What it holds.
        found: Option<Configuration>,
    },
    /// The peer did not answer, or refused.
    #[error("the peer: {0}")]
    Peer(#[from] CallError),
    /// The arbiter did not answer, or refused.
    #[error(transparent)]
    Arbiter(#[from] ArbiterError),
}

fn describe(configuration: Option<&Configuration>) -> String {
    configuration.map_or("nothing".into(), |found| {
        format!("configuration {}, in which {} serves", found.id, found.primary)
    })
}
