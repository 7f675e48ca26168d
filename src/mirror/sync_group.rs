//! Many who wait for the peer's disk, one sync at a time.
//!
//! ```text
//!  all that I wait for is visible ──▶ the sync that I need is the next one to begin: a number
//!     ├─ it, or a later one, succeeded ──▶ done
//!     ├─ none is under way ──▶ ask: begin the next, say how it ended ──▶ wake all
//!     └─ one is under way ──▶ sleep until it ends ──▶ look again
//! ```
//!
//! A sync covers what was visible when it began. One that is under way when somebody comes may have begun too early for
//! him, so he needs the one after it; all who came meanwhile share that. Whoever asks gives up at his own deadline, and
//! another asks then. loom explores every interleaving of this file (`loom_` tests).

use std::time::Duration;

use super::combine::wait;
use crate::base::sync::{Condvar, Mutex, MutexGuard};

/// What a thread that needs a sync is to do now.
#[derive(Debug)]
pub(super) enum Turn<'a> {
    /// Begin a sync now, and say when it succeeded.
    Ask(Asking<'a>),
    /// One that began late enough has succeeded.
    Done,
    /// Something may have changed: look again.
    Look,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    followers: usize,
    /// Syncs ever begun; the number of the last.
    begun: u64,
    /// The last that succeeded. Only one runs at a time, so none before it is under way.
    succeeded: u64,
}

/// Shares syncs among threads.
#[derive(Debug, Default)]
pub(super) struct SyncGroup {
    state: Mutex<State>,
    ended: Condvar,
}

impl SyncGroup {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The first sync that covers all that is visible by now.
    pub(super) fn next(&self) -> u64 {
        self.lock().begun + 1
    }

    /// Towards the end of sync `number`; sleeps while one is under way, `most` at most.
    pub(super) fn join(&self, number: u64, most: Duration) -> Turn<'_> {
        let mut state = self.lock();
        if state.succeeded >= number {
            return Turn::Done;
        }
        if !state.running {
            state.running = true;
            state.begun += 1;
            return Turn::Ask(Asking { group: self, number: state.begun });
        }
        state.followers += 1;
        wait(&self.ended, state, most).followers -= 1;
        Turn::Look
    }

    /// Threads that sleep until a sync ends.
    #[cfg(all(test, not(loom), not(miri)))]
    pub(super) fn followers(&self) -> usize {
        self.lock().followers
    }
}

/// The right to make a sync; dropped without a word it failed.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    group: &'a SyncGroup,
    number: u64,
}

impl Asking<'_> {
    /// What was visible when it began is on the peer's disk.
    pub(super) fn succeeded(self) {
        self.group.lock().succeeded = self.number;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        state.running = false;
        if state.followers > 0 {
            self.group.ended.notify_all();
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::base::sync::{AtomicU64, Ordering};
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Default)]
    struct Model {
        visible: AtomicU64,
        disk: AtomicU64,
        group: SyncGroup,
    }

    impl Model {
        /// Stores, and waits until that is on the disk; a sync takes to the disk what was visible when it began.
        fn store_durably(&self, fails: bool) {
            let mine = self.visible.fetch_add(1, Ordering::SeqCst) + 1;
            let number = self.group.next();
            loop {
                match self.group.join(number, Duration::ZERO) {
                    Turn::Done => break,
                    Turn::Look => {}
                    Turn::Ask(asking) => {
                        let visible = self.visible.load(Ordering::SeqCst);
                        if fails {
                            return;
                        }
                        self.disk.fetch_max(visible, Ordering::SeqCst);
                        asking.succeeded();
                    }
                }
            }
            assert!(self.disk.load(Ordering::SeqCst) >= mine, "store {mine} is not on the disk");
        }
    }

    fn explore(fails: bool) {
        let mut bound = loom::model::Builder::new();
        bound.preemption_bound = Some(3);
        bound.check(move || {
            let model = Arc::new(Model::default());
            let others: Vec<_> = (0..2)
                .map(|number| {
                    let model = model.clone();
                    thread::spawn(move || model.store_durably(fails && number == 0))
                })
                .collect();
            model.store_durably(false);
            for other in others {
                other.join().unwrap();
            }
        });
    }

    #[test]
    fn loom_a_shared_sync_covers_all_who_share_it() {
        explore(false);
    }

    #[test]
    fn loom_a_sync_that_fails_leaves_the_others_a_turn() {
        explore(true);
    }
}
