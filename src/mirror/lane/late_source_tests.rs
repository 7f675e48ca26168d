//! A lane over a medium that reads its sources late, as a NIC does.
//!
//! The medium of these tests takes note of a request's bytes when it is posted, and reads the source only when a test
//! makes it carry the request out. The two must be equal: whatever was stored or reserved meanwhile has waited.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::*;
use crate::base::{Deadline, Level, Medium, Unsupported};
use crate::fabric::{Armed, Completion, Operation, QueueError, WorkRequest};
use crate::memory::{MapOptions, Mapping};
use crate::mirror::{Hole, StoreError, Ticket, WaitError};

const SIZE: usize = 256;
/// Requests that the medium holds.
const SLOTS: usize = 8;
/// Most bytes in one of its requests.
const MESSAGE_BYTES: usize = 24;

/// The medium: what was posted and not yet carried out, and the peer's memory.
#[derive(Default)]
struct Nic {
    posted: VecDeque<(WorkRequest, Vec<u8>)>,
    /// Of `posted`, those that a doorbell let go.
    rung: usize,
    done: VecDeque<Completion>,
    /// Whether each request that holds a place is signaled.
    places: VecDeque<bool>,
    peer: Vec<u8>,
    /// The id of the last write carried out.
    reached: u64,
    /// Carries one request out at each poll.
    by_itself: bool,
    /// Reads its sources when it carries a request out, not when it is posted.
    late: bool,
}

impl Nic {
    /// Carries the oldest request out that was let go; `false` when there is none.
    fn step(&mut self, local: &Mapping) -> bool {
        if self.rung == 0 {
            return false;
        }
        self.rung -= 1;
        let (request, noted) = self.posted.pop_front().unwrap();
        let mut bytes = vec![0; request.len];
        local.slice().read(request.local_offset, &mut bytes);
        assert!(!self.late || bytes == noted, "the source of {request:?} changed while it was in flight");
        self.peer[request.remote_offset..][..request.len].copy_from_slice(&noted);
        if request.operation == Operation::Write {
            self.reached = request.wr_id;
        }
        if request.signaled {
            self.done.push_back(Completion { wr_id: request.wr_id });
        }
        true
    }
}

struct LateQueue {
    nic: Arc<Mutex<Nic>>,
    local: Arc<Mapping>,
    capabilities: Capabilities,
}

impl Queue for LateQueue {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn post(&mut self, requests: &[WorkRequest]) -> Result<usize, QueueError> {
        let mut nic = self.nic.lock().unwrap();
        for (taken, request) in requests.iter().enumerate() {
            assert!(request.len <= MESSAGE_BYTES, "{request:?}");
            if nic.places.len() == SLOTS {
                return Ok(taken);
            }
            let mut bytes = vec![0; request.len];
            self.local.slice().read(request.local_offset, &mut bytes);
            nic.posted.push_back((*request, bytes));
            nic.places.push_back(request.signaled);
        }
        Ok(requests.len())
    }

    fn doorbell(&mut self) -> Result<(), QueueError> {
        let mut nic = self.nic.lock().unwrap();
        nic.rung = nic.posted.len();
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<Completion>, QueueError> {
        let mut nic = self.nic.lock().unwrap();
        if nic.by_itself {
            nic.step(&self.local);
        }
        let completion = nic.done.pop_front();
        if completion.is_some() {
            while nic.places.pop_front().is_some_and(|signaled| !signaled) {}
        }
        Ok(completion)
    }

    fn free_slots(&self) -> usize {
        SLOTS - self.nic.lock().unwrap().places.len()
    }

    fn arm(&mut self) -> Result<Armed, QueueError> {
        Ok(Armed::Sleep)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

struct Rig {
    lane: Lane,
    nic: Arc<Mutex<Nic>>,
    memory: Arc<Mapping>,
}

impl Rig {
    fn new(source: SourceUse, config: LaneConfig) -> Self {
        let memory = Arc::new(Mapping::anonymous(SIZE, MapOptions::default()).unwrap());
        let core = RegionCore::new(memory.clone()).unwrap();
        let nic = Arc::new(Mutex::new(Nic {
            peer: vec![0; SIZE],
            late: source == SourceUse::UntilCompleted,
            ..Nic::default()
        }));
        let capabilities = Capabilities {
            medium: Medium::Tcp,
            message_bytes_max: MESSAGE_BYTES,
            depth_max: SLOTS,
            source,
            coalesce_bytes_max: MESSAGE_BYTES,
            one_sided: true,
            visible_on_completion: false,
            durable: Err(Unsupported { what: "Durable".into(), why: "a test".into() }),
        };
        let queue = LateQueue { nic: nic.clone(), local: memory.clone(), capabilities };
        let lane = Lane::new(core, Box::new(queue), WindowId(1), config);
        Self { lane, nic, memory }
    }

    fn nic(&self) -> MutexGuard<'_, Nic> {
        self.nic.lock().unwrap()
    }

    /// Carries out all that was let go; returns how many.
    fn run(&self) -> usize {
        let mut nic = self.nic();
        std::iter::from_fn(|| nic.step(&self.memory).then_some(())).count()
    }
}

fn spinning(depth: usize) -> LaneConfig {
    LaneConfig { depth, polling: Polling::Spin, store_timeout: Duration::from_millis(50) }
}

fn soon() -> Deadline {
    Deadline::within(Duration::from_secs(10))
}

#[test]
fn what_overlaps_a_store_in_flight_waits_for_it() {
    let mut rig = Rig::new(SourceUse::UntilCompleted, spinning(16));
    rig.lane.store(0, &[1; 20]).unwrap();
    // It is open and not posted yet: what continues it joins, what overlaps it must not.
    rig.lane.store(20, &[2; 4]).unwrap();
    assert!(rig.nic().posted.is_empty());
    let blocked = |result: Result<Ticket, StoreError>| matches!(result, Err(StoreError::WouldBlock { .. }));
    assert!(blocked(rig.lane.try_store(23, &[3; 2])));
    assert!(matches!(rig.lane.try_reserve(10, 1), Err(StoreError::WouldBlock { .. })));
    assert_eq!(rig.memory.slice().to_vec()[..25], [[1; 20].as_slice(), &[2; 4], &[0]].concat());
    // One beside it goes on, and so does one that is empty.
    rig.lane.try_store(24, &[4; 8]).unwrap();
    rig.lane.try_store(10, &[]).unwrap();
    rig.lane.poll().unwrap();
    assert!(rig.run() > 0);
    rig.lane.try_store(23, &[3; 2]).unwrap();
    let hole = rig.lane.try_reserve(0, 20).unwrap();
    hole.memory().write(0, &[5; 20]);
    rig.lane.seal(hole).unwrap();
    rig.nic().by_itself = true;
    rig.lane.flush(Level::Visible, soon()).unwrap();
    assert_eq!(rig.nic().peer, rig.memory.slice().to_vec());
}

/// What `action` gives, unless it takes far longer than its timeout.
fn in_time<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(tell.send(action())));
    told.recv_timeout(Duration::from_secs(10)).expect("it waits without a deadline")
}

#[test]
fn who_waits_for_an_overlapping_store_waits_no_longer_than_the_timeout() {
    for polling in [Polling::Spin, Polling::Block, Polling::Adaptive(Duration::from_millis(1))] {
        let mut rig = Rig::new(SourceUse::UntilCompleted, LaneConfig { polling, ..spinning(16) });
        rig.lane.store(0, &[1; 20]).unwrap();
        in_time(move || {
            let began = Instant::now();
            for result in [
                rig.lane.store(4, &[2; 4]),
                rig.lane.store_v(4, &[&[2; 2], &[2; 2]]),
                rig.lane.reserve(4, 4).map(|hole| unreachable!("{hole:?}")),
            ] {
                assert!(matches!(result, Err(StoreError::Timeout { in_flight: 1, .. })), "{result:?}");
            }
            assert!(began.elapsed() >= 3 * rig.lane.config.store_timeout);
            assert_eq!(rig.memory.slice().to_vec()[..20], [1; 20]);
            rig.nic().by_itself = true;
            rig.lane.store(4, &[2; 4]).unwrap();
            drop(rig.lane.reserve(4, 4).unwrap());
        });
    }
}

/// A reconnection sends what the ranges in flight hold: it must not send a hole that is half filled.
#[test]
fn no_hole_is_among_what_is_unknown() {
    for source in [SourceUse::AtPost, SourceUse::UntilCompleted] {
        let mut rig = Rig::new(source, spinning(16));
        rig.lane.store(0, &[1; 20]).unwrap();
        assert!(matches!(rig.lane.try_reserve(8, 8), Err(StoreError::WouldBlock { .. })), "{source:?}");
        rig.nic().by_itself = true;
        let hole = rig.lane.reserve(8, 8).unwrap();
        assert_eq!(rig.lane.unknown().ranges, [], "{source:?}");
        rig.lane.seal(hole).unwrap();
    }
}

#[test]
fn an_empty_hole_is_in_nobodys_way() {
    let mut rig = Rig::new(SourceUse::UntilCompleted, spinning(16));
    let empty = rig.lane.reserve(8, 0).unwrap();
    rig.lane.store(0, &[1; 16]).unwrap();
    let hole = rig.lane.reserve(100, 16).unwrap();
    rig.lane.store(108, &[]).unwrap();
    rig.lane.seal(empty).unwrap();
    rig.lane.seal(hole).unwrap();
    rig.nic().by_itself = true;
    rig.lane.flush(Level::Visible, soon()).unwrap();
}

/// Stores, holes and waits at random beside a medium that comes late by any number of requests.
struct Walk {
    rig: Rig,
    random: u64,
    holes: Vec<Hole>,
    /// What the region held after each store.
    after: Vec<Vec<u8>>,
    /// What it holds of stores: the local memory, but for the holes.
    stored: Vec<u8>,
    blocked: u32,
}

impl Walk {
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % bound as u64).unwrap()
    }

    /// A range; half of them within a few bytes, so that they meet.
    fn range(&mut self) -> ByteRange {
        let span = if self.below(2) == 0 { 60 } else { SIZE };
        let most = if self.below(8) == 0 { 60 } else { 9 };
        let len = self.below(most);
        ByteRange { offset: self.below(span.max(len + 1) - len), len }
    }

    fn took(&mut self, range: ByteRange, result: Result<Ticket, StoreError>) {
        match result {
            Ok(ticket) => {
                let mut bytes = vec![0; range.len];
                self.rig.memory.slice().read(range.offset, &mut bytes);
                self.stored[range.offset..][..range.len].copy_from_slice(&bytes);
                self.after.push(self.stored.clone());
                assert_eq!(ticket.sequence().0, self.after.len() as u64 - 1);
            }
            Err(StoreError::WouldBlock { .. }) => self.blocked += 1,
            Err(StoreError::OpenHole { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn step(&mut self) {
        let range = self.range();
        let byte = u8::try_from(self.below(256)).unwrap();
        match self.below(12) {
            0..5 => {
                let result = self.rig.lane.try_store(range.offset, &vec![byte; range.len]);
                self.took(range, result);
            }
            5 => match self.rig.lane.try_reserve(range.offset, range.len) {
                Ok(hole) => self.holes.push(hole),
                Err(StoreError::WouldBlock { .. }) => self.blocked += 1,
                Err(StoreError::OpenHole { .. }) => {}
                Err(error) => panic!("{error}"),
            },
            6 if !self.holes.is_empty() => {
                let place = self.below(self.holes.len());
                let hole = self.holes.swap_remove(place);
                let range = hole.range();
                // It waits for room, if need be.
                self.rig.nic().by_itself = true;
                let result = self.rig.lane.seal(hole);
                self.rig.nic().by_itself = false;
                self.took(range, result);
            }
            7 => drop(self.rig.lane.poll().unwrap()),
            8 => {
                let wait = self.rig.lane.flush(Level::Visible, Deadline::within(Duration::ZERO));
                assert!(matches!(wait, Ok(_) | Err(WaitError::Deadline { .. })), "{wait:?}");
            }
            _ => self.carry_out(),
        }
        // The application may write its holes at any moment.
        for hole in &self.holes {
            hole.memory().write(0, &vec![byte; hole.range().len]);
        }
        for hole in self.rig.lane.open_holes() {
            let unknown = self.rig.lane.unknown().ranges;
            assert!(!unknown.iter().any(|range| range.overlaps(*hole)), "{hole:?} is among {unknown:?}");
        }
    }

    fn carry_out(&mut self) {
        let mut nic = self.rig.nic();
        if !nic.step(&self.rig.memory) {
            return;
        }
        // A piece in the middle of a long store bears the number of the store before: of that any part may be there.
        let reached = usize::try_from(nic.reached).unwrap();
        let before = &self.after[reached];
        let next = self.after.get(reached + 1).unwrap_or(before);
        let prefix =
            nic.peer.iter().zip(before.iter().zip(next)).all(|(is, (old, new))| is == old || is == new);
        assert!(prefix, "the copy is no prefix after store {reached}");
    }
}

#[test]
fn whatever_is_stored_beside_a_late_medium_its_copy_is_a_prefix() {
    for seed in 1..=300u64 {
        let source = if seed % 4 == 0 { SourceUse::AtPost } else { SourceUse::UntilCompleted };
        let depth = [1, 4, 16][usize::try_from(seed % 3).unwrap()];
        let zeroes = vec![0; SIZE];
        let mut walk = Walk {
            rig: Rig::new(source, spinning(depth)),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            holes: Vec::new(),
            after: vec![zeroes.clone()],
            stored: zeroes,
            blocked: 0,
        };
        for _ in 0..1000 {
            walk.step();
        }
        let left = std::mem::take(&mut walk.holes);
        walk.rig.nic().by_itself = true;
        for hole in left {
            walk.rig.lane.seal(hole).unwrap();
        }
        walk.rig.lane.flush(Level::Visible, soon()).unwrap();
        assert_eq!(walk.rig.nic().peer, walk.rig.memory.slice().to_vec(), "seed {seed}");
        assert!(walk.blocked > 0, "seed {seed}: nothing had to wait");
    }
}
