//! The program's commands end to end, as a user gives them.

mod common;
#[path = "common/program.rs"]
mod program;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Fabric, Scratch, region_config, soon};
use mirrorbus::epoch::{EpochConfig, EpochLayout, EpochRegion};
use mirrorbus::node::LinkStatus;
use mirrorbus::{Attach, FabricUrl, KeySet, LaneConfig, Level, Region};
use program::{Program, command, refusal, run};
use rustix::process::Signal;

const SIZE: usize = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A key file made by the program.
fn key_file(scratch: &Scratch) -> PathBuf {
    let path = scratch.path("key");
    let output = run(&["keygen", text(&path)]);
    assert!(output.status.success(), "{output:?}");
    path
}

/// A holder of `SIZE` bytes that listens, and where.
fn hold(fabric: Fabric, scratch: &Scratch, more: &[&str]) -> (Program, FabricUrl) {
    let url = fabric.url(scratch).to_string();
    let key = scratch.path("key");
    let fixed = ["hold", "--listen", &url, "--size", "1M", "--mlock", "try", "--key", text(&key)];
    let mut command = command(&[&fixed[..], more].concat());
    command.env("RUST_LOG", "info");
    let holder = Program::of(command);
    let url = holder.line_after("listening on ").parse().unwrap();
    (holder, url)
}

fn open(url: &FabricUrl, key: &Path, attach: Attach) -> Region {
    Region::open(region_config(url, SIZE, attach), KeySet::load(key).unwrap()).unwrap()
}

#[test]
fn a_region_is_held_and_the_owner_is_told_of_the_end() {
    for fabric in [Fabric::Shm, Fabric::Tcp, Fabric::TcpSealed] {
        let scratch = Scratch::new();
        let key = key_file(&scratch);
        let (holder, url) = hold(fabric, &scratch, &[]);
        let region = open(&url, &key, Attach::Push { replace: false });
        let mut lane = region.lane(LaneConfig::default()).unwrap();
        lane.store(4096, b"kept by another process").unwrap();
        lane.flush(Level::Visible, soon()).unwrap();
        drop(lane);
        region.close();

        let region = open(&url, &key, Attach::Pull);
        let mut bytes = [0; 23];
        region.memory().read(4096, &mut bytes);
        assert_eq!(&bytes, b"kept by another process", "{fabric:?}");

        let begun = Instant::now();
        holder.signal(Signal::TERM);
        let reason = loop {
            match region.link() {
                LinkStatus::Lost(reason) => break reason.to_string(),
                _ => assert!(begun.elapsed() < Duration::from_secs(20), "{fabric:?}: the owner is not told"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(reason.contains("stopping"), "{fabric:?}: {reason}");
        assert_eq!(holder.line(), "stopped");
        let (status, errors) = holder.end();
        assert!(status.success(), "{fabric:?}: {status}, {errors}");
        for change in ["an owner is connected", "the copy is complete", "SIGTERM"] {
            assert!(errors.contains(change), "{change:?} is not logged: {errors}");
        }
    }
}

#[test]
fn a_file_keeps_the_copy_over_the_holders_end() {
    let scratch = Scratch::new();
    let key = key_file(&scratch);
    let file = scratch.path("copy");
    let (holder, url) = hold(Fabric::Tcp, &scratch, &["--file", text(&file)]);
    let region = open(&url, &key, Attach::Push { replace: false });
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    lane.store(SIZE - 4, b"last").unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    holder.signal(Signal::INT);
    let (status, errors) = holder.end();
    assert!(status.success(), "{status}, {errors}");

    let (_holder, url) = hold(Fabric::Tcp, &scratch, &["--file", text(&file)]);
    let region = open(&url, &key, Attach::Pull);
    assert_eq!(region.memory().subslice(SIZE - 4, 4).unwrap().to_vec(), b"last");
}

#[test]
fn a_wrong_key_is_refused_and_the_right_one_served_after_it() {
    let scratch = Scratch::new();
    let key = key_file(&scratch);
    let (_holder, url) = hold(Fabric::Tcp, &scratch, &[]);
    let config = region_config(&url, SIZE, Attach::Push { replace: false });
    let error = Region::open(config, common::keys()).unwrap_err().to_string();
    assert!(error.contains("key"), "{error}");
    drop(open(&url, &key, Attach::Push { replace: false }));
}

#[test]
fn key_files_are_private_and_never_overwritten() {
    let scratch = Scratch::new();
    let key = key_file(&scratch);
    assert_eq!(std::fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
    let before = std::fs::read(&key).unwrap();
    let error = refusal(&["keygen", text(&key)]);
    assert!(error.contains("exists") && error.contains(text(&key)), "{error}");
    assert_eq!(std::fs::read(&key).unwrap(), before);

    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let hold = ["hold", "--listen", "tcp://127.0.0.1:0", "--size", "64K", "--key", text(&key)];
    let error = refusal(&hold);
    for part in ["0644", "chmod 600", text(&key)] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    let nowhere = scratch.path("nowhere");
    let error = refusal(&[&hold[..6], &[text(&nowhere)]].concat());
    assert!(error.contains(text(&nowhere)), "{error}");
}

#[test]
fn what_cannot_be_held_is_refused_with_its_numbers() {
    let scratch = Scratch::new();
    let key = key_file(&scratch);
    let hold = |listen: &str, size: &str, more: &[&str]| {
        refusal(&[&["hold", "--listen", listen, "--size", size, "--key", text(&key)], more].concat())
    };
    let local = "tcp://127.0.0.1:0";
    let error = hold(local, "512T", &[]);
    assert!(error.contains("512 TiB") && error.contains("available"), "{error}");
    assert!(hold(local, "0", &[]).contains("0"));
    assert!(hold(local, "1.5G", &[]).contains("1.5G"));
    assert!(hold("carrier-pigeon:7", "1M", &[]).contains("carrier-pigeon:7"));
    assert!(hold(local, "1M", &["--mlock", "perhaps"]).contains("perhaps"));

    let file = scratch.path("letters");
    std::fs::write(&file, "dear aunt").unwrap();
    let error = hold(local, "1M", &["--mlock", "try", "--file", text(&file)]);
    assert!(error.contains("9 bytes") && error.contains(text(&file)), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"dear aunt");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", taken.local_addr().unwrap());
    let error = hold(&address, "1M", &["--mlock", "try"]);
    assert!(error.contains(&address) && error.contains("in use"), "{error}");
}

#[test]
fn help_names_every_command_and_option() {
    for (command, words) in [
        (&[][..], &["hold", "keygen", "demo", "doctor", "soft-roce"][..]),
        (&["hold"], &["--listen", "--size", "--key", "--file", "--mlock", "--spin-us"]),
        (&["keygen"], &["FILE"]),
        (&["demo"], &["--fabric", "--listen", "--over", "--tree", "--bytes", "--seed"]),
        (&["soft-roce"], &["up", "down"]),
        (&["status"], &["--json", "--watch", "--admin"]),
        (&["volume"], &["create", "list", "resize", "delete"]),
        (&["volume", "create"], &["DATASET", "NAME", "--size", "--block"]),
        (&["volume", "resize"], &["DATASET", "NAME", "--size", "--shrink"]),
        (&["promote"], &["DATASET", "--flushed-only"]),
        (&["alone"], &["DATASET"]),
        (&["seed"], &["DATASET"]),
        (&["scrub"], &["DATASET", "--json"]),
        (&["events"], &["--follow", "--since", "--json"]),
        (&["config"], &["check"]),
        (&["dataset-id"], &["Print a new id"]),
        (&["doctor"], &["--json"]),
    ] {
        let output = run(&[command, &["--help"]].concat());
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{command:?}");
        words.iter().for_each(|word| assert!(help.contains(word), "{word} is not in: {help}"));
        assert!(!help.contains("demo-hold"), "{help}");
    }
    assert!(refusal(&["hold"]).contains("--listen"));
    assert!(refusal(&["frobnicate"]).contains("frobnicate"));
}

#[test]
fn soft_roce_says_what_is_missing() {
    let error = refusal(&["soft-roce", "up", "--netdev", "no-such-card"]);
    assert!(error.contains("no-such-card") && error.contains("lo"), "{error}");
    assert!(refusal(&["soft-roce", "down", "--netdev", "no-such-card"]).contains("no-such-card"));
    assert!(refusal(&["soft-roce", "up"]).contains("--netdev"));

    // Whatever this kernel has, nothing is changed: of the two programs one fails and one is not there.
    let scratch = Scratch::new();
    let up = || {
        let mut up = command(&["soft-roce", "up", "--netdev", "lo"]);
        let output = up.env("PATH", &scratch.0).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let modules = Path::new("/sys/module/rdma_rxe").exists() && Path::new("/sys/module/rdma_ucm").exists();
    let error = up();
    assert!(error.contains(if modules { "install iproute2" } else { "install kmod" }), "{error}");
    let modprobe = scratch.path("modprobe");
    std::fs::write(&modprobe, "#!/bin/sh\necho \"module $1 not found\" >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&modprobe, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = up();
    assert!(modules || error.contains("module rdma_rxe not found"), "{error}");
    assert!(modules || error.contains("linux-image-amd64"), "{error}");
}

#[test]
fn epochs_are_held_over_a_restart() {
    let scratch = Scratch::new();
    let key = key_file(&scratch);
    let file = scratch.path("copy");
    let more = ["--epochs", "--ring", "128K", "--file", text(&file)];
    let (holder, url) = hold(Fabric::Tcp, &scratch, &more);
    let layout = EpochLayout::with_ring(SIZE, 128 << 10).unwrap();
    let owner = |url: &FabricUrl, attach| {
        let config = EpochConfig::new(region_config(url, SIZE, attach), layout);
        EpochRegion::open(config, KeySet::load(&key).unwrap()).unwrap()
    };
    let mut first = owner(&url, Attach::Push { replace: false });
    for epoch in 1..=5 {
        first.memory().slice().fill(1000, 100_000, epoch);
        first.commit(Level::Visible, soon()).unwrap();
    }
    let content = first.memory().slice().to_vec();
    drop(first);
    drop(holder);
    let (_holder, url) = hold(Fabric::Tcp, &scratch, &more);
    let second = owner(&url, Attach::Pull);
    assert!(second.epoch() == 5 && second.memory().slice().to_vec() == content);
    let more =
        ["hold", "--listen", "tcp://127.0.0.1:0", "--size", "1M", "--key", text(&key), "--ring", "128K"];
    assert!(refusal(&more).contains("--epochs"), "a ring is of epochs");
}

#[test]
fn doctor_looks_at_everything() {
    let output = run(&["doctor"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let states: Vec<_> = lines.lines().map(|line| line.split_once("  ").unwrap().0.trim()).collect();
    assert!(states.iter().all(|state| ["ok", "warn", "FAIL"].contains(state)), "{lines}");
    assert_eq!(output.status.success(), !states.contains(&"FAIL"), "{lines}");
    for what in [
        "locked memory",
        "huge pages",
        "kernel",
        "memfd",
        "pidfd_open",
        "robust",
        "CRC32C",
        "clock",
        "RDMA",
        "epochs, wp-async",
        "epochs, soft-dirty",
        "epochs, mprotect",
        "epochs, stores found by",
    ] {
        assert!(lines.contains(what), "{what} is not in: {lines}");
    }
    assert!(
        lines.lines().filter(|line| line.starts_with("warn")).all(|line| line.contains(" — ")),
        "{lines}"
    );

    let output = run(&["doctor", "--json"]);
    let json = String::from_utf8(output.stdout).unwrap();
    let objects: Vec<_> = json.lines().filter(|line| line.trim_start().starts_with('{')).collect();
    assert_eq!(objects.len(), states.len(), "{json}");
    for object in objects {
        let keys = ["\"state\": \"", "\"what\": \"", "\"found\": \"", "\"fix\": \""];
        assert!(keys.iter().all(|key| object.contains(key)), "{object}");
    }
    assert!(json.starts_with("[\n") && json.ends_with("\n]\n"), "{json}");
}
