//! A node that was away for longer than the ring reaches back, or is new, is brought up to date: by what it lacks, once, whatever happens
//! meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mirrorbus::base::BlockSize;
use mirrorbus::store::{Counts, Dataset, DatasetConfig, Directory, ReplicationState, RoleStatus};

use super::away::{BLOCK, BLOCKS, Model, RING, SEGMENT, Slow, alone, moved, rig, switch_over};
use super::rig::{Medium, Rig, here, pattern, read, wait_for, write};

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
        // What was moved shows that it was a resync.
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

/// A node of a pair whose other one was never there, and serves.
pub(super) fn first(rig: &Rig) -> Dataset {
    serving_first(rig.open(0))
}

/// The same, of a node that is there.
pub(super) fn serving_first(node: Dataset) -> Dataset {
    wait_for(&node, |status| status.reason.code == "peer-unreachable");
    node.promote(false).unwrap();
    node
}

#[test]
fn a_new_node_is_given_what_lives_and_nothing_else() {
    let rig = rig(Medium::Tcp);
    let primary = first(&rig);
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

/// What is sent at once ends where a block ends, whatever the sizes of those before.
#[test]
fn a_new_node_is_given_blocks_of_two_sizes_from_one_log() {
    let rig = rig(Medium::Tcp);
    let primary = first(&rig);
    primary.create_volume("small", 1 << 20, BlockSize::Small).unwrap();
    let (small, volume) = (primary.volume("small").unwrap(), primary.volume("root").unwrap());
    let (few, many) = (512 * 3, usize::try_from(BLOCK).unwrap() * 33);
    for number in 0..48 {
        write(&small, number * 512 * 7, &pattern(1, few));
        write(&volume, number * BLOCK * 40, &pattern(2, many));
    }
    let secondary = rig.open(1);
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    let (data, _) = moved(&Counts::default(), &primary);
    assert!(data > 4 << 20, "{data} bytes came by a resync");
    drop((small, volume));
    drop(primary);
    secondary.promote(false).unwrap();
    let (small, volume) = (secondary.volume("small").unwrap(), secondary.volume("root").unwrap());
    for number in 0..48 {
        assert_eq!(read(&small, number * 512 * 7, few), pattern(1, few), "write {number}");
        assert_eq!(read(&volume, number * BLOCK * 40, many), pattern(2, many), "write {number}");
    }
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

/// What a first start notes before all else when segments were brought there: that none of them is its own log yet.
const BROUGHT: &str = "fd7ef31b\n{\"from\":{\"generation\":0,\"end\":0,\"highest\":0}}\n";

#[test]
fn a_directory_that_was_brought_by_truck_needs_the_rest_only() {
    brought_by_truck(|_| {});
}

/// As a first start leaves it that was killed there.
fn begun_and_killed(config: &DatasetConfig) {
    let (path, name) = (&config.directory, &config.node);
    drop(Directory::open(path, config.id, name, config.layout, true).unwrap());
    std::fs::write(path.join("resync"), BROUGHT).unwrap();
}

#[test]
fn a_first_start_on_brought_segments_may_be_killed_before_its_checkpoint() {
    brought_by_truck(begun_and_killed);
}

/// A mark that says more than what was brought, of the node that it was copied from.
#[test]
fn a_mark_that_came_along_counts_for_nothing() {
    brought_by_truck(|config| {
        begun_and_killed(config);
        let from = config.directory.with_file_name("a").join("durable");
        std::fs::copy(from, config.directory.join("durable")).unwrap();
    });
}

/// A node that gets copies of the other's segments, and what `before` does there before its start.
fn brought_by_truck(before: impl Fn(&DatasetConfig)) {
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
    before(&slow.rig.config(1));
    let secondary = slow.open(1);
    Slow::until_mirrored(&primary);
    let (data, _) = moved(&Counts::default(), &primary);
    let most = rest * BLOCK + 2 * SEGMENT;
    assert!(data <= most, "{data} bytes of data, at most {most}");
    drop(volume);
    switch_over(primary, &secondary, &model);
}

/// Flips a bit of a file.
pub(super) fn rot(path: &std::path::Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// The files of the segments that were begun, by rising base.
pub(super) fn begun(rig: &Rig, node: usize) -> Vec<std::path::PathBuf> {
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
    let primary = first(&rig);
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
    assert_eq!(secondary.scrub(false).unwrap().damaged_blocks, 0);
}
