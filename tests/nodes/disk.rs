//! What reaches the disk, and when: a flush, and the end in good order.

use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mirrorbus::serve::admin::{DiskState, Role};

use crate::ledger::{BLOCK, content};
use crate::rig::{Medium, NAMES, Plan, Rig};
use crate::tool::tool;

/// Calls of fdatasync of a segment's file that a trace has.
fn syncs(trace: &Path) -> usize {
    let text = std::fs::read_to_string(trace).unwrap_or_default();
    text.lines().filter(|line| line.contains("fdatasync(") && line.contains(".segment>")).count()
}

#[test]
fn a_flush_syncs_the_segments_on_both_nodes() {
    drop(tool("strace", "strace"));
    let words = ["strace", "-f", "-qq", "-y", "-e", "trace=fdatasync", "-o", "NODE.trace"];
    let under = words.map(str::to_owned).to_vec();
    let rig = Rig::pair(Plan { under, ..Plan::new(Medium::Tcp) });
    let traces = NAMES.map(|name| rig.path(name).with_extension("trace"));
    let mut client = rig.client(0);
    for round in 1..=5 {
        // What was written may be synced before it is flushed, if that takes long.
        let before = traces.each_ref().map(|trace| syncs(trace));
        for block in 0..20 {
            assert_eq!(client.write(block * BLOCK as u64, &content(block, round)), 0);
        }
        assert_eq!(client.flush(), 0);
        let after = traces.each_ref().map(|trace| syncs(trace));
        for (node, (before, after)) in before.iter().zip(after).enumerate() {
            assert!(after > *before, "{} synced nothing in flush {round}", NAMES[node]);
        }
    }
}

/// A node whose syncs fail from now on.
struct SickDisk(Child);

impl SickDisk {
    fn of(process: u32) -> Self {
        let mut strace = tool("strace", "strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &process.to_string()]);
        Self(strace.args(["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"]).spawn().unwrap())
    }
}

impl Drop for SickDisk {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Its memory takes what comes, but nobody could serve from it: what is acknowledged by two memories would be in one.
#[test]
fn nothing_is_acknowledged_by_the_memory_of_a_node_that_is_out_of_service() {
    let rig = Rig::pair(Plan::new(Medium::Shm));
    let mut client = rig.client(0);
    assert_eq!(client.write(0, &content(0, 1)), 0);
    let sick = SickDisk::of(rig.process(1));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = std::thread::spawn(move || {
        for round in 2.. {
            assert_eq!(client.write(0, &content(0, round)), 0);
            assert_eq!(client.flush(), 0);
            if stopped.load(Ordering::SeqCst) {
                return (client, round);
            }
        }
        unreachable!("it is stopped long before")
    });
    let failed = rig.wait(1, "out of service", |status| status.reason.code == "sync-failed");
    assert_eq!(failed.disk_state, DiskState::Failed);
    let held = rig.wait(0, "held", |status| status.hold.is_some() && status.reason.code == "peer-failed");
    assert!(held.reason.text.contains("out of service"), "{held:?}");
    rig.told(0, &["alone", "vm"]);
    stop.store(true, Ordering::SeqCst);
    let (mut client, round) = writer.join().unwrap();
    assert!(client.read(0, 4096) == Ok(content(0, round).to_vec()));
    drop(sick);
}

/// Ends both; whether each finds all that it has in its checkpoint.
fn ends_with_nothing_to_replay(rig: &mut Rig) -> bool {
    assert!(rig.stop(0).success(), "{}", rig.logs());
    assert!(rig.stop(1).success(), "{}", rig.logs());
    // Each by itself: there is nobody to follow.
    let found = [0, 1].map(|node| {
        rig.start(node);
        let status = rig.wait(node, "undecided", |status| status.reason.code == "peer-unreachable");
        assert_eq!(status.role, Role::Undecided);
        assert!(status.lsn.checkpoint > 0, "{status:?}");
        rig.kill(node);
        (status.lsn.checkpoint, status.lsn.appended)
    });
    println!("checkpoints and ends: {found:?}");
    found.iter().all(|(checkpoint, end)| checkpoint == end)
}

#[test]
fn an_end_in_good_order_leaves_nothing_to_replay() {
    let mut rig = Rig::pair(Plan::new(Medium::Shm));
    let mut client = rig.client(0);
    for block in 0..300 {
        assert_eq!(client.write(block * BLOCK as u64, &content(block, 7)), 0);
    }
    drop(client);
    if !ends_with_nothing_to_replay(&mut rig) {
        // A node does not wait for long for a disk that is slow.
        rig.start(0);
        rig.start(1);
        rig.wait_for_pair();
        assert!(ends_with_nothing_to_replay(&mut rig), "{}", rig.logs());
    }
    rig.start(0);
    rig.start(1);
    let serving = rig.wait_for_pair();
    let mut client = rig.client(serving);
    for block in 0..300 {
        assert!(client.read(block * BLOCK as u64, 4096) == Ok(content(block, 7).to_vec()), "block {block}");
    }
}

#[test]
fn a_scrub_while_clients_write_changes_nothing() {
    let rig = Rig::pair(Plan::new(Medium::Shm));
    let mut client = rig.client(0);
    // More than the ring has, so that files are read in the end: also those that the scrub saw when they were not complete.
    for round in 1..=12 {
        for block in 0..512 {
            assert_eq!(client.write(block * BLOCK as u64, &content(block, round)), 0);
            if block % 128 == 100 {
                assert_eq!(client.flush(), 0);
                rig.told(0, &["scrub", "vm"]);
            }
        }
    }
    for block in 512..2048 {
        assert_eq!(client.write(block * BLOCK as u64, &content(block, 1)), 0);
    }
    std::thread::sleep(Duration::from_millis(300));
    for block in 0..512 {
        assert!(client.read(block * BLOCK as u64, 4096) == Ok(content(block, 12).to_vec()), "block {block}");
    }
    rig.told(0, &["scrub", "vm"]);
    rig.told(1, &["scrub", "vm"]);
}
