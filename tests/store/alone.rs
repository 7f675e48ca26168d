//! A node that serves alone: every acknowledged write is on its own storage.

use std::time::Duration;

use mirrorbus::store::{Dataset, DatasetConfig, OpenError};

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

#[test]
fn a_silence_out_of_bounds_is_refused_before_anything_is_made() {
    let rig = Rig::new(Medium::Tcp);
    let moment = Duration::from_nanos(1);
    for silence in [
        Duration::ZERO,
        DatasetConfig::SILENCE_MIN - moment,
        DatasetConfig::SILENCE_MAX + moment,
        Duration::MAX,
    ] {
        let mut config = rig.config(0);
        config.silence = silence;
        let refused = Dataset::open(config, Rig::keys()).map(drop).unwrap_err();
        assert!(matches!(refused, OpenError::Silence { silence: told } if told == silence), "{refused}");
        assert!(!rig.path(0).exists() || rig.path(0).read_dir().unwrap().next().is_none());
    }
    for silence in [DatasetConfig::SILENCE_MIN, DatasetConfig::SILENCE_MAX] {
        let mut config = rig.config(0);
        config.silence = silence;
        drop(Dataset::open(config, Rig::keys()).unwrap());
    }
}
