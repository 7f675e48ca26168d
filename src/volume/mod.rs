//! Volumes: which position of the log has each block's data.
//!
//! ```text
//!  BlockMap ── root ─▶ inner ─▶ … ─▶ leaf of 64 LSNs          a clone is one more pointer to the root
//!                        ▲
//!  snapshot ── root ─────┘  shared until one of them changes
//! ```
//!
//! Pure: no I/O. What a map says follows from the records alone, so both nodes' maps are equal when both have applied the same.

mod diff;
mod edit;
mod leaf;
mod map;
mod node;
mod record;

pub use diff::{Change, Diff};
pub use leaf::{LEAF_BLOCKS, LeafError};
pub use map::{BlockMap, Run};
pub use record::ApplyError;
