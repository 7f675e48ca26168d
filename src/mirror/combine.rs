//! Many waiters, one poller: whoever finds nobody at it advances the lane for all, the others sleep.
//!
//! ```text
//!  wait ──▶ reached? ──yes──▶ return
//!             │ no
//!             ├─ nobody leads ──▶ lead: advance, publish ──▶ step down, wake all
//!             └─ somebody leads ─▶ follow: sleep until woken ──▶ look again
//! ```
//!
//! Invariant: while a thread follows, another leads, and every leader wakes all followers after it stepped down.
//! Both happen under one mutex, so a follower cannot fall asleep between a leader's last look and its wake-up.
//! loom explores every interleaving of this file (`loom_` tests).

use std::time::Duration;

use crate::base::sync::{Condvar, Mutex, MutexGuard};

/// What a waiting thread is to do now.
#[derive(Debug)]
pub(super) enum Role<'a> {
    /// Advance the lane; dropping the guard steps down and wakes the followers.
    Lead(Leadership<'a>),
    /// Something may have changed: look again.
    Look,
}

#[derive(Debug, Default)]
struct State {
    led: bool,
    followers: usize,
}

/// Elects the leader.
#[derive(Debug, Default)]
pub(super) struct Combiner {
    state: Mutex<State>,
    stepped_down: Condvar,
}

impl Combiner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Leads if nobody does, else sleeps until the leader steps down or `most` has passed.
    pub(super) fn join(&self, most: Duration) -> Role<'_> {
        let mut state = self.lock();
        if !state.led {
            state.led = true;
            return Role::Lead(Leadership { combiner: self });
        }
        state.followers += 1;
        let mut state = wait(&self.stepped_down, state, most);
        state.followers -= 1;
        Role::Look
    }
}

#[cfg(not(loom))]
pub(super) fn wait<'a, T>(condvar: &Condvar, state: MutexGuard<'a, T>, most: Duration) -> MutexGuard<'a, T> {
    condvar.wait_timeout(state, most).unwrap_or_else(std::sync::PoisonError::into_inner).0
}

/// loom has no time: a follower that nobody wakes is a deadlock, which loom reports.
#[cfg(loom)]
pub(super) fn wait<'a, T>(condvar: &Condvar, state: MutexGuard<'a, T>, _most: Duration) -> MutexGuard<'a, T> {
    condvar.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The right, and the duty, to advance the lane.
#[derive(Debug)]
pub(super) struct Leadership<'a> {
    combiner: &'a Combiner,
}

impl Drop for Leadership<'_> {
    fn drop(&mut self) {
        let mut state = self.combiner.lock();
        state.led = false;
        if state.followers > 0 {
            self.combiner.stepped_down.notify_all();
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::base::sync::{AtomicU64, Ordering};
    use loom::sync::Arc;
    use loom::thread;

    /// A lane in small: what was stored under the lock is acknowledged by whoever advances it.
    struct Model {
        lane: Mutex<u64>,
        acked: AtomicU64,
        combiner: Combiner,
    }

    impl Model {
        fn store(&self) -> u64 {
            let mut last = self.lane.lock().unwrap();
            *last += 1;
            *last
        }

        fn wait(&self, ticket: u64) {
            while self.acked.load(Ordering::Acquire) < ticket {
                if let Role::Lead(leadership) = self.combiner.join(Duration::ZERO) {
                    let last = self.lane.lock().unwrap();
                    self.acked.store(*last, Ordering::Release);
                    drop(last);
                    drop(leadership);
                }
            }
        }
    }

    #[test]
    fn loom_every_waiter_returns() {
        let mut bound = loom::model::Builder::new();
        bound.preemption_bound = Some(3);
        bound.check(|| {
            let model = Arc::new(Model {
                lane: Mutex::new(0),
                acked: AtomicU64::new(0),
                combiner: Combiner::default(),
            });
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let model = model.clone();
                    thread::spawn(move || model.wait(model.store()))
                })
                .collect();
            model.wait(model.store());
            for other in others {
                other.join().unwrap();
            }
            assert_eq!(model.acked.load(Ordering::Acquire), 3);
        });
    }
}
