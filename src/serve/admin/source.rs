//! Takes statuses on a thread of its own, so that a status that hangs holds up nobody for longer than is promised.
//!
//! ```text
//!  get ─▶ asked + 1 ──▶ thread: begun = asked, status, done = begun ──▶ get: done reached what I asked
//!    └──────────── not in time: the last one, with its age ────────────▶
//! ```
//!
//! What is given was begun after it was asked for, or says how old it is. Those who ask while one is taken share the next.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{AdminError, ErrorCode, NodeStatus, STATUS_TIME_MAX, Subject};

/// How long a status is waited for: what is left of the promise is for the way to whoever asked.
const WAIT_MAX: Duration = Duration::from_millis(700);

/// Where statuses come from.
pub struct StatusSource {
    desk: Arc<Desk>,
}

#[derive(Debug, Default)]
struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: u64,
    done: u64,
    last: Option<(Instant, NodeStatus)>,
    ending: bool,
    ended: bool,
}

impl StatusSource {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread left.
    pub fn start(subject: Arc<dyn Subject>) -> std::io::Result<Arc<Self>> {
        const { assert!(WAIT_MAX.as_millis() < STATUS_TIME_MAX.as_millis()) };
        let desk = Arc::new(Desk::default());
        let taker = desk.clone();
        std::thread::Builder::new().name("mirrorbus-status".into()).spawn(move || {
            let _end = End(&taker);
            taker.run(subject.as_ref());
        })?;
        Ok(Arc::new(Self { desk }))
    }

    /// How the node is now; or how it was, with the age, when that cannot be told in time.
    ///
    /// # Errors
    /// [`ErrorCode::TimedOut`] when it could never be told.
    pub fn get(&self) -> Result<NodeStatus, AdminError> {
        let begun = Instant::now();
        let mut state = self.desk.lock();
        state.asked += 1;
        let asked = state.asked;
        self.desk.changed.notify_all();
        let waits = |state: &mut State| state.done < asked && !state.ended;
        let waited = self.desk.changed.wait_timeout_while(state, WAIT_MAX, waits);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        match &state.last {
            Some((taken, status)) => {
                let mut status = status.clone();
                let age = if state.done < asked { taken.elapsed() } else { Duration::ZERO };
                status.age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                Ok(status)
            }
            None => {
                let text = format!(
                    "the node has not told its status in {} ms, nor ever before: it hangs at its start; look at its log",
                    begun.elapsed().as_millis()
                );
                Err(AdminError::new(ErrorCode::TimedOut, text))
            }
        }
    }
}

impl fmt::Debug for StatusSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusSource").finish_non_exhaustive()
    }
}

impl Drop for StatusSource {
    /// Ends the thread. One that hangs is left to itself.
    fn drop(&mut self) {
        let mut state = self.desk.lock();
        state.ending = true;
        self.desk.changed.notify_all();
        let waited = self.desk.changed.wait_timeout_while(state, WAIT_MAX, |state| !state.ended);
        drop(waited);
    }
}

/// Says that the thread is gone, even when the status panicked.
struct End<'a>(&'a Desk);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl Desk {
    fn run(&self, subject: &dyn Subject) {
        loop {
            let waits = |state: &mut State| state.asked == state.done && !state.ending;
            let waited = self.changed.wait_while(self.lock(), waits);
            let state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.ending {
                return;
            }
            let (begun, taken) = (state.asked, Instant::now());
            drop(state);
            let status = subject.status();
            let mut state = self.lock();
            state.done = begun;
            state.last = Some((taken, status));
            drop(state);
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::admin::testing::TestSubject;

    /// One that came in time: on a machine that does much else the one before may be told, or none.
    fn fresh(source: &StatusSource) -> NodeStatus {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match source.get() {
                Ok(status) if status.age_ms == 0 => return status,
                other => assert!(Instant::now() < until, "{other:?}"),
            }
        }
    }

    #[test]
    fn a_status_is_begun_after_it_was_asked_for() {
        let subject = Arc::new(TestSubject::default());
        let source = StatusSource::start(subject.clone()).unwrap();
        for uptime_ms in 1..20 {
            subject.change(|status| status.uptime_ms = uptime_ms);
            assert_eq!(fresh(&source).uptime_ms, uptime_ms);
        }
    }

    #[test]
    fn one_that_hangs_is_answered_by_the_last() {
        let subject = Arc::new(TestSubject::default());
        let source = StatusSource::start(subject.clone()).unwrap();
        let held = subject.hang();
        let begun = Instant::now();
        assert_eq!(source.get().unwrap_err().code, ErrorCode::TimedOut);
        assert!(begun.elapsed() < STATUS_TIME_MAX * 5);
        drop(held);
        fresh(&source);
        let held = subject.hang();
        let status = source.get().unwrap();
        assert!(status.age_ms >= 600, "{}", status.age_ms);
        assert_eq!(status.name, "alpha");
        // The end does not wait for it.
        drop(source);
        drop(held);
    }

    #[test]
    fn the_end_is_waited_for() {
        let subject = Arc::new(TestSubject::default());
        let source = StatusSource::start(subject.clone()).unwrap();
        fresh(&source);
        drop(source);
        // The thread has dropped its own, or is about to.
        let until = Instant::now() + Duration::from_secs(20);
        while Arc::strong_count(&subject) > 1 {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
    }
}
