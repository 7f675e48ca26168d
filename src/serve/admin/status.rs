//! How a node is, as values: what the socket gives, the command shows and the metrics are made of.
//!
//! Keys are an interface: none is renamed or loses its meaning. New ones may come, so readers pass over what they do not know.
//! Roles and states have the words that users of DRBD know.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::HookStatus;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Milliseconds since its start.
    pub uptime_ms: u64,
    /// Milliseconds since this status was taken. More than a second means that the node could not take a newer one: something in
    /// it hangs.
    #[serde(default)]
    pub age_ms: u64,
    /// Its datasets.
    pub datasets: Vec<DatasetStatus>,
}

/// A dataset on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DatasetStatus {
    /// Its name.
    pub name: String,
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// What this node is for it.
    pub role: Role,
    /// What this node's copy is worth.
    pub disk_state: DiskState,
    /// How it is with the peer.
    pub replication_state: ReplicationState,
    /// Why it is so.
    pub reason: Reason,
    /// Number of the writer's uninterrupted part of the log.
    pub generation: u64,
    /// How far the log is.
    pub lsn: Watermarks,
    /// The ring.
    pub ring: RingStatus,
    /// The volumes.
    pub volumes: Vec<VolumeStatus>,
    /// Bytes of the log that the peer is not known to have, acknowledged or, while it is a member, on their way to be; and what a resync has left.
    pub unreplicated_bytes: u64,
    /// The scrub or verify under way.
    #[serde(default)]
    pub check: Option<CheckStatus>,
    /// How far a resync is; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync: Option<ResyncProgress>,
    /// How long requests have been held, because the link is lost and it is not decided which node goes on; absent when they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldProgress>,
    /// The last command that was run because this node began to serve, or ceased to; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookStatus>,
    /// What was done since the start.
    pub counters: Counters,
    /// How long clients waited for their answers.
    pub latency: Latencies,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$word_doc])* $word,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$word,)*];

            /// As it is written.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words! {
    /// What a node is for a dataset.
    Role {
        /// It serves clients.
        Primary,
        /// It follows the primary.
        Secondary,
        /// It does not know yet, and serves nobody.
        #[default]
        Undecided,
    }
}

words! {
    /// What a node's copy of a dataset is worth.
    DiskState {
        /// It has all that was acknowledged.
        UpToDate,
        /// It is whole; whether it is the newest is not known.
        #[default]
        Consistent,
        /// It is whole, and something newer exists; also while it is resynced.
        Outdated,
        /// A sync failed, or what is stored is damaged: out of service.
        Failed,
    }
}

words! {
    /// How it is between the two nodes.
    ReplicationState {
        /// What one writes, both have.
        Established,
        /// The primary goes on without its peer.
        Alone,
        /// The peer has not been heard yet.
        #[default]
        WaitingForPeer,
        /// The one that is behind is given what it lacks.
        CatchingUp,
        /// The peer was away for long, or is new, and is given what it lacks out of this node's files.
        SyncSource,
        /// This node is given what it lacks out of the primary's files; until that is done it has what it had.
        SyncTarget,
        /// The link broke; what to do is not decided yet.
        LinkLost,
    }
}

/// How far a resync is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ResyncProgress {
    /// Bytes of data that were lacking when it began; 0 while that is not known.
    pub total_bytes: u64,
    /// Bytes of them that are lacking now.
    pub left_bytes: u64,
    /// What is done, in hundredths of a percent.
    pub in_sync_hundredths: u64,
    /// Bytes a second of late.
    pub bytes_per_second: u64,
    /// How long the rest takes at that rate; absent while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// How long requests have been held.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HoldProgress {
    /// Milliseconds.
    pub held_ms: u64,
    /// Whether that is longer than was allowed.
    pub is_over: bool,
    /// What becomes of them then: `suspend`, they wait on, or `error`, they fail.
    pub after: String,
}

/// Why something is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reason {
    /// For programs.
    pub code: String,
    /// For people.
    pub text: String,
}

/// Positions in the log, in bytes. Each says that something holds of all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watermarks {
    /// The end of the log on this node.
    pub appended: u64,
    /// Acknowledged, or allowed to be.
    pub committed: u64,
    /// On this node's stable storage.
    pub durable_own: u64,
    /// On the peer's stable storage, as far as it has told.
    pub durable_peer: u64,
    /// In this node's block maps.
    pub applied: u64,
    /// In this node's checkpoint: a restart reads the log from here.
    pub checkpoint: u64,
    /// In this node's marker: a peer that is away is brought up to date from here; 0 when there is none, so that it is copied whole.
    #[serde(default)]
    pub marker: u64,
}

impl Watermarks {
    /// Each but the end, with its name.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("committed", self.committed),
            ("durable_own", self.durable_own),
            ("durable_peer", self.durable_peer),
            ("applied", self.applied),
            ("checkpoint", self.checkpoint),
            ("marker", self.marker),
        ]
    }
}

/// What is being checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// This node's data against their checksums.
    Scrub,
    /// Both nodes' data against each other.
    Verify,
}

impl CheckKind {
    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Scrub => "scrub",
            Self::Verify => "verify",
        }
    }
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Which.
    pub kind: CheckKind,
    /// Bytes looked at.
    pub done_bytes: u64,
    /// Bytes to look at, as of its beginning.
    pub total_bytes: u64,
}

/// The ring of open segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RingStatus {
    /// Its bytes.
    pub bytes: u64,
    /// Bytes that are still needed there.
    pub used_bytes: u64,
    /// Segments for which it has room.
    pub places: u64,
    /// Segments that are still needed there.
    pub used_places: u64,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its name.
    pub name: String,
    /// Its number in the log.
    pub id: u32,
    /// Its size.
    pub bytes: u64,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Bytes of it that have data.
    pub mapped_bytes: u64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What was done since the start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Each with its name.
            #[must_use]
            pub const fn named(&self) -> [(&'static str, u64); [$(stringify!($name),)*].len()] {
                [$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Read requests.
    reads,
    /// Their bytes.
    read_bytes,
    /// Write requests.
    writes,
    /// Their bytes.
    write_bytes,
    /// Trims and zeroed ranges.
    trims,
    /// Flushes that clients asked for.
    flushes,
    /// Bytes written to the segments' files.
    destaged_bytes,
    /// Syncs of them.
    syncs,
    /// Checkpoints written.
    checkpoints,
    /// Segments removed because all in them was dead.
    segments_removed,
    /// Bytes of dead blocks given back to the filesystem.
    punched_bytes,
    /// Blocks that did not match their checksum, as scrubs found.
    damaged_blocks,
    /// Blocks that were written again from good data.
    repaired_blocks,
    /// Reads that the peer's data answered, because this node's was bad.
    masked_reads,
    /// Questions of a peer that is brought up to date.
    resync_questions,
    /// Answers with data to it.
    resync_pieces,
    /// Bytes of data in them.
    resync_data_bytes,
    /// Bytes of maps and of segments' tables that it was sent.
    resync_table_bytes,
    /// Times that what a client asked for failed because it was held for too long.
    hold_failures,
    /// Commands that were run because this node began to serve, or ceased to.
    hook_runs,
    /// Those that failed, or took too long.
    hook_failures,
}

/// How long clients waited, by what they asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Latencies {
    /// Reads.
    pub read: LatencyStatus,
    /// Writes, trims and zeroed ranges, to the acknowledgment.
    pub write: LatencyStatus,
    /// Flushes, and writes that ask for one.
    pub flush: LatencyStatus,
}

impl Latencies {
    /// Each with its name.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, &LatencyStatus); 3] {
        [("read", &self.read), ("write", &self.write), ("flush", &self.flush)]
    }
}

/// Latencies since the start, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencyStatus {
    /// How many there are.
    pub count: u64,
    /// All of them added up.
    pub sum_ns: u64,
    /// Half are at most this long, to two digits.
    pub p50_ns: u64,
    /// 99 % are.
    pub p99_ns: u64,
    /// 99.9 % are.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How many are at most so long: bounds rise, and so do counts.
    pub buckets: Vec<Bucket>,
}

/// A bound of latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bucket {
    /// The bound.
    pub at_most_ns: u64,
    /// Latencies that do not exceed it.
    pub count: u64,
}
