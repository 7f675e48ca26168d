//! The mirrored write path: a local memory, lanes that store into it, and what each store is known to have reached.
//!
//! ```text
//! store ─▶ local memory ─▶ open run ─▶ work request ─▶ queue (fabric) ─▶ peer's memory
//!            (copied)      (coalesced)   (posted)                          │
//! wait  ◀───────────────── watermarks ◀──────── completion ◀───────────────┘
//! ```
//!
//! **The prefix rule.** The peer's copy of what a lane wrote is the result of a prefix of that lane's stores, in their
//! order; of what comes directly behind the prefix, and was never acknowledged, any part may be there too. That part
//! is one store, with one exception: a holder that is killed while it copies a request, and whose copy outlives it in
//! a file, leaves any part of that request, which over a stream may be a run of several stores that continue each
//! other. The rule holds at every moment and after the death of either process. It does not hold in the file after
//! power loss at the holder, for what came after the last `Durable`, nor in the cases that a reconnection adds:
//! `docs/semantics.md` has them all. Three things keep it:
//!
//! * requests take effect in post order (fabric contract), and a lane posts in store order;
//! * a run of contiguous stores travels as one request, but a run that has not been handed over completely is
//!   never overwritten: a store that does not simply continue it closes it first;
//! * where the medium reads the source until completion, a store that overlaps one in flight waits for it.
//!
//! Lanes are independent: nothing is ordered between two of them, and two that write the same bytes at the same
//! time leave either's.

#[cfg(feature = "store")]
mod arrivals;
mod combine;
mod core;
mod error;
mod given_up;
mod hole;
mod lane;
mod recent;
mod shared_durable;
mod shared_lane;
mod sleeper;
mod stats;
mod sync_group;
mod ticket;
mod touched;
mod unknown;
mod window;

pub use self::core::{LostReason, PeerSync, PendingSync, RegionCore};
#[cfg(feature = "store")]
pub(crate) use arrivals::{Arrivals, Watch};
pub use error::{StoreError, WaitError};
pub use hole::Hole;
pub use lane::{Lane, LaneConfig, Polling};
pub use shared_lane::SharedLane;
pub use stats::LaneStats;
pub use ticket::{Ticket, Watermarks};
pub use unknown::{ByteRange, Unknown, merge_ranges};
