//! Latencies of commits, counted by as many threads as like to, so that two moments' counts give a window's percentile.
//!
//! Sixteen buckets to each power of two from a microsecond on: a percentile is off by a sixteenth at most. A record is one addition to one
//! word; nothing is locked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of each power of two.
const PARTS: usize = 16;
const PARTS_SHIFT: u32 = 4;
/// All below two to this many nanoseconds is one bucket.
const SHORTEST_SHIFT: u32 = 10;
/// As is all from here on: a minute and more.
const LONGEST_SHIFT: u32 = 36;

const BUCKETS: usize = (LONGEST_SHIFT - SHORTEST_SHIFT) as usize * PARTS + 1;

/// Latencies since its making.
#[derive(Debug)]
pub struct Latencies {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&self, latency: Duration) {
        self.buckets[bucket(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was recorded so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { buckets: std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed)) }
    }
}

/// How many latencies of each length there were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    buckets: [u64; BUCKETS],
}

impl Default for Counts {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS] }
    }
}

impl Counts {
    /// What came since `earlier`, of the same latencies.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self { buckets: std::array::from_fn(|at| self.buckets[at].saturating_sub(earlier.buckets[at])) }
    }

    /// All of both.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self { buckets: std::array::from_fn(|at| self.buckets[at].saturating_add(other.buckets[at])) }
    }

    /// How many.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// What 99 of 100 did not exceed; `None` when there were none.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        let total = self.total();
        let rank = total - total / 100;
        let mut below = 0_u64;
        let found = self.buckets.iter().position(|count| {
            below = below.saturating_add(*count);
            below >= rank && total > 0
        })?;
        Some(upper(found))
    }
}

fn bucket(latency: Duration) -> usize {
    let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    let shift = nanoseconds.max(1).ilog2();
    if shift < SHORTEST_SHIFT {
        return 0;
    }
    let part = usize::try_from(nanoseconds >> (shift - PARTS_SHIFT)).expect("below 32") - PARTS;
    let power = (shift - SHORTEST_SHIFT) as usize;
    (power * PARTS + part).min(BUCKETS - 1)
}

/// The longest latency of a bucket; of the last one, the shortest.
fn upper(bucket: usize) -> Duration {
    let (power, part) = (bucket / PARTS, (bucket % PARTS) as u64);
    let shift = SHORTEST_SHIFT + u32::try_from(power).expect("a few powers") - PARTS_SHIFT;
    let parts = PARTS as u64 + part + u64::from(bucket < BUCKETS - 1);
    Duration::from_nanos(parts << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Random;

    #[test]
    fn each_latency_is_within_its_bucket_and_a_sixteenth_of_it() {
        let mut random = Random::new(1);
        for _ in 0..100_000 {
            let latency = Duration::from_nanos(random.next() >> random.below(64));
            let at = bucket(latency);
            if (1..BUCKETS - 1).contains(&at) {
                let (low, high) = (upper(at - 1), upper(at));
                assert!(low <= latency && latency < high, "{latency:?}: {low:?} to {high:?}");
                assert!(high - low <= low / 16, "{low:?} {high:?}");
            }
        }
        assert_eq!((bucket(Duration::ZERO), bucket(Duration::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn the_percentile_is_that_of_a_sorted_list() {
        for seed in 0..50 {
            let (mut random, latencies) = (Random::new(seed), Latencies::default());
            let before = latencies.counts();
            assert_eq!(before.p99(), None);
            let count = 1 + random.below(3000);
            let mut list: Vec<_> =
                (0..count).map(|_| 2000 + (random.next() >> (34 + random.below(18)))).collect();
            list.iter().for_each(|nanoseconds| latencies.record(Duration::from_nanos(*nanoseconds)));
            list.sort_unstable();
            let rank = usize::try_from(count - count / 100).unwrap() - 1;
            let (exact, found) = (u128::from(list[rank]), latencies.counts().since(&before).p99().unwrap());
            assert!(found.as_nanos() >= exact && found.as_nanos() <= exact + exact / 16 + 1, "seed {seed}");
        }
    }

    #[test]
    fn counts_add() {
        let latencies = Latencies::default();
        (0..10).for_each(|_| latencies.record(Duration::from_micros(5)));
        let first = latencies.counts();
        latencies.record(Duration::from_secs(1));
        let second = latencies.counts().since(&first);
        assert_eq!((first.total(), second.total(), first.with(&second).total()), (10, 1, 11));
        assert!(second.p99() > Some(Duration::from_millis(900)));
        assert_eq!(latencies.counts(), first.with(&second));
    }
}
