//! What a medium gives.

use crate::base::{Level, Medium, Unsupported};

/// Until when the source of a posted write must not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceUse {
    /// `post` has read it: it may change as soon as the call returns.
    AtPost,
    /// The medium reads it any time before the completion (an RDMA NIC does).
    UntilCompleted,
}

/// What a queue gives, with its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The medium.
    pub medium: Medium,
    /// Most bytes in one work request; longer stores are split by the lane.
    pub message_bytes_max: usize,
    /// Most requests outstanding.
    pub depth_max: usize,
    /// Until when sources must not change.
    pub source: SourceUse,
    /// Contiguous stores are gathered into one request up to this many bytes. 0: each store is best posted at once,
    /// since a post costs no more than the copy.
    pub coalesce_bytes_max: usize,
    /// Stores reach the peer's memory without any code of the peer running.
    pub one_sided: bool,
    /// A completion also means `Visible`; otherwise a [`Operation::Flush`](super::Operation) must follow the writes.
    pub visible_on_completion: bool,
    /// Why `Durable` cannot be had, or `Ok` when the peer can sync what backs its memory.
    pub durable: Result<(), Unsupported>,
}

/// Whether this build can carry stores over `medium` at all.
///
/// # Errors
/// It was built without it; says how to have it.
pub fn check_built(medium: Medium) -> Result<(), Unsupported> {
    match medium {
        Medium::Rdma if !cfg!(feature = "rdma") => Err(Unsupported {
            what: "rdma://".into(),
            why: "this program was built without the feature `rdma`: build it with (needs libibverbs-dev, \
                  librdmacm-dev, libclang-dev, cmake, pkg-config), or use tcp://"
                .into(),
        }),
        Medium::Shm | Medium::Tcp | Medium::Rdma => Ok(()),
    }
}

impl Capabilities {
    /// Whether `level` can be had.
    ///
    /// # Errors
    /// Why not, and what would give it.
    pub fn check(&self, level: Level) -> Result<(), Unsupported> {
        match level {
            Level::Posted | Level::Acked | Level::Visible => Ok(()),
            Level::Durable => self.durable.clone(),
        }
    }
}
