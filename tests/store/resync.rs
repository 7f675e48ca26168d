//! A node that was away for longer than the ring reaches back, or is new, is brought up to date: by what it lacks, once, whatever happens
//! meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mirrorbus::base::BlockSize;
use mirrorbus::store::{Counts, Dataset, Mark, ReplicationState, RoleStatus, Source, Volume};

use super::proxy::Proxy;
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
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
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

    /// Writes each block.
    fn write_all(&mut self, volume: &Volume) {
        let mut mark = Mark::default();
        for block in 0..BLOCKS {
            let bytes = pattern(self.next, usize::try_from(BLOCK).unwrap());
            mark = volume.write(block * BLOCK, Source::Bytes(&bytes)).unwrap();
            self.seeds[usize::try_from(block).unwrap()] = self.next;
            self.next += 1;
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

/// Two nodes on a network of 16 MiB a second, on which a resync takes seconds.
struct Slow {
    rig: Rig,
    proxies: [Proxy; 2],
}

impl Slow {
    fn new() -> Self {
        let rig = rig(Medium::Tcp);
        let proxies = [0, 1].map(|node| Proxy::new(&rig.config(node).listen, 16 << 20));
        Self { rig, proxies }
    }

    fn open(&self, node: usize) -> Dataset {
        let mut config = self.rig.config(node);
        config.peer = self.proxies[1 - node].url.clone();
        Dataset::open(config, Rig::keys()).unwrap()
    }

    /// The first node has written 32 MiB since the second one left, which is what this gives beside it: what the second one has, and what
    /// the first one has.
    fn long_away(&self) -> (Dataset, Volume, Model, Model) {
        let [primary, secondary] = [self.open(0), self.open(1)];
        wait_for(&primary, |status| status.replication == ReplicationState::Established);
        let volume = primary.volume("root").unwrap();
        let mut model = Model::new(5);
        model.write_some(&volume, 1000, 0, BLOCKS);
        volume.flush(&here).unwrap();
        let old = model.clone();
        drop(secondary);
        alone(&primary);
        model.write_all(&volume);
        (primary, volume, old, model)
    }

    fn until_mirrored(primary: &Dataset) {
        wait_for(primary, |status| status.replication == ReplicationState::Established);
    }
}

/// Waits until so many bytes of data were moved since.
fn until_moved(before: &Counts, node: &Dataset, bytes: u64) {
    let began = Instant::now();
    while moved(before, node).0 < bytes {
        assert!(began.elapsed() < super::rig::SECONDS, "{:?}", node.status());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_link_that_is_cut_ten_times_costs_hardly_more_than_one_that_is_not() {
    let slow = Slow::new();
    let (primary, volume, _, mut model) = slow.long_away();
    let before = primary.status().counts;
    let secondary = slow.open(1);
    for cut in 1..=10_u64 {
        until_moved(&before, &primary, cut * (2 << 20));
        slow.proxies[1].cut();
        slow.proxies[0].cut();
        wait_for(&primary, |status| status.replication == ReplicationState::Alone);
        model.write_some(&volume, 10, 0, BLOCKS);
    }
    Slow::until_mirrored(&primary);
    let (data, tables) = moved(&before, &primary);
    // A piece that was under way may be moved twice.
    let most = BLOCKS * BLOCK + 10 * (256 << 10);
    assert!(data <= most && data >= BLOCKS * BLOCK - RING, "{data} bytes of data, at most {most}");
    assert!(tables < 4 << 20, "{tables} bytes of tables");
    drop(volume);
    switch_over(primary, &secondary, &model);
}

#[test]
fn a_secondary_that_is_restarted_goes_on_where_it_was() {
    let slow = Slow::new();
    let (primary, volume, _, mut model) = slow.long_away();
    let before = primary.status().counts;
    for restart in 1..=3_u64 {
        let secondary = slow.open(1);
        until_moved(&before, &primary, restart * (6 << 20));
        let status = secondary.status();
        assert_eq!(status.replication, ReplicationState::SyncTarget);
        let resync = status.resync.unwrap();
        assert!(resync.left_bytes > 0 && resync.left_bytes < resync.total_bytes, "{resync:?}");
        assert!(primary.status().resync.is_some_and(|resync| resync.hundredths < 10_000));
        drop(secondary);
        model.write_some(&volume, 10, 0, BLOCKS);
    }
    let secondary = slow.open(1);
    Slow::until_mirrored(&primary);
    let (data, _) = moved(&before, &primary);
    let most = BLOCKS * BLOCK + 3 * (1 << 20);
    assert!(data <= most, "{data} bytes of data, at most {most}");
    drop(volume);
    switch_over(primary, &secondary, &model);
}

#[test]
fn a_primary_that_is_restarted_goes_on_where_it_was() {
    let slow = Slow::new();
    let (primary, volume, _, mut model) = slow.long_away();
    let secondary = slow.open(1);
    let before = primary.status().counts;
    until_moved(&before, &primary, 8 << 20);
    let first = moved(&before, &primary).0;
    drop((volume, primary));
    let primary = slow.open(0);
    wait_for(&primary, |_| primary.volume("root").is_ok());
    let volume = primary.volume("root").unwrap();
    model.write_some(&volume, 10, 0, BLOCKS);
    Slow::until_mirrored(&primary);
    let (data, _) = moved(&Counts::default(), &primary);
    let most = BLOCKS * BLOCK + (1 << 20);
    assert!(first + data <= most, "{first} and {data} bytes of data, at most {most}");
    drop(volume);
    switch_over(primary, &secondary, &model);
}

#[test]
fn until_all_is_there_the_old_point_is_what_is_served() {
    for restarts in [false, true] {
        let slow = Slow::new();
        let (primary, volume, old, _) = slow.long_away();
        let before = primary.status().counts;
        let mut secondary = slow.open(1);
        until_moved(&before, &primary, 8 << 20);
        drop((volume, primary));
        if restarts {
            drop(secondary);
            secondary = slow.open(1);
        }
        assert!(secondary.promote(false).is_err(), "it lacks what was acknowledged");
        secondary.promote(true).unwrap();
        let mut model = old;
        let volume = secondary.volume("root").unwrap();
        model.compare(&volume);
        model.write_some(&volume, 2000, 0, BLOCKS);
        model.compare(&volume);
        assert_eq!(secondary.scrub().damaged_blocks, 0);
        drop((volume, secondary));
        let secondary = slow.open(1);
        wait_for(&secondary, |_| secondary.volume("root").is_ok());
        model.compare(&secondary.volume("root").unwrap());
        assert_eq!(secondary.scrub().damaged_blocks, 0, "restarts: {restarts}");
    }
}

#[test]
fn what_is_given_back_meanwhile_is_not_missed() {
    let slow = Slow::new();
    let (primary, volume, _, mut model) = slow.long_away();
    // Most of it is dead, and given back.
    model.write_some(&volume, 10_000, 0, 2000);
    let removed = |primary: &Dataset| primary.status().counts.segments_removed;
    wait_for(&primary, |status| status.counts.segments_removed > 0);
    let before = (primary.status().counts, removed(&primary));
    let secondary = slow.open(1);
    until_moved(&before.0, &primary, 2 << 20);
    // And again while pieces are asked for that are dead by now.
    while primary.status().replication != ReplicationState::Established {
        model.write_some(&volume, 50, 0, BLOCKS);
    }
    drop(volume);
    switch_over(primary, &secondary, &model);
}

#[test]
fn a_directory_that_was_brought_by_truck_needs_the_rest_only() {
    let slow = Slow::new();
    let primary = slow.open(0);
    wait_for(&primary, |status| status.reason.code == "peer-unreachable");
    primary.promote(false).unwrap();
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(13);
    model.write_all(&volume);
    // While it is written, so the last segment is copied in part.
    let [from, to] = [0, 1].map(|node| slow.rig.path(node).join("segments"));
    std::fs::create_dir_all(&to).unwrap();
    std::fs::set_permissions(slow.rig.path(1), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let rest = 1000;
    model.write_some(&volume, rest, 0, BLOCKS);
    model.write_some(&volume, 10, 0, BLOCKS);
    let secondary = slow.open(1);
    Slow::until_mirrored(&primary);
    let (data, _) = moved(&Counts::default(), &primary);
    let most = rest * BLOCK + 2 * SEGMENT;
    assert!(data <= most, "{data} bytes of data, at most {most}");
    drop(volume);
    switch_over(primary, &secondary, &model);
}

/// Flips a bit of a file.
fn rot(path: &std::path::Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// The files of the segments that were begun, by rising base.
fn begun(rig: &Rig, node: usize) -> Vec<std::path::PathBuf> {
    let paths =
        std::fs::read_dir(rig.path(node).join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let mut begun: Vec<_> =
        paths.filter(|path| std::fs::read(path).unwrap().starts_with(b"MBSEGM")).collect();
    begun.sort();
    begun
}

#[test]
fn a_block_that_the_primary_cannot_read_keeps_nothing_else_from_coming() {
    let rig = rig(Medium::Shm);
    let primary = rig.open(0);
    wait_for(&primary, |status| status.reason.code == "peer-unreachable");
    primary.promote(false).unwrap();
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(17);
    model.write_all(&volume);
    volume.flush(&here).unwrap();
    let (rotten, data) = (100, pattern(model.seeds[100], 4096));
    let place = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let at = bytes.chunks(4096).position(|block| block == data)?;
        Some((path.clone(), at as u64 * BLOCK))
    };
    let (path, at) = begun(&rig, 0).iter().find_map(place).unwrap();
    rot(&path, at + 7);
    let secondary = rig.open(1);
    wait_for(&secondary, |status| status.reason.code == "resync-waits");
    let reason = secondary.status().reason.text;
    assert!(reason.contains("block 100 of the volume \"root\"") && reason.contains("1 such"), "{reason}");
    let (data, _) = moved(&Counts::default(), &primary);
    assert!(data >= (BLOCKS - 1) * BLOCK - RING - SEGMENT, "{data} bytes of data");
    assert_eq!(primary.status().replication, ReplicationState::SyncSource);
    model.write_some(&volume, 1, rotten, rotten + 1);
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    drop(volume);
    switch_over(primary, &secondary, &model);
}

#[test]
fn a_table_that_the_primary_has_lost_does_not_take_the_place_of_a_good_one() {
    let rig = rig(Medium::Shm);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(19);
    model.write_some(&volume, 1000, 0, BLOCKS);
    volume.flush(&here).unwrap();
    let old = model.clone();
    drop(secondary);
    alone(&primary);
    let last = begun(&rig, 1).pop().unwrap();
    model.write_all(&volume);
    volume.flush(&here).unwrap();
    // One of the first records of the segment in which the other's log ends.
    let path = rig.path(0).join("segments").join(last.file_name().unwrap());
    rot(&path, SEGMENT - 5 * 64);
    let secondary = rig.open(1);
    wait_for(&secondary, |status| status.reason.code == "resync-waits");
    let (data, _) = moved(&Counts::default(), &primary);
    assert!(data >= BLOCKS * BLOCK - RING - 2 * SEGMENT, "{data} bytes of data: all but that segment's");
    drop((volume, primary, secondary));
    let secondary = rig.open(1);
    wait_for(&secondary, |status| status.reason.code != "starting");
    secondary.promote(true).unwrap();
    old.compare(&secondary.volume("root").unwrap());
    assert_eq!(secondary.scrub().damaged_blocks, 0);
}
