//! Under strace: one sync of the file for each wait for `Durable` that needs one and for each flush to it, complete
//! before the answer, and none for less.

use std::path::Path;

use mirrorbus::{Attach, LaneConfig, Level};

use crate::common::{Fabric, Scratch, soon};
use crate::{SIZE, disk, hold, open};

/// Syncs of the copy that returned 0, so far: (msync of the whole, fdatasync of the file).
///
/// strace writes a call down when it returns and before the program goes on, so what happened before an answer is in
/// the trace when the answer is.
fn syncs(trace: &Path, file: &Path) -> (usize, usize) {
    let text = std::fs::read_to_string(trace).unwrap();
    let whole = format!(", {SIZE}, MS_SYNC) = 0");
    let mut open = std::collections::HashMap::new();
    let (mut msync, mut fdatasync) = (0, 0);
    for line in text.lines() {
        // A call that another thread's interrupted is in two halves, joined here by the thread.
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            open.insert(thread.to_owned(), begun.to_owned());
            continue;
        }
        let call = match call.strip_prefix("<... ") {
            Some(rest) => open.remove(thread).unwrap() + rest.split_once(" resumed>").unwrap().1,
            None => call.to_owned(),
        };
        msync += usize::from(call.starts_with("msync(") && call.contains(&whole));
        let path = format!("<{}>", file.display());
        fdatasync +=
            usize::from(call.starts_with("fdatasync(") && call.contains(&path) && call.ends_with("= 0"));
    }
    (msync, fdatasync)
}

fn each_durable_wait_is_one_sync(fabric: Fabric) {
    let (scratch, disk) = (Scratch::new(), disk());
    let (trace, file) = (scratch.path("trace"), disk.path("copy"));
    let found = std::process::Command::new("strace").arg("--version").output();
    assert!(
        found.is_ok_and(|output| output.status.success()),
        "this test watches the holder's system calls: install strace (apt-get install strace)"
    );
    let output = trace.to_str().unwrap();
    // -D: the holder is our child and strace its observer, so killing the holder ends both.
    let before = ["strace", "-D", "-f", "-y", "-e", "trace=fsync,fdatasync,msync", "-o", output];
    let hold = hold(fabric, &scratch, &disk, &before);
    let region = open(&hold.url, Attach::Push { replace: false });
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    let pushed = syncs(&trace, &file);
    assert_eq!(lane.flush(Level::Durable, soon()).unwrap().0, 0);
    let start = syncs(&trace, &file);
    assert_eq!(start, (pushed.0 + 1, pushed.1 + 1), "{fabric:?}: what was pushed is synced before any store");
    for round in 1..=5_u8 {
        let before = syncs(&trace, &file);
        assert_eq!(
            before,
            (start.0 + usize::from(round) - 1, start.1 + usize::from(round) - 1),
            "{fabric:?} round {round}"
        );
        let mut ticket = lane.store(0, &[round]).unwrap();
        for number in 0..50 {
            ticket = lane.store(number * 5000, &[round; 300]).unwrap();
            lane.wait(ticket, Level::Visible, soon()).unwrap();
        }
        lane.flush(Level::Visible, soon()).unwrap();
        assert_eq!(syncs(&trace, &file), before, "{fabric:?} round {round}: Visible needs no sync");
        lane.flush(Level::Durable, soon()).unwrap();
        let after = (before.0 + 1, before.1 + 1);
        assert_eq!(syncs(&trace, &file), after, "{fabric:?} round {round}: one sync, before the answer");
        lane.wait(ticket, Level::Durable, soon()).unwrap();
        assert_eq!(
            syncs(&trace, &file),
            after,
            "{fabric:?} round {round}: what is durable is not synced again"
        );
    }
    let before = syncs(&trace, &file);
    let lane = lane.into_shared().unwrap();
    for more in 1..=2 {
        lane.flush(Level::Durable, soon()).unwrap();
        let after = (before.0 + more, before.1 + more);
        assert_eq!(syncs(&trace, &file), after, "{fabric:?}: each flush is a sync, store or not");
    }
}

#[test]
fn each_durable_wait_is_one_sync_over_shared_memory() {
    each_durable_wait_is_one_sync(Fabric::Shm);
}

#[test]
fn each_durable_wait_is_one_sync_over_tcp() {
    each_durable_wait_is_one_sync(Fabric::Tcp);
}
