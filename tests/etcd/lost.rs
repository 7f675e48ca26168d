//! etcd that was restarted, emptied, or started from an old copy.

use std::process::Command;
use std::time::{Duration, Instant};

use mirrorbus::cluster::{ArbiterClient, Verdict};

use crate::{AT_ONCE, PATIENCE, Rig, change, client_of, configuration, refusal, take};

fn copy(from: &std::path::Path, to: &std::path::Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn what_was_taken_is_there_after_a_kill() {
    let mut rig = Rig::started();
    for expected in 0..2 {
        assert_eq!(take(&mut rig.client("alpha"), &change(expected, "alpha")), Verdict::Taken);
        rig.etcd.kill();
        rig.etcd.start();
        assert_eq!(rig.id(), expected + 1);
        assert_eq!(take(&mut rig.client("alpha"), &change(expected, "alpha")), Verdict::Taken, "the same");
    }
}

#[test]
fn after_a_start_only_the_primary_changes_anything_for_a_while() {
    let mut rig = Rig::started();
    let refresh = Duration::from_millis(200);
    let [mut alpha, mut beta] = ["alpha", "beta"].map(|node| client_of(&[rig.etcd.url()], node, refresh));
    assert_eq!(take(&mut alpha, &change(0, "alpha")), Verdict::Taken);
    beta.read(0, PATIENCE).unwrap();
    std::thread::sleep(3 * refresh);
    assert_eq!(take(&mut beta, &change(1, "beta")), Verdict::Taken, "it was known for long enough");
    rig.etcd.kill();
    rig.etcd.start();
    let begun = Instant::now();
    let (code, text) = refusal(alpha.compare_and_set(&change(2, "alpha"), PATIENCE));
    assert!(code == "starting" && text.contains("etcd has just started"), "{code}: {text}");
    assert_eq!(take(&mut beta, &change(2, "beta")), Verdict::Taken);
    while let Err(error) = alpha.compare_and_set(&change(3, "alpha"), PATIENCE) {
        assert_eq!(refusal::<()>(Err(error)).0, "starting");
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() >= 3 * refresh, "{:?}", begun.elapsed());
    assert_eq!(rig.id(), 4);
}

#[test]
fn one_that_forgot_refuses_until_the_operator_says_what_it_has() {
    let mut rig = Rig::started();
    let old = rig.scratch.path("old");
    let mut alpha = rig.client("alpha");
    for expected in 0..3 {
        assert_eq!(take(&mut alpha, &change(expected, "alpha")), Verdict::Taken);
        if expected == 0 {
            rig.etcd.kill();
            copy(rig.etcd.directory(), &old);
            rig.etcd.start();
        }
    }
    for restored in [false, true] {
        rig.etcd.kill();
        rig.etcd.forget();
        if restored {
            copy(&old, rig.etcd.directory());
        }
        rig.etcd.start();
        assert_eq!(rig.id(), u64::from(restored));
        let (code, text) = refusal(rig.client("alpha").read(3, PATIENCE));
        assert_eq!(code, "mediator-behind");
        assert!(text.starts_with("etcd has lost its state"), "{text}");
        assert!(text.contains("knows of 3") && text.contains("mirrorbus seed"), "{text}");
        // Of nobody, not even after a restart.
        if restored {
            rig.etcd.kill();
            rig.etcd.start();
        }
        for (node, expected) in [("alpha", 3), ("beta", 1), ("beta", 0)] {
            let (code, text) = refusal(rig.client(node).compare_and_set(&change(expected, node), PATIENCE));
            assert!(code == "locked" && text.contains("mirrorbus seed"), "{code}: {text}");
        }
        let mut alpha = rig.client("alpha");
        alpha.seed(&configuration(3, "alpha"), PATIENCE).unwrap();
        alpha.seed(&configuration(3, "alpha"), PATIENCE).unwrap();
        assert_eq!(refusal(alpha.seed(&configuration(9, "alpha"), PATIENCE)).0, "not-locked");
        let mut beta = client_of(&[rig.etcd.url()], "beta", AT_ONCE);
        assert_eq!(take(&mut beta, &change(3, "beta")), Verdict::Taken);
        assert_eq!(rig.id(), 4);
    }
}
