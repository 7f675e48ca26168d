//! Latencies as many threads record them.
//!
//! Threads are spread over a few histograms, each behind a lock that is almost never contended: a record costs an uncontended lock and
//! an increment, and no thread waits for whoever reads. Reading adds the histograms up.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use hdrhistogram::Histogram;

use crate::serve::admin::{Bucket, LatencyStatus};

/// Histograms that threads are spread over.
const SHARDS: usize = 8;

/// The longest latency that is told apart from longer ones.
const LONGEST_NS: u64 = 60_000_000_000;

/// Significant decimal digits that are kept.
const DIGITS: u8 = 2;

/// Bounds that are counted: 1, 2 and 5 times each power of ten from a microsecond to ten seconds.
const BOUNDS_NS: [u64; 22] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Latencies since its making.
pub struct LatencyRecorder {
    shards: [CachePadded<Mutex<Shard>>; SHARDS],
}

struct Shard {
    histogram: Histogram<u64>,
    sum_ns: u64,
    /// By bound: latencies that exceed the bound before and not this one. Counted as they come, since a histogram's own buckets
    /// do not end at these bounds.
    within: [u64; BOUNDS_NS.len()],
}

thread_local! {
    /// The shard of this thread.
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

impl LatencyRecorder {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { shards: std::array::from_fn(|_| CachePadded::new(Mutex::new(Shard::new()))) }
    }

    /// Adds one.
    pub fn record(&self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let mut shard = lock(&self.shards[SHARD.with(|shard| *shard)]);
        shard.histogram.saturating_record(nanoseconds);
        shard.sum_ns = shard.sum_ns.saturating_add(nanoseconds);
        let bound = BOUNDS_NS.partition_point(|bound| *bound < nanoseconds);
        if let Some(count) = shard.within.get_mut(bound) {
            *count += 1;
        }
    }

    /// All that were recorded so far.
    ///
    /// # Panics
    /// Never: all histograms have the same bounds.
    #[must_use]
    pub fn status(&self) -> LatencyStatus {
        let mut all = Shard::new();
        for shard in &self.shards {
            let shard = lock(shard);
            all.histogram.add(&shard.histogram).expect("histograms of equal bounds can be added");
            all.sum_ns = all.sum_ns.saturating_add(shard.sum_ns);
            all.within.iter_mut().zip(&shard.within).for_each(|(sum, count)| *sum += count);
        }
        let mut count = 0;
        let buckets = BOUNDS_NS.iter().zip(&all.within).map(|(bound, within)| {
            count += within;
            Bucket { at_most_ns: *bound, count }
        });
        let buckets = buckets.collect();
        let at = |quantile| all.histogram.value_at_quantile(quantile);
        LatencyStatus {
            count: all.histogram.len(),
            sum_ns: all.sum_ns,
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: all.histogram.max(),
            buckets,
        }
    }
}

impl Default for LatencyRecorder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LatencyRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LatencyRecorder").finish_non_exhaustive()
    }
}

impl Shard {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS);
        Self {
            histogram: histogram.expect("constant bounds are valid"),
            sum_ns: 0,
            within: [0; BOUNDS_NS.len()],
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_count_exactly_and_quantiles_to_two_digits() {
        let recorder = LatencyRecorder::new();
        std::thread::scope(|scope| {
            for part in 0..4 {
                let recorder = &recorder;
                scope.spawn(move || {
                    (1..=10_000_u64)
                        .filter(|number| number % 4 == part)
                        .for_each(|number| recorder.record(Duration::from_nanos(number * 1000)));
                });
            }
        });
        let status = recorder.status();
        assert_eq!((status.count, status.sum_ns), (10_000, 50_005_000_000));
        for (bound, count) in
            [(1_000, 1), (2_000, 2), (1_000_000, 1000), (10_000_000, 10_000), (10_000_000_000, 10_000)]
        {
            let bucket = status.buckets.iter().find(|bucket| bucket.at_most_ns == bound).unwrap();
            assert_eq!(bucket.count, count, "{bound}");
        }
        assert!(
            status
                .buckets
                .is_sorted_by(|one, next| one.at_most_ns < next.at_most_ns && one.count <= next.count)
        );
        let close = |value: u64, expected: u64| value.abs_diff(expected) * 50 <= expected;
        assert!(close(status.p50_ns, 5_000_000) && close(status.p99_ns, 9_900_000), "{status:?}");
        assert!(close(status.max_ns, 10_000_000) && close(status.p999_ns, 9_990_000), "{status:?}");
    }

    #[test]
    fn none_and_overlong_ones_are_told() {
        let recorder = LatencyRecorder::new();
        assert_eq!(recorder.status().count, 0);
        recorder.record(Duration::MAX);
        recorder.record(Duration::ZERO);
        let status = recorder.status();
        assert_eq!((status.count, status.sum_ns), (2, u64::MAX));
        assert_eq!(status.buckets.last().unwrap().count, 1, "beyond the last bound");
        assert_eq!(status.buckets[0].count, 1);
    }
}
