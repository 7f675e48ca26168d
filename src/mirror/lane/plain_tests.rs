//! Lanes over real shared memory, whose grant is withdrawn at some moment: what is acknowledged, and what is unknown.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::{Lane, LaneConfig, Polling};
use crate::base::{Deadline, Generation, Level};
use crate::fabric::shm::{GrantPage, ShmPeer, ShmQueue, offer};
use crate::fabric::{Access, ExportedWindow, Grant, WindowId};
use crate::memory::{MapOptions, Mapping};
use crate::mirror::{Hole, LostReason, RegionCore, WaitError};

const SIZE: usize = 4096;

/// A small fast generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// A lane into memory that a holder offered, and what the holder has of it.
struct Walk {
    lane: Lane,
    page: GrantPage,
    copy: Arc<Mapping>,
    holes: Vec<Hole>,
    /// Every store that was taken.
    stores: Vec<(usize, Vec<u8>)>,
}

impl Walk {
    fn new(depth: usize) -> Self {
        let copy = Arc::new(Mapping::memfd("walk", SIZE, MapOptions::default()).unwrap());
        let page = GrantPage::new(Generation(1)).unwrap();
        let window = ExportedWindow::new(WindowId(1), Generation(1), Access::ReadWrite, copy.clone());
        let (ours, theirs) = UnixStream::pair().unwrap();
        offer(&ours, &window, &page).unwrap();
        let peer = ShmPeer::receive(&theirs).unwrap();
        let local = Arc::new(Mapping::anonymous(SIZE, MapOptions::default()).unwrap());
        let queue = Box::new(ShmQueue::new(local.clone(), vec![peer], Ok(())));
        let config = LaneConfig { depth, polling: Polling::Spin, store_timeout: Duration::from_secs(1) };
        let lane = Lane::new(RegionCore::new(local).unwrap(), queue, WindowId(1), config);
        Self { lane, page, copy, holes: Vec::new(), stores: Vec::new() }
    }

    /// Does one thing at random; `waits`: also what acknowledges.
    fn step(&mut self, random: &mut Random, waits: bool) {
        let len = random.below(90);
        let offset = random.below(SIZE - len);
        let bytes = vec![u8::try_from(random.below(256)).unwrap(); len];
        let (taken, offset, bytes) = match random.below(10) {
            0 => {
                self.holes.extend(self.lane.try_reserve(offset, len).ok());
                return;
            }
            1 if !self.holes.is_empty() => {
                let hole = self.holes.swap_remove(random.below(self.holes.len()));
                let range = hole.range();
                let bytes = vec![7; range.len];
                hole.memory().write(0, &bytes);
                (self.lane.seal(hole), range.offset, bytes)
            }
            2 => {
                let (head, tail) = bytes.split_at(len / 2);
                (self.lane.store_v(offset, &[head, tail]), offset, bytes)
            }
            3 | 4 => {
                if waits {
                    let _ = self.lane.flush(Level::Visible, Deadline::within(Duration::ZERO));
                }
                return;
            }
            _ => (self.lane.try_store(offset, &bytes), offset, bytes),
        };
        if let Ok(ticket) = taken {
            self.stores.push((offset, bytes));
            assert_eq!(ticket.sequence().0, self.stores.len() as u64);
        }
    }

    /// What holds after every step; returns how far the acknowledged stores go.
    fn check(&self, acked_before: u64) -> u64 {
        let marks = self.lane.watermarks();
        assert!(acked_before <= marks.acked.0 && marks.acked <= marks.posted && marks.posted <= marks.last);
        assert!(marks.in_flight() <= self.lane.config().depth);
        let unknown = self.lane.unknown();
        let holes = self.lane.open_holes();
        assert!(!holes.iter().any(|hole| unknown.ranges.iter().any(|range| range.overlaps(*hole))));
        marks.acked.0
    }

    /// Beside the unknown ranges, `frozen` is what every store leaves, and the acknowledged ones alone leave it too.
    fn judge(&self, frozen: &[u8], acked: u64) {
        let (mut all, mut acknowledged) = (vec![0; SIZE], vec![0; SIZE]);
        for ((offset, bytes), number) in self.stores.iter().zip(1..) {
            all[*offset..][..bytes.len()].copy_from_slice(bytes);
            if number <= acked {
                acknowledged[*offset..][..bytes.len()].copy_from_slice(bytes);
            }
        }
        let mut unknown = vec![false; SIZE];
        for range in self.lane.unknown().ranges {
            unknown[range.offset..][..range.len].fill(true);
        }
        for at in (0..SIZE).filter(|at| !unknown[*at]) {
            assert!(frozen[at] == all[at] && frozen[at] == acknowledged[at], "byte {at} of {acked} stores");
        }
    }
}

#[test]
fn whenever_a_grant_is_withdrawn_the_copy_and_the_unknown_ranges_hold_every_store() {
    for seed in 1..=600u64 {
        println!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let depth = [1, 2, 3, 16, 4095, 4096][random.below(6)];
        // Long ones go round the ring of recent stores, without a look in between.
        let long = seed % 50 == 0;
        let steps = if long { 6000 } else { 60 };
        let revoked_at = random.below(steps);
        let mut walk = Walk::new(depth);
        let (mut acked, mut frozen, mut last_at_revocation) = (0, Vec::new(), 0);
        for step in 0..steps {
            if step == revoked_at {
                walk.page.revoke(Generation(2));
                frozen = walk.copy.slice().to_vec();
                last_at_revocation = walk.lane.watermarks().last.0;
            }
            walk.step(&mut random, !long);
            acked = walk.check(acked);
        }
        assert!(
            acked <= last_at_revocation,
            "{acked} acknowledged, {last_at_revocation} were stored in time"
        );
        walk.judge(&frozen, acked);
    }
}

#[test]
fn a_flush_finds_a_lost_link_over_a_device_window() {
    let memory = || Arc::new(Mapping::anonymous(SIZE, MapOptions::default()).unwrap());
    let local = memory();
    let grant =
        Grant { window: WindowId(1), generation: Generation(1), len: SIZE, access: Access::ReadWrite };
    let peer = ShmPeer::device(memory(), grant).unwrap();
    let queue = Box::new(ShmQueue::new(local.clone(), vec![peer], Ok(())));
    let core = RegionCore::new(local).unwrap();
    let mut lane = Lane::new(core.clone(), queue, WindowId(1), LaneConfig::default());
    lane.store(0, &[1; 8]).unwrap();
    core.lose(LostReason::Revoked("fenced".into()));
    let flushed = lane.flush(Level::Visible, Deadline::within(Duration::from_secs(1)));
    assert!(matches!(flushed, Err(WaitError::LinkLost { .. })), "{flushed:?}");
}

#[test]
fn a_lane_that_ends_leaves_nothing_unknown_when_all_of_it_is_there() {
    let mut walk = Walk::new(16);
    walk.lane.store(0, &[1; 8]).unwrap();
    let core = walk.lane.core.clone();
    drop(walk.lane);
    assert_eq!(core.take_orphans(), []);
}
