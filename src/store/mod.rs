//! The block store: a dataset on one node of a pair. Files, threads, and which of the two serves.
//!
//! ```text
//!  Volume::write ─▶ Log (place in the ring, record, map) ─▶ Link (lane) ─▶ the peer's ring          io, log, primary
//!  Volume::commit ◀─ committed ◀─ the peer's memory has it, or the own disk                          primary
//!                     ring ─▶ segment files ─▶ fdatasync ─▶ durable                                  engine, tender
//!  secondary: its ring ─▶ scan ─▶ maps, segment files ─▶ durable ─▶ a word that the primary fetches   follower, tender
//!                     maps ─▶ checkpoint ─▶ dead blocks given back                                   keeper, reclaim
//!  stored data ─▶ compared with checksums, and with the peer's ─▶ mended where it is bad              scrub, verify, mend
//!  what the ring lost: maps, tables and blocks, asked for one by one                                resync
//!  who serves: hello, follow, attach, set in; promote, alone                                         pair, register
//! ```
//!
//! A write runs on the thread of whoever writes, from its bytes to the peer's memory: no thread is woken on its way.
//!
//! Locks, in this order: the pair's moves, what fills in files of a resync, its note, the register, the checkpoint, the marker, the way of a
//! resync's pieces, the turn to destage, the state. The state is never held over
//! a file, a socket or a wait; the others may be.

mod appended;
mod bring_back;
mod checkpoint;
mod config;
mod confirm;
mod counters;
mod dataset;
mod directory;
mod durable_mark;
mod engine;
mod error;
mod follower;
#[cfg(test)]
mod golden_tests;
mod health;
mod holding;
mod identity;
mod io;
mod keeper;
mod let_in;
mod link;
mod log;
mod log_files;
mod marker;
mod medium;
mod mend;
mod pair;
mod peer;
mod primary;
mod ranges;
mod read_lease;
mod reclaim;
mod recover;
mod register;
mod resident;
mod resync;
mod ring_memory;
mod ring_segment;
mod scrub;
mod segment_files;
mod settle;
#[cfg(test)]
mod simulation;
mod state;
mod status;
mod stored;
mod sums;
mod tender;
mod throttle;
mod usual;
mod verify;
mod volumes;
#[cfg(test)]
pub(crate) mod world;

#[doc(hidden)]
pub use checkpoint::decoders as checkpoint_decoders;
pub use checkpoint::{CheckpointError, RecordError};
pub use config::{
    AfterHold, ArbiterConfig, ArbiterKind, CommandError, DatasetConfig, Durability, HoldBound, OpenError,
    Reads, VolumeSpec,
};
pub use counters::Counts;
pub use dataset::Dataset;
pub use directory::{Directory, DirectoryError, Space};
pub use error::IoError;
pub use health::{CheckKind, CheckStatus, Note};
pub use holding::HoldStatus;
pub use identity::{IDENTITY_BYTES, Identity, IdentityError, NODE_NAME_BYTES_MAX};
pub use io::{ExtentRun, Gone, LackRun, Mark, Source, Volume};
pub use pair::{CanStop, Switched};
pub use ranges::{BadRange, Outcome, Side};
pub use register::{Configuration, Fork, RegisterError};
pub use resync::{NoteError, ResyncStatus};
pub use scrub::Scrubbed;
pub use segment_files::{FileSource, OPEN_FILES_MAX, Remade, SegmentFileError, SegmentFiles};
pub use state::Reason;
pub use status::{DatasetStatus, DiskState, ReplicationState, RoleStatus};
pub use verify::Verified;
pub use volumes::{NAME_BYTES_MAX, VOLUMES_MAX, VolumeError, VolumeInfo};
