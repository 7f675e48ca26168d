//! A node that serves alone: every acknowledged write is on its own storage.

use super::rig::{Medium, Rig, pattern, read, wait_for, write};

#[test]
fn what_is_acknowledged_alone_survives_a_restart_without_a_flush() {
    let rig = Rig::new(Medium::Tcp);
    let node = rig.open(0);
    wait_for(&node, |status| status.reason.code == "peer-unreachable");
    node.promote(false).unwrap();
    let volume = node.volume("root").unwrap();
    for block in 0..50 {
        write(&volume, block * 8192, &pattern(block, 4096));
    }
    drop((volume, node));
    let node = rig.open(0);
    // The operator said so before; it goes on by itself.
    wait_for(&node, |status| status.reason.code == "alone" || status.reason.code == "peer-unreachable");
    wait_for(&node, |_| node.volume("root").is_ok());
    let volume = node.volume("root").unwrap();
    for block in 0..50 {
        assert_eq!(read(&volume, block * 8192, 4096), pattern(block, 4096), "block {block}");
        assert_eq!(read(&volume, block * 8192 + 4096, 4096), [0; 4096]);
    }
}
