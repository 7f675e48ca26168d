//! The clients that people use.

use std::path::Path;
use std::process::Command;

use mirrorbus::serve::nbd::{Server, ServerConfig};

use crate::common::{Random, Scratch};
use crate::memory::{Disks, Memory};
use crate::tool::{fails, run, tool};
use crate::{Rig, until};

const SIZE: u64 = 32 << 20;

fn nbdinfo(arguments: &[&str]) -> String {
    run(tool("nbdinfo", "libnbd-bin").args(arguments))
}

fn qemu_img(arguments: &[&str]) -> String {
    run(tool("qemu-img", "qemu-utils").args(arguments))
}

/// Runs commands of qemu-io, of which none may find anything wrong.
fn qemu_io(uri: &str, commands: &[&str]) -> String {
    let mut command = tool("qemu-io", "qemu-utils");
    command.args(["-f", "raw", uri]);
    commands.iter().for_each(|line| _ = command.args(["-c", line]));
    let said = run(&mut command);
    assert!(!said.contains("failed") && !said.contains("rror"), "{said}");
    said
}

/// A file with data and holes, half and half.
fn image(path: &Path, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
    for part in bytes.chunks_mut(256 << 10) {
        if random.below(2) == 0 {
            part.chunks_mut(8).for_each(|word| word.copy_from_slice(&random.next().to_le_bytes()));
        }
    }
    std::fs::write(path, &bytes).unwrap();
    run(Command::new("fallocate").arg("--dig-holes").arg(path));
    bytes
}

#[test]
fn nbdinfo_tells_what_there_is() {
    let rig = Rig::new(SIZE);
    let told = nbdinfo(&[&rig.uri()]);
    for line in [
        "protocol: newstyle-fixed without TLS, using structured packets",
        "description: the disk in memory",
        "export-size: 33554432",
        "base:allocation",
        "is_read_only: false",
        "can_cache: true",
        "can_df: true",
        "can_fast_zero: true",
        "can_flush: true",
        "can_fua: true",
        "can_multi_conn: true",
        "can_trim: true",
        "can_zero: true",
        "block_size_minimum: 1",
        "block_size_preferred: 4096",
        "block_size_maximum: 33554432",
    ] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    rig.disk.put(1 << 20, &[1; 4096]);
    let map = nbdinfo(&["--map", &rig.uri()]);
    let fields: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(fields[0][..3], ["0", "1048576", "3"]);
    assert_eq!(fields[1][..3], ["1048576", "4096", "0"]);
    assert_eq!(fields[2][..3], ["1052672", "32501760", "3"]);
}

#[test]
fn several_disks_are_listed_and_a_read_only_one_says_so() {
    let scratch = Scratch::new();
    let (a, b) = (Memory::new(SIZE, false), Memory::new(4096, true));
    let config = ServerConfig::new(scratch.path("nbd.sock"));
    let server = Server::start(&config, Disks::of(&[("a", &a), ("b", &b)])).unwrap();
    let uri = |name: &str| format!("nbd+unix:///{name}?socket={}", scratch.path("nbd.sock").display());
    let listed = nbdinfo(&["--list", &uri("")]);
    assert!(listed.contains("export=\"a\"") && listed.contains("export=\"b\""), "{listed}");
    let told = nbdinfo(&[&uri("b")]);
    assert!(told.contains("is_read_only: true") && told.contains("can_trim: false"), "{told}");
    // There is none of that name, and none that is the only one.
    for name in ["c", ""] {
        let said = fails(tool("nbdinfo", "libnbd-bin").arg(uri(name)));
        assert!(said.contains("No such file"), "{said}");
    }
    server.stop();
}

#[test]
fn nbdcopy_copies_both_ways() {
    let rig = Rig::new(SIZE);
    let (from, to) = (rig.scratch.path("from"), rig.scratch.path("to"));
    let bytes = image(&from, 0x1234_5678);
    run(tool("nbdcopy", "libnbd-bin").arg("--flush").arg(&from).arg(rig.uri()));
    assert!(rig.disk.content() == bytes);
    assert!(nbdinfo(&["--map", &rig.uri()]).lines().count() > 3, "the holes of the file are no holes");
    run(tool("nbdcopy", "libnbd-bin").arg(rig.uri()).arg(&to));
    assert!(std::fs::read(&to).unwrap() == bytes);
    // One request at a time, over one connection.
    std::fs::remove_file(&to).unwrap();
    run(tool("nbdcopy", "libnbd-bin").arg("--synchronous").arg(rig.uri()).arg(&to));
    assert!(std::fs::read(&to).unwrap() == bytes);
}

#[test]
fn qemu_io_finds_its_patterns() {
    let rig = Rig::new(SIZE);
    let uri = rig.uri();
    qemu_io(
        &uri,
        &[
            "write -P 0x11 0 64k",
            "write -f -P 0x22 64k 4k",
            "write -P 0x33 513 1000",
            "write -P 0x44 1M 4M",
            "flush",
            "read -P 0x11 0 513",
            "read -P 0x33 513 1000",
            "read -P 0x11 1513 8k",
            "read -P 0x22 64k 4k",
            "read -P 0x44 1M 4M",
            "write -z 2M 1M",
            "write -z -u 3M 64k",
            "discard 4M 512k",
            "read -P 0 2M 1M",
            "read -P 0 3M 64k",
            "read -P 0x44 3136k 64k",
        ],
    );
    let said = qemu_io(
        &uri,
        &["aio_write -P 0x55 8M 2M", "aio_write -P 0x66 10M 2M", "aio_flush", "read -P 0x55 8M 2M"],
    );
    assert!(said.contains("wrote"), "{said}");
    // That a wrong pattern would have been noticed:
    let mut wrong = tool("qemu-io", "qemu-utils");
    let said = wrong.args(["-f", "raw", &uri, "-c", "read -P 0x99 8M 4k"]).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("verification failed"), "{said:?}");
}

#[test]
fn qemu_img_converts_maps_and_compares() {
    let rig = Rig::new(SIZE);
    let (from, to) = (rig.scratch.path("from"), rig.scratch.path("to"));
    let bytes = image(&from, 0x9876_5432);
    let (from, uri) = (from.display().to_string(), rig.uri());
    qemu_img(&["convert", "-n", "-f", "raw", "-O", "raw", &from, &uri]);
    assert!(rig.disk.content() == bytes);
    qemu_img(&["compare", "-f", "raw", "-F", "raw", &from, &uri]);
    let map = qemu_img(&["map", "-f", "raw", "--output=json", &uri]);
    assert!(map.contains("\"zero\": true, \"data\": false") && map.contains("\"data\": true"), "{map}");
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", &uri, &to.display().to_string()]);
    qemu_img(&["compare", "-f", "raw", "-F", "qcow2", &from, &to.display().to_string()]);
    rig.disk.put(5, b"another");
    fails(tool("qemu-img", "qemu-utils").args(["compare", "-f", "raw", "-F", "raw", &from, &uri]));
}

#[test]
fn fio_verifies_what_it_wrote() {
    let rig = Rig::new(SIZE);
    for (name, blocks, depth) in [("small", "--bsrange=512-16k", "16"), ("large", "--bsrange=64k-2m", "4")] {
        let mut fio = tool("fio", "fio");
        fio.current_dir(&rig.scratch.0).args([
            "--ioengine=nbd",
            "--rw=randwrite",
            "--verify=crc32c",
            "--thread",
        ]);
        fio.args([&format!("--name={name}"), &format!("--uri={}", rig.uri()), blocks]);
        let sync = if name == "small" { "--fsync=64" } else { "--fsync=0" };
        fio.args([&format!("--iodepth={depth}"), "--size=24m", "--verify_fatal=1", "--randseed=7", sync]);
        let said = run(&mut fio);
        assert!(said.contains("err= 0") && said.contains("READ:"), "{said}");
    }
    assert!(rig.disk.content().iter().any(|&byte| byte != 0));
}

#[test]
fn nbdkit_stands_on_top() {
    let rig = Rig::new(SIZE);
    let (from, to) = (rig.scratch.path("from"), rig.scratch.path("to"));
    let bytes = image(&from, 0x55aa_55aa);
    let on_top = rig.scratch.path("top.sock");
    let mut nbdkit = tool("nbdkit", "nbdkit");
    nbdkit.args(["--foreground", "--unix"]).arg(&on_top).args(["nbd", &format!("uri={}", rig.uri())]);
    let mut nbdkit = nbdkit.spawn().unwrap();
    until("nbdkit's socket", || on_top.exists());
    let uri = format!("nbd+unix:///?socket={}", on_top.display());
    run(tool("nbdcopy", "libnbd-bin").arg("--flush").arg(&from).arg(&uri));
    run(tool("nbdcopy", "libnbd-bin").arg(&uri).arg(&to));
    nbdkit.kill().unwrap();
    nbdkit.wait().unwrap();
    assert!(rig.disk.content() == bytes && std::fs::read(&to).unwrap() == bytes);
}

/// The client of the kernel's device, which speaks the oldest form of the protocol; attaching the device takes a kernel module.
#[test]
fn nbd_client_lists() {
    let rig = Rig::new(SIZE);
    let mut list = tool("nbd-client", "nbd-client");
    let told = run(list.args(["-l", "localhost", &rig.port().to_string()]));
    assert!(told.contains("disk"), "{told}");
}

#[test]
fn libnbd_calls_everything() {
    let rig = Rig::new(SIZE);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nbd/every_command.py");
    // The system's own, for which the package is made.
    let mut python = tool("/usr/bin/python3", "python3");
    let there = Command::new("/usr/bin/python3").args(["-c", "import nbd"]).output().unwrap();
    assert!(there.status.success(), "apt-get install python3-libnbd, or `cargo xtask test`: {there:?}");
    let said = run(python.arg(script).args([&rig.uri(), "disk", "the disk in memory", "thick"]));
    assert!(said.contains("everything as it should be"), "{said}");
}
