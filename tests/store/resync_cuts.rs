//! Links that are cut and nodes that end in the middle of a resync: what came is not moved again, and until all is there the old point is
//! what counts.

use std::sync::atomic::{AtomicU64, Ordering};

use mirrorbus::store::{Counts, ReplicationState};

use super::away::{BLOCK, BLOCKS, RING, Slow, moved, switch_over, until_moved};
use super::rig::wait_for;

#[test]
fn a_link_that_is_cut_ten_times_costs_hardly_more_than_one_that_is_not() {
    let slow = Slow::new();
    let (primary, volume, _, mut model) = slow.long_away();
    let before = primary.status().counts;
    let secondary = slow.open(1);
    let seen = AtomicU64::new(0);
    for cut in 1..=10_u64 {
        until_moved(&before, &primary, cut * (2 << 20));
        slow.proxies[1].cut();
        slow.proxies[0].cut();
        // It connects again at once, which on a machine that does much else may be before anybody looks.
        wait_for(&primary, |status| {
            let is_alone = status.replication == ReplicationState::Alone;
            seen.fetch_add(is_alone.into(), Ordering::Relaxed);
            is_alone || status.replication == ReplicationState::Established
        });
        model.write_some(&volume, 10, 0, BLOCKS);
    }
    Slow::until_mirrored(&primary);
    let seen = seen.into_inner();
    assert!(seen >= 5, "only {seen} cuts came while there was something to move");
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
        until_moved(&before, &primary, restart * (4 << 20));
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
        assert_eq!(secondary.scrub(false).unwrap().damaged_blocks, 0);
        drop((volume, secondary));
        let secondary = slow.open(1);
        wait_for(&secondary, |_| secondary.volume("root").is_ok());
        model.compare(&secondary.volume("root").unwrap());
        assert_eq!(secondary.scrub(false).unwrap().damaged_blocks, 0, "restarts: {restarts}");
    }
}
