//! What is taken and what is not.

use std::time::{Duration, Instant};

use mirrorbus::base::DatasetId;
use mirrorbus::cluster::{ArbiterClient, Request, Verdict};

use crate::{AT_ONCE, PATIENCE, Rig, ask_and_leave, change, configuration, refusal, take};

#[test]
fn who_comes_first_is_taken_and_the_other_is_told_whom_to_follow() {
    let mut rig = Rig::started(AT_ONCE);
    let (mut alpha, mut beta) = (rig.client("alpha"), rig.client("beta"));
    assert_eq!(alpha.read(0, PATIENCE).unwrap(), None);
    assert_eq!(take(&mut alpha, &change(0, "alpha")), Verdict::Taken);
    assert_eq!(take(&mut beta, &change(0, "beta")), Verdict::Changed(Some(configuration(1, "alpha"))));
    assert_eq!(beta.read(0, PATIENCE).unwrap(), Some(configuration(1, "alpha")));
    std::thread::sleep(Duration::from_millis(40));
    assert_eq!(take(&mut beta, &change(1, "beta")), Verdict::Taken);
    assert_eq!(take(&mut alpha, &change(1, "alpha")), Verdict::Changed(Some(configuration(2, "beta"))));
    // Another dataset knows nothing of it.
    let mut other = rig.client_of(DatasetId::from_bytes([1; 16]), "alpha");
    assert_eq!(other.read(0, PATIENCE).unwrap(), None);
    let (code, _) = refusal(alpha.compare_and_set(&change(2, "beta"), PATIENCE));
    assert_eq!(code, "not-yours");
    rig.stop();
}

#[test]
fn many_race_and_one_wins_each_round() {
    let rig = Rig::started(AT_ONCE);
    std::thread::sleep(Duration::from_millis(40));
    for expected in 0..10 {
        let taken: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = ["alpha", "beta"]
                .into_iter()
                .cycle()
                .take(8)
                .zip(0..)
                .map(|(node, number)| {
                    let (mut client, mut again) = (rig.client(node), rig.client(node));
                    let request = Request { nonce: number, ..change(expected, node) };
                    scope.spawn(move || {
                        let is_taken = take(&mut client, &request) == Verdict::Taken;
                        // The verdict is for good.
                        assert_eq!(take(&mut again, &request) == Verdict::Taken, is_taken);
                        usize::from(is_taken)
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(taken, 1, "round {expected}");
    }
}

#[test]
fn a_request_whose_answer_was_lost_is_taken_once() {
    let rig = Rig::started(AT_ONCE);
    let first = change(0, "alpha");
    ask_and_leave(&rig, &first);
    let until = Instant::now() + PATIENCE;
    while rig.id() == 0 {
        assert!(Instant::now() < until, "what was asked was not carried out");
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut alpha = rig.client("alpha");
    assert_eq!(take(&mut alpha, &first), Verdict::Taken);
    assert_eq!(take(&mut alpha, &change(1, "alpha")), Verdict::Taken);
    assert_eq!(take(&mut alpha, &first), Verdict::Changed(Some(configuration(2, "alpha"))));
}

#[test]
fn after_a_start_only_the_primary_changes_anything_for_a_while() {
    let mut rig = Rig::started(AT_ONCE);
    assert_eq!(take(&mut rig.client("alpha"), &change(0, "alpha")), Verdict::Taken);
    rig.kill();
    let begun = Instant::now();
    rig.start("2s");
    let (mut alpha, mut beta) = (rig.client("alpha"), rig.client("beta"));
    let (code, text) = refusal(beta.compare_and_set(&change(1, "beta"), PATIENCE));
    assert_eq!(code, "starting", "{text}");
    assert_eq!(take(&mut alpha, &change(1, "alpha")), Verdict::Taken);
    let request = change(2, "beta");
    while let Err(error) = beta.compare_and_set(&request, PATIENCE) {
        assert_eq!(refusal::<()>(Err(error)).0, "starting");
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() >= Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(rig.id(), 3);
}

#[test]
fn one_that_forgot_refuses_until_the_operator_says_what_it_has() {
    let mut rig = Rig::started(AT_ONCE);
    let old = rig.scratch.path("old");
    let dataset_file = format!("{}.register", crate::DATASET);
    let mut alpha = rig.client("alpha");
    for expected in 0..3 {
        assert_eq!(take(&mut alpha, &change(expected, "alpha")), Verdict::Taken);
        if expected == 0 {
            std::fs::copy(rig.directory().join(&dataset_file), &old).unwrap();
        }
    }
    for restored in [false, true] {
        rig.kill();
        std::fs::remove_dir_all(rig.directory()).unwrap();
        if restored {
            rig.start(AT_ONCE);
            rig.stop();
            std::fs::copy(&old, rig.directory().join(&dataset_file)).unwrap();
        }
        rig.start(AT_ONCE);
        std::thread::sleep(Duration::from_millis(40));
        let (code, text) = refusal(rig.client("alpha").read(3, PATIENCE));
        assert_eq!(code, "mediator-behind");
        assert!(text.contains("knows of 3") && text.contains("mirrorbus seed"), "{text}");
        // Of nobody, not even after a restart.
        rig.kill();
        rig.start(AT_ONCE);
        std::thread::sleep(Duration::from_millis(40));
        for (node, expected) in [("alpha", 3), ("beta", 1), ("beta", 0)] {
            let (code, text) = refusal(rig.client(node).compare_and_set(&change(expected, node), PATIENCE));
            assert!(code == "locked" && text.contains("mirrorbus seed"), "{code}: {text}");
        }
        let mut alpha = rig.client("alpha");
        alpha.seed(&configuration(3, "alpha"), PATIENCE).unwrap();
        alpha.seed(&configuration(3, "alpha"), PATIENCE).unwrap();
        assert_eq!(refusal(alpha.seed(&configuration(9, "alpha"), PATIENCE)).0, "not-locked");
        assert_eq!(take(&mut rig.client("beta"), &change(3, "beta")), Verdict::Taken);
        assert_eq!(rig.id(), 4);
    }
}
