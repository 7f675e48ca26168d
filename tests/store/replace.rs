//! A peer that comes back without its log: let in by the operator's word only.

use mirrorbus::store::{CommandError, ReplicationState};

use super::rig::{Medium, Rig, pattern, read, wait_for, write};

#[test]
fn an_empty_peer_is_let_in_once_by_the_operators_word() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    write(&volume, 0, &pattern(1, 4096));
    assert!(matches!(primary.replace_peer(), Err(CommandError::Refused(_))), "it is there");
    assert!(
        matches!(secondary.replace_peer(), Err(CommandError::Refused(_))),
        "it has the log from the other"
    );
    drop(volume);
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    assert!(matches!(primary.replace_peer(), Err(CommandError::Refused(_))), "it is a member still");
    primary.alone().unwrap();
    std::fs::remove_dir_all(rig.path(1)).unwrap();
    let secondary = rig.open(1);
    wait_for(&primary, |status| status.reason.code == "peer-empty");
    assert!(matches!(secondary.replace_peer(), Err(CommandError::Refused(_))), "it has nothing to give");
    primary.replace_peer().unwrap();
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    write(&primary.volume("root").unwrap(), 4096, &pattern(2, 4096));
    assert_eq!(primary.verify(None, false).unwrap().differing_blocks, 0);
    // Its word holds for one: the next that is empty is not let in.
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    primary.alone().unwrap();
    std::fs::remove_dir_all(rig.path(1)).unwrap();
    let secondary = rig.open(1);
    wait_for(&primary, |status| status.reason.code == "peer-empty");
    drop(secondary);
}

#[test]
fn with_both_down_nothing_is_served_beside_an_empty_peer() {
    let rig = Rig::new(Medium::Shm);
    let [primary, secondary] = rig.pair();
    write(&primary.volume("root").unwrap(), 0, &pattern(1, 4096));
    primary.stop();
    secondary.stop();
    std::fs::remove_dir_all(rig.path(0)).unwrap();
    let (empty, whole) = (rig.open(0), rig.open(1));
    wait_for(&whole, |status| status.reason.code == "peer-empty");
    assert!(whole.volume("root").is_err() && empty.volume("root").is_err(), "nobody serves by itself");
    whole.replace_peer().unwrap();
    wait_for(&whole, |status| status.replication == ReplicationState::Established);
    assert_eq!(read(&whole.volume("root").unwrap(), 0, 4096), pattern(1, 4096));
}

#[test]
fn a_new_node_is_filled_with_all_that_there_is() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    // Twice what the ring has.
    for block in 0..2048 {
        write(&volume, block * 4096, &pattern(block, 4096));
    }
    volume.flush(&|| false).unwrap();
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    primary.alone().unwrap();
    std::fs::remove_dir_all(rig.path(1)).unwrap();
    primary.replace_peer().unwrap();
    let secondary = rig.open(1);
    wait_for(&primary, |status| status.replication == ReplicationState::Established);
    for node in [&primary, &secondary] {
        let found = node.verify(None, false).unwrap();
        assert_eq!((found.differing_blocks, found.moving_blocks), (0, 0), "{found:?}");
        let found = node.scrub(false).unwrap();
        assert_eq!((found.damaged_blocks, found.blocks), (0, 2048), "{found:?}");
    }
    assert_eq!(volume.unreplicated(0, 2048 * 4096, 10).unwrap().0.len(), 1);
    assert!(!volume.unreplicated(0, 2048 * 4096, 10).unwrap().0[0].lacks);
}
