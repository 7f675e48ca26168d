//! The queue of shared memory: a post is the copy, a poll is the fence and the look at the grant page.
//!
//! Nothing is in flight in the sense of the other media: what was posted is in the peer's memory. But it counts, and
//! is acknowledged, only when a poll found the grant still standing after a full fence. One fence serves all posts
//! before it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::{PlainWay, ShmPeer};
use crate::base::{Medium, Unsupported};
use crate::fabric::{
    Access, Armed, Capabilities, Completion, Grant, Operation, Queue, QueueError, SourceUse, WorkRequest,
};
use crate::memory::{Mapping, VolatileSlice, any_mapping_lost};

/// Requests that may be outstanding, as callers are told: memory sets no bound, for what is posted is there.
const DEPTH_MAX: usize = 1 << 20;

/// A queue into memory that is mapped here.
pub struct ShmQueue {
    local: Arc<Mapping>,
    /// The region's window, which nearly every request names.
    first: Arc<ShmPeer>,
    /// The other windows of the session.
    others: Vec<Arc<ShmPeer>>,
    /// The newest request posted, and whether it waits for a poll.
    newest: u64,
    waiting: bool,
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
        let mut others = peers.into_iter();
        let first = others.next().unwrap_or_else(|| panic!("a queue needs a window"));
        let others: Vec<_> = others.collect();
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
        Self { local, first, others, newest: 0, waiting: false, failed: None, capabilities }
    }

    fn peers(&self) -> impl Iterator<Item = &Arc<ShmPeer>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The window that `request` lies within, or why there is none.
    fn check(&self, request: &WorkRequest) -> Result<&ShmPeer, QueueError> {
        let bytes_max = self.capabilities.message_bytes_max;
        let peer = Grant::admit(request, self.peers(), |peer| &peer.grant, self.local.len(), bytes_max)?;
        Ok(peer)
    }

    fn carry_out(&self, request: &WorkRequest) -> Result<(), QueueError> {
        let peer = self.check(request)?;
        let WorkRequest { local_offset, remote_offset, len, window, .. } = *request;
        if request.operation == Operation::Flush {
            return Ok(());
        }
        let here = self.local.slice().subslice(local_offset, len);
        let there = peer.memory.slice().subslice(remote_offset, len);
        let (Some(here), Some(there)) = (here, there) else {
            unreachable!("{len} bytes of window {window:?} were checked")
        };
        if !peer.page.stands() {
            return Err(ended(peer));
        }
        match request.operation {
            Operation::Read if VolatileSlice::are_few_words(local_offset | remote_offset, len) => {
                here.copy_words_from(there);
            }
            Operation::Read => here.copy_from(0, there),
            Operation::Write | Operation::Flush => there.copy_from(0, here),
        }
        Ok(())
    }

    /// Why stores are not acknowledged.
    #[cold]
    fn why_not(&self) -> QueueError {
        if self.local.lost() {
            return QueueError::MappingLost { side: "local" };
        }
        if self.peers().any(|peer| peer.memory.lost()) {
            return QueueError::MappingLost { side: "peer's" };
        }
        ended(&self.first)
    }

    #[cold]
    fn fail(&mut self, error: QueueError) -> QueueError {
        self.failed = Some(error.clone());
        error
    }

    /// After a full fence: whether what was posted may be acknowledged. One grant page serves all windows of a session,
    /// so one look covers them.
    #[inline]
    fn acknowledges(&self) -> bool {
        self.first.page.acknowledges()
            && (!any_mapping_lost() || !(self.local.lost() || self.first.memory.lost()))
    }
}

#[cold]
fn ended(peer: &ShmPeer) -> QueueError {
    if peer.page.holder_died() {
        return QueueError::PeerGone { why: "the holder's process ended".into() };
    }
    QueueError::Revoked { granted: peer.grant.generation }
}

impl Queue for ShmQueue {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn post(&mut self, requests: &[WorkRequest]) -> Result<usize, QueueError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if requests.len() > 1 {
            // Nothing is taken of a batch with a request that lies outside.
            requests.iter().try_for_each(|request| self.check(request).map(|_| ()))?;
        }
        for request in requests {
            if let Err(error) = self.carry_out(request) {
                // A bad range is the caller's mistake and leaves the queue as it is.
                let caller = matches!(error, QueueError::OutOfRange { .. });
                return Err(if caller { error } else { self.fail(error) });
            }
            self.newest = request.wr_id;
            self.waiting = true;
        }
        Ok(requests.len())
    }

    fn plain_way(&self) -> Option<PlainWay> {
        let open = self.others.is_empty() && self.first.grant.access == Access::ReadWrite;
        open.then(|| PlainWay::new(self.local.clone(), &self.first))
    }

    #[inline]
    fn doorbell(&mut self) -> Result<(), QueueError> {
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<Completion>, QueueError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if !self.acknowledges() || self.others.iter().any(|peer| peer.memory.lost()) {
            let error = self.why_not();
            return Err(self.fail(error));
        }
        Ok(std::mem::take(&mut self.waiting).then_some(Completion { wr_id: self.newest }))
    }

    fn free_slots(&self) -> usize {
        DEPTH_MAX
    }

    fn arm(&mut self) -> Result<Armed, QueueError> {
        Ok(Armed::PollAgain)
    }

    fn syscalls(&self) -> Option<u64> {
        // Stores and loads are all there is.
        Some(0)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Generation;
    use crate::fabric::WindowId;
    use crate::memory::MapOptions;

    const LEN: usize = 64;

    fn memory() -> Arc<Mapping> {
        Arc::new(Mapping::anonymous(LEN, MapOptions::default()).unwrap())
    }

    fn write(wr_id: u64, local_offset: usize, remote_offset: usize, len: usize) -> WorkRequest {
        let (operation, window) = (Operation::Write, WindowId(1));
        WorkRequest { wr_id, operation, window, local_offset, remote_offset, len, signaled: true }
    }

    #[test]
    fn a_batch_with_a_request_outside_is_not_taken_in_part() {
        let (local, theirs) = (memory(), memory());
        let grant =
            Grant { window: WindowId(1), generation: Generation(1), len: LEN, access: Access::ReadWrite };
        let peer = ShmPeer::device(theirs.clone(), grant).unwrap();
        let mut queue = ShmQueue::new(local.clone(), vec![peer], Ok(()));
        local.slice().write(0, &[7; LEN]);
        let strange = WorkRequest { window: WindowId(2), ..write(2, 0, 0, 1) };
        for (bad, at, bound) in
            [(write(2, 0, LEN, 1), LEN, LEN), (write(2, LEN - 1, 0, 2), LEN - 1, LEN), (strange, 0, 0)]
        {
            match queue.post(&[write(1, 0, 0, 8), bad, write(3, 8, 8, 8)]).unwrap_err() {
                QueueError::OutOfRange { offset, limit, .. } => assert_eq!((offset, limit), (at, bound)),
                error => panic!("{error}"),
            }
            assert_eq!(theirs.slice().to_vec(), [0; LEN], "{bad:?} came behind one that was carried out");
            assert_eq!(queue.poll(), Ok(None));
        }
        assert_eq!(queue.post(&[write(1, 0, 0, 8), write(2, 8, 8, 8)]), Ok(2));
        assert_eq!(queue.poll(), Ok(Some(Completion { wr_id: 2 })));
        assert_eq!(theirs.slice().to_vec()[..16], [7; 16]);
    }
}
