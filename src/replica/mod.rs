//! Bringing a node up to date that was away: from which position on, with which data, how far it is, how fast it may go.
//!
//! ```text
//!  Phases ──▶ marker: a snapshot of the maps that both nodes have durable
//!                │
//!  maps of the marker ─┬─▶ MapRuns ─▶ frames ─▶ the peer's maps       which block has its data where
//!  maps now ───────────┴─▶ Plan ─▶ per segment: live ranges ─▶ pieces  the data itself, under its own LSN
//!                                                   │
//!                      Latencies ─▶ Throttle ─▶ wait┘──▶ Progress
//! ```
//!
//! Data keeps its LSN for life on both nodes, so a block is lacking exactly when the maps name a position for it that the peer's files do not
//! have: nothing is written down for each write, and what was overwritten meanwhile is never sent.
//!
//! Pure: no I/O, no clock. Time is an argument, as what passed since any fixed moment.

mod latencies;
mod phases;
mod plan;
mod progress;
mod runs;
mod runs_codec;
mod sparse;
mod throttle;

pub use latencies::{Counts, Latencies};
pub use phases::{PhaseLimits, Phases, Trigger};
pub use plan::{DataRun, Plan, SegmentPlan};
pub use progress::Progress;
pub use runs::{MapRun, MapRuns, RunError};
pub use runs_codec::{Cursor, FRAME_BYTES_MIN, decode_runs, encode_runs, frame};
pub use sparse::{UNIT_BYTES, pack_sparse, unpack_sparse};
pub use throttle::Throttle;
