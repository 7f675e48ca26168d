//! How a holder is made, and why that or a fence fails.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::{FabricUrl, Unsupported};
use crate::control::HelloError;
use crate::memory::{LockError, LockPolicy, MapError};

/// How to keep a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderConfig {
    /// Where to listen; port 0 takes any.
    pub url: FabricUrl,
    /// Bytes.
    pub size: usize,
    /// Keep the copy in this file, so that `Durable` can be had and a restart of the holder loses nothing.
    pub file: Option<PathBuf>,
    /// Accept a file whose host has rebooted since it was written: what was synced is in it, of the stores after the
    /// last sync any part may be missing. Or one of which a sync failed: any part may be missing then, and nothing
    /// becomes `Durable` any more.
    pub accept_uncertain: bool,
    /// Ask for huge pages.
    pub huge_pages: bool,
    /// Whether the copy is locked in memory.
    pub lock: LockPolicy,
    /// Receivers of tcp queues spin this long for more before they sleep.
    pub spin: Duration,
    /// A heartbeat goes out this often.
    pub heartbeat: Duration,
    /// The owner is called silent after this long.
    pub silence: Duration,
    /// Authenticated connections that never attached, at most; the oldest makes room for one more. Each costs two threads and a
    /// descriptor. 0 is 1.
    pub unattached: usize,
}

impl HolderConfig {
    /// The usual: memory, locked, receivers that spin for 20 µs, heartbeats every 250 ms, silence after 2 s, 64 connections that
    /// never attached.
    #[must_use]
    pub const fn new(url: FabricUrl, size: usize) -> Self {
        Self {
            url,
            size,
            file: None,
            accept_uncertain: false,
            huge_pages: false,
            lock: LockPolicy::Required,
            spin: Duration::from_micros(20),
            heartbeat: Duration::from_millis(250),
            silence: Duration::from_secs(2),
            unattached: 64,
        }
    }
}

/// Why a holder does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HolderError {
    /// No memory for the copy.
    #[error(transparent)]
    Map(#[from] MapError),
    /// It cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Cannot listen, or no descriptor or thread left.
    #[error("cannot listen on {url}: {error}")]
    Listen {
        /// Where.
        url: FabricUrl,
        /// Why.
        error: std::io::Error,
    },
    /// Heartbeat or silence out of bounds: no owner could be greeted.
    #[error(transparent)]
    Interval(#[from] HelloError),
    /// The operating system refused something else.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// The file is not one that a holder of this region wrote.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the way out.
        why: String,
    },
}

/// Why the owner's access could not be taken away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FenceError {
    /// Nothing on this medium can.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A request that had begun did not end in time. Nothing more is let in: try again.
    #[error("a request being carried out did not end within the deadline; nothing more is let in, try again")]
    Deadline,
    /// The file behind the copy was cut short: acknowledged stores are gone from it.
    #[error(
        "the file behind the copy was truncated ({0}): acknowledged stores are gone, do not take over from this copy"
    )]
    Truncated(std::io::Error),
    /// The RDMA device does not let go of the copy.
    #[error("the RDMA device does not let go of the copy: {0}; no further queue is let in, try again")]
    Device(String),
    /// No memory to move the copy to, away from a live owner's reach. Nothing is acknowledged any more: try again.
    #[error("no memory to move the copy to: {0}")]
    Map(#[from] MapError),
}
