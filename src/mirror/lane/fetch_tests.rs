//! Fetches over a queue that completes what a test says, and over real shared memory.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::{Lane, LaneConfig, Polling};
use crate::base::{Deadline, Generation, Level, Medium};
use crate::fabric::shm::{GrantPage, ShmPeer, ShmQueue, offer};
use crate::fabric::{
    Access, Armed, Capabilities, Completion, ExportedWindow, Operation, Queue, QueueError, SourceUse,
    WindowId, WorkRequest,
};
use crate::memory::{MapOptions, Mapping};
use crate::mirror::{LostReason, RegionCore, StoreError, WaitError};

const SIZE: usize = 4096;
/// Where the peer's words are.
const WORDS: usize = 128;
/// Requests that the fake queue holds.
const SLOTS: usize = 6;

/// What was posted, oldest first, and the peer's memory.
struct Wire {
    posted: VecDeque<WorkRequest>,
    done: VecDeque<Completion>,
    peer: Vec<u8>,
}

impl Wire {
    /// Carries `count` requests out.
    fn carry_out(&mut self, count: usize, local: &Mapping) {
        for request in self.posted.drain(..count) {
            let range = request.remote_offset..request.remote_offset + request.len;
            match request.operation {
                Operation::Write => local.slice().read(request.local_offset, &mut self.peer[range]),
                Operation::Read => local.slice().write(request.local_offset, &self.peer[range]),
                Operation::Flush => {}
            }
            if request.signaled {
                self.done.push_back(Completion { wr_id: request.wr_id });
            }
        }
    }
}

struct FakeQueue {
    wire: Arc<Mutex<Wire>>,
    capabilities: Capabilities,
}

impl Queue for FakeQueue {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn post(&mut self, requests: &[WorkRequest]) -> Result<usize, QueueError> {
        let mut wire = self.wire.lock().unwrap();
        let taken = requests.len().min(SLOTS - wire.posted.len());
        wire.posted.extend(&requests[..taken]);
        Ok(taken)
    }

    fn doorbell(&mut self) -> Result<(), QueueError> {
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<Completion>, QueueError> {
        Ok(self.wire.lock().unwrap().done.pop_front())
    }

    fn free_slots(&self) -> usize {
        SLOTS - self.wire.lock().unwrap().posted.len()
    }

    fn arm(&mut self) -> Result<Armed, QueueError> {
        Ok(Armed::PollAgain)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

struct Rig {
    lane: Lane,
    local: Arc<Mapping>,
    wire: Arc<Mutex<Wire>>,
}

fn wire() -> Arc<Mutex<Wire>> {
    let mut peer = vec![0; SIZE];
    peer[WORDS..WORDS + 16].fill(7);
    Arc::new(Mutex::new(Wire { posted: VecDeque::new(), done: VecDeque::new(), peer }))
}

fn queue(wire: &Arc<Mutex<Wire>>, visible_on_completion: bool) -> Box<dyn Queue> {
    let capabilities = Capabilities {
        medium: Medium::Tcp,
        message_bytes_max: 1024,
        depth_max: SLOTS,
        source: SourceUse::AtPost,
        coalesce_bytes_max: 1024,
        one_sided: true,
        visible_on_completion,
        durable: Ok(()),
    };
    Box::new(FakeQueue { wire: wire.clone(), capabilities })
}

impl Rig {
    fn new(visible_on_completion: bool) -> Self {
        let local = Arc::new(Mapping::anonymous(SIZE, MapOptions::default()).unwrap());
        let wire = wire();
        let core = RegionCore::new(local.clone()).unwrap();
        let config = LaneConfig { depth: 64, polling: Polling::Spin, store_timeout: Duration::from_secs(1) };
        let lane = Lane::new(core, queue(&wire, visible_on_completion), WindowId(1), config);
        Self { lane, local, wire }
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap()
    }

    fn carry_out(&self, count: usize) {
        self.wire().carry_out(count, &self.local);
    }

    fn fetched(&self) -> bool {
        self.local.slice().to_vec()[WORDS..WORDS + 16] == [7; 16]
    }
}

fn soon() -> Deadline {
    Deadline::within(Duration::from_secs(10))
}

#[test]
fn a_fetch_is_done_when_it_completes_and_tells_of_the_stores_before_it() {
    for visible_on_completion in [true, false] {
        let mut rig = Rig::new(visible_on_completion);
        rig.lane.store(0, &[1; 8]).unwrap();
        rig.lane.store(2000, &[2; 8]).unwrap();
        rig.lane.try_fetch(WORDS, 16).unwrap();
        rig.lane.store(3000, &[3; 8]).unwrap();
        let operations: Vec<_> = rig.wire().posted.iter().map(|request| request.operation).collect();
        assert_eq!(operations, [Operation::Write, Operation::Read, Operation::Write]);
        assert_eq!(rig.lane.fetch_done(), Ok(false));
        let again = rig.lane.try_fetch(WORDS, 8).unwrap_err();
        assert!(matches!(again, StoreError::WouldBlock { .. }), "{again}");
        rig.carry_out(2);
        assert_eq!((rig.lane.fetch_done(), rig.fetched()), (Ok(true), true));
        assert_eq!(rig.lane.watermarks().acked.0, 1, "the second store was open still, and went behind it");
        rig.lane.poll().unwrap();
        let waiting = rig.wire().posted.len();
        rig.carry_out(waiting);
        rig.lane.poll().unwrap();
        assert_eq!(rig.lane.watermarks().acked.0, 3);
        assert!(rig.lane.unknown().ranges.is_empty());
    }
}

#[test]
fn looks_and_flushes_do_not_take_the_completion_of_a_fetch_away() {
    let mut rig = Rig::new(false);
    rig.lane.try_fetch(WORDS, 16).unwrap();
    rig.carry_out(1);
    rig.lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!((rig.lane.fetch_done(), rig.fetched()), (Ok(true), true));
    // A flush posted before the fetch is complete with it, whatever comes of its own completion.
    let ticket = rig.lane.store(0, &[1; 8]).unwrap();
    let error = rig.lane.wait(ticket, Level::Visible, Deadline::within(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, WaitError::Deadline { .. }), "{error}");
    rig.lane.try_fetch(WORDS, 16).unwrap();
    let waiting = rig.wire().posted.len();
    rig.carry_out(waiting);
    let last = rig.wire().done.pop_back();
    rig.wire().done = last.into_iter().collect();
    assert_eq!(rig.lane.fetch_done(), Ok(true));
    assert_eq!((rig.lane.watermarks().acked.0, rig.lane.watermarks().visible.0), (1, 1));
}

#[test]
fn a_completion_of_a_later_store_tells_of_the_fetch() {
    let mut rig = Rig::new(true);
    rig.lane.store(0, &[1; 8]).unwrap();
    rig.lane.poll().unwrap();
    rig.lane.try_fetch(WORDS, 16).unwrap();
    rig.lane.store(1000, &[2; 8]).unwrap();
    rig.lane.poll().unwrap();
    let waiting = rig.wire().posted.len();
    rig.carry_out(waiting);
    // As a medium does that tells of the newest only.
    let newest = rig.wire().done.pop_back();
    rig.wire().done = newest.into_iter().collect();
    assert_eq!((rig.lane.fetch_done(), rig.fetched()), (Ok(true), true));
    assert_eq!(rig.lane.watermarks().acked.0, 2);
}

#[test]
fn a_full_queue_is_not_waited_for() {
    let mut rig = Rig::new(true);
    for number in 0..2 * SLOTS {
        let _ = rig.lane.try_store(number * 128 + 64, &[1; 8]);
    }
    assert_eq!(rig.wire().posted.len(), SLOTS);
    let error = rig.lane.try_fetch(WORDS, 16).unwrap_err();
    assert!(matches!(error, StoreError::WouldBlock { .. }), "{error}");
    assert_eq!(rig.lane.fetch_done(), Ok(true), "none was begun");
    let error = rig.lane.fetch(WORDS, 16, Deadline::within(Duration::ZERO)).unwrap_err();
    assert_eq!(error, WaitError::FetchDeadline { offset: WORDS, len: 16 });
    rig.carry_out(SLOTS);
    rig.lane.try_fetch(WORDS, 16).unwrap();
    let waiting = rig.wire().posted.len();
    rig.carry_out(waiting);
    assert_eq!((rig.lane.fetch_done(), rig.fetched()), (Ok(true), true));
}

#[test]
fn a_fetch_that_a_new_queue_cut_off_is_begun_again() {
    let mut rig = Rig::new(true);
    rig.lane.try_fetch(WORDS, 16).unwrap();
    let next = wire();
    rig.lane.resume(queue(&next, true), WindowId(1));
    assert_eq!(rig.lane.fetch_done(), Ok(false), "nothing came of it");
    assert_eq!(next.lock().unwrap().posted.len(), 1);
    next.lock().unwrap().carry_out(1, &rig.local);
    assert_eq!((rig.lane.fetch_done(), rig.fetched()), (Ok(true), true));
    // Who asks anew instead of looking need not wait for it either.
    rig.lane.try_fetch(WORDS, 16).unwrap();
    let next = wire();
    rig.lane.resume(queue(&next, true), WindowId(1));
    rig.lane.try_fetch(WORDS, 8).unwrap();
    rig.lane.core.lose(LostReason::Closed);
    assert!(matches!(rig.lane.fetch_done(), Err(WaitError::LinkLost { .. })));
    assert!(matches!(rig.lane.try_fetch(WORDS, 8), Err(StoreError::LinkLost { .. })));
}

#[test]
fn only_a_few_whole_words_are_fetched() {
    let mut rig = Rig::new(true);
    for (offset, len) in [(4, 8), (8, 4), (0, 72), (SIZE, 8), (usize::MAX - 7, 8)] {
        let lane = std::panic::AssertUnwindSafe(&mut rig.lane);
        let asked = std::panic::catch_unwind(|| {
            let lane = lane;
            lane.0.try_fetch(offset, len)
        });
        assert!(asked.is_err(), "{len} bytes at {offset}");
    }
}

#[test]
fn through_memory_a_fetch_is_done_at_once_as_long_as_the_grant_stands() {
    let copy = Arc::new(Mapping::memfd("fetch", SIZE, MapOptions::default()).unwrap());
    let page = GrantPage::new(Generation(1)).unwrap();
    let window = ExportedWindow::new(WindowId(1), Generation(1), Access::ReadWrite, copy.clone());
    let (ours, theirs) = UnixStream::pair().unwrap();
    offer(&ours, &window, &page).unwrap();
    let peer = ShmPeer::receive(&theirs).unwrap();
    let local = Arc::new(Mapping::anonymous(SIZE, MapOptions::default()).unwrap());
    let queue = Box::new(ShmQueue::new(local.clone(), vec![peer], Ok(())));
    let mut lane =
        Lane::new(RegionCore::new(local.clone()).unwrap(), queue, WindowId(1), LaneConfig::default());
    copy.slice().store_word(WORDS, 5);
    let ticket = lane.store(0, &[1; 8]).unwrap();
    let hole = lane.reserve(64, 8).unwrap();
    lane.try_fetch(WORDS, 8).unwrap();
    assert_eq!((lane.fetch_done(), local.slice().load_word(WORDS)), (Ok(true), 5));
    assert_eq!(lane.watermarks().acked.0, 0, "it has nothing to do with stores");
    lane.wait(ticket, Level::Visible, soon()).unwrap();
    lane.void(hole).unwrap();
    copy.slice().store_word(WORDS, 6);
    page.revoke(Generation(2));
    assert!(matches!(lane.fetch(WORDS, 8, soon()), Err(WaitError::LinkLost { .. })));
    assert_eq!(local.slice().load_word(WORDS), 5, "what is read without a grant counts for nothing");
    let reason = lane.core.lost_reason();
    assert!(matches!(reason, Some(LostReason::Revoked(_))), "{reason:?}");
}
