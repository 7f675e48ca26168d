//! A disk that is full refuses writes, goes on to read, and takes writes again when there is room.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{Client, NO_SPACE};
use crate::ledger::{BLOCK, content};
use crate::rig::{Medium, PATIENCE, Plan, Rig, text};

/// Of the small disk.
const DISK_MIB: u64 = 72;

/// A file system of its own, which ends with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={DISK_MIB}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs", text(&path)]).output();
        let mounted = mounted.unwrap();
        assert!(
            mounted.status.success(),
            "this test mounts a small file system, which takes root (in a container CAP_SYS_ADMIN): {mounted:?}"
        );
        Self(path)
    }

    /// It has so much room from now on.
    fn resize(&self, mib: u64) {
        let size = format!("remount,size={mib}m");
        let mounted = Command::new("mount").args(["-o", &size, text(&self.0)]).output().unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Writes blocks from `first` on until one is refused for want of room; the first that was.
fn fill(client: &mut Client, first: u64) -> u64 {
    let mut block = first;
    loop {
        match client.write(block * BLOCK as u64, &content(block, 1)) {
            0 => block += 1,
            error => {
                assert_eq!(error, NO_SPACE, "block {block}");
                return block;
            }
        }
        assert!((block * BLOCK as u64) < (DISK_MIB << 20), "more than the disk holds was taken");
    }
}

fn read(client: &mut Client, blocks: std::ops::Range<u64>) {
    for block in blocks {
        let found = client.read(block * BLOCK as u64, 4096);
        assert!(found == Ok(content(block, 1).to_vec()), "block {block}");
    }
}

/// Writes a block until there is room for it.
fn until_there_is_room(rig: &Rig, client: &mut Client, block: u64) {
    let began = Instant::now();
    loop {
        match client.write(block * BLOCK as u64, &content(block, 1)) {
            0 => return,
            error => assert_eq!(error, NO_SPACE),
        }
        assert!(began.elapsed() < PATIENCE, "there is no room again: {:?}\n{}", rig.status(0), rig.logs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The disk of `node` is small.
fn full_disk(node: usize) {
    let mut rig = Rig::new(Plan { volume_mib: 128, ring_mib: 8, ..Plan::new(Medium::Shm) });
    let _disk = SmallDisk::mount(rig.directory(node));
    rig.start(0);
    rig.wait(0, "up", |_| true);
    rig.start(1);
    let serving = rig.wait_for_pair();
    let mut client = rig.client(serving);
    // Something else takes room, and gives it back: more than a checkpoint and a marker may take meanwhile.
    let ballast = rig.directory(node).join("ballast");
    std::fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let first = fill(&mut client, 0);
    assert!(first > 2048, "only {first} blocks fit");
    read(&mut client, 0..first);
    // It stays so, and nothing hangs.
    assert_eq!(client.write(first * BLOCK as u64, &content(first, 1)), NO_SPACE);
    assert_eq!(client.flush(), 0);
    std::fs::remove_file(&ballast).unwrap();
    until_there_is_room(&rig, &mut client, first);
    let second = fill(&mut client, first + 1);
    assert!(second > first + 1024, "{second} after {first}");
    read(&mut client, 0..second);
    // A client gives back what it has: half of the segments have nothing that lives.
    assert_eq!(client.trim(0, u32::try_from(second / 2 * BLOCK as u64).unwrap()), 0);
    until_there_is_room(&rig, &mut client, second);
    for block in 0..1024 {
        until_there_is_room(&rig, &mut client, second + block);
    }
    let last = second + 1024;
    assert_eq!(client.flush(), 0);
    let zeroes = client.read(0, 4096);
    assert!(zeroes == Ok(vec![0; BLOCK]), "it was trimmed");
    read(&mut client, second / 2 + 1..last);
    // The other one has all of it.
    rig.kill(serving);
    rig.told(1 - serving, &["promote", "vm"]);
    let mut client = rig.client(1 - serving);
    read(&mut client, second / 2 + 1..last);
}

#[test]
fn a_full_disk_of_the_primary_refuses_writes_until_there_is_room() {
    full_disk(0);
}

#[test]
fn a_full_disk_of_the_secondary_refuses_writes_until_there_is_room() {
    full_disk(1);
}

#[test]
fn a_disk_too_small_for_a_resync_is_told_and_holds_nobody_up() {
    const MIB: usize = 1 << 20;
    let mut rig = Rig::new(Plan { volume_mib: 64, ring_mib: 8, ..Plan::new(Medium::Shm) });
    let disk = SmallDisk::mount(rig.directory(1));
    rig.start(0);
    rig.wait(0, "looking for the other", |status| status.reason.code == "peer-unreachable");
    rig.told(0, &["promote", "vm"]);
    let mut client = rig.client(0);
    let piece = |number: usize| -> Vec<u8> {
        (0..MIB / BLOCK).flat_map(|block| content((number * MIB / BLOCK + block) as u64, 1)).collect()
    };
    for number in 0..64 {
        assert_eq!(client.write((number * MIB) as u64, &piece(number)), 0);
    }
    rig.start(1);
    rig.wait(0, "told of the full disk", |status| status.reason.code == "peer-no-space");
    let status = rig.wait(1, "full", |status| status.reason.code == "no-space");
    assert!(status.reason.text.contains("free some"), "{}", status.reason.text);
    for number in 0..16 {
        assert_eq!(client.write((number * MIB) as u64, &piece(number)), 0, "nothing hangs");
    }
    disk.resize(400);
    assert_eq!(rig.wait_for_pair(), 0);
    rig.kill(0);
    rig.told(1, &["promote", "vm"]);
    let mut client = rig.client(1);
    for number in 0..64 {
        let found = client.read((number * MIB) as u64, u32::try_from(MIB).unwrap());
        assert!(found == Ok(piece(number)), "mebibyte {number}");
    }
}
