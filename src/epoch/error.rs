//! Why an epoch is not made, not shipped or not had.

use crate::base::{FabricUrl, Level};
use crate::memory::{LockError, MapError, TrackError};
use crate::mirror::{StoreError, WaitError};
use crate::node::{FenceError, HolderError, OpenError, ReconnectError};

/// Why an epoch is not made, not shipped or not had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EpochError {
    /// Sizes that do not go together.
    #[error("epochs of {image} bytes with a ring of {ring}: {what}")]
    Layout {
        /// Bytes of the memory.
        image: usize,
        /// Bytes of the ring.
        ring: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The peer's memory could be written on after a take-over.
    #[error(
        "epochs over {0} are not supported: nothing there takes the owner's access away; use shm:/PATH, tcp:// or rdma://"
    )]
    Unsupported(FabricUrl),
    /// Stores cannot be tracked.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// No memory.
    #[error(transparent)]
    Map(#[from] MapError),
    /// It cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The region was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The holder does not start.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// The owner's access was not taken away.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The other side holds something else than epochs of this layout, or nothing whole.
    #[error("the copy cannot be used: {0}")]
    Content(String),
    /// More changed than a ring takes. Nothing was cut: what was changed is found again by the next commit.
    #[error(
        "the epoch has more than {bytes} bytes after {looked} of {pages} changed pages, and the ring {ring}: \
         commit more often, or open the region (and start its holder) with a larger ring"
    )]
    TooLarge {
        /// Bytes of the epoch as far as it was made.
        bytes: usize,
        /// Pages that were looked at until then.
        looked: usize,
        /// Pages that may have changed.
        pages: usize,
        /// Bytes of the ring.
        ring: usize,
    },
    /// The deadline passed while the holder had not applied enough for the epoch to find room. It stays cut: ship it later.
    #[error(
        "no room within the deadline: epoch {epoch} has {bytes} bytes, the ring has {free} free until the holder applies more \
         (it has come to epoch {applied})"
    )]
    NoRoom {
        /// The epoch.
        epoch: u64,
        /// Its bytes.
        bytes: usize,
        /// Bytes of the ring that are free.
        free: u64,
        /// The last epoch that the holder has applied.
        applied: u64,
    },
    /// One is cut and not shipped yet.
    #[error("epoch {0} is cut and not shipped: ship it first")]
    Unshipped(u64),
    /// A reconnection dropped it, and no epoch was cut since.
    #[error(
        "epoch {0} was dropped when the region was opened anew: cut another, which has all that it changed"
    )]
    Dropped(u64),
    /// Another owner was at the holder. What it has is left as it is.
    #[error(
        "the holder has epoch {found}, which this owner did not make (its last is {own}): another owner was there.          Open the region anew"
    )]
    Superseded {
        /// The last epoch that this owner cut.
        own: u64,
        /// The holder's.
        found: u64,
    },
    /// The lane took no more. The epoch stays cut.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The level was not reached. The epoch stays cut; whether the peer has it whole is open.
    #[error("epoch {epoch} is not known to be {level}: {error}")]
    Wait {
        /// The epoch.
        epoch: u64,
        /// The level.
        level: Level,
        /// Why.
        error: WaitError,
    },
    /// The region was not connected again.
    #[error(transparent)]
    Reconnect(#[from] ReconnectError),
    /// The operating system refused something else.
    #[error(transparent)]
    System(#[from] std::io::Error),
}
