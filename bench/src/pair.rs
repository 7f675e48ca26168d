//! Ours and the limit in turn, and what their ratio is worth.
//!
//! Machines drift by a factor of two within minutes, so only neighbouring slices are compared:
//!
//! ```text
//! round 0   ours   limit   limit again   [bare]
//! round 1   [bare]   limit again   limit   ours
//! ```
//!
//! The figure is the median of the rounds' ratios; its interval comes from the order statistics of the rounds, without
//! any assumption on their distribution. The limit against itself must give 1 within [`CONTROL_TOLERANCE`], or the run
//! is void.

use std::time::Duration;

use crate::Failure;
use crate::driver::Slice;
use crate::histogram::{Latencies, LatencySummary};

/// How far from 1 the control ratio may lie.
pub(crate) const CONTROL_TOLERANCE: f64 = 0.05;
/// Rounds that a run should have.
pub(crate) const ROUNDS_WANTED: u32 = 20;
/// Probability with which the interval contains the true median.
const CONFIDENCE: f64 = 0.95;
/// Slices are no longer than this.
const SLICE_MAX: Duration = Duration::from_millis(500);
/// Slices are no shorter than this.
const SLICE_MIN: Duration = Duration::from_millis(250);

/// Something that can be measured for a while.
pub(crate) trait Contender {
    /// Measures for about `duration`.
    ///
    /// # Errors
    /// Why it could not.
    fn slice(&mut self, duration: Duration) -> Result<Slice, Failure>;
}

/// Rounds, and the length of each slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Slices of each contender.
    pub rounds: u32,
    /// Length of each.
    pub slice: Duration,
}

impl Schedule {
    /// Slices that make up `total`: of half a second, shorter where that gives [`ROUNDS_WANTED`].
    pub(crate) fn of(total: Duration) -> Self {
        let slice = (total / ROUNDS_WANTED).clamp(SLICE_MIN, SLICE_MAX).min(total);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an hour has 14 400 slices"
        )]
        let rounds = (total.as_secs_f64() / slice.as_secs_f64()).round().max(1.0) as u32;
        Self { rounds, slice }
    }
}

/// All slices of one contender together.
#[derive(Debug, Clone)]
pub(crate) struct Total {
    /// Stores acknowledged.
    pub stores: u64,
    /// Seconds that took.
    pub seconds: f64,
    cpu_ns: u64,
    syscalls: Option<u64>,
    /// From store to acknowledgment.
    pub latencies: Latencies,
}

impl Total {
    fn new() -> Self {
        Self { stores: 0, seconds: 0.0, cpu_ns: 0, syscalls: Some(0), latencies: Latencies::new() }
    }

    fn add(&mut self, slice: &Slice) {
        self.stores += slice.stores;
        self.seconds += slice.seconds;
        self.cpu_ns += slice.cpu_ns;
        self.syscalls = self.syscalls.zip(slice.syscalls).map(|(sum, calls)| sum + calls);
        self.latencies.add(&slice.latencies);
    }

    /// Stores a second.
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    pub(crate) fn stores_per_s(&self) -> f64 {
        self.stores as f64 / self.seconds
    }

    /// Processor time of this process for each store.
    #[allow(clippy::cast_precision_loss, reason = "a mean needs no 53 bits")]
    pub(crate) fn cpu_ns_per_store(&self) -> f64 {
        self.cpu_ns as f64 / self.stores as f64
    }

    /// System calls of the storing threads for each store, when known.
    #[allow(clippy::cast_precision_loss, reason = "a mean needs no 53 bits")]
    pub(crate) fn syscalls_per_store(&self) -> Option<f64> {
        self.syscalls.map(|calls| calls as f64 / self.stores as f64)
    }

    /// The figures of a report.
    pub(crate) fn latency(&self) -> LatencySummary {
        self.latencies.summary()
    }
}

/// A median of ratios, with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    /// The median.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// What a run gave.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// How it was measured.
    pub schedule: Schedule,
    /// Ours.
    pub ours: Total,
    /// The limit.
    pub limit: Total,
    /// The limit without copies and checksums, where it has any.
    pub bare: Option<Total>,
    /// Stores a second, ours / limit.
    pub rate: Ratio,
    /// Median latency, ours / limit.
    pub p50: Ratio,
    /// As `p50`, of latencies less what the timer costs.
    pub p50_net: Ratio,
    /// Stores a second, limit / limit.
    pub control: Ratio,
}

impl Outcome {
    /// The machine was too unsteady: the figures mean nothing.
    pub(crate) fn void(&self) -> bool {
        // A ratio that is no number lies in no range.
        !(1.0 - CONTROL_TOLERANCE..=1.0 + CONTROL_TOLERANCE).contains(&self.control.median)
    }
}

/// Those who take turns.
pub(crate) struct Contest<'a> {
    /// Ours.
    pub ours: &'a mut dyn Contender,
    /// The limit.
    pub limit: &'a mut dyn Contender,
    /// The limit without copies and checksums, where it has any.
    pub bare: Option<&'a mut dyn Contender>,
    /// What a latency contains of the clock's own cost.
    pub timer_ns: u64,
}

#[derive(Default)]
struct Ratios {
    rate: Vec<f64>,
    p50: Vec<f64>,
    p50_net: Vec<f64>,
    control: Vec<f64>,
}

impl Contest<'_> {
    /// Runs all rounds.
    ///
    /// # Errors
    /// The first contender that failed.
    pub(crate) fn run(&mut self, schedule: Schedule) -> Result<Outcome, Failure> {
        assert!(schedule.rounds > 0, "a run has rounds");
        let (mut ours_total, mut limit_total) = (Total::new(), Total::new());
        let mut bare_total = self.bare.is_some().then(Total::new);
        let mut ratios = Ratios::default();
        for round in 0..schedule.rounds {
            let length = schedule.slice;
            let forward = round % 2 == 0;
            if !forward {
                self.bare_slice(length, bare_total.as_mut())?;
            }
            let (ours, limit, again) = if forward {
                (self.ours.slice(length)?, self.limit.slice(length)?, self.limit.slice(length)?)
            } else {
                let again = self.limit.slice(length)?;
                let limit = self.limit.slice(length)?;
                (self.ours.slice(length)?, limit, again)
            };
            if forward {
                self.bare_slice(length, bare_total.as_mut())?;
            }
            ratios.add(&ours, &limit, &again, self.timer_ns);
            ours_total.add(&ours);
            limit_total.add(&limit);
        }
        Ok(Outcome {
            schedule,
            ours: ours_total,
            limit: limit_total,
            bare: bare_total,
            rate: median(ratios.rate),
            p50: median(ratios.p50),
            p50_net: median(ratios.p50_net),
            control: median(ratios.control),
        })
    }

    fn bare_slice(&mut self, length: Duration, total: Option<&mut Total>) -> Result<(), Failure> {
        if let (Some(bare), Some(total)) = (self.bare.as_mut(), total) {
            total.add(&bare.slice(length)?);
        }
        Ok(())
    }
}

impl Ratios {
    #[allow(clippy::cast_precision_loss, reason = "latencies have three digits")]
    fn add(&mut self, ours: &Slice, limit: &Slice, again: &Slice, timer_ns: u64) {
        let p50 = |slice: &Slice, less: u64| slice.latencies.at(0.5).saturating_sub(less).max(1) as f64;
        self.rate.push(ours.rate() / limit.rate());
        self.p50.push(p50(ours, 0) / p50(limit, 0));
        self.p50_net.push(p50(ours, timer_ns) / p50(limit, timer_ns));
        self.control.push(limit.rate() / again.rate());
    }
}

/// The median of `values`, and the narrowest pair of order statistics around it that contains the true median with
/// at least [`CONFIDENCE`]; with fewer than six values no pair does, and the extremes are given.
///
/// # Panics
/// When there are none.
pub(crate) fn median(mut values: Vec<f64>) -> Ratio {
    assert!(!values.is_empty(), "no median of nothing");
    values.sort_by(f64::total_cmp);
    let count = values.len();
    let upper = values[count / 2];
    let median = if count % 2 == 1 { upper } else { f64::midpoint(values[count / 2 - 1], upper) };
    // P(fewer than k of n fall below the true median) is a binomial tail; drop ranks while both tails together
    // stay within what the confidence leaves. Logarithms, since 2^-n is 0 for some thousand rounds.
    #[allow(clippy::cast_precision_loss, reason = "some thousand rounds")]
    let binomial = |rank: usize| ((count - rank) as f64 / (rank + 1) as f64).ln();
    #[allow(clippy::cast_precision_loss, reason = "some thousand rounds")]
    let mut logarithm = -(count as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    let mut dropped = 0;
    while dropped + 1 < count.div_ceil(2) && 2.0 * (tail + logarithm.exp()) <= 1.0 - CONFIDENCE {
        tail += logarithm.exp();
        logarithm += binomial(dropped);
        dropped += 1;
    }
    let low = dropped.saturating_sub(1);
    Ratio { median, low: values[low], high: values[count - 1 - low] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp, reason = "the values are given, not computed")]
    fn median_and_interval_are_those_of_the_tables() {
        let ranks = |count: u32| {
            let ratio = median((1..=count).rev().map(f64::from).collect());
            (ratio.low, ratio.median, ratio.high)
        };
        // Ranks of the 95 % sign-test interval, as statistical tables print them.
        assert_eq!(ranks(6), (1.0, 3.5, 6.0));
        assert_eq!(ranks(9), (2.0, 5.0, 8.0));
        assert_eq!(ranks(20), (6.0, 10.5, 15.0));
        assert_eq!(ranks(25), (8.0, 13.0, 18.0));
        assert_eq!(ranks(50), (18.0, 25.5, 33.0));
        assert_eq!(ranks(3), (1.0, 2.0, 3.0));
        let (low, median, high) = ranks(7000);
        assert!(median == 3500.5 && low > 3410.0 && low < 3425.0 && high == 7001.0 - low, "{low} {high}");
        assert_eq!(ranks(1), (1.0, 1.0, 1.0));
    }

    #[test]
    fn the_interval_covers_the_true_median_as_often_as_it_says() {
        let mut state = 88_172_645_463_325_252u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from(u32::try_from(state >> 32).unwrap()) / f64::from(u32::MAX)
        };
        let covered = (0..2000)
            .filter(|_| {
                let ratio = median((0..20).map(|_| uniform().powi(3)).collect());
                (ratio.low..=ratio.high).contains(&0.125)
            })
            .count();
        assert!((1880..1960).contains(&covered), "{covered} of 2000, expected 95.9 %");
    }

    #[test]
    fn slices_fill_the_time_asked_for() {
        let schedule = |seconds| Schedule::of(Duration::from_secs_f64(seconds));
        assert_eq!(schedule(10.0), Schedule { rounds: 20, slice: Duration::from_millis(500) });
        assert_eq!(schedule(60.0), Schedule { rounds: 120, slice: Duration::from_millis(500) });
        assert_eq!(schedule(5.0), Schedule { rounds: 20, slice: Duration::from_millis(250) });
        assert_eq!(schedule(2.0), Schedule { rounds: 8, slice: Duration::from_millis(250) });
        assert_eq!(schedule(0.1), Schedule { rounds: 1, slice: Duration::from_millis(100) });
    }

    /// A machine that gets slower all the time, for everyone; `factor` is the contender's own speed.
    struct Drifting<'a> {
        machine: &'a std::cell::Cell<f64>,
        factor: f64,
    }

    impl Contender for Drifting<'_> {
        fn slice(&mut self, duration: Duration) -> Result<Slice, Failure> {
            let speed = self.machine.get() * self.factor;
            self.machine.set(self.machine.get() * 0.99);
            let mut latencies = Latencies::new();
            latencies.record(Duration::from_secs_f64(1.0 / speed));
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and small")]
            let stores = (speed * duration.as_secs_f64()) as u64;
            Ok(Slice { stores, seconds: duration.as_secs_f64(), cpu_ns: 1, syscalls: None, latencies })
        }
    }

    fn contest(ours: f64, limit: f64) -> Outcome {
        let machine = std::cell::Cell::new(1e6);
        let drifting = |factor| Drifting { machine: &machine, factor };
        let (mut ours, mut limit, mut bare) = (drifting(ours), drifting(limit), drifting(2.0));
        let mut contest = Contest { ours: &mut ours, limit: &mut limit, bare: Some(&mut bare), timer_ns: 0 };
        contest.run(Schedule { rounds: 20, slice: Duration::from_millis(500) }).unwrap()
    }

    #[test]
    fn drift_cancels_and_the_control_finds_one() {
        let outcome = contest(0.8, 1.0);
        assert!((outcome.rate.median - 0.8).abs() < 0.01, "{:?}", outcome.rate);
        assert!((outcome.p50.median - 1.25).abs() < 0.02, "{:?}", outcome.p50);
        assert!((outcome.control.median - 1.0).abs() < 0.001 && !outcome.void(), "{:?}", outcome.control);
        assert!(outcome.bare.is_some_and(|bare| bare.stores_per_s() > outcome.limit.stores_per_s()));
        assert_eq!(outcome.ours.syscalls_per_store(), None);
    }

    #[test]
    fn an_unsteady_machine_makes_the_run_void() {
        let mut outcome = contest(1.0, 1.0);
        outcome.control.median = 1.06;
        assert!(outcome.void());
        outcome.control.median = f64::NAN;
        assert!(outcome.void());
    }
}
