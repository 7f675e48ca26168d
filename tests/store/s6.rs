//! What is promised of a node that was away, each promise a test of a pair of real datasets; those of single calls of the system are in
//! `tests/nodes/s6.rs`.
//!
//! A *phase* is what lies between two markers. What was written since the last one may be missing at a node that comes back, so it is
//! looked at again, and that is all that a resync costs beside what was changed.

use std::time::Duration;

use mirrorbus::store::{Dataset, ReplicationState, Volume};

use super::away::{BLOCK, BLOCKS, Model, RING, SEGMENT, Slow, alone, moved, rig, switch_over, until_moved};
use super::rig::{Medium, here, wait_for};

/// Blocks that are changed while one is away: more than twice what the ring has.
const CHANGED: u64 = 2560;

/// What an attachment brings whatever happened: the words, the ring as it is, and the window.
const REGION: u64 = RING + (2 << 20);

fn marker(node: &Dataset) -> u64 {
    node.status().marker.expect("a marker").0
}

/// Waits until the node's marker is at the end of its log, or behind `end`.
fn until_marked(node: &Dataset, end: u64) {
    wait_for(node, |status| status.marker.is_some_and(|marker| marker.0 >= end));
}

/// The two meet again, which ends a phase: all that was written is before the marker then.
fn meet_again(primary: &Dataset, volume: &Volume, open: impl Fn() -> Dataset, secondary: Dataset) -> Dataset {
    volume.flush(&here).unwrap();
    let end = primary.status().appended.0;
    drop(secondary);
    alone(primary);
    let secondary = open();
    wait_for(primary, |status| status.replication == ReplicationState::Established);
    until_marked(primary, end);
    secondary
}

/// Counted by the primary, and on the wire.
#[test]
fn an_outage_moves_what_was_changed_and_at_most_two_phases() {
    let slow = Slow::new();
    let [primary, secondary] = [slow.open(0), slow.open(1)];
    Slow::until_mirrored(&primary);
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(21);
    model.write_all(&volume);
    let secondary = meet_again(&primary, &volume, || slow.open(1), secondary);
    // A phase that is not over when the other leaves.
    model.write_each(&volume, 4000..4500);
    drop(secondary);
    alone(&primary);
    let status = primary.status();
    let phase = status.appended.0 - status.marker.unwrap().0;
    assert!((500 * BLOCK..2000 * BLOCK).contains(&phase), "a phase of {phase} bytes");
    model.write_each(&volume, 0..CHANGED);
    let passed = || slow.proxies.iter().map(super::proxy::Proxy::passed).sum::<u64>();
    let before = (primary.status().counts, passed());
    let secondary = slow.open(1);
    Slow::until_mirrored(&primary);
    let (changed, on_the_wire) = (CHANGED * BLOCK, passed() - before.1);
    let (data, tables) = moved(&before.0, &primary);
    let most = changed * 11 / 10 + 2 * phase;
    println!(
        "{changed} changed, a phase of {phase}: {data} + {tables} moved, {on_the_wire} on the wire, of {most}"
    );
    assert!(data + RING >= changed, "{data} bytes of data, {changed} changed");
    assert!(data + tables <= most, "{data} bytes of data and {tables} of tables, at most {most}");
    let most = most + REGION;
    assert!(on_the_wire <= most, "{on_the_wire} bytes on the wire, at most {most}");
    drop(volume);
    switch_over(primary, &secondary, &model);
}

/// One request, so long that a phase ends in its midst, and the other node is lost before it has all of it.
#[test]
fn a_write_on_both_sides_of_the_marker_is_sent_again() {
    // So slow that the marker moves long before the write is over.
    let slow = Slow::of(4 << 20);
    let [primary, secondary] = [slow.open(0), slow.open(1)];
    Slow::until_mirrored(&primary);
    let volume = primary.volume("root").unwrap();
    let mut model = Model::new(22);
    model.write_some(&volume, 1000, 0, BLOCKS);
    volume.flush(&here).unwrap();
    slow.proxies.iter().for_each(|proxy| proxy.close(true));
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    // Until the keeper has noticed.
    std::thread::sleep(Duration::from_secs(1));
    let began = primary.status().appended.0;
    // What does not fit the ring waits for the other; that they meet ends a phase.
    let (secondary, position) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| model.write_at_once(&volume, 0..BLOCKS));
        wait_for(&primary, |status| status.appended.0 >= began + RING / 2);
        slow.proxies.iter().for_each(|proxy| proxy.close(false));
        until_marked(&primary, began + 1);
        let position = marker(&primary);
        let had = secondary.status().appended.0;
        assert!(!writer.is_finished(), "the phase ended when the write was over: nothing is shown");
        drop(secondary);
        wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
        assert_eq!(marker(&primary), position, "it stays");
        primary.alone().unwrap();
        writer.join().unwrap();
        let before = primary.status();
        let end = before.appended.0;
        assert!(began < position && position <= had && had < end, "{began} {position} {had} {end}");
        let secondary = slow.open(1);
        Slow::until_mirrored(&primary);
        let (data, _) = moved(&before.counts, &primary);
        let (lacked, behind) = (end - had, end - position);
        println!("of a write of {} bytes {behind} lie behind the marker: {data} were moved", end - began);
        assert!(data + RING + SEGMENT >= lacked, "{data} bytes of data, {lacked} were lacking");
        assert!(data <= behind, "{data} bytes of data, {behind} behind the marker");
        (secondary, position)
    });
    wait_for(&primary, |status| status.marker.is_some_and(|marker| marker.0 > position));
    drop(volume);
    switch_over(primary, &secondary, &model);
}

#[test]
fn an_overwritten_block_is_sent_once_and_newest() {
    for medium in [Medium::Shm, Medium::Tcp] {
        let rig = rig(medium);
        let [primary, secondary] = rig.pair();
        let volume = primary.volume("root").unwrap();
        let mut model = Model::new(23);
        model.write_all(&volume);
        let secondary = meet_again(&primary, &volume, || rig.open(1), secondary);
        drop(secondary);
        alone(&primary);
        let before = primary.status();
        for _ in 0..4 {
            model.write_each(&volume, 0..CHANGED);
        }
        model.write_some(&volume, CHANGED, 0, CHANGED);
        let log = primary.status().appended.0 - before.appended.0;
        assert!(log >= 5 * CHANGED * BLOCK, "{log} bytes of log");
        let secondary = rig.open(1);
        wait_for(&primary, |status| status.replication == ReplicationState::Established);
        let (data, _) = moved(&before.counts, &primary);
        let once = CHANGED * BLOCK;
        println!("{medium:?}: {log} bytes of log, {data} of data were moved for {once}");
        // The open segment came by the ring.
        assert!(data <= once && data + SEGMENT >= once, "{data} bytes of data, {once} are each block once");
        drop(volume);
        switch_over(primary, &secondary, &model);
    }
}

#[test]
fn what_is_given_back_during_the_outage_and_the_resync_is_not_missed() {
    let slow = Slow::new();
    let (primary, volume, _, mut model) = slow.long_away();
    // Most of it is dead, and given back.
    model.write_some(&volume, 10_000, 0, 2000);
    wait_for(&primary, |status| status.counts.segments_removed > 0);
    let before = primary.status().counts;
    let secondary = slow.open(1);
    until_moved(&before, &primary, 2 << 20);
    // And again while pieces are asked for that are dead by now.
    while primary.status().replication != ReplicationState::Established {
        model.write_some(&volume, 50, 0, BLOCKS);
    }
    drop(volume);
    switch_over(primary, &secondary, &model);
}

/// With a marker a little is compared, without one everything: all maps are sent. What the other has is not moved for that; a node without
/// its files has no marker and nothing else, and is given all.
#[test]
fn without_a_marker_all_is_synced() {
    let mut tables = Vec::new();
    for (has_marker, has_files) in [(true, true), (false, true), (false, false)] {
        let rig = rig(Medium::Tcp);
        let [primary, secondary] = rig.pair();
        let volume = primary.volume("root").unwrap();
        let mut model = Model::new(24);
        // In no order, so that maps are long.
        model.write_some(&volume, 4 * BLOCKS, 0, BLOCKS);
        let secondary = meet_again(&primary, &volume, || rig.open(1), secondary);
        drop(secondary);
        alone(&primary);
        model.write_each(&volume, 0..CHANGED);
        drop((volume, primary));
        if !has_marker {
            std::fs::remove_file(rig.path(0).join("marker.redb")).unwrap();
        }
        if !has_files {
            std::fs::remove_dir_all(rig.path(1)).unwrap();
        }
        let primary = rig.open(0);
        wait_for(&primary, |_| primary.volume("root").is_ok());
        assert_eq!(primary.status().marker.is_some(), has_marker);
        if !has_files {
            primary.replace_peer().unwrap();
        }
        let before = primary.status().counts;
        let secondary = rig.open(1);
        wait_for(&primary, |status| status.replication == ReplicationState::Established);
        let (data, table) = moved(&before, &primary);
        tables.push(table);
        let (changed, all) = (CHANGED * BLOCK, model.written() * BLOCK);
        println!(
            "marker: {has_marker}, files: {has_files}: {data} and {table} moved, {changed} changed of {all}"
        );
        let wanted = if has_files { changed } else { all };
        assert!(data <= wanted && data + SEGMENT >= wanted, "{data} bytes of data, {wanted} were lacking");
        wait_for(&primary, |status| status.marker.is_some());
        switch_over(primary, &secondary, &model);
    }
    // A run is six bytes of map or so, and most blocks are runs of their own.
    let runs = BLOCKS - CHANGED;
    assert!(tables[1] > tables[0] + 4 * runs, "{tables:?} bytes of tables: not all was compared");
}
