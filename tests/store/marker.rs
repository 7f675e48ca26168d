//! The marker of real nodes: it follows while both are there, stays while one is away, and is a way back.

use mirrorbus::store::{Dataset, ReplicationState, RoleStatus};

use super::rig::{Medium, Rig, here, pattern, read, wait_for, write};

fn marker(node: &Dataset) -> u64 {
    node.status().marker.map_or(u64::MAX, |marker| marker.0)
}

#[test]
fn it_follows_while_both_are_there_and_stays_while_one_is_not() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    for round in 0..200 {
        write(&volume, round * 4096, &pattern(round, 4096));
    }
    volume.flush(&here).unwrap();
    let end = primary.status().appended.0;
    // The pair came to be mirrored, so a phase is over at once on the primary; on the other after its time.
    wait_for(&primary, |status| status.marker.is_some_and(|marker| marker.0 > 0));
    wait_for(&secondary, |status| status.marker.is_some_and(|marker| marker.0 > 0));
    drop((volume, secondary));
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    primary.alone().unwrap();
    let stays = marker(&primary);
    assert!(stays > 0 && stays <= end, "{stays:#x} of {end:#x}");
    let volume = primary.volume("root").unwrap();
    for round in 0..200 {
        write(&volume, round * 4096, &pattern(round + 1000, 4096));
    }
    let end = primary.status().appended.0;
    drop(volume);
    primary.settle();
    assert!(primary.status().checkpoint.0 >= end, "the checkpoint goes on");
    assert_eq!(marker(&primary), stays, "what one has alone is no position of both");
    drop(primary);
    let primary = rig.open(0);
    assert_eq!(marker(&primary), stays);
}

#[test]
fn it_moves_on_when_the_pair_is_whole_again() {
    let rig = Rig::new(Medium::Shm);
    let [primary, secondary] = rig.pair();
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    primary.alone().unwrap();
    let volume = primary.volume("root").unwrap();
    for round in 0..100 {
        write(&volume, round * 4096, &pattern(round, 4096));
    }
    let end = primary.status().appended.0;
    let secondary = rig.open(1);
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    write(&volume, 0, &pattern(1, 4096));
    for node in [&primary, &secondary] {
        wait_for(node, |status| status.marker.is_some_and(|marker| marker.0 >= end));
        assert!(marker(node) <= node.status().checkpoint.0);
    }
}

/// Of what was written alone there is a checkpoint already, which the marker follows, though nothing is written any more.
#[test]
fn it_moves_on_when_the_pair_is_whole_again_and_rests() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, secondary] = rig.pair();
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    primary.alone().unwrap();
    let volume = primary.volume("root").unwrap();
    write(&volume, 0, &pattern(1, 1 << 20));
    primary.settle();
    let status = primary.status();
    assert_eq!(status.checkpoint, status.appended);
    assert!(marker(&primary) < status.checkpoint.0);
    let secondary = rig.open(1);
    for node in [&primary, &secondary] {
        wait_for(node, |now| now.marker.is_some_and(|marker| marker >= status.appended));
    }
}

#[test]
fn a_dataset_that_lost_it_goes_on_and_makes_another() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    write(&volume, 0, &pattern(1, 4096));
    volume.flush(&here).unwrap();
    drop((volume, primary, secondary));
    std::fs::remove_file(rig.path(0).join("marker.redb")).unwrap();
    std::fs::write(rig.path(1).join("marker.redb"), "damaged").unwrap();
    let nodes = [rig.open(0), rig.open(1)];
    assert_eq!(nodes[1].status().marker, None);
    wait_for(&nodes[0], |status| status.replication == ReplicationState::Established);
    let volume = nodes[0].volume("root").unwrap();
    assert_eq!(read(&volume, 0, 4096), pattern(1, 4096));
    write(&volume, 0, &pattern(2, 4096));
    volume.flush(&here).unwrap();
    wait_for(&nodes[0], |status| status.marker.is_some());
    wait_for(&nodes[1], |status| status.marker.is_some());
}

/// The checkpoint has what the other never had on its disk: it was written alone, the other was let in, and both lost their memories before
/// the other's disk had it. Then the other served.
#[test]
fn a_checkpoint_behind_the_fork_goes_back_to_the_marker() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    for round in 0..100 {
        write(&volume, round * 4096, &pattern(round, 4096));
    }
    volume.flush(&here).unwrap();
    drop(volume);
    wait_for(&primary, |status| status.marker.is_some_and(|marker| marker.0 > 0));
    let before = marker(&primary);
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    primary.alone().unwrap();
    let volume = primary.volume("root").unwrap();
    for round in 0..100 {
        write(&volume, round * 4096, &pattern(round + 1000, 4096));
    }
    drop(volume);
    primary.settle();
    let checkpoint = primary.status().checkpoint.0;
    assert!(before > 0 && marker(&primary) == before && checkpoint > before);
    drop(primary);
    // As if it had been let in again: this register says that both have everything.
    let register = std::fs::read_to_string(rig.path(1).join("register")).unwrap();
    let both = register.contains("alpha\",\"beta\"") || register.contains("beta\",\"alpha\"");
    assert!(both, "{register}");
    std::fs::write(rig.path(0).join("register"), &register).unwrap();
    let secondary = rig.open(1);
    let fork = secondary.status().appended.0;
    assert!((before..checkpoint).contains(&fork), "{fork:#x} between {before:#x} and {checkpoint:#x}");
    secondary.promote(true).unwrap();
    let volume = secondary.volume("root").unwrap();
    write(&volume, 4096, &pattern(7777, 4096));
    let primary = rig.open(0);
    wait_for(&secondary, |status| status.replication == ReplicationState::Established);
    assert_eq!(primary.status().role, RoleStatus::Secondary);
    volume.flush(&here).unwrap();
    drop((volume, secondary));
    primary.promote(false).unwrap();
    let volume = primary.volume("root").unwrap();
    for round in (0..100).filter(|round| *round != 1) {
        assert_eq!(read(&volume, round * 4096, 4096), pattern(round, 4096), "block {round}");
    }
    assert_eq!(read(&volume, 4096, 4096), pattern(7777, 4096));
}
