//! A node that was away for longer than the ring reaches back, or is new, is brought up to date: by what it lacks, once, whatever happens
//! meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mirrorbus::base::BlockSize;
use mirrorbus::store::{Counts, Dataset, Mark, ReplicationState, RoleStatus, Source, Volume};

use super::rig::{Medium, Rig, here, pattern, read, wait_for, write};

/// Bytes of a block, and blocks of the volume.
const BLOCK: u64 = 4096;
const BLOCKS: u64 = 8192;
/// Bytes of the rig's ring, and of a segment of it.
const RING: u64 = 4 << 20;
const SEGMENT: u64 = 1 << 20;

/// What each block was written with last; 0 for zeroes.
#[derive(Clone)]
struct Model {
    seeds: Vec<u64>,
    next: u64,
    random: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self { seeds: vec![0; usize::try_from(BLOCKS).unwrap()], next: 1, random: seed }
    }

    fn below(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    /// Writes `count` blocks at random, of those from `from` to `to`; all are acknowledged on return.
    fn write_some(&mut self, volume: &Volume, count: u64, from: u64, to: u64) {
        let mut mark = Mark::default();
        for _ in 0..count {
            let (block, seed) = (from + self.below(to - from), self.next);
            self.next += 1;
            let bytes = pattern(seed, usize::try_from(BLOCK).unwrap());
            mark = volume.write(block * BLOCK, Source::Bytes(&bytes)).unwrap();
            self.seeds[usize::try_from(block).unwrap()] = seed;
        }
        volume.commit(mark, &here).unwrap();
    }

    fn trim(&mut self, volume: &Volume, block: u64, count: u64) {
        let mark = volume.trim(block * BLOCK, count * BLOCK).unwrap();
        volume.commit(mark, &here).unwrap();
        let first = usize::try_from(block).unwrap();
        self.seeds[first..first + usize::try_from(count).unwrap()].fill(0);
    }

    fn written(&self) -> u64 {
        self.seeds.iter().filter(|seed| **seed != 0).count() as u64
    }

    /// Compares every block.
    fn compare(&self, volume: &Volume) {
        let len = usize::try_from(BLOCK).unwrap();
        for (block, seed) in self.seeds.iter().enumerate() {
            let wanted = if *seed == 0 { vec![0; len] } else { pattern(*seed, len) };
            assert!(read(volume, block as u64 * BLOCK, len) == wanted, "block {block}, seed {seed}");
        }
    }
}

fn rig(medium: Medium) -> Rig {
    let mut rig = Rig::new(medium);
    rig.volume_bytes = BLOCKS * BLOCK;
    rig
}

fn alone(node: &Dataset) {
    wait_for(node, |status| status.replication == ReplicationState::LinkLost);
    node.alone().unwrap();
}

fn moved(before: &Counts, node: &Dataset) -> (u64, u64) {
    let now = node.status().counts;
    (now.resync_data_bytes - before.resync_data_bytes, now.resync_table_bytes - before.resync_table_bytes)
}

/// The primary ends; the other serves all of it.
fn switch_over(primary: Dataset, secondary: &Dataset, model: &Model) -> Volume {
    drop(primary);
    secondary.promote(false).unwrap();
    let volume = secondary.volume("root").unwrap();
    model.compare(&volume);
    let scrubbed = secondary.scrub();
    assert_eq!(scrubbed.damaged_blocks, 0, "{scrubbed:?}");
    volume
}

fn comes_back_while_the_volume_is_written(medium: Medium) {
    let rig = rig(medium);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(7);
    model.write_some(&volume, 3000, 0, BLOCKS);
    volume.flush(&here).unwrap();
    drop(secondary);
    alone(&primary);
    let before = primary.status().counts;
    // Much more than the ring has; most of it twice.
    let (away, changed) = (6000, 2048);
    model.write_some(&volume, away, 0, changed);
    let stop = AtomicBool::new(false);
    let secondary = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !stop.load(Ordering::SeqCst) {
                model.write_some(&volume, 10, 0, BLOCKS);
                written += 10;
                std::thread::sleep(Duration::from_millis(2));
            }
            written
        });
        let secondary = rig.open(1);
        wait_for(&primary, |status| status.replication == ReplicationState::SyncSource);
        wait_for(&primary, |status| status.replication == ReplicationState::Established);
        stop.store(true, Ordering::SeqCst);
        assert!(writer.join().unwrap() > 0);
        secondary
    });
    let (data, tables) = moved(&before, &primary);
    let most = changed * BLOCK + RING + 2 * SEGMENT;
    assert!(data > changed * BLOCK / 2 && data <= most, "{data} bytes of data, at most {most}");
    assert!(tables < data / 4, "{tables} bytes of tables beside {data} of data");
    assert_eq!(secondary.status().role, RoleStatus::Secondary);
    drop(volume);
    switch_over(primary, &secondary, &model);
}

#[test]
fn a_node_that_was_away_for_long_comes_back_over_tcp() {
    comes_back_while_the_volume_is_written(Medium::Tcp);
}

#[test]
fn a_node_that_was_away_for_long_comes_back_over_shm() {
    comes_back_while_the_volume_is_written(Medium::Shm);
}

#[test]
fn a_new_node_is_given_what_lives_and_nothing_else() {
    let rig = rig(Medium::Tcp);
    let primary = rig.open(0);
    wait_for(&primary, |status| status.reason.code == "peer-unreachable");
    primary.promote(false).unwrap();
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(3);
    model.write_some(&volume, 6000, 0, BLOCKS);
    model.trim(&volume, 1000, 5000);
    model.write_some(&volume, 3000, 0, 500);
    primary.create_volume("gone", 1 << 20, BlockSize::Small).unwrap();
    write(&primary.volume("gone").unwrap(), 0, &pattern(1, 1 << 20));
    primary.delete_volume("gone").unwrap();
    primary.create_volume("small", 1 << 20, BlockSize::Small).unwrap();
    let small = primary.volume("small").unwrap();
    write(&small, 512 * 7, &pattern(5, 512 * 100));
    model.write_some(&volume, 2000, 0, 500);
    let live = model.written() * BLOCK + 512 * 100;
    let secondary = rig.open(1);
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    let (data, _) = moved(&Counts::default(), &primary);
    // The open segment came by the ring.
    assert!(data <= live && data + 2 * SEGMENT >= live, "{data} bytes of data, {live} live");
    drop((volume, small));
    let volume = switch_over(primary, &secondary, &model);
    assert_eq!(read(&secondary.volume("small").unwrap(), 512 * 7, 512 * 100), pattern(5, 512 * 100));
    assert!(secondary.volume("gone").is_err());
    // And it goes on from there: a restart has all of it.
    model.write_some(&volume, 100, 0, BLOCKS);
    drop((volume, secondary));
    let secondary = rig.open(1);
    wait_for(&secondary, |_| secondary.volume("root").is_ok());
    model.compare(&secondary.volume("root").unwrap());
}

#[test]
fn what_was_cut_off_trimmed_deleted_and_resized_meanwhile_is_so_on_both() {
    let rig = rig(Medium::Shm);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(11);
    model.write_some(&volume, 2000, 0, BLOCKS);
    for name in ["resized", "deleted"] {
        primary.create_volume(name, 4 << 20, BlockSize::Large).unwrap();
        write(&primary.volume(name).unwrap(), 0, &pattern(9, 4 << 20));
    }
    volume.flush(&here).unwrap();
    drop(secondary);
    alone(&primary);
    model.write_some(&volume, 2000, 0, BLOCKS);
    model.trim(&volume, 100, 3000);
    primary.resize_volume("resized", 1 << 20).unwrap();
    primary.resize_volume("resized", 8 << 20).unwrap();
    write(&primary.volume("resized").unwrap(), 6 << 20, &pattern(4, 1 << 20));
    primary.delete_volume("deleted").unwrap();
    primary.create_volume("deleted", 1 << 20, BlockSize::Small).unwrap();
    write(&primary.volume("deleted").unwrap(), 0, &pattern(2, 1 << 20));
    model.write_some(&volume, 2000, 4000, BLOCKS);
    let secondary = rig.open(1);
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    drop(volume);
    switch_over(primary, &secondary, &model);
    let resized = secondary.volume("resized").unwrap();
    assert_eq!(read(&resized, 0, 1 << 20), pattern(9, 4 << 20)[..1 << 20]);
    assert!(read(&resized, 1 << 20, 5 << 20).iter().all(|byte| *byte == 0), "cut off, and grown again");
    assert_eq!(read(&resized, 6 << 20, 1 << 20), pattern(4, 1 << 20));
    assert_eq!(read(&secondary.volume("deleted").unwrap(), 0, 1 << 20), pattern(2, 1 << 20));
}

/// Waits until so many bytes of data were moved since.
fn until_moved(before: &Counts, node: &Dataset, bytes: u64) {
    let began = Instant::now();
    while moved(before, node).0 < bytes {
        assert!(began.elapsed() < super::rig::SECONDS, "{:?}", node.status());
        std::thread::sleep(Duration::from_millis(1));
    }
}
