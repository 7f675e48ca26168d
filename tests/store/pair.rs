//! One of the two goes away, at once or for a while: nothing acknowledged is lost, and nothing is acknowledged that could be.

use mirrorbus::store::{CommandError, IoError, ReplicationState, RoleStatus, Source};

use super::rig::{Medium, Rig, here, pattern, read, wait_for, write};

/// Writes, then the primary is gone without a word; the other serves all of it.
fn the_other_takes_over(medium: Medium) {
    let rig = Rig::new(medium);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    // More than the ring, so that places were given back.
    for round in 0..3000_u64 {
        write(&volume, (round * 7 % 2000) * 4096, &pattern(round, 4096));
        if round % 100 == 50 {
            volume.flush(&here).unwrap();
        }
    }
    std::mem::forget(volume);
    drop(primary);
    secondary.promote(false).unwrap();
    let volume = secondary.volume("root").unwrap();
    for round in 1000..3000_u64 {
        let found = read(&volume, (round * 7 % 2000) * 4096, 4096);
        assert_eq!(found, pattern(round, 4096), "{medium:?}, round {round}");
    }
    write(&volume, 0, &pattern(7, 4096));
    assert_eq!(secondary.status().replication, ReplicationState::Alone);
    // The one that left comes back, and is let in.
    let first = rig.open(0);
    wait_for(&secondary, |status| status.replication == ReplicationState::Established);
    assert_eq!(first.status().role, RoleStatus::Secondary);
    write(&volume, 4096, &pattern(8, 4096));
    drop(volume);
    drop(secondary);
    first.promote(false).unwrap();
    let volume = first.volume("root").unwrap();
    assert_eq!(read(&volume, 0, 4096), pattern(7, 4096));
    assert_eq!(read(&volume, 4096, 4096), pattern(8, 4096));
    assert_eq!(read(&volume, 7 * 4096, 4096), pattern(2001, 4096));
}

#[test]
fn the_other_takes_over_on_shm() {
    the_other_takes_over(Medium::Shm);
}

#[test]
fn the_other_takes_over_on_tcp() {
    the_other_takes_over(Medium::Tcp);
}

#[test]
fn requests_are_held_while_the_peer_is_away_until_the_operator_decides() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    write(&volume, 0, &pattern(1, 4096));
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    let mark = volume.write(0, Source::Bytes(&pattern(2, 4096)), &here).unwrap();
    let began = std::time::Instant::now();
    let gone = || began.elapsed() > std::time::Duration::from_millis(300);
    assert_eq!(
        volume.commit(mark, &gone),
        Err(IoError::Gone),
        "nothing is acknowledged that one fault can lose"
    );
    primary.alone().unwrap();
    volume.commit(mark, &here).unwrap();
    assert_eq!(read(&volume, 0, 4096), pattern(2, 4096));
    // Back again, with what it missed.
    let secondary = rig.open(1);
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    drop(volume);
    drop(primary);
    secondary.promote(false).unwrap();
    assert_eq!(read(&secondary.volume("root").unwrap(), 0, 4096), pattern(2, 4096));
}

/// The peer's memory does not count any more once it is set out, so this node's disk has to have it before.
#[test]
fn who_goes_on_alone_has_what_was_acknowledged_on_its_own_disk() {
    let rig = Rig::new(Medium::Shm);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    for block in 0..500 {
        write(&volume, block * 4096, &pattern(block, 4096));
    }
    let acknowledged = primary.status().committed;
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    volume.write(0, Source::Bytes(&pattern(2, 4096)), &here).unwrap();
    primary.alone().unwrap();
    let durable = primary.status().durable_own;
    assert!(durable >= acknowledged, "{durable} of {acknowledged} are on the disk");
}

#[test]
fn a_node_that_restarted_does_not_serve_by_itself() {
    let rig = Rig::new(Medium::Shm);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    write(&volume, 0, &pattern(1, 4096));
    volume.flush(&here).unwrap();
    drop((volume, primary, secondary));
    let again = rig.open(1);
    wait_for(&again, |status| status.reason.code == "peer-unreachable");
    assert!(matches!(again.volume("root"), Err(IoError::RoleChanged)));
    assert!(matches!(again.promote(false), Err(CommandError::Refused(_))));
    again.promote(true).unwrap();
    assert_eq!(read(&again.volume("root").unwrap(), 0, 4096), pattern(1, 4096), "it was flushed on both");
}

#[test]
fn both_lose_their_memory_and_go_on_from_what_was_flushed() {
    let rig = Rig::new(Medium::Tcp);
    for round in 0..4_u64 {
        let [primary, secondary] = rig.pair();
        let volume = primary.volume("root").unwrap();
        if round > 0 {
            for block in 0..100 {
                assert_eq!(read(&volume, block * 4096, 4096), pattern(block + 1000 * (round - 1), 4096));
            }
        }
        for block in 0..100 {
            write(&volume, block * 4096, &pattern(block + 1000 * round, 4096));
        }
        volume.flush(&here).unwrap();
        let at = volume.write(100 * 4096, Source::Bytes(&pattern(round, 4096)), &here);
        at.unwrap();
        drop((volume, secondary, primary));
    }
}

#[test]
fn two_nodes_that_are_no_pair_say_why() {
    let rig = Rig::new(Medium::Tcp);
    let mut other = rig.config(1);
    other.node = "alpha".into();
    let first = rig.open(0);
    let second = mirrorbus::store::Dataset::open(other, Rig::keys()).unwrap();
    wait_for(&first, |status| status.reason.code == "same-node");
    wait_for(&second, |status| status.reason.code == "same-node");
    drop(second);
    let mut other = rig.config(1);
    other.id = mirrorbus::base::DatasetId::from_bytes([1; 16]);
    other.directory = rig.directory.path().join("c");
    let second = mirrorbus::store::Dataset::open(other, Rig::keys()).unwrap();
    wait_for(&first, |status| status.reason.code == "wrong-dataset");
    drop(second);
}
