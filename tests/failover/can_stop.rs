//! What a node says that may be stopped, and that it is so.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mirrorbus::serve::admin::{ReplicationState, StopReport};

use crate::child::seed;
use crate::common::Random;
use crate::ledger::Ledger;
use crate::rig::{Medium, NAMES, PATIENCE, Plan, Rig};
use crate::writer::{Ended, Writer};
use crate::{BLOCKS, assert_kept, assert_whole, is_alone, plan, served};

/// What a node says of itself: its exit status is that.
fn report(rig: &Rig, node: usize) -> StopReport {
    let output = rig.ask(node, &["can-stop", "--json"]);
    let report: StopReport = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}\n{}", rig.logs()));
    assert_eq!(output.status.code(), Some(i32::from(!report.can_stop)), "{output:?}");
    assert_eq!(report.datasets.len(), 1);
    report
}

fn code(rig: &Rig, node: usize) -> String {
    report(rig, node).datasets[0].reason.code.clone()
}

/// Waits until a node says this.
fn wait_for(rig: &Rig, node: usize, wanted: &str) {
    wait_for_but(rig, node, wanted, None);
}

/// The same; it must not say `never` meanwhile.
fn wait_for_but(rig: &Rig, node: usize, wanted: &str, never: Option<&str>) {
    let began = Instant::now();
    loop {
        let found = code(rig, node);
        if found == wanted {
            return;
        }
        let wrong = began.elapsed() >= PATIENCE || Some(found.as_str()) == never;
        assert!(!wrong, "{} says {found}, not {wanted}\n{}", NAMES[node], rig.logs());
    }
}

#[test]
fn either_of_a_pair_may_be_stopped_and_nothing_is_lost() {
    let mut random = Random(seed("can stop"));
    let mut rig = Rig::pair(plan(Medium::Tcp));
    let ledger = Arc::new(Mutex::new(Ledger::new(BLOCKS)));
    for stops_primary in [false, true] {
        let serving = rig.wait_for_pair();
        let stopped = if stops_primary { serving } else { 1 - serving };
        wait_for(&rig, 1 - stopped, "may-stop");
        wait_for(&rig, stopped, "may-stop");
        let text = rig.ask(stopped, &["can-stop", "vm"]);
        assert!(text.status.success(), "{text:?}");
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.starts_with("vm: this node may be stopped: "), "{text}");
        let as_it_is = || {
            let status = rig.status(stopped).unwrap();
            (status.role, status.replication_state, status.generation, status.reason)
        };
        let before = as_it_is();
        wait_for(&rig, stopped, "may-stop");
        assert_eq!(as_it_is(), before, "something is changed by the question");

        let writer = Writer::start(rig.client(serving), ledger.clone(), random.next());
        std::thread::sleep(Duration::from_millis(50));
        assert!(rig.stop(stopped).success());
        if stops_primary {
            let _ = writer.ended();
        } else {
            assert_eq!(writer.stop(), Ended::Stopped, "its client never noticed");
        }
        let left = 1 - stopped;
        rig.wait(left, "alone", is_alone);
        assert_kept(&rig, left, &ledger);
        // Now it is the only one.
        assert_eq!(code(&rig, left), "alone");
        rig.start(stopped);
        assert_whole(&rig);
    }
}

#[test]
fn neither_may_be_stopped_without_the_mediator() {
    let mut rig = Rig::pair(plan(Medium::Tcp));
    rig.wait_for_pair();
    rig.arbiter().kill();
    for node in [0, 1] {
        // Not even for a moment the other answer.
        wait_for_but(&rig, node, "no-mediator", Some("may-stop"));
    }
    rig.arbiter().start();
    wait_for(&rig, 0, "may-stop");
    wait_for(&rig, 1, "may-stop");
    let unknown = rig.ask(0, &["can-stop", "other"]);
    assert_eq!(unknown.status.code(), Some(4), "{unknown:?}");
}

#[test]
fn without_a_mediator_the_operator_is_needed() {
    let mut rig = Rig::pair(Plan::new(Medium::Tcp));
    let serving = rig.wait_for_pair();
    assert_eq!([code(&rig, 0), code(&rig, 1)], ["needs-operator", "needs-operator"]);
    let refused = rig.ask(serving, &["switch"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    // By his word one goes on; then the other is not needed.
    rig.kill(1 - serving);
    rig.told(serving, &["alone", "vm"]);
    assert_eq!(code(&rig, serving), "alone");
}

/// A node that was away for long is brought up to date, slowly: until then the other must stay.
#[test]
fn the_source_of_a_resync_must_stay_and_tells_how_far_it_is() {
    let mut rig = Rig::pair(Plan { ring_mib: 4, volume_mib: 96, ..plan(Medium::Tcp) });
    let serving = rig.wait_for_pair();
    rig.kill(1 - serving);
    rig.wait(serving, "alone", is_alone);
    let mut client = served(&rig, serving);
    let piece = vec![7; 1 << 20];
    for mib in 0..96_u64 {
        assert_eq!(client.write(mib << 20, &piece), 0);
    }
    assert_eq!(client.flush(), 0);
    rig.start(1 - serving);
    let (began, mut has_told) = (Instant::now(), false);
    loop {
        let found = report(&rig, serving);
        let dataset = &found.datasets[0];
        if dataset.reason.code == "resyncing" {
            let resync = dataset.resync.unwrap_or_else(|| panic!("{found:?}"));
            has_told |= resync.left_bytes > 0 && dataset.reason.text.contains("in sync");
            assert!(!found.can_stop, "{found:?}");
        } else if found.can_stop {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{found:?}\n{}", rig.logs());
    }
    assert!(has_told, "it was never seen on the way\n{}", rig.logs());
    let status = rig.status(serving).unwrap();
    assert_eq!(status.replication_state, ReplicationState::Established);
}
