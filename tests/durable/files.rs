//! What a holder keeps beside its file, and what it does when one of these cannot be written: a failed sync that is
//! remembered, an `Apply` that a killed holder left half-way, a lock against a second holder.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use mirrorbus::base::crc32c;
use mirrorbus::memory::LockPolicy;
use mirrorbus::node::{CallError, Content, HolderError, OpenError, RefusalCode};
use mirrorbus::{Attach, Holder, HolderConfig, LaneConfig, Level, Region};

use crate::common::{Fabric, Pair, Scratch, keys, region_config, soon};
use crate::restart::{Left, forge};
use crate::wire::{PUSH_REPLACE, Peer, attach, refusal};
use crate::{SIZE, disk, hold, open};

const SYNC: [u8; 5] = [5, 1, 0, 0, 0];

#[test]
fn a_failed_sync_is_remembered_over_a_restart() {
    let left = Left::new();
    let holder = Holder::start(left.config(), keys()).unwrap();
    let mut peer = Peer::connect(holder.url(), &keys());
    assert_eq!(peer.call(&attach(1, PUSH_REPLACE, SIZE as u64, 0))[0], 129);
    assert_eq!(peer.call(&[4, 1, 0, 0, 0])[0], 132);
    assert_eq!(peer.call(&SYNC)[0], 132);
    // A sync of a file that was cut fails; made whole again, a second one would succeed and prove nothing.
    let file = std::fs::OpenOptions::new().write(true).open(left.file()).unwrap();
    file.set_len(0).unwrap();
    let why = refusal(&peer.call(&SYNC));
    assert!(why.starts_with("code 8:") && why.contains("truncated"), "{why}");
    file.set_len(SIZE as u64).unwrap();
    drop(peer);
    holder.stop();
    let why = left.refused(left.config());
    assert!(why.contains("a sync of it failed") && why.contains("accept uncertain content"), "{why}");
    // Accepted, it serves, and is never durable again.
    for _ in 0..2 {
        let mut config = left.config();
        config.accept_uncertain = true;
        let holder = Holder::start(config, keys()).unwrap();
        assert_eq!(holder.status().content, Content::Complete);
        let mut peer = Peer::connect(holder.url(), &keys());
        assert_eq!(peer.call(&attach(1, PUSH_REPLACE, SIZE as u64, 0))[0], 129);
        assert_eq!(peer.call(&[4, 1, 0, 0, 0])[0], 132);
        let why = refusal(&peer.call(&SYNC));
        assert!(why.starts_with("code 8:") && why.contains("earlier"), "{why}");
    }
}

#[test]
fn one_holder_at_a_time_has_a_file() {
    let left = Left::new();
    let holder = Holder::start(left.config(), keys()).unwrap();
    let why = left.refused(left.config());
    assert!(why.contains("another holder has this file"), "{why}");
    holder.stop();
    left.accepted(left.config());
}

#[test]
fn a_file_in_memory_can_be_moved_away_from_a_living_owner() {
    let scratch = Scratch::new();
    let in_memory = std::path::PathBuf::from("/dev/shm").join(scratch.0.file_name().unwrap());
    std::fs::create_dir_all(&in_memory).unwrap();
    let in_memory = Scratch(in_memory);
    let pair = Pair::with(Fabric::Shm, SIZE, |config, _| config.file = Some(in_memory.path("copy")));
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    lane.store(3, b"moved").unwrap();
    pair.region.reconnect(&mut [&mut lane], soon()).unwrap();
    lane.store(8, b" twice").unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    let fenced = pair.holder.fence(soon()).unwrap();
    assert_eq!(&fenced.memory.slice().to_vec()[3..14], b"moved twice");
    assert_eq!(&std::fs::read(in_memory.path("copy")).unwrap()[3..14], b"moved twice");
}

#[test]
fn a_push_that_cannot_be_written_down_destroys_nothing() {
    let left = Left::new();
    let holder = Holder::start(left.config(), keys()).unwrap();
    // A directory stands where the record would be written.
    let blocked = left.disk.path("copy.state.next");
    std::fs::create_dir(&blocked).unwrap();
    let push = region_config(holder.url(), SIZE, Attach::Push { replace: true });
    let error = Region::open(push.clone(), keys()).unwrap_err();
    let refused = matches!(error, OpenError::Call(CallError::Refused { code: RefusalCode::Resources, .. }));
    assert!(refused, "{error}");
    assert_eq!(holder.status().content, Content::Complete);
    assert_eq!(&open(holder.url(), Attach::Pull).memory().to_vec()[5..9], b"kept");
    std::fs::remove_dir(&blocked).unwrap();
    // One whose end cannot be written down is not complete, here or after a restart.
    let mut peer = Peer::connect(holder.url(), &keys());
    let granted = loop {
        let answer = peer.call(&attach(1, PUSH_REPLACE, SIZE as u64, 0));
        match answer[0] {
            129 => break answer,
            _ => assert!(refusal(&answer).contains("is connected"), "{}", refusal(&answer)),
        }
    };
    assert_eq!(granted[0], 129);
    std::fs::create_dir(&blocked).unwrap();
    let why = refusal(&peer.call(&[4, 1, 0, 0, 0]));
    assert!(why.starts_with("code 6:"), "{why}");
    assert_eq!(holder.status().content, Content::Partial);
    std::fs::remove_dir(&blocked).unwrap();
    // Asking again is right.
    assert_eq!(peer.call(&[4, 1, 0, 0, 0])[0], 132);
    assert_eq!(holder.status().content, Content::Complete);
}

/// `PATH.apply` with these ranges and their bytes.
fn noted(ranges: &[(u64, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (offset, bytes) in ranges {
        body.extend_from_slice(&offset.to_le_bytes());
        body.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    }
    ranges.iter().for_each(|(_, bytes)| body.extend_from_slice(bytes));
    let bytes: usize = ranges.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut all = b"MBAPPL01".to_vec();
    for number in [ranges.len() as u64, bytes as u64, SIZE as u64] {
        all.extend_from_slice(&number.to_le_bytes());
    }
    all.extend_from_slice(&crc32c(&body).to_le_bytes());
    all.extend_from_slice(&[0; 24]);
    all.extend_from_slice(&crc32c(&all).to_le_bytes());
    [all, body].concat()
}

#[test]
fn an_apply_that_was_cut_short_is_ended_at_the_next_start() {
    let left = Left::new();
    let apply = left.disk.path("copy.apply");
    let note = noted(&[(5, b"KEPT"), (SIZE as u64 - 6, b"better")]);
    // The first range is in place, the second is not.
    std::fs::write(&apply, &note).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(left.file()).unwrap();
    file.write_all_at(b"KEPT", 5).unwrap();
    let holder = Holder::start(left.config(), keys()).unwrap();
    let held = open(holder.url(), Attach::Pull).memory().to_vec();
    assert_eq!((&held[5..9], &held[SIZE - 6..]), (&b"KEPT"[..], &b"better"[..]));
    assert!(!apply.exists(), "it would undo later stores at another start");
    holder.stop();
    // After a reboot newer stores may have been Durable: it is dropped.
    std::fs::write(&apply, noted(&[(5, b"OLD!")])).unwrap();
    forge(&left.state(), |record| record[32] ^= 1);
    let mut config = left.config();
    config.accept_uncertain = true;
    let holder = Holder::start(config, keys()).unwrap();
    assert_eq!(&open(holder.url(), Attach::Pull).memory().to_vec()[5..9], b"KEPT");
    assert!(!apply.exists());
    holder.stop();
    // Any damage is seen.
    for at in [0, 9, 17, 25, 33, 60, 64, 72, note.len() - 1] {
        let mut bad = note.clone();
        bad[at] ^= 1;
        std::fs::write(&apply, &bad).unwrap();
        assert!(left.refused(left.config()).contains("copy.apply is damaged"), "byte {at}");
    }
    std::fs::write(&apply, &note[..40]).unwrap();
    assert!(left.refused(left.config()).contains("copy.apply is damaged"));
}

#[test]
fn a_reconnection_leaves_nothing_beside_the_file() {
    for fabric in crate::FABRICS {
        let disk = disk();
        let pair = Pair::with(fabric, SIZE, |config, _| config.file = Some(disk.path("copy")));
        let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
        for number in 0..20_u8 {
            lane.store(usize::from(number) * 5000, &[number + 1; 900]).unwrap();
        }
        let unknown = lane.unknown().ranges.len();
        let done = pair.region.reconnect(&mut [&mut lane], soon()).unwrap();
        assert!(done.ranges > 0 || unknown == 0, "{fabric:?}: nothing was sent again");
        assert_eq!(std::fs::read(disk.path("copy")).unwrap(), pair.local(), "{fabric:?}");
        let mut names: Vec<_> = std::fs::read_dir(&disk.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["copy", "copy.lock", "copy.state"], "{fabric:?}");
    }
}

#[test]
fn an_owner_of_a_killed_holder_does_not_reach_the_next_ones_copy() {
    let (scratch, disk) = (Scratch::new(), disk());
    let first = hold(Fabric::Shm, &scratch, &disk, &[]);
    let region = open(&first.url, Attach::Push { replace: false });
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    lane.store(0, b"kept").unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    // What that owner has mapped, and goes on writing after it was stopped in a store.
    let mapped = std::fs::OpenOptions::new().write(true).open(disk.path("copy")).unwrap();
    drop(lane);
    first.kill();
    let second = hold(Fabric::Shm, &scratch, &disk, &[]);
    let next = open(&second.url, Attach::Pull);
    mapped.write_all_at(b"late", 0).unwrap();
    (&mapped).flush().unwrap();
    assert_eq!(&next.memory().to_vec()[..4], b"kept");
    drop(next);
    let end = Instant::now() + Duration::from_secs(20);
    let again = loop {
        match Region::open(region_config(&second.url, SIZE, Attach::Pull), keys()) {
            // The holder has yet to see that the one before is gone.
            Err(OpenError::Call(CallError::Refused { code: RefusalCode::Busy, .. }))
                if Instant::now() < end => {}
            other => break other.unwrap(),
        }
    };
    assert_eq!(&again.memory().to_vec()[..4], b"kept", "a store from before the restart is in the copy");
}

/// The file lies on a disk, and this is one host: but the holder cannot know that the owner is here.
#[test]
fn nothing_is_durable_over_a_device_window() {
    let disk = disk();
    std::fs::write(disk.path("device"), vec![0; SIZE]).unwrap();
    let url = format!("shm://127.0.0.1:0?device={}", disk.path("device").display());
    let pair = Pair::with(Fabric::Device, SIZE, |config, _| config.url = url.parse().unwrap());
    let why = crate::refusal(&pair);
    assert!(why.contains("device window") && why.contains("shm:/PATH") && why.contains("tcp://"), "{why}");
}

#[test]
fn a_device_is_the_copy_itself() {
    let disk = disk();
    std::fs::write(disk.path("device"), vec![0; SIZE]).unwrap();
    let url = format!("shm://127.0.0.1:0?device={}", disk.path("device").display());
    let mut config = HolderConfig::new(url.parse().unwrap(), SIZE);
    config.lock = LockPolicy::Off;
    config.file = Some(disk.path("copy"));
    let error = Holder::start(config, keys()).unwrap_err();
    assert!(matches!(&error, HolderError::File { why, .. } if why.contains("a file does not go with it")));
    assert!(!disk.path("copy").exists());
}
