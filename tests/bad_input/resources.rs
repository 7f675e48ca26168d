//! What the machine and its files do: too little memory, too low a limit, a key that others can read, a file that is
//! cut under the holder.

use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mirrorbus::fabric::QueueError;
use mirrorbus::memory::{LockPolicy, MapError};
use mirrorbus::mirror::{LostReason, StoreError, WaitError};
use mirrorbus::node::{HolderError, OpenError};
use mirrorbus::{Attach, Deadline, Holder, KeySet, LaneConfig, Level, Region};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::child::{HoldProcess, in_child};
use crate::common::{Fabric, Scratch, holder_config, keys, region_config, soon};
use crate::{SIZE, holder, on_both, still_serves};

on_both!(
    a_low_memlock_limit_names_its_fix,
    more_than_memory_is_refused_with_numbers,
    a_truncated_file_takes_nobody_down
);

fn a_low_memlock_limit_names_its_fix(fabric: Fabric) {
    const LIMIT: u64 = 128 << 10;
    const LARGE: usize = 4 << 20;
    let name = match fabric {
        Fabric::Shm => "resources::shm::a_low_memlock_limit_names_its_fix",
        _ => "resources::tcp::a_low_memlock_limit_names_its_fix",
    };
    in_child(name, || {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, sets).unwrap();
        setrlimit(Resource::Memlock, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
        let names_it = |error: String| {
            for part in ["4194304", "131072", "ulimit -l", "LimitMEMLOCK=infinity", "mlock=try"] {
                assert!(error.contains(part), "{part} is not in: {error}");
            }
        };
        let scratch = Scratch::new();
        let mut config = holder_config(fabric.url(&scratch), LARGE);
        config.lock = LockPolicy::Required;
        names_it(Holder::start(config.clone(), keys()).unwrap_err().to_string());
        // Nothing was left behind: the same address serves without the lock.
        config.lock = LockPolicy::Try;
        let holder = Holder::start(config, keys()).unwrap();
        let mut config = region_config(holder.url(), LARGE, Attach::Push { replace: false });
        config.lock = LockPolicy::Required;
        let error = Region::open(config.clone(), keys()).unwrap_err();
        assert!(matches!(error, OpenError::Lock(_)), "{error}");
        names_it(error.to_string());
        config.lock = LockPolicy::Try;
        let region = Region::open(config, keys()).unwrap();
        let mut lane = region.lane(LaneConfig::default()).unwrap();
        let ticket = lane.store(LARGE - 1, &[7]).unwrap();
        lane.wait(ticket, Level::Visible, soon()).unwrap();
    });
}

fn more_than_memory_is_refused_with_numbers(fabric: Fabric) {
    const HUGE: usize = 1 << 46;
    let scratch = Scratch::new();
    let error = Holder::start(holder_config(fabric.url(&scratch), HUGE), keys()).unwrap_err();
    assert!(matches!(error, HolderError::Map(_)), "{error}");
    let (holder, _scratch) = holder(fabric);
    let opened = Region::open(region_config(holder.url(), HUGE, Attach::Pull), keys()).unwrap_err();
    assert!(matches!(opened, OpenError::Map(MapError::Memory { .. })), "{opened}");
    for text in [error.to_string(), opened.to_string()] {
        assert!(text.contains("64 TiB") || text.contains(&HUGE.to_string()), "{text}");
        assert!(text.contains("available") && text.contains("make the region smaller"), "{text}");
    }
    still_serves(&holder);
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.path("key");
    KeySet::create(&path).unwrap();
    KeySet::load(&path).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = KeySet::load(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod 600"), "{error}");
        // The program ends with it as well, and says the same.
        let mut hold = Command::new(env!("CARGO_BIN_EXE_mirrorbus"));
        let url = Fabric::Tcp.url(&scratch);
        HoldProcess::command(&mut hold, &url, SIZE, &path, &scratch.path("copy"));
        let output = hold.output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("chmod 600"), "{output:?}");
    }
}

fn lost(error: &LostReason) -> bool {
    matches!(error, LostReason::Queue(QueueError::MappingLost { side: "peer's" }))
}

/// The holder is a process of its own: a SIGBUS there shows as its death, one here as the death of this test.
fn a_truncated_file_takes_nobody_down(fabric: Fabric) {
    const LARGE: usize = 1 << 20;
    let scratch = Scratch::new();
    let (key, file) = (scratch.path("key"), scratch.path("copy"));
    let keys = KeySet::create(&key).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirrorbus"));
    HoldProcess::command(&mut command, &fabric.url(&scratch), LARGE, &key, &file);
    let mut hold = HoldProcess::start(command);
    let region =
        Region::open(region_config(&hold.url, LARGE, Attach::Push { replace: false }), keys.clone()).unwrap();
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    lane.store(LARGE - 64, &[1; 64]).unwrap();
    lane.flush(Level::Visible, soon()).unwrap();

    let cut = OpenOptions::new().write(true).open(&file).unwrap();
    cut.set_len(4096).unwrap();
    let mut deadline = Deadline::within(Duration::from_secs(15));
    let reason = loop {
        assert!(deadline.remaining().is_some(), "stores into a file that is gone are acknowledged for ever");
        match lane.store(LARGE / 2, &[2; 64]) {
            Ok(ticket) => match lane.wait(ticket, Level::Visible, soon()) {
                Ok(()) => {}
                Err(WaitError::LinkLost { reason, .. }) => break reason,
                Err(error) => panic!("{error}"),
            },
            Err(StoreError::LinkLost { reason, .. }) => break reason,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(lost(&reason), "{reason}");
    assert!(reason.to_string().contains("was truncated while in use"), "{reason}");
    assert!(lane.unknown().acked.0 >= 1, "what was acknowledged before is still said to be");
    drop(lane);
    region.close();

    // It still answers, and does not pass off what is left as a copy.
    assert!(hold.runs(), "the holder died");
    let error = Region::open(region_config(&hold.url, LARGE, Attach::Pull), keys).unwrap_err();
    assert!(matches!(error, OpenError::Call(_)), "{error}");
    assert!(error.to_string().contains("was truncated to 4096"), "{error}");
    assert!(hold.runs(), "the holder died of an attachment");
}

/// A file cut between the store and the sync is no ground to call the store durable.
#[test]
fn a_file_cut_before_the_sync_is_not_durable() {
    let scratch = Scratch::new();
    // On a disk: the temporary directory may be in memory, where nothing is durable.
    let on_disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join(scratch.0.file_name().unwrap());
    std::fs::create_dir_all(&on_disk).unwrap();
    let on_disk = Scratch(on_disk);
    let file = on_disk.path("copy");
    let mut config = holder_config(Fabric::Shm.url(&scratch), SIZE);
    config.file = Some(file.clone());
    let holder = Holder::start(config, keys()).unwrap();
    let region =
        Region::open(region_config(holder.url(), SIZE, Attach::Push { replace: false }), keys()).unwrap();
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    lane.store(SIZE - 64, &[1; 64]).unwrap();
    lane.flush(Level::Visible, soon()).unwrap();
    OpenOptions::new().write(true).open(&file).unwrap().set_len(4096).unwrap();
    let error = lane.flush(Level::Durable, soon()).unwrap_err();
    assert!(matches!(error, WaitError::SyncFailed(_)), "{error}");
    assert!(error.to_string().contains("truncated to 4096"), "{error}");
    assert!(lane.watermarks().durable.0 == 0);
    // A sync that failed once is never retried into success.
    OpenOptions::new().write(true).open(&file).unwrap().set_len(SIZE as u64).unwrap();
    let error = lane.flush(Level::Durable, soon()).unwrap_err();
    assert!(matches!(error, WaitError::SyncFailed(_)), "{error}");
}
