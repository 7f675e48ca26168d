//! File systems on a volume, mounted by this machine's kernel: made, filled and checked, and whole on the other node.

use std::path::Path;
use std::process::Command;

use crate::common::Random;
use crate::device::{Device, refused, sums};
use crate::rig::{Medium, Plan, Rig};
use crate::tool::{run, tool};

/// Files beside the program's own sources, each of so many bytes.
const FILES: usize = 12;
const FILE_BYTES: usize = 1 << 20;

/// Puts files there: small ones, and some that are larger.
fn fill(directory: &Path) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["src", "docs"] {
        run(Command::new("cp").arg("-r").arg(sources.join(name)).arg(directory));
    }
    let mut random = Random(0x2468_ace1);
    for number in 0..FILES {
        let bytes: Vec<u8> = (0..FILE_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        std::fs::write(directory.join(format!("file{number}")), bytes).unwrap();
    }
    // Some of it goes again.
    for number in 0..FILES / 3 {
        std::fs::remove_file(directory.join(format!("file{}", 3 * number))).unwrap();
    }
}

/// Makes, fills and checks a file system; then the other node has it, checks it and goes on with it.
fn file_system_is_whole_on_either_node(kind: &str, mebibytes: u64, make: &mut Command, check: &[&str]) {
    if refused(&format!("{kind}, mounted")) {
        return;
    }
    let mut rig = Rig::pair(Plan { volume_mib: mebibytes, ring_mib: 32, ..Plan::new(Medium::Shm) });
    let checked = |device: &Device| run(Command::new(check[0]).args(&check[1..]).arg(&device.disk));
    let mut device = Device::of(&rig, 0);
    device.format(make);
    let place = device.mount(kind);
    fill(&place);
    let before = sums(&place);
    assert!(before.lines().count() > 100, "{before}");
    device.unmount();
    checked(&device);
    device.detach();
    rig.kill(0);
    rig.told(1, &["promote", "vm"]);
    let mut device = Device::of(&rig, 1);
    checked(&device);
    let place = device.mount(kind);
    assert!(sums(&place) == before, "{kind}: the other node has other files");
    std::fs::remove_dir_all(place.join("src")).unwrap();
    fill(&place);
    device.unmount();
    checked(&device);
    device.detach();
}

#[test]
fn ext4_is_made_filled_and_checked_on_either_node() {
    let mut make = tool("mkfs.ext4", "e2fsprogs");
    make.arg("-q");
    file_system_is_whole_on_either_node("ext4", 96, &mut make, &["e2fsck", "-fn"]);
}

#[test]
fn xfs_is_made_filled_and_checked_on_either_node() {
    // The least that its tools make.
    let mut make = tool("mkfs.xfs", "xfsprogs");
    make.arg("-q");
    file_system_is_whole_on_either_node("xfs", 320, &mut make, &["xfs_repair", "-n"]);
}

#[test]
fn fio_verifies_through_a_loop_device() {
    if refused("fio through a loop device") {
        return;
    }
    let mut rig = Rig::pair(Plan { volume_mib: 32, ..Plan::new(Medium::Tcp) });
    let device = Device::of(&rig, 0);
    fio(&rig, &device, &[]);
    device.detach();
    let flushes = rig.status(0).unwrap().counters.flushes;
    assert!(flushes > 10, "only {flushes} flushes of the loop device came through");
    rig.kill(0);
    rig.told(1, &["promote", "vm"]);
    let device = Device::of(&rig, 1);
    fio(&rig, &device, &["--verify_only=1"]);
    device.detach();
}

fn fio(rig: &Rig, device: &Device, more: &[&str]) {
    let mut fio = tool("fio", "fio");
    fio.args(["--name=loop", "--rw=randwrite", "--bsrange=512-64k", "--size=24m", "--direct=1"]);
    fio.args(["--ioengine=libaio", "--iodepth=8", "--fsync=64", "--verify=crc32c", "--verify_fatal=1"]);
    fio.args([&format!("--filename={}", device.disk), "--randseed=7"]).args(more);
    // It leaves files where it is.
    let said = run(fio.current_dir(rig.path("")));
    assert!(said.contains("err= 0") && said.contains("READ:"), "{said}");
}
