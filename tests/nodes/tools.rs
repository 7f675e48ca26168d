//! The programs that people use, on a pair: what they wrote is there, on either node.

use std::path::Path;
use std::process::Command;

use crate::common::Random;
use crate::rig::{Medium, Plan, Rig, text};
use crate::tool::{run, tool};

const MIB: u64 = 1 << 20;

fn pair(medium: Medium, volume_mib: u64) -> Rig {
    Rig::pair(Plan { volume_mib, ..Plan::new(medium) })
}

fn qemu_img(arguments: &[&str]) -> String {
    run(tool("qemu-img", "qemu-utils").args(arguments))
}

/// The secondary takes over, as after a loss of the primary; the client's address is another then.
fn take_over(rig: &mut Rig) -> String {
    rig.kill(0);
    rig.told(1, &["promote", "vm"]);
    rig.uri(1)
}

/// A file with data and holes, half and half.
fn image(path: &Path, bytes: u64) -> Vec<u8> {
    let mut random = Random(0x1357_9bdf);
    let mut content = vec![0; usize::try_from(bytes).unwrap()];
    for part in content.chunks_mut(256 << 10) {
        if random.below(2) == 0 {
            part.chunks_mut(8).for_each(|word| word.copy_from_slice(&random.next().to_le_bytes()));
        }
    }
    std::fs::write(path, &content).unwrap();
    run(Command::new("fallocate").arg("--dig-holes").arg(path));
    content
}

fn fio_verifies(medium: Medium) {
    let mut rig = pair(medium, 32);
    for (name, blocks, depth) in [("small", "--bsrange=512-16k", "16"), ("large", "--bsrange=64k-2m", "4")] {
        let mut fio = tool("fio", "fio");
        fio.current_dir(rig.path("")).args([
            "--ioengine=nbd",
            "--rw=randwrite",
            "--verify=crc32c",
            "--thread",
            "--verify_fatal=1",
            "--randseed=7",
            "--size=24m",
        ]);
        let sync = if name == "small" { "--fsync=64" } else { "--fsync=0" };
        let uri = format!("--uri={}", rig.uri(0));
        fio.args([&format!("--name={name}"), &uri, blocks, &format!("--iodepth={depth}"), sync]);
        let said = run(&mut fio);
        assert!(said.contains("err= 0") && said.contains("READ:"), "{said}");
    }
    // The other node has what it verified.
    let uri = rig.uri(0);
    let before = rig.path("before");
    qemu_img(&["convert", "-f", "raw", "-O", "raw", &uri, text(&before)]);
    let uri = take_over(&mut rig);
    qemu_img(&["compare", "-f", "raw", "-F", "raw", text(&before), &uri]);
}

#[test]
fn fio_verifies_over_shm() {
    fio_verifies(Medium::Shm);
}

#[test]
fn fio_verifies_over_tcp() {
    fio_verifies(Medium::Tcp);
}

#[test]
fn nbdcopy_and_qemu_img_copy_both_ways() {
    let mut rig = pair(Medium::Tcp, 32);
    let (from, to) = (rig.path("from"), rig.path("to"));
    let bytes = image(&from, 32 * MIB);
    run(tool("nbdcopy", "libnbd-bin").arg("--flush").arg(&from).arg(rig.uri(0)));
    run(tool("nbdcopy", "libnbd-bin").arg(rig.uri(0)).arg(&to));
    assert!(std::fs::read(&to).unwrap() == bytes);
    qemu_img(&["compare", "-f", "raw", "-F", "raw", text(&from), &rig.uri(0)]);
    let map = qemu_img(&["map", "-f", "raw", "--output=json", &rig.uri(0)]);
    assert!(map.contains("\"zero\": true, \"data\": false") && map.contains("\"data\": true"), "{map}");
    let uri = take_over(&mut rig);
    std::fs::remove_file(&to).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", "raw", &uri, text(&to)]);
    assert!(std::fs::read(&to).unwrap() == bytes, "the other node has another content");
    // Over what is there already, on the node that is alone now.
    qemu_img(&["convert", "-n", "-f", "raw", "-O", "raw", text(&from), &uri]);
    qemu_img(&["compare", "-f", "raw", "-F", "raw", text(&from), &uri]);
}

/// An image with a file system goes into the volume and comes back from the other node.
fn file_system_survives(megabytes: u64, make: &mut Command, check: &mut Command) {
    let mut rig = pair(Medium::Shm, megabytes);
    let (from, to) = (rig.path("from"), rig.path("to"));
    std::fs::File::create(&from).unwrap().set_len(megabytes * MIB).unwrap();
    run(make.arg(&from));
    qemu_img(&["convert", "-n", "-f", "raw", "-O", "raw", text(&from), &rig.uri(0)]);
    let uri = take_over(&mut rig);
    qemu_img(&["convert", "-f", "raw", "-O", "raw", &uri, text(&to)]);
    run(check.arg(&to));
    qemu_img(&["compare", "-f", "raw", "-F", "raw", text(&from), text(&to)]);
}

#[test]
fn ext4_survives() {
    let mut make = tool("mkfs.ext4", "e2fsprogs");
    // With files in it: the program's own sources.
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    make.args(["-q", "-d"]).arg(sources);
    file_system_survives(64, &mut make, tool("e2fsck", "e2fsprogs").arg("-fn"));
}

#[test]
fn xfs_survives() {
    // The least that its tools make.
    let mut make = tool("mkfs.xfs", "xfsprogs");
    file_system_survives(320, make.arg("-q"), tool("xfs_repair", "xfsprogs").args(["-n", "-f"]));
}

/// What the peer lacks, as libnbd is told: bytes and state of each stretch.
fn unreplicated(rig: &Rig) -> Vec<u64> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nodes/unreplicated.py");
    // The system's own, for which the package is made.
    let mut python = tool("/usr/bin/python3", "python3");
    let there = Command::new("/usr/bin/python3").args(["-c", "import nbd"]).output().unwrap();
    assert!(there.status.success(), "apt-get install python3-libnbd, or `cargo xtask test`: {there:?}");
    let said = run(python.arg(script).arg(rig.uri(0)));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{said}: {error}"))
}

#[test]
fn libnbd_is_told_what_the_peer_lacks() {
    const BLOCK: u64 = 4096;
    let mut rig = pair(Medium::Tcp, 8);
    let mut client = rig.client(0);
    let mut write = |block: u64| assert_eq!(client.write(block * BLOCK, &[7; 4096]), 0);
    (0..10).for_each(&mut write);
    assert_eq!(unreplicated(&rig), [8 * MIB, 0]);
    assert_eq!(rig.client(0).flush(), 0);
    rig.kill(1);
    rig.told(0, &["alone", "vm"]);
    assert_eq!(unreplicated(&rig), [8 * MIB, 0], "nothing was written since");
    [3, 20, 21].into_iter().for_each(&mut write);
    let expected = [3 * BLOCK, 0, BLOCK, 1, 16 * BLOCK, 0, 2 * BLOCK, 1, 8 * MIB - 22 * BLOCK, 0];
    assert_eq!(unreplicated(&rig), expected);
    assert!(rig.status(0).unwrap().unreplicated_bytes > 0);
    rig.start(1);
    rig.wait_for_pair();
    assert_eq!(unreplicated(&rig), [8 * MIB, 0]);
}

#[test]
fn libnbd_calls_everything_on_a_pair() {
    let mut rig = pair(Medium::Shm, 32);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nbd/every_command.py");
    // The system's own, for which the package is made.
    let everything = |uri: &str| {
        let mut python = tool("/usr/bin/python3", "python3-libnbd");
        run(python.arg(&script).args([uri, "root", "33554432 bytes in blocks of 4096", "thin"]))
    };
    let said = everything(&rig.uri(0));
    assert!(said.contains("everything as it should be"), "{said}");
    // What it left is on the other node, which takes the same.
    let before = rig.path("before");
    qemu_img(&["convert", "-f", "raw", "-O", "raw", &rig.uri(0), text(&before)]);
    let uri = take_over(&mut rig);
    qemu_img(&["compare", "-f", "raw", "-F", "raw", text(&before), &uri]);
    let mut client = rig.client(1);
    assert_eq!(client.trim(0, 32 << 20), 0);
    let said = everything(&uri);
    assert!(said.contains("everything as it should be"), "{said}");
}

#[test]
fn nbdkit_stands_on_top_of_a_pair() {
    let mut rig = pair(Medium::Tcp, 32);
    let (from, to) = (rig.path("from"), rig.path("to"));
    let bytes = image(&from, 32 * MIB);
    // It runs the script while it serves, at a socket of its own.
    let on_top = |node: usize| {
        let mut nbdkit = tool("nbdkit", "nbdkit");
        nbdkit.args(["--run", "exec sh -c \"$SCRIPT\" sh \"$uri\""]);
        nbdkit.args(["nbd", &format!("uri={}", rig.uri(node))]);
        nbdkit
    };
    run(on_top(0).env("SCRIPT", format!("nbdcopy --flush {} \"$1\"", from.display())));
    run(on_top(0).env("SCRIPT", format!("nbdcopy \"$1\" {}", to.display())));
    assert!(std::fs::read(&to).unwrap() == bytes);
    let uri = take_over(&mut rig);
    qemu_img(&["compare", "-f", "raw", "-F", "raw", text(&from), &uri]);
}

#[test]
fn nbdinfo_and_qemu_io_find_on_a_pair_what_was_put_there() {
    let mut rig = pair(Medium::Tcp, 32);
    let qemu_io = |uri: &str, commands: &[&str]| {
        let mut command = tool("qemu-io", "qemu-utils");
        command.args(["-f", "raw", uri]);
        commands.iter().for_each(|line| _ = command.args(["-c", line]));
        let said = run(&mut command);
        assert!(!said.contains("failed") && !said.contains("rror"), "{said}");
    };
    let told = run(tool("nbdinfo", "libnbd-bin").arg(rig.uri(0)));
    for line in [
        "export-size: 33554432",
        "base:allocation",
        "can_fua: true",
        "can_multi_conn: true",
        "can_trim: true",
    ] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    let write =
        ["write -P 0x11 0 64k", "write -f -P 0x22 64k 4k", "write -P 0x33 513 1000", "write -P 0x44 1M 4M"];
    let holes =
        ["write -z 2M 1M", "write -z -u 3M 64k", "discard 4M 512k", "aio_write -P 0x55 8M 2M", "aio_flush"];
    let read = [
        "read -P 0x11 0 513",
        "read -P 0x33 513 1000",
        "read -P 0x11 1513 8k",
        "read -P 0x22 64k 4k",
        "read -P 0x44 1M 1M",
        "read -P 0 2M 1M",
        "read -P 0 3M 64k",
        "read -P 0x44 3136k 64k",
        "read -P 0x55 8M 2M",
    ];
    qemu_io(&rig.uri(0), &[&write[..], &holes, &read].concat());
    let map = |uri: &str| run(tool("nbdinfo", "libnbd-bin").args(["--map", uri]));
    let before = map(&rig.uri(0));
    assert!(before.lines().count() > 5, "{before}");
    let uri = take_over(&mut rig);
    qemu_io(&uri, &read);
    assert_eq!(map(&uri), before, "the other node has other holes");
}
