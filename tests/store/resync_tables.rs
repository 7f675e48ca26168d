//! The tables of a resync's segments come several at a time, and one that does not come so comes alone.

use mirrorbus::segment::SegmentLayout;
use mirrorbus::store::{Counts, Dataset, Mark, ReplicationState, Volume};

use super::away::{BLOCK, BLOCKS, Model, RING, SEGMENT, moved, rig, switch_over};
use super::resync::{begun, first, rot, serving_first};
use super::rig::{Medium, Rig, here, wait_for};

/// Segments that are written.
const SEGMENTS: u64 = 48;
/// Blocks that each of them has with what the next one has anew, from here on.
const AGAIN: u64 = 240;
const AGAIN_FROM: u64 = BLOCKS / 2;

/// Of each segment one block lives, of the first ones of the volume; the rest is written again in the next.
fn write_sparsely(model: &mut Model, volume: &Volume) {
    for block in 0..SEGMENTS {
        model.write_each(volume, block..block + 1);
        model.write_each(volume, AGAIN_FROM..AGAIN_FROM + AGAIN);
    }
    volume.flush(&here).unwrap();
}

#[test]
fn many_segments_of_which_little_lives_take_few_questions() {
    let rig = rig(Medium::Shm);
    let primary = first(&rig);
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(23);
    write_sparsely(&mut model, &volume);
    let secondary = rig.open(1);
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    let by_ring = RING / SEGMENT + 1;
    let (data, tables) = moved(&Counts::default(), &primary);
    assert!(data >= (SEGMENTS - by_ring - 2) * BLOCK && data <= (SEGMENTS + AGAIN) * BLOCK, "{data} bytes");
    assert!(tables >= (SEGMENTS - by_ring - 2) * AGAIN * 64, "{tables} bytes of tables");
    let questions = primary.status().counts.resync_questions;
    assert!((4..SEGMENTS / 2).contains(&questions), "{questions} questions for {SEGMENTS} segments");
    drop(volume);
    switch_over(primary, &secondary, &model);
}

#[test]
fn a_table_that_the_primary_has_lost_keeps_those_beside_it_from_nothing() {
    let rig = rig(Medium::Shm);
    let primary = first(&rig);
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(29);
    write_sparsely(&mut model, &volume);
    let paths = begun(&rig, 0);
    // One of the first records of a segment in the middle.
    rot(&paths[paths.len() / 2], SEGMENT - 5 * 64);
    let secondary = rig.open(1);
    wait_for(&secondary, |status| status.reason.code == "resync-waits");
    let reason = secondary.status().reason.text;
    assert!(reason.contains("the records of the segment"), "{reason}");
    let (data, _) = moved(&Counts::default(), &primary);
    assert!(data >= (SEGMENTS - RING / SEGMENT - 4) * BLOCK, "{data} bytes of data");
    assert_eq!(primary.status().replication, ReplicationState::SyncSource);
    model.write_each(&volume, 0..SEGMENTS);
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    drop(volume);
    switch_over(primary, &secondary, &model);
}

/// Blocks that are flushed each: each takes a block of the table, too.
const FLUSHED: u64 = 2000;

#[test]
fn tables_of_blocks_that_were_flushed_each_come_without_the_room_between() {
    let rig = rig(Medium::Shm);
    let primary = first(&rig);
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(37);
    for block in 0..FLUSHED {
        model.write_each(&volume, block..block + 1);
        volume.flush(&here).unwrap();
    }
    let segments = begun(&rig, 0).len() as u64;
    assert!(segments > FLUSHED * 2 * BLOCK / SEGMENT, "{segments} segments");
    let secondary = rig.open(1);
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    let (data, tables) = moved(&Counts::default(), &primary);
    assert!((FLUSHED * BLOCK - RING..=FLUSHED * BLOCK).contains(&data), "{data} bytes of data");
    assert!(tables <= FLUSHED * 72 + segments * 256 + 4096, "{tables} bytes of tables");
    let questions = primary.status().counts.resync_questions;
    assert!(
        questions <= 4 + segments.div_ceil(16) + (data >> 20) + 1,
        "{questions} questions for {segments} segments"
    );
    drop(volume);
    switch_over(primary, &secondary, &model);
}

/// A node with longer segments: a table of one may be longer than the window.
fn open_long(rig: &Rig, node: usize) -> Dataset {
    let mut config = rig.config(node);
    config.layout = SegmentLayout::DEFAULT;
    Dataset::open(config, Rig::keys()).unwrap()
}

/// Blocks that fill half of a segment of that length, nearly, and trims that fill all of it: 576 bytes each, and 64 of them in its table.
const HALF: u64 = 1900;
const TRIMS: u64 = 28_000;

fn trim_often(volume: &Volume, count: u64) {
    let mut mark = Mark::default();
    for number in 0..count {
        mark = volume.trim((BLOCKS - 1 - number % 100) * BLOCK, BLOCK, &here).unwrap();
    }
    volume.commit(mark, &here).unwrap();
}

#[test]
fn a_table_that_is_longer_than_the_window_comes_in_parts_between_short_ones() {
    let mut rig = rig(Medium::Shm);
    rig.places = 2;
    let primary = serving_first(open_long(&rig, 0));
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(31);
    // In turns a segment of blocks, and one of hardly anything but trims, with one block of each that lives.
    for round in 0..4 {
        model.write_each(&volume, AGAIN_FROM..AGAIN_FROM + HALF);
        model.write_each(&volume, round * 2..round * 2 + 1);
        model.write_each(&volume, AGAIN_FROM + HALF..AGAIN_FROM + 2 * HALF);
        trim_often(&volume, TRIMS / 2);
        model.write_each(&volume, round * 2 + 1..round * 2 + 2);
        trim_often(&volume, TRIMS / 2);
    }
    volume.flush(&here).unwrap();
    let secondary = open_long(&rig, 1);
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    let (_, tables) = moved(&Counts::default(), &primary);
    assert!(tables >= 2 * TRIMS * 64, "{tables} bytes of tables");
    drop(volume);
    switch_over(primary, &secondary, &model);
}
