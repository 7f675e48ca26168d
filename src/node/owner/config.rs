//! How a region is opened, and why that fails.

use std::time::Duration;

use super::CallError;
use crate::base::{FabricUrl, RegionId};
use crate::memory::{LockError, LockPolicy, MapError};

/// What the two sides hold at their first meeting, said by whoever opens the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// The local bytes (zeroes in a new region) go to the holder. A holder that has a whole copy already refuses,
    /// unless `replace`: that copy is then gone from the first byte on, and the owner has the only one until the push
    /// is complete.
    Push {
        /// Destroy the copy that the holder has.
        replace: bool,
    },
    /// The holder's bytes come here: what a restarted owner does.
    Pull,
    /// Both sides hold the same bytes, proven by digests; nothing is moved.
    Equal,
}

/// How to open a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionConfig {
    /// The holder.
    pub url: FabricUrl,
    /// Bytes; the holder must have as many.
    pub size: usize,
    /// What the two sides hold.
    pub attach: Attach,
    /// The region's name, where it is known; a pull of another name is refused. A push without one makes a new name.
    pub id: Option<RegionId>,
    /// Ask for huge pages for the local copy.
    pub huge_pages: bool,
    /// Whether the local copy is locked in memory.
    pub lock: LockPolicy,
    /// A heartbeat goes out this often.
    pub heartbeat: Duration,
    /// The holder is called silent after this long. On media that need its processor, the link is then lost.
    pub silence: Duration,
    /// How long opening waits for the holder at each step, and how long a bulk transfer may stand still. At the end of a push a second
    /// more for each 16 MiB, which a holder with a file brings to its disk.
    pub timeout: Duration,
}

impl RegionConfig {
    /// The usual: locked, heartbeats every 250 ms, silence after 2 s, 10 s of patience.
    #[must_use]
    pub const fn new(url: FabricUrl, size: usize, attach: Attach) -> Self {
        Self {
            url,
            size,
            attach,
            id: None,
            huge_pages: false,
            lock: LockPolicy::Required,
            heartbeat: Duration::from_millis(250),
            silence: Duration::from_secs(2),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Why a region was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No memory for the local copy.
    #[error(transparent)]
    Map(#[from] MapError),
    /// It cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The operating system refused a descriptor or a thread.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// The holder cannot be reached, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The copies differ although they were said to be equal.
    #[error(
        "the copies differ in {differing} of {chunks} MiB-sized chunks, the first at byte {first_offset}: \
         attach by Push to keep the local one, by Pull to keep the holder's"
    )]
    Different {
        /// Chunks that differ.
        differing: usize,
        /// Chunks in all.
        chunks: usize,
        /// First byte of the first that differs.
        first_offset: usize,
    },
    /// The holder has another region.
    #[error("the holder keeps region {theirs}, not {ours}")]
    OtherRegion {
        /// The one asked for.
        ours: RegionId,
        /// The one found.
        theirs: RegionId,
    },
}
