//! The log of a block store, in segments.
//!
//! The log is an endless sequence of records; a position in it, an [`Lsn`](crate::base::Lsn), names what lies there for ever, on
//! both nodes. It is cut into segments of one size. The newest lie open in a ring in the mirrored memory, all of them in one
//! sparse file each.
//!
//! ```text
//!  reserve ─▶ Place ─▶ payload into the ring itself ─▶ seal ─▶ Batch ─▶ posted to the peer      (Append)
//!                                                      │
//!  ring ─▶ device blocks of the committed prefix ─▶ fdatasync ─▶ durable LSN            (Destage, Packed)
//!                                                      │
//!  both nodes durable, no reader ─▶ the place in the ring is free                               (Ring)
//!  after a crash: heads, records ─▶ all that was durable, then the tail, or damage              (Replay)
//! ```
//!
//! Nothing here does I/O, waits, or reads a clock: it takes positions and memory, and says what is to be read, written and posted.
//! `docs/formats.md` draws the bytes.
//!
//! What the medium is assumed to do: a device block that is written once and synced stays as it is; one whose write was not synced
//! may hold anything after a crash, and such writes may take effect in any order.

mod append;
mod destage;
mod error;
#[cfg(test)]
mod golden_tests;
mod head;
mod layout;
mod packed;
mod record;
mod replay;
mod ring;
mod scan;
mod split;
#[cfg(test)]
pub(crate) mod testing;

pub use append::{Append, Batch, Place, Request};
pub use destage::{Destage, DestageWrite, Sync};
pub use error::{Fault, HeadError, LayoutError, ReplayError};
pub use head::{GenerationBegin, HEAD_BYTES, Salt, SegmentHead};
pub use layout::{Form, LSN_STEP, SLOT_BYTES, SegmentLayout, parse_segment_file_name, segment_file_name};
pub use packed::Packed;
pub use record::{Extent, PAYLOAD_BLOCKS_MAX, RECORD_SLOTS_MAX, Record, RecordKind};
pub use replay::{Known, Outcome, Replay};
pub use ring::{Node, Ring};
pub use scan::{Scan, SegmentSource, Verify};
pub use split::split;
