//! How long clients waited for a commit when the pair was last whole: what they are used to, which a resync is not to double.
//!
//! Measured are a few commits of the many, those of the last ten to twenty seconds in which there were any.

use std::time::Duration;

use crate::base::clock::Instant;
use crate::base::locks::Mutex;
use crate::replica::{Counts, Latencies};

/// One commit of so many (a power of two) is measured: to look at the clock twice takes longer than the rest of a commit that need not wait.
const ONE_OF: u64 = 8;
/// What is older than one or two of these does not count.
const TURN_TIME: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Usual {
    latencies: Latencies,
    turns: Mutex<Turns>,
}

#[derive(Debug)]
struct Turns {
    /// All that was recorded when the turn before this one began, and when this one did.
    before: Counts,
    last: Counts,
    since: Instant,
}

impl Usual {
    pub(super) fn new() -> Self {
        let turns = Turns { before: Counts::default(), last: Counts::default(), since: Instant::now() };
        Self { latencies: Latencies::default(), turns: Mutex::new(turns) }
    }

    /// Whether the commit of this mark is one of those that are measured.
    pub(super) const fn measures(mark: u64) -> bool {
        // Positions of equal writes differ in a few bits only: all of them have a say.
        mark.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - ONE_OF.ilog2()) == 0
    }

    pub(super) fn record(&self, latency: Duration) {
        self.latencies.record(latency);
    }

    /// To be called now and then. Time without commits does not count.
    pub(super) fn turn(&self) {
        let mut turns = self.turns.lock();
        if turns.since.elapsed() < TURN_TIME {
            return;
        }
        let now = self.latencies.counts();
        if now != turns.last {
            let last = std::mem::replace(&mut turns.last, now);
            turns.before = last;
        }
        turns.since = Instant::now();
    }

    /// What 99 of 100 did not exceed; `None` as long as nothing is known.
    pub(super) fn p99(&self) -> Option<Duration> {
        self.latencies.counts().since(&self.turns.lock().before).p99()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_commit_of_eight_is_measured_whatever_their_size() {
        for bytes in [512, 4096, 4160, 32 << 10, 1 << 20] {
            let measured = (0..8000_u64).filter(|number| Usual::measures(number * bytes)).count();
            assert!((800..1200).contains(&measured), "{measured} of 8000 that are {bytes} bytes apart");
        }
    }

    #[test]
    fn what_is_long_ago_does_not_count_but_when_nothing_came_since() {
        let usual = Usual::new();
        let is_over = || usual.turns.lock().since = Instant::now() - TURN_TIME;
        assert_eq!(usual.p99(), None);
        usual.record(Duration::from_millis(80));
        for _ in 0..3 {
            is_over();
            usual.turn();
        }
        assert!(usual.p99() >= Some(Duration::from_millis(75)), "nothing came since: {:?}", usual.p99());
        for _ in 0..2 {
            usual.record(Duration::from_micros(100));
            is_over();
            usual.turn();
        }
        assert!(usual.p99() <= Some(Duration::from_micros(107)), "{:?}", usual.p99());
    }
}
