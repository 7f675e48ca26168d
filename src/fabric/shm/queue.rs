//! The queue of shared memory: a post is the copy, a poll is the fence and the look at the grant page.
//!
//! Nothing is in flight in the sense of the other media: what was posted is in the peer's memory. But it counts, and
//! is acknowledged, only when a poll found the grant still standing after a full fence. One fence serves all posts
//! before it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::ShmPeer;
use crate::base::{Medium, Unsupported};
use crate::fabric::{
    Access, Armed, Capabilities, Completion, Operation, Queue, QueueError, SourceUse, WorkRequest,
};
use crate::memory::Mapping;

/// Requests that may be outstanding. The memory sets no bound; a caller's window needs one.
const DEPTH_MAX: usize = 1 << 20;

/// A queue into memory that is mapped here.
pub struct ShmQueue {
    local: Arc<Mapping>,
    peers: Vec<Arc<ShmPeer>>,
    /// The newest request posted and not yet completed.
    newest: Option<u64>,
    outstanding: usize,
    failed: Option<QueueError>,
    capabilities: Capabilities,
}

impl ShmQueue {
    /// A queue from `local` into the windows of `peers`. `durable` says why the peer cannot sync, if it cannot.
    ///
    /// # Panics
    /// When there is no window.
    #[must_use]
    pub fn new(local: Arc<Mapping>, peers: Vec<Arc<ShmPeer>>, durable: Result<(), Unsupported>) -> Self {
        assert!(!peers.is_empty(), "a queue needs a window");
        let capabilities = Capabilities {
            medium: Medium::Shm,
            message_bytes_max: usize::MAX,
            depth_max: DEPTH_MAX,
            source: SourceUse::AtPost,
            coalesce_bytes_max: 0,
            one_sided: true,
            visible_on_completion: true,
            durable,
        };
        Self { local, peers, newest: None, outstanding: 0, failed: None, capabilities }
    }

    #[inline]
    fn carry_out(&mut self, request: &WorkRequest) -> Result<(), QueueError> {
        if request.operation == Operation::Flush {
            return Ok(());
        }
        let peer = self.peers.iter().find(|peer| peer.grant.window == request.window);
        let (Some(peer), true) = (peer, self.local.slice().contains(request.local_offset, request.len))
        else {
            return Err(out_of_range(request, peer.map_or(0, |_| self.local.len())));
        };
        if request.remote_offset > peer.grant.len || request.len > peer.grant.len - request.remote_offset {
            return Err(out_of_range(request, peer.grant.len));
        }
        if let Some(page) = &peer.page
            && !page.stands()
        {
            return Err(self.ended(peer));
        }
        let (from, from_offset, to, to_offset) = match request.operation {
            Operation::Read => (&peer.memory, request.remote_offset, &self.local, request.local_offset),
            _ if peer.grant.access == Access::Read => {
                return Err(QueueError::Protocol { why: "the window is granted for reading only".into() });
            }
            _ => (&self.local, request.local_offset, &peer.memory, request.remote_offset),
        };
        match from.slice().subslice(from_offset, request.len) {
            Some(source) => to.slice().copy_from(to_offset, source),
            None => unreachable!("the range was checked"),
        }
        Ok(())
    }

    #[cold]
    fn ended(&self, peer: &ShmPeer) -> QueueError {
        match &peer.page {
            Some(page) if page.holder_died() => {
                QueueError::PeerGone { why: "the holder's process ended".into() }
            }
            _ => QueueError::Revoked { granted: peer.grant.generation },
        }
    }

    #[cold]
    fn fail(&mut self, error: QueueError) -> QueueError {
        self.failed = Some(error.clone());
        error
    }
}

#[cold]
fn out_of_range(request: &WorkRequest, limit: usize) -> QueueError {
    QueueError::OutOfRange { window: request.window, offset: request.remote_offset, len: request.len, limit }
}

impl Queue for ShmQueue {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    #[inline]
    fn post(&mut self, requests: &[WorkRequest]) -> Result<usize, QueueError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let taken = requests.len().min(DEPTH_MAX - self.outstanding);
        for request in &requests[..taken] {
            if let Err(error) = self.carry_out(request) {
                // A bad range is the caller's mistake and leaves the queue as it is.
                let caller = matches!(error, QueueError::OutOfRange { .. });
                return Err(if caller { error } else { self.fail(error) });
            }
            self.newest = Some(request.wr_id);
        }
        self.outstanding += taken;
        Ok(taken)
    }

    #[inline]
    fn doorbell(&mut self) -> Result<(), QueueError> {
        Ok(())
    }

    #[inline]
    fn poll(&mut self) -> Result<Option<Completion>, QueueError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let Some(wr_id) = self.newest else { return Ok(None) };
        for index in 0..self.peers.len() {
            let peer = &self.peers[index];
            let stands = match &peer.page {
                Some(page) => page.acknowledges(),
                None => {
                    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
                    true
                }
            };
            if !stands {
                let error = self.ended(&self.peers[index]);
                return Err(self.fail(error));
            }
            if peer.memory.lost() {
                return Err(self.fail(QueueError::MappingLost { side: "peer's" }));
            }
        }
        if self.local.lost() {
            return Err(self.fail(QueueError::MappingLost { side: "local" }));
        }
        self.newest = None;
        self.outstanding = 0;
        Ok(Some(Completion { wr_id }))
    }

    fn free_slots(&self) -> usize {
        DEPTH_MAX - self.outstanding
    }

    fn arm(&mut self) -> Result<Armed, QueueError> {
        Ok(Armed::PollAgain)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
