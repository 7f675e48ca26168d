//! `Durable`: what it promises where the holder keeps a file, why it is refused elsewhere, and what a holder that
//! starts again makes of the file that it finds.
//!
//! That a sync really happens is shown by the system calls of a holder under strace, not by its own word.

mod common;

#[path = "common/child.rs"]
mod child;
#[path = "common/wire.rs"]
mod wire;

#[path = "durable/files.rs"]
mod files;
#[path = "durable/restart.rs"]
mod restart;
#[path = "durable/trace.rs"]
mod trace;

use std::path::PathBuf;
use std::process::Command;

use child::HoldProcess;
use common::{Fabric, Pair, Scratch, keys, region_config, soon};
use mirrorbus::mirror::WaitError;
use mirrorbus::{Attach, LaneConfig, Level, Region};

const SIZE: usize = 256 << 10;

/// A directory on a disk: the temporary one may be in memory, where nothing is durable.
fn disk() -> Scratch {
    let name = Scratch::new();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name.0.file_name().unwrap());
    std::fs::create_dir_all(&path).unwrap();
    Scratch(path)
}

/// A key file with the keys that all tests share.
fn key_file(scratch: &Scratch) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = scratch.path("key");
    if !path.exists() {
        std::fs::write(&path, keys().to_text().as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    path
}

/// A holder in a process of its own that keeps `disk`'s file `copy`; `before` stands before the command.
fn hold(fabric: Fabric, scratch: &Scratch, disk: &Scratch, before: &[&str]) -> HoldProcess {
    let program = env!("CARGO_BIN_EXE_mirrorbus");
    let mut command = match before {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    let key = key_file(scratch);
    HoldProcess::command(&mut command, &fabric.url(scratch), SIZE, &key, &disk.path("copy"));
    HoldProcess::start(command)
}

const FABRICS: [Fabric; 3] = [Fabric::Shm, Fabric::Tcp, Fabric::TcpSealed];

#[test]
fn durable_stores_are_visible_first_and_in_the_file() {
    for fabric in FABRICS {
        let disk = disk();
        let pair = Pair::with(fabric, SIZE, |config, _| config.file = Some(disk.path("copy")));
        let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
        assert_eq!(lane.capabilities().durable, Ok(()));
        let first = lane.store(4096, b"first").unwrap();
        lane.wait(first, Level::Visible, soon()).unwrap();
        let marks = lane.watermarks();
        assert_eq!((marks.visible.0, marks.durable.0), (1, 0), "{fabric:?}: nobody asked for a sync");
        lane.wait(first, Level::Durable, soon()).unwrap();
        assert_eq!(lane.watermarks().durable.0, 1, "{fabric:?}");
        for number in 0..100_u8 {
            lane.store(usize::from(number) * 2000, &[number; 500]).unwrap();
        }
        assert_eq!(lane.watermarks().durable.0, 1, "{fabric:?}: later stores are not durable by themselves");
        assert_eq!(lane.flush(Level::Durable, soon()).unwrap().0, 101);
        let marks = lane.watermarks();
        assert_eq!(marks.durable, marks.last);
        assert!(marks.acked >= marks.visible && marks.visible >= marks.durable);
        assert_eq!(std::fs::read(disk.path("copy")).unwrap(), pair.local(), "{fabric:?}: the file");
        let shared = lane.into_shared().unwrap();
        let ticket = shared.store(9, b"shared").unwrap();
        shared.wait(ticket, Level::Durable, soon()).unwrap();
        assert_eq!(shared.watermarks().durable.0, 102, "{fabric:?}");
    }
}

#[test]
fn durable_goes_on_over_a_reconnection() {
    for fabric in FABRICS {
        let disk = disk();
        let pair = Pair::with(fabric, SIZE, |config, _| config.file = Some(disk.path("copy")));
        let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
        lane.store(0, b"one").unwrap();
        lane.flush(Level::Durable, soon()).unwrap();
        pair.region.reconnect(&mut [&mut lane], soon()).unwrap();
        let ticket = lane.store(SIZE - 3, b"two").unwrap();
        lane.wait(ticket, Level::Durable, soon()).unwrap();
        // Over shared memory the copy moved to a new file, which took the old one's name.
        assert_eq!(std::fs::read(disk.path("copy")).unwrap(), pair.local(), "{fabric:?}");
    }
}

/// What a wait for `Durable` says where it cannot be had.
fn refusal(pair: &Pair) -> String {
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    let ticket = lane.store(0, b"here").unwrap();
    let error = lane.wait(ticket, Level::Durable, soon()).unwrap_err();
    assert!(matches!(error, WaitError::Unsupported(_)), "{error}");
    assert_eq!(lane.watermarks().durable.0, 0);
    // The lane is as good as before.
    lane.wait(ticket, Level::Visible, soon()).unwrap();
    assert_eq!(&pair.held()[..4], b"here");
    error.to_string()
}

#[test]
fn memory_is_not_durable_and_says_why() {
    for fabric in FABRICS {
        let why = refusal(&Pair::new(fabric, SIZE));
        assert!(why.contains("Durable") && why.contains("start it with a file"), "{why}");
    }
}

#[test]
fn a_flush_without_a_store_is_refused_as_well() {
    for fabric in FABRICS {
        let pair = Pair::new(fabric, SIZE);
        let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
        let error = lane.flush(Level::Durable, soon()).unwrap_err();
        assert!(matches!(error, WaitError::Unsupported(_)), "{fabric:?}: {error}");
        let error = lane.into_shared().unwrap().flush(Level::Durable, soon()).unwrap_err();
        assert!(matches!(error, WaitError::Unsupported(_)), "{fabric:?}: {error}");
    }
}

#[test]
fn nothing_is_flushed_to_durable_after_a_fence() {
    for fabric in FABRICS {
        let disk = disk();
        let pair = Pair::with(fabric, SIZE, |config, _| config.file = Some(disk.path("copy")));
        let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
        let shared = pair.region.lane(LaneConfig::default()).unwrap().into_shared().unwrap();
        let ticket = lane.store(0, b"durable").unwrap();
        lane.wait(ticket, Level::Durable, soon()).unwrap();
        shared.flush(Level::Durable, soon()).unwrap();
        pair.holder.fence(soon()).unwrap();
        // At once: whether this side has heard of the fence already must not matter.
        let error = lane.flush(Level::Durable, soon()).unwrap_err();
        assert!(matches!(error, WaitError::LinkLost { .. }), "{fabric:?}: {error}");
        let error = shared.flush(Level::Durable, soon()).unwrap_err();
        assert!(matches!(error, WaitError::LinkLost { .. }), "{fabric:?}: {error}");
        // What was durable before still is.
        lane.wait(ticket, Level::Durable, soon()).unwrap();
    }
}

#[test]
fn a_file_in_memory_is_not_durable_and_says_why() {
    let scratch = Scratch::new();
    let in_memory = PathBuf::from("/dev/shm").join(scratch.0.file_name().unwrap());
    std::fs::create_dir_all(&in_memory).unwrap();
    let in_memory = Scratch(in_memory);
    for fabric in [Fabric::Shm, Fabric::Tcp] {
        let file = in_memory.path(&format!("{fabric:?}"));
        let why = refusal(&Pair::with(fabric, SIZE, |config, _| config.file = Some(file.clone())));
        assert!(why.contains(&file.display().to_string()) && why.contains("use a file on a disk"), "{why}");
    }
}

fn open(url: &mirrorbus::FabricUrl, attach: Attach) -> Region {
    Region::open(region_config(url, SIZE, attach), keys()).unwrap_or_else(|error| panic!("{error}"))
}
