//! The block store on this node: files, threads, role.
//!
//! ```text
//!  directory      whose a backing directory is; locked while in use
//!  segment_files  the log's segments, a sparse file each
//!  checkpoint     block maps, so that a restart reads little of the log
//!  sums           checksums of the blocks in the files, for reads
//!  reclaim        which parts of the files nobody needs
//! ```

mod checkpoint;
mod directory;
mod files;
mod identity;
mod reclaim;
mod segment_files;
mod sums;

#[doc(hidden)]
pub use checkpoint::decoders as checkpoint_decoders;
pub use checkpoint::{
    Checkpoint, CheckpointError, Fork, REGISTER_BYTES_MAX, RecordError, Snapshot, VOLUME_NAME_BYTES_MAX,
    VolumeEntry,
};
pub use directory::{Directory, DirectoryError, Space};
pub use identity::{IDENTITY_BYTES, Identity, IdentityError, NODE_NAME_BYTES_MAX};
pub use reclaim::{Live, Punch, ReclaimPlan, ReclaimSegment};
pub use segment_files::{FileSource, OPEN_FILES_MAX, SegmentFileError, SegmentFiles};
pub use sums::{SUMS_BYTES_MAX, SumError, Sums};
