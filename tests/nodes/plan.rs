//! What a pair of nodes is made with.

use crate::arbiter::Decider;

/// How the two reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    Shm,
    Tcp,
}

/// What a pair is made with.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) medium: Medium,
    pub(crate) ring_mib: u64,
    pub(crate) volume_mib: u64,
    /// Put before the command that starts a node; `NODE` is its name, `SCRATCH` the directory of everything.
    pub(crate) under: Vec<String>,
    /// Who decides which serves. What is a process starts with [`Rig::pair`].
    pub(crate) decider: Decider,
    /// The node that is preferred.
    pub(crate) preferred: Option<usize>,
    /// How long the other node is not heard before it is missed, if that is not the usual.
    pub(crate) silence_ms: Option<u64>,
    /// Whether all ways, of TCP, can be cut: see [`Rig::ways`].
    pub(crate) proxied: bool,
    /// Further lines of the dataset's table; `SCRATCH` is the directory of everything.
    pub(crate) lines: String,
}

impl Plan {
    pub(crate) const fn new(medium: Medium) -> Self {
        Self {
            medium,
            ring_mib: 16,
            volume_mib: 8,
            under: Vec::new(),
            decider: Decider::Operator,
            preferred: None,
            silence_ms: None,
            proxied: false,
            lines: String::new(),
        }
    }
}
