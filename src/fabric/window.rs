//! Windows: ranges of local memory that a peer may reach, each under a generation, each revocable.
//!
//! On media where a thread of ours carries out the peer's requests, the proof that a revocation took effect is a
//! count of requests being carried out: [`ExportedWindow::enter`] counts itself in *before* it looks at the revoked
//! flag, [`ExportedWindow::revoke`] sets the flag *before* it looks at the count. Both are sequentially consistent,
//! so one of them sees the other. Media where the peer's processor or NIC writes by itself have proofs of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::{Operation, QueueError, WorkRequest};
use crate::base::Generation;
use crate::memory::{Mapping, VolatileSlice};

/// Names a window within a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowId(pub u32);

/// What a peer may do with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    ReadWrite,
}

/// What the requester is told of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub window: WindowId,
    /// The generation under which it is valid.
    pub generation: Generation,
    /// Bytes.
    pub len: usize,
    /// What is allowed.
    pub access: Access,
}

impl Grant {
    /// The one of `windows` that `request` lies within, at this side too: in `local_bytes` of memory, and in a message of
    /// `message_bytes_max` at most. A window that may not be written has no bytes for a Write; a Flush has no range.
    ///
    /// # Errors
    /// [`QueueError::OutOfRange`], with what was exceeded.
    #[inline]
    pub fn admit<W>(
        request: &WorkRequest,
        mut windows: impl Iterator<Item = W>,
        grant_of: impl Fn(&W) -> &Self,
        local_bytes: usize,
        message_bytes_max: usize,
    ) -> Result<W, QueueError> {
        let WorkRequest { window, operation, local_offset, remote_offset, len, .. } = *request;
        let outside = |offset, limit| QueueError::OutOfRange { window, offset, len, limit };
        let found = windows.find(|found| grant_of(found).window == window);
        let found = found.ok_or_else(|| outside(remote_offset, 0))?;
        let grant = grant_of(&found);
        if operation == Operation::Flush {
            return Ok(found);
        }
        if operation == Operation::Write && grant.access != Access::ReadWrite {
            return Err(outside(remote_offset, 0));
        }
        if len > message_bytes_max {
            return Err(outside(remote_offset, message_bytes_max));
        }
        if remote_offset > grant.len || len > grant.len - remote_offset {
            return Err(outside(remote_offset, grant.len));
        }
        if local_offset > local_bytes || len > local_bytes - local_offset {
            return Err(outside(local_offset, local_bytes));
        }
        Ok(found)
    }
}

/// A window as the responder keeps it.
#[derive(Debug)]
pub struct ExportedWindow {
    grant: Grant,
    mapping: Arc<Mapping>,
    revoked: AtomicBool,
    entered: AtomicU32,
}

impl ExportedWindow {
    /// Grants the whole of `mapping` under `generation`.
    #[must_use]
    pub fn new(window: WindowId, generation: Generation, access: Access, mapping: Arc<Mapping>) -> Arc<Self> {
        let grant = Grant { window, generation, len: mapping.len(), access };
        Arc::new(Self { grant, mapping, revoked: AtomicBool::new(false), entered: AtomicU32::new(0) })
    }

    /// What the peer is told.
    #[must_use]
    pub const fn grant(&self) -> Grant {
        self.grant
    }

    /// The memory behind the window.
    #[must_use]
    pub const fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Starts to carry out a request; `None` once the window is revoked. The revocation is not complete while the
    /// guard lives.
    #[must_use]
    pub fn enter(&self) -> Option<WindowGuard<'_>> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        let guard = WindowGuard { window: self };
        if self.revoked.load(Ordering::SeqCst) { None } else { Some(guard) }
    }

    /// Lets no further request in. Complete when [`quiesced`](Self::quiesced) says so.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    /// Whether it is revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::SeqCst)
    }

    /// Whether the window is revoked and no request that entered before is still being carried out.
    #[must_use]
    pub fn quiesced(&self) -> bool {
        self.revoked.load(Ordering::SeqCst) && self.entered.load(Ordering::SeqCst) == 0
    }
}

/// Proof that a request may touch the window's memory now.
#[derive(Debug)]
pub struct WindowGuard<'a> {
    window: &'a ExportedWindow,
}

impl WindowGuard<'_> {
    /// The memory, when the range lies within the window.
    #[must_use]
    pub fn range(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        self.window.mapping.slice().subslice(offset, len)
    }
}

impl Drop for WindowGuard<'_> {
    fn drop(&mut self) {
        self.window.entered.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: usize = 100;
    const MESSAGE: usize = 50;

    fn admitted(
        operation: Operation,
        window: u32,
        remote_offset: usize,
        local_offset: usize,
        len: usize,
    ) -> Result<u32, usize> {
        let grant =
            |window, len, access| Grant { window: WindowId(window), generation: Generation(1), len, access };
        let windows = [grant(1, 80, Access::ReadWrite), grant(2, 200, Access::Read)];
        let window = WindowId(window);
        let request =
            WorkRequest { wr_id: 0, operation, window, local_offset, remote_offset, len, signaled: true };
        match Grant::admit(&request, windows.iter(), |grant| grant, LOCAL, MESSAGE) {
            Ok(found) => Ok(found.window.0),
            Err(QueueError::OutOfRange { limit, .. }) => Err(limit),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_request_is_admitted_where_it_lies_within_everything() {
        use Operation::{Flush, Read, Write};
        for (operation, window, remote_offset, local_offset, len, expected) in [
            (Write, 1, 30, 50, 50, Ok(1)),
            (Write, 1, 80, 100, 0, Ok(1)),
            (Write, 3, 0, 0, 1, Err(0)),
            (Write, 2, 0, 0, 1, Err(0)),
            (Read, 2, 150, 0, 50, Ok(2)),
            (Read, 2, 0, 0, 51, Err(MESSAGE)),
            (Read, 1, 31, 0, 50, Err(80)),
            (Read, 1, usize::MAX, 0, 1, Err(80)),
            (Write, 1, 0, 51, 50, Err(LOCAL)),
            (Write, 1, 0, usize::MAX, 1, Err(LOCAL)),
            (Flush, 2, usize::MAX, usize::MAX, usize::MAX, Ok(2)),
            (Flush, 3, 0, 0, 0, Err(0)),
        ] {
            let found = admitted(operation, window, remote_offset, local_offset, len);
            assert_eq!(found, expected, "{operation:?} {window} {remote_offset} {local_offset} {len}");
        }
    }
}
