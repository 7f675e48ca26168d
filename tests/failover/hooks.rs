//! Commands that nodes run when they begin to serve, and when they cease to.

use std::time::{Duration, Instant};

use mirrorbus::serve::admin::HookState;
use rustix::process::Signal;

use crate::client::content;
use crate::rig::{Medium, NAMES, Plan, Rig};
use crate::{assert_whole, is_alone, plan, served, switch, usual, wait_until};

/// Each appends a line to a file of its node's.
const TELLING: &str = r#"
    on-promote = ["/bin/sh", "-c", "echo promote $MIRRORBUS_DATASET $MIRRORBUS_NODE $MIRRORBUS_REASON >> SCRATCH/$MIRRORBUS_NODE.told"]
    on-demote = ["/bin/sh", "-c", "echo demote $MIRRORBUS_DATASET $MIRRORBUS_NODE $MIRRORBUS_REASON >> SCRATCH/$MIRRORBUS_NODE.told"]
"#;

fn told(rig: &Rig, node: usize) -> Vec<String> {
    let told = std::fs::read_to_string(rig.path(NAMES[node]).with_extension("told")).unwrap_or_default();
    told.lines().map(ToOwned::to_owned).collect()
}

/// Waits until the last that a node told is this, after so many lines.
fn wait_for(rig: &Rig, node: usize, lines: usize, wanted: &str) {
    let last = format!("{wanted}\n").replace("NODE", NAMES[node]);
    wait_until(rig, &format!("{} tells {wanted}, after {:?}", NAMES[node], told(rig, node)), || {
        let told = told(rig, node);
        told.len() == lines + 1 && told[lines] == last.trim_end()
    });
}

#[test]
fn a_node_tells_that_it_serves_and_that_it_does_not() {
    let mut rig = Rig::pair(Plan { lines: TELLING.into(), ..plan(Medium::Tcp) });
    let killed = rig.wait_for_pair();
    let other = 1 - killed;
    wait_for(&rig, killed, 1, "promote vm NODE alone");
    assert_eq!(told(&rig, killed)[0], format!("demote vm {} start", NAMES[killed]));
    assert_eq!(told(&rig, other), [format!("demote vm {} start", NAMES[other])]);

    rig.kill(killed);
    rig.wait(other, "alone", is_alone);
    wait_until(&rig, "the other one was promoted", || {
        told(&rig, other).get(1).is_some_and(|line| line.starts_with("promote vm "))
    });
    let status = rig.wait(other, "done with it", |status| {
        status.hook.as_ref().is_some_and(|hook| hook.state == HookState::Done)
    });
    assert_eq!((status.counters.hook_runs, status.counters.hook_failures), (2, 0), "{status:?}");
    // It did not tell anything when it was killed. It does when it is back.
    assert_eq!(told(&rig, killed).len(), 2);
    rig.start(killed);
    wait_for(&rig, killed, 2, "demote vm NODE start");
    assert_eq!(assert_whole(&rig), other);

    switch(&rig, other);
    wait_until(&rig, "both tell of the switch", || {
        told(&rig, other).len() == 3 && told(&rig, killed).len() == 4
    });
    assert!(told(&rig, other)[2].starts_with("demote vm "), "{:?}", told(&rig, other));
    assert!(told(&rig, killed)[3].starts_with("promote vm "), "{:?}", told(&rig, killed));

    assert_eq!(assert_whole(&rig), killed);
    assert!(rig.stop(killed).success());
    assert_eq!(told(&rig, killed).len(), 5, "it has run when the node has ended");
    wait_for(&rig, killed, 4, "demote vm NODE stop");
}

#[test]
fn a_command_that_fails_or_hangs_stops_nothing() {
    // No other process has such an argument.
    let marker = format!("1000.{}", std::process::id());
    let lines = format!(
        r#"
        on-promote = ["/bin/sh", "-c", "echo so it begins; sleep {marker} & sleep {marker}"]
        on-demote = ["/bin/sh", "-c", "echo cannot >&2; exit 3"]
        hook-seconds = 15
        "#
    );
    let mut rig = Rig::pair(Plan { lines, ..plan(Medium::Tcp) });
    let serving = rig.wait_for_pair();
    let mut client = served(&rig, serving);
    let runs = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        lines.filter(|line| line.split(|byte| *byte == 0).any(|word| word == marker.as_bytes())).count()
    };
    let mut number = 0;
    let hangs = |rig: &Rig, node: usize, wanted: HookState| {
        rig.wait(node, "at its command", |status| {
            status.hook.as_ref().is_some_and(|hook| hook.on == "promote" && hook.state == wanted)
        })
    };
    for state in [HookState::Running, HookState::TimedOut] {
        hangs(&rig, serving, state);
        number += 1;
        assert_eq!(client.write(0, &content(0, number)), 0, "it is served meanwhile");
    }
    let status = rig.status(serving).unwrap();
    assert_eq!((status.counters.hook_runs, status.counters.hook_failures), (2, 2), "{status:?}");
    assert_eq!(runs(), 0, "what it started is killed with it");
    let log = std::fs::read_to_string(rig.path(NAMES[serving]).with_extension("log")).unwrap();
    for words in ["on-promote: so it begins", "on-demote: cannot", "exit status: 3", "killed after 15s"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    // Nor does a switch wait for one.
    switch(&rig, serving);
    assert_eq!(served(&rig, 1 - serving).read(0, 4096), Ok(content(0, number).to_vec()));
    hangs(&rig, 1 - serving, HookState::Running);
    std::thread::sleep(Duration::from_millis(10));
    assert!(rig.stop(1 - serving).success());
}

#[test]
fn a_command_that_takes_its_time_keeps_nobody_from_taking_over() {
    let lines = "on-demote = [\"/bin/sleep\", \"20\"]\nhook-seconds = 30".to_owned();
    let rig = Rig::pair(Plan { lines, ..usual(Medium::Tcp) });
    let serving = rig.wait_for_pair();
    assert_eq!(served(&rig, serving).write(0, &content(0, 1)), 0);
    let began = Instant::now();
    rig.signal(serving, Signal::TERM);
    assert_eq!(served(&rig, 1 - serving).read(0, 4096), Ok(content(0, 1).to_vec()));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "it waited for a command: {took:?}\n{}", rig.logs());
}

#[test]
fn the_sample_that_moves_an_address_is_a_script() {
    let sample = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/address.sh");
    let sh =
        |arguments: &[&str]| std::process::Command::new("sh").args(arguments).arg(&sample).output().unwrap();
    let checked = sh(&["-n"]);
    assert!(checked.status.success(), "{checked:?}");
    let usage = sh(&[]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
}
