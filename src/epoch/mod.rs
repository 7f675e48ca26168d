//! Epochs: a memory that is stored into through a pointer, mirrored atomically.
//!
//! ```text
//! owner                                                       holder
//!  memory ── pages that were stored to ─▶ what differs ─▶ ring ═══ lane ═══▶ ring ── whole epochs ─▶ image
//!            (memory::TrackedMemory)      from the twin
//! ```
//!
//! Nobody sees each store, so nothing is mirrored before [`EpochRegion::commit`] closes an epoch; then all of it is at the
//! peer or none. The mirrored region is a log of epochs in a ring, with the image behind it; [`EpochHolder`] applies an epoch to
//! its image when the commit record is there and all checks. `docs/epoch.md` has states and formats, and what is promised when.
//!
//! `record`, `applied`, `body`, `log` and `applier` are pure: they take memory and positions. `region` and `holder` join them to the
//! mirrored region.

mod applied;
mod applier;
mod body;
mod config;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod holder;
mod layout;
mod link;
mod log;
mod record;
mod region;
mod ship;
#[cfg(test)]
mod testing;

pub use config::{Cut, EpochConfig, Reconnected};
pub use error::EpochError;
pub use holder::{EpochCopy, EpochHolder, EpochStatus};
pub use layout::EpochLayout;
pub use region::EpochRegion;
