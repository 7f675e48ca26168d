//! Seeds that are tried, and defects that are found.

#![cfg(test)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::aims::Aim;
use super::faults::Fault;
use super::rules::Defect;
use super::run::{FAULTS, OPERATIONS, Outcome, run};

/// Seeds that are tried unless told otherwise, and for how long at most.
const SEEDS: u64 = 300;
const SECONDS: u64 = 150;
/// Defects that are found within so many seeds are looked for in each run; the others with `MIRRORBUS_FULL=1`.
const SEEDS_QUICK: u64 = 50;
/// And those of an order of events that is rare in so many, when one asks for them.
const SEEDS_RARE: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs seeds on all processors until `enough` says so.
fn each(
    seeds: std::ops::Range<u64>,
    enough: &(dyn Fn() -> bool + Sync),
    take: &(dyn Fn(u64, Outcome) + Sync),
) {
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while !enough() {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        return;
                    }
                    take(seed, run(seed, None, false));
                }
            });
        }
    });
}

#[test]
fn a_seed_is_a_run() {
    let (one, other) = (run(1, None, true), run(1, None, true));
    for (number, (one, other)) in one.trace.iter().zip(&other.trace).enumerate() {
        assert_eq!(one, other, "line {number}");
    }
    assert_eq!(one, other);
}

#[test]
fn what_clients_are_told_is_what_one_copy_would_have_told() {
    if let Some(seed) = number("MIRRORBUS_SEED") {
        let outcome = run(seed, None, true);
        for line in &outcome.trace {
            println!("{line}");
        }
        assert!(outcome.failures.is_empty(), "seed {seed}: {:#?}", outcome.failures);
        return;
    }
    let (began, limit) = (Instant::now(), number("MIRRORBUS_SECONDS").unwrap_or(SECONDS));
    let failed = Mutex::new(Vec::new());
    let totals = Mutex::new((
        BTreeMap::<Fault, u64>::new(),
        0_u64,
        0_u64,
        0_u64,
        Duration::ZERO,
        0_u64,
        (0_u64, 0_u64),
    ));
    let aims = Mutex::new(BTreeMap::<Aim, u64>::new());
    let enough = || !failed.lock().unwrap().is_empty() || began.elapsed() >= Duration::from_secs(limit);
    let from = number("MIRRORBUS_FROM").unwrap_or(1);
    each(from..from + number("MIRRORBUS_SEEDS").unwrap_or(SEEDS), &enough, &|seed, outcome| {
        let mut totals = totals.lock().unwrap();
        totals.1 += 1;
        totals.2 += outcome.operations;
        totals.3 += outcome.unknown;
        totals.4 += outcome.time;
        totals.5 += outcome.turns;
        totals.6 = totals.6.max((outcome.turns, seed));
        let mut aims = aims.lock().unwrap();
        outcome.aims.iter().for_each(|(aim, count)| *aims.entry(*aim).or_default() += count);
        outcome.faults.iter().for_each(|(fault, count)| *totals.0.entry(*fault).or_default() += count);
        if outcome.failures.is_empty() {
            assert!(outcome.faults.values().sum::<u64>() >= FAULTS && outcome.operations >= OPERATIONS);
        } else {
            failed.lock().unwrap().push((seed, outcome.failures));
        }
    });
    let (faults, seeds, operations, unknown, time, turns, (most, longest)) = totals.into_inner().unwrap();
    let aims = aims.into_inner().unwrap();
    println!(
        "{seeds} seeds, {operations} operations, {unknown} without an answer, {time:?} of virtual time, {turns} turns, of which {most} by seed {longest}, in {:?}: {faults:?}, \
         of which in moments that matter {aims:?}",
        began.elapsed()
    );
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}\nsay MIRRORBUS_SEED={} for what happened", failed[0].0);
    if seeds >= 50 {
        Aim::ALL.iter().for_each(|aim| assert!(aims.contains_key(aim), "{aim:?} never came"));
        Fault::ALL.iter().for_each(|fault| assert!(faults.contains_key(fault), "{fault:?} never came"));
    }
}

/// Whether the simulation tells that a rule is broken, within some seeds.
fn is_found(defect: Defect, seeds: u64) -> Option<(u64, String)> {
    (1..=seeds)
        .find_map(|seed| run(seed, Some(defect), false).failures.into_iter().next().map(|why| (seed, why)))
}

#[test]
fn each_defect_is_found() {
    let is_full = std::env::var_os("MIRRORBUS_FULL").is_some();
    let only = std::env::var("MIRRORBUS_DEFECT").ok();
    let rare = Defect::RARE
        .iter()
        .filter(|defect| only.as_ref().is_some_and(|only| only == "RARE" || format!("{defect:?}") == *only));
    let most = number("MIRRORBUS_SEEDS").unwrap_or(SEEDS_RARE);
    let wanted = Defect::ALL.iter().copied().filter(|(defect, seeds)| {
        only.as_ref().map_or(is_full || *seeds <= SEEDS_QUICK, |only| format!("{defect:?}") == *only)
    });
    let sought: Vec<_> = wanted.chain(rare.map(|defect| (*defect, most))).collect();
    let next = AtomicU64::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((defect, seeds)) =
                    sought.get(usize::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap())
                {
                    match is_found(*defect, *seeds) {
                        Some((seed, why)) => {
                            let why: String =
                                why.lines().next().unwrap_or_default().chars().take(140).collect();
                            println!("{defect:?}: seed {seed} of {seeds}: {why}");
                        }
                        None => missed.lock().unwrap().push((*defect, *seeds)),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
