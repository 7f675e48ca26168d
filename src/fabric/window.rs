//! Windows: ranges of local memory that a peer may reach, each under a generation, each revocable.
//!
//! On media where a thread of ours carries out the peer's requests, the proof that a revocation took effect is a
//! count of requests being carried out: [`ExportedWindow::enter`] counts itself in *before* it looks at the revoked
//! flag, [`ExportedWindow::revoke`] sets the flag *before* it looks at the count. Both are sequentially consistent,
//! so one of them sees the other. Media where the peer's processor or NIC writes by itself have proofs of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
