//! Counts of what a lane did.

/// Counts since the lane was made. Plain numbers: a lane is used by one thread at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneStats {
    /// Stores taken.
    pub stores: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Stores that continued the one before and travel in its request.
    pub coalesced: u64,
    /// Work requests posted.
    pub requests: u64,
    /// Of these, signaled.
    pub signaled: u64,
    /// Batches made to go.
    pub doorbells: u64,
    /// Completions reaped.
    pub completions: u64,
    /// Times that a store found the window or the medium full.
    pub would_block: u64,
    /// Times that a waiter slept.
    pub sleeps: u64,
    /// System calls that its queues made, beside `sleeps`; `None` where the medium does not count them.
    pub syscalls: Option<u64>,
    /// Times that this lane was connected.
    pub sessions: u32,
}
