//! Why a store was not taken, or a wait ended without what it waited for.

use super::LostReason;
use crate::base::{Level, Sequence, Unsupported};

/// A store was not taken: neither copy was changed by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// As many stores are in flight as the lane's depth, or the medium has no room; `poll` or `wait`, then try again.
    #[error("the lane's window is full ({in_flight} stores in flight)")]
    WouldBlock {
        /// Stores not yet acknowledged.
        in_flight: usize,
    },
    /// No room came within the lane's `store_timeout`.
    #[error(
        "no room in the lane's window within {waited:?} ({in_flight} stores in flight): the peer does not acknowledge"
    )]
    Timeout {
        /// How long it waited.
        waited: std::time::Duration,
        /// Stores not yet acknowledged.
        in_flight: usize,
    },
    /// Outside the region.
    #[error("{len} bytes at {offset} lie outside the region of {size} bytes")]
    OutOfRange {
        /// First byte.
        offset: usize,
        /// Bytes.
        len: usize,
        /// The region's bytes.
        size: usize,
    },
    /// The range overlaps a hole that is neither sealed nor void.
    #[error(
        "{len} bytes at {offset} overlap the open hole of {hole_len} bytes at {hole_offset}: seal or void it first"
    )]
    OpenHole {
        /// First byte.
        offset: usize,
        /// Bytes.
        len: usize,
        /// First byte of the hole.
        hole_offset: usize,
        /// Bytes of the hole.
        hole_len: usize,
    },
    /// As many holes are open as a lane allows.
    #[error("{0} holes are open, the most a lane allows: seal or void one first")]
    TooManyHoles(usize),
    /// The hole was reserved on another lane.
    #[error("this hole was not reserved on this lane")]
    StrangeHole,
    /// The link to the peer is lost: see [`Lane::unknown`](super::Lane::unknown), then reconnect.
    #[error(
        "the link is lost ({reason}): stores to {acked} of {last} are acknowledged, the rest unknown; reconnect the region"
    )]
    LinkLost {
        /// Why.
        reason: LostReason,
        /// The last acknowledged store.
        acked: Sequence,
        /// The last store that was taken.
        last: Sequence,
    },
}

/// A wait ended without what it waited for. The stores are as they were: waiting again is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline passed.
    #[error("deadline passed: store {wanted} is not {level} yet, {reached} is")]
    Deadline {
        /// The level waited for.
        level: Level,
        /// The store waited for.
        wanted: Sequence,
        /// The last store at that level.
        reached: Sequence,
    },
    /// The deadline passed before a fetch was done. It may be done yet.
    #[error("deadline passed: the {len} bytes at {offset} of the peer's copy have not come yet")]
    FetchDeadline {
        /// First byte.
        offset: usize,
        /// Bytes.
        len: usize,
    },
    /// The link to the peer is lost before the level was reached.
    #[error(
        "the link is lost ({reason}): stores to {acked} of {last} are acknowledged, the rest unknown; reconnect the region"
    )]
    LinkLost {
        /// Why.
        reason: LostReason,
        /// The last acknowledged store.
        acked: Sequence,
        /// The last store that was taken.
        last: Sequence,
    },
    /// The ticket is of another lane, or of this lane before it reconnected.
    #[error(
        "stale ticket: it names store {sequence} of lane {lane} session {session}, this is lane {this_lane} session {this_session}"
    )]
    StaleTicket {
        /// Store that the ticket names.
        sequence: Sequence,
        /// Lane that it names.
        lane: u32,
        /// Session that it names.
        session: u32,
        /// The lane asked.
        this_lane: u32,
        /// Its session.
        this_session: u32,
    },
    /// The level cannot be had from this pair.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The peer could not bring its copy to stable storage. What is `Visible` stays so.
    #[error("the peer could not sync its copy: {0}")]
    SyncFailed(String),
}
