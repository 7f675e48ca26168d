//! A bound on a wait.
//!
//! Reading the clock costs as much as mirroring a small store through shared memory, so a deadline given as a
//! duration starts to run only when a wait finds that it really has to wait.

use std::time::{Duration, Instant};

/// Stands for "for ever" where a duration is longer than the clock can tell: a hundred years.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// When a wait gives up. Every wait of this library takes one.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    within: Duration,
    at: Option<Instant>,
}

impl Deadline {
    /// The wait ends at `instant`.
    #[inline]
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self { within: Duration::ZERO, at: Some(instant) }
    }

    /// The wait ends `within` after the moment at which it first finds nothing to return.
    #[inline]
    #[must_use]
    pub const fn within(within: Duration) -> Self {
        Self { within, at: None }
    }

    /// What it is made of: pieces that travel in registers, past a call that is rarely made.
    #[inline]
    pub(crate) const fn into_parts(self) -> (Duration, Option<Instant>) {
        (self.within, self.at)
    }

    /// Of what [`into_parts`](Self::into_parts) gave.
    pub(crate) const fn from_parts(within: Duration, at: Option<Instant>) -> Self {
        Self { within, at }
    }

    /// The instant at which the wait ends; starts the clock if it does not run yet.
    pub fn instant(&mut self) -> Instant {
        let within = self.within;
        *self.at.get_or_insert_with(|| {
            let now = super::clock::now();
            now.checked_add(within).unwrap_or_else(|| now + FOR_EVER)
        })
    }

    /// Time left, or `None` when there is none. Starts the clock if it does not run yet.
    pub fn remaining(&mut self) -> Option<Duration> {
        let end = self.instant();
        end.checked_duration_since(super::clock::now()).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_from_the_first_look() {
        let mut deadline = Deadline::within(Duration::from_secs(60));
        let first = deadline.instant();
        assert_eq!(first, deadline.instant());
        assert!(deadline.remaining().is_some());
        assert!(Deadline::at(Instant::now()).remaining().is_none());
    }

    #[test]
    fn longer_than_the_clock_can_tell_is_a_wait_all_the_same() {
        let left = Deadline::within(Duration::MAX).remaining();
        assert!(left.is_some_and(|left| left > Duration::from_secs(365 * 24 * 60 * 60)), "{left:?}");
    }
}
