//! Threads that take turns, and how they end.

#![cfg(test)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::clock::Instant;
use crate::base::locks::{Condvar, Mutex};

const LONG: Duration = Duration::from_secs(1000);

/// What three threads that share a lock see, of one seed.
fn contend(seed: u64) -> (Vec<(u64, u64)>, u64) {
    begin(seed);
    interrupt(512);
    let process = process(Clock::default());
    let seen = Rc::new(RefCell::new(Vec::new()));
    let count = Arc::new((Mutex::new(0_u64), Condvar::new()));
    for number in 0..3 {
        let (seen, count) = (seen.clone(), count.clone());
        spawn_in(process, "test", move || {
            for _ in 0..20 {
                let mut held = count.0.lock();
                *held += 1;
                sleep(Duration::from_millis(1));
                seen.borrow_mut().push((number, *held));
                count.1.wait_for(&mut held, Duration::from_millis(2));
                count.1.notify_one();
            }
        });
    }
    run(LONG, &mut || false);
    assert!(failures().is_empty());
    let now = u64::try_from(time().as_nanos()).unwrap();
    end();
    (seen.take(), now)
}

#[test]
fn a_seed_is_an_order() {
    let (seen, _) = contend(1);
    assert_eq!(seen.len(), 60);
    assert!(seen.is_sorted_by_key(|(_, count)| *count), "one at a time has the lock");
    assert_eq!(contend(1), contend(1));
    assert_ne!(contend(1), contend(2));
}

#[test]
fn time_is_that_of_the_machine() {
    begin(1);
    let fast = process(Clock { offset: 5_000_000_000, ppm: 100_000 });
    let told = Rc::new(RefCell::new(Vec::new()));
    let tells = told.clone();
    spawn_in(fast, "test", move || {
        let (began, real) = (Instant::now(), time());
        sleep(Duration::from_secs(11));
        tells.borrow_mut().push((began.elapsed(), time() - real));
    });
    run(LONG, &mut || false);
    end();
    let (local, real) = told.borrow()[0];
    assert!((local.as_secs_f64() - 11.0).abs() < 0.001 && (real.as_secs_f64() - 10.0).abs() < 0.001);
}

#[test]
fn a_process_that_is_killed_gives_up_its_locks_and_one_that_is_paused_does_not() {
    begin(3);
    let (one, other) = (process(Clock::default()), process(Clock::default()));
    let lock = Arc::new(Mutex::new(0));
    let holds = lock.clone();
    spawn_in(one, "holds", move || {
        let mut held = holds.lock();
        sleep(Duration::from_secs(10));
        *held = 1;
    });
    run(Duration::from_secs(1), &mut || false);
    pause(one);
    let waits = lock.clone();
    let task = spawn_in(other, "waits", move || *waits.lock() += 2);
    run(Duration::from_secs(60), &mut || false);
    assert!(!is_done(task));
    kill(one, || ());
    run(Duration::from_secs(61), &mut || false);
    assert!(is_done(task) && failures().is_empty());
    end();
    assert_eq!(*lock.lock(), 2);
}
