//! What a node alone acknowledged from its own disk, and the mark that says so to the next start.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use mirrorbus::store::{Dataset, OpenError, ReplicationState, RoleStatus};

use super::rig::{Medium, Rig, here, pattern, read, wait_for, write};

/// Flips a bit in the only place of the segments that has these bytes; in which file.
fn flip(directory: &Path, bytes: &[u8]) -> PathBuf {
    let entries = fs::read_dir(directory.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let place = |path: &PathBuf| {
        let found = fs::read(path).unwrap();
        found.windows(bytes.len()).position(|found| found == bytes)
    };
    let found: Vec<_> = entries.filter_map(|path| Some((place(&path)?, path))).collect();
    let [(at, path)] = &found[..] else { panic!("{found:?}") };
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[0] ^ 4], *at as u64).unwrap();
    path.clone()
}

fn serving(rig: &Rig, node: usize) -> Dataset {
    let node = rig.open(node);
    wait_for(&node, |_| node.volume("root").is_ok());
    node
}

/// A node that served alone and was killed, with these blocks written one after the other.
fn killed(rig: &Rig, blocks: u64) {
    let node = rig.open(0);
    wait_for(&node, |status| status.reason.code == "peer-unreachable");
    node.promote(false).unwrap();
    let volume = node.volume("root").unwrap();
    for block in 0..blocks {
        write(&volume, block * 4096, &pattern(block + 1, 4096));
    }
    volume.flush(&here).unwrap();
    assert!(node.status().checkpoint.0 == 0, "all of it is to be replayed");
}

#[test]
fn a_bit_that_is_flipped_in_what_a_lone_node_acknowledged_is_no_end_of_the_log() {
    let rig = Rig::new(Medium::Tcp);
    killed(&rig, 20);
    let mark = rig.path(0).join("durable");
    let segment = flip(&rig.path(0), &pattern(11, 4096));
    let refused = Dataset::open(rig.config(0), Rig::keys()).map(drop).unwrap_err();
    let told = refused.to_string();
    let OpenError::Lost { end, durable, .. } = refused else { panic!("{told}") };
    assert!(end < durable, "{told}");
    for part in [end.to_string(), durable.to_string(), segment.display().to_string()] {
        assert!(told.contains(&part), "{part} in {told}");
    }
    assert!(told.contains(&format!("remove {}", mark.display())), "{told}");
    assert_eq!(fs::metadata(&mark).unwrap().mode() & 0o7777, 0o600);
    // Put back as it was, all is there.
    let damaged = fs::read(&segment).unwrap();
    let whole = pattern(11, 4096);
    let at = damaged.windows(4095).position(|found| found == &whole[1..]).unwrap() - 1;
    File::options().write(true).open(&segment).unwrap().write_all_at(&whole[..1], at as u64).unwrap();
    let node = serving(&rig, 0);
    let volume = node.volume("root").unwrap();
    (0..20).for_each(|block| assert_eq!(read(&volume, block * 4096, 4096), pattern(block + 1, 4096)));
}

#[test]
fn without_the_mark_a_node_goes_on_from_what_lies_before_the_damage() {
    let rig = Rig::new(Medium::Tcp);
    killed(&rig, 20);
    flip(&rig.path(0), &pattern(11, 4096));
    assert!(Dataset::open(rig.config(0), Rig::keys()).is_err());
    fs::remove_file(rig.path(0).join("durable")).unwrap();
    let node = serving(&rig, 0);
    let volume = node.volume("root").unwrap();
    (0..10).for_each(|block| assert_eq!(read(&volume, block * 4096, 4096), pattern(block + 1, 4096)));
    (10..20).for_each(|block| assert_eq!(read(&volume, block * 4096, 4096), [0; 4096]));
    // It marks what it acknowledges from now on.
    write(&volume, 0, &pattern(100, 4096));
    drop((volume, node));
    flip(&rig.path(0), &pattern(100, 4096));
    assert!(matches!(Dataset::open(rig.config(0), Rig::keys()), Err(OpenError::Lost { .. })));
}

/// What was written alone is void where the other went on without it, by the word of an operator; the mark goes before it does.
#[test]
fn a_node_that_is_cut_before_its_mark_follows_and_opens_again() {
    let rig = Rig::new(Medium::Tcp);
    let [primary, secondary] = rig.pair();
    let volume = primary.volume("root").unwrap();
    (0..10).for_each(|block| write(&volume, block * 4096, &pattern(block + 1, 4096)));
    volume.flush(&here).unwrap();
    let mark = rig.path(0).join("durable");
    let mirrored = fs::read(&mark).unwrap();
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    primary.alone().unwrap();
    let parted = fs::read(&mark).unwrap();
    assert_ne!(parted, mirrored, "what was acknowledged from two memories is marked when it counts alone");
    (0..10).for_each(|block| write(&volume, block * 4096, &pattern(block + 101, 4096)));
    assert_ne!(fs::read(&mark).unwrap(), parted, "what is acknowledged alone is marked");
    let alone = primary.status().appended;
    drop((volume, primary));
    // As if it had been let in again: this register says that both have everything.
    fs::copy(rig.path(1).join("register"), rig.path(0).join("register")).unwrap();
    let secondary = rig.open(1);
    assert!(secondary.status().appended < alone);
    secondary.promote(true).unwrap();
    let primary = rig.open(0);
    assert_eq!(primary.status().appended, alone, "all that it marked is there");
    wait_for(&secondary, |status| status.replication == ReplicationState::Established);
    assert!(!mark.exists() && primary.status().role == RoleStatus::Secondary);
    // Killed, before anything of the other's generation is on its disk.
    drop(primary);
    let primary = rig.open(0);
    assert!(primary.status().appended < alone);
    wait_for(&secondary, |status| {
        status.reason.code == "link-lost" || status.reason.code == "peer-restarted"
    });
    secondary.alone().unwrap();
    wait_for(&secondary, |status| status.replication == ReplicationState::Established);
    let volume = secondary.volume("root").unwrap();
    (0..10).for_each(|block| assert_eq!(read(&volume, block * 4096, 4096), pattern(block + 1, 4096)));
}
