//! Work requests and completions.

use super::WindowId;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Local bytes into the window. Length 0 is allowed and moves nothing: it carries a completion.
    Write,
    /// Bytes of the window into local memory.
    Read,
    /// Completes once all writes posted before it are visible to the peer's processor. Has no range.
    Flush,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkRequest {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// What it does.
    pub operation: Operation,
    /// The window that the peer granted.
    pub window: WindowId,
    /// First byte in the local mapping.
    pub local_offset: usize,
    /// First byte in the window.
    pub remote_offset: usize,
    /// Bytes; at most [`Capabilities::message_bytes_max`](super::Capabilities).
    pub len: usize,
    /// A completion is wanted. Reads and flushes are always signaled.
    pub signaled: bool,
}

/// A request, and every one posted before it on the same queue, completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The id that the request carried.
    pub wr_id: u64,
}
