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
//! him, so he needs the one after it; all who came meanwhile share that. Whoever asks gives up at his own deadline. What
//! he began goes on at the peer, so it stays here: the next goes on waiting for it before another is begun. loom explores
//! every interleaving of this file (`loom_` tests).

use std::time::Duration;

use super::combine::wait;
use crate::base::sync::{Condvar, Mutex, MutexGuard};

/// What a thread that needs a sync is to do now.
#[derive(Debug)]
pub(super) enum Turn<'a, T> {
    /// Go on with the sync that was given up, or begin one now; say when it succeeded.
    Ask(Asking<'a, T>),
    /// One that began late enough has succeeded.
    Done,
    /// Something may have changed: look again.
    Look,
}

#[derive(Debug)]
struct State<T> {
    running: bool,
    followers: usize,
    /// Syncs ever begun; the number of the last.
    begun: u64,
    /// The last that succeeded. Only one runs at a time, so none before it is under way.
    succeeded: u64,
    /// The last that was begun, when whoever began it gave up.
    given_up: Option<T>,
}

/// Shares syncs among threads; `T` is one under way.
#[derive(Debug)]
pub(super) struct SyncGroup<T> {
    state: Mutex<State<T>>,
    ended: Condvar,
}

impl<T> Default for SyncGroup<T> {
    fn default() -> Self {
        let state = State { running: false, followers: 0, begun: 0, succeeded: 0, given_up: None };
        Self { state: Mutex::new(state), ended: Condvar::default() }
    }
}

impl<T> SyncGroup<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The first sync that covers all that is visible by now.
    pub(super) fn next(&self) -> u64 {
        self.lock().begun + 1
    }

    /// Towards the end of sync `number`; sleeps while one is under way, `most` at most.
    pub(super) fn join(&self, number: u64, most: Duration) -> Turn<'_, T> {
        let mut state = self.lock();
        if state.succeeded >= number {
            return Turn::Done;
        }
        if !state.running {
            state.running = true;
            let given_up = state.given_up.take();
            state.begun += u64::from(given_up.is_none());
            return Turn::Ask(Asking { group: self, number: state.begun, given_up });
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
pub(super) struct Asking<'a, T> {
    group: &'a SyncGroup<T>,
    number: u64,
    given_up: Option<T>,
}

impl<T> Asking<'_, T> {
    /// The sync to go on with; without one, a new one is to be begun.
    pub(super) fn given_up(&mut self) -> Option<T> {
        self.given_up.take()
    }

    /// What was visible when it began is on the peer's disk. Its number.
    pub(super) fn succeeded(self) -> u64 {
        self.group.lock().succeeded = self.number;
        self.number
    }

    /// It goes on, and its end is for another to see.
    pub(super) fn give_up(self, sync: T) {
        self.group.lock().given_up = Some(sync);
    }
}

impl<T> Drop for Asking<'_, T> {
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

    /// How the first thread's syncs end.
    #[derive(Clone, Copy)]
    enum End {
        Succeeds,
        Fails,
        GivesUp,
    }

    #[derive(Default)]
    struct Model {
        visible: AtomicU64,
        disk: AtomicU64,
        group: SyncGroup<u64>,
    }

    impl Model {
        /// Stores, and waits until that is on the disk; a sync takes to the disk what was visible when it began.
        fn store_durably(&self, end: End) {
            let mine = self.visible.fetch_add(1, Ordering::SeqCst) + 1;
            let number = self.group.next();
            loop {
                match self.group.join(number, Duration::ZERO) {
                    Turn::Done => break,
                    Turn::Look => {}
                    Turn::Ask(mut asking) => {
                        let begin = || self.visible.load(Ordering::SeqCst);
                        let visible = asking.given_up().unwrap_or_else(begin);
                        match end {
                            End::Succeeds => {}
                            End::Fails => return,
                            End::GivesUp => return asking.give_up(visible),
                        }
                        self.disk.fetch_max(visible, Ordering::SeqCst);
                        asking.succeeded();
                    }
                }
            }
            assert!(self.disk.load(Ordering::SeqCst) >= mine, "store {mine} is not on the disk");
        }
    }

    fn explore(end: End) {
        let mut bound = loom::model::Builder::new();
        bound.preemption_bound = Some(3);
        bound.check(move || {
            let model = Arc::new(Model::default());
            let others: Vec<_> = (0..2)
                .map(|number| {
                    let model = model.clone();
                    thread::spawn(move || model.store_durably(if number == 0 { end } else { End::Succeeds }))
                })
                .collect();
            model.store_durably(End::Succeeds);
            for other in others {
                other.join().unwrap();
            }
        });
    }

    #[test]
    fn loom_a_shared_sync_covers_all_who_share_it() {
        explore(End::Succeeds);
    }

    #[test]
    fn loom_a_sync_that_fails_leaves_the_others_a_turn() {
        explore(End::Fails);
    }

    #[test]
    fn loom_a_sync_that_is_given_up_covers_what_was_visible_when_it_began() {
        explore(End::GivesUp);
    }
}
