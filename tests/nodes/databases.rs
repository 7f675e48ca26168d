//! SQLite on an ext4 volume, whose primary is killed in the middle: what it committed is there on the other node.
//!
//! The ledger lies outside the volume: what its client was told.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::child::{say, seed};
use crate::common::Random;
use crate::device::{Device, refused};
use crate::rig::{Medium, Plan, Rig};
use crate::tool::{run, tool};

/// Commits of SQLite before the moment at which the primary is killed is chosen.
const COMMITS_MIN: usize = 50;

/// A pair whose volume has an empty ext4, mounted.
fn mounted(mebibytes: u64) -> (Rig, Device, PathBuf) {
    let rig = Rig::pair(Plan { volume_mib: mebibytes, ring_mib: 32, ..Plan::new(Medium::Shm) });
    let mut device = Device::of(&rig, 0);
    device.format(tool("mkfs.ext4", "e2fsprogs").arg("-q"));
    let place = device.mount("ext4");
    (rig, device, place)
}

/// Sleeps for a time that is chosen.
fn some_time(title: &str) {
    let mut random = Random(seed(title));
    (0..8).for_each(|_| _ = random.next());
    std::thread::sleep(Duration::from_millis(random.below(1500) as u64));
}

/// The other node serves what the killed one served; mounted, its journal replayed.
fn taken_over(rig: &mut Rig) -> (Device, PathBuf) {
    rig.told(1, &["promote", "vm"]);
    let mut device = Device::of(rig, 1);
    let place = device.mount("ext4");
    (device, place)
}

#[test]
fn what_sqlite_committed_is_on_the_other_node() {
    if refused("SQLite") {
        return;
    }
    let (mut rig, device, place) = mounted(48);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nodes/sqlite.py");
    let python = |what: &str, directory: &Path| {
        let mut python = tool("/usr/bin/python3", "python3");
        python.arg(&script).arg(what).arg(directory.join("ledger.sqlite"));
        python
    };
    let mut writer = python("write", &place).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut committed: usize = lines.nth(COMMITS_MIN - 1).unwrap().parse().unwrap();
    some_time("SQLite");
    rig.kill(0);
    for line in lines {
        match line.parse() {
            Ok(number) => committed = number,
            Err(_) => assert!(line.starts_with("ended: "), "{line}"),
        }
    }
    writer.wait().unwrap();
    drop(device);
    let (mut device, place) = taken_over(&mut rig);
    let said = run(&mut python("check", &place));
    let found: usize = said.trim().strip_prefix("whole ").unwrap().parse().unwrap();
    say(&format!("SQLite: {committed} commits told, {found} there"));
    // The last one may be there and not have been told.
    assert!(found == committed || found == committed + 1, "{committed} were told, {found} are there");
    device.unmount();
    run(tool("e2fsck", "e2fsprogs").args(["-fn", &device.disk]));
    device.detach();
}
