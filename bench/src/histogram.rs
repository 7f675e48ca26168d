//! Latencies, and what it costs to take them.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The longest latency told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(60);
/// Significant decimal digits that are kept.
const DIGITS: u8 = 3;
/// Pairs of clock readings from which the timer's cost is taken.
const TIMER_SAMPLES: usize = 20_001;

/// Latencies in nanoseconds, to three digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
}

/// The figures that reports give, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LatencySummary {
    /// Shortest.
    pub min: u64,
    /// Half are at most this long.
    pub p50: u64,
    /// 90 % are.
    pub p90: u64,
    /// 99 % are.
    pub p99: u64,
    /// 99.9 % are.
    pub p999: u64,
    /// 99.99 % are.
    pub p9999: u64,
    /// Longest.
    pub max: u64,
}

impl Latencies {
    /// None yet.
    ///
    /// # Panics
    /// Never: the bounds are constants that the histogram accepts.
    pub(crate) fn new() -> Self {
        let longest = u64::try_from(LONGEST.as_nanos()).expect("a minute in nanoseconds fits");
        let histogram = Histogram::new_with_bounds(1, longest, DIGITS).expect("constant bounds are valid");
        Self { histogram }
    }

    /// Adds one.
    #[inline]
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(nanoseconds);
    }

    /// Adds all of `other`.
    ///
    /// # Panics
    /// Never: all have the same bounds.
    pub(crate) fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("histograms of equal bounds can be added");
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency that the fraction `quantile` does not exceed.
    pub(crate) fn at(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }

    /// The figures of a report.
    pub(crate) fn summary(&self) -> LatencySummary {
        LatencySummary {
            min: self.histogram.min(),
            p50: self.at(0.5),
            p90: self.at(0.9),
            p99: self.at(0.99),
            p999: self.at(0.999),
            p9999: self.at(0.9999),
            max: self.histogram.max(),
        }
    }
}

/// What one latency contains of the clock's own cost: the median distance of two readings in a row, in nanoseconds.
pub(crate) fn timer_cost() -> u64 {
    let mut latencies = Latencies::new();
    for _ in 0..TIMER_SAMPLES {
        let before = Instant::now();
        latencies.record(before.elapsed());
    }
    latencies.at(0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_samples() {
        let mut latencies = Latencies::new();
        for nanoseconds in 1..=10_000 {
            latencies.record(Duration::from_nanos(nanoseconds));
        }
        let mut both = Latencies::new();
        both.add(&latencies);
        both.record(Duration::from_secs(3600));
        let summary = latencies.summary();
        assert_eq!(summary.min, 1);
        let close = |value: u64, expected: u64| value.abs_diff(expected) * 1000 <= expected;
        assert!(
            close(summary.p50, 5000) && close(summary.p90, 9000) && close(summary.p99, 9900),
            "{summary:?}"
        );
        assert!(close(summary.p9999, 9999) && close(summary.max, 10_000), "{summary:?}");
        assert_eq!(both.count(), 10_001);
        assert!(both.summary().max >= 60_000_000_000, "an overlong one counts as the longest");
    }

    #[test]
    fn the_clock_costs_something_but_not_much() {
        assert!((1..100_000).contains(&timer_cost()));
    }
}
