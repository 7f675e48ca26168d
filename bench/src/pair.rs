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
//! any assumption on their distribution.
//!
//! The limit against itself is the control. A run is void when the control's median is further than
//! [`CONTROL_TOLERANCE`] from 1: something favours one place in the round. It is void as well when its interval reaches
//! further than [`SPREAD_TOLERANCE`] from 1, although the median may be 1 by luck: this run could not have told a
//! difference of that size from none, in the control or in any other ratio. That the interval contains 1 itself is not
//! asked for: over many rounds it grows so narrow that a bias far within the tolerance leaves 1 outside.

use std::time::Duration;

use crate::Failure;
use crate::driver::Slice;
use crate::histogram::{Latencies, LatencySummary};
use crate::ratio::{Ratio, median};

/// How far from 1 the control's median may lie.
const CONTROL_TOLERANCE: f64 = 0.05;
/// How far from 1 the control's interval may reach.
const SPREAD_TOLERANCE: f64 = 0.10;
/// The fewest rounds of which there is an interval: the extremes of five contain the median with 93.75 %.
const ROUNDS_MIN: u32 = 6;
/// Rounds that a run should have.
pub(crate) const ROUNDS_WANTED: u32 = 20;
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
    /// System calls or doorbells of the storing threads, when known.
    pub calls: Option<u64>,
    /// From store to acknowledgment.
    pub latencies: Latencies,
}

impl Total {
    fn new() -> Self {
        Self { stores: 0, seconds: 0.0, cpu_ns: 0, calls: Some(0), latencies: Latencies::new() }
    }

    fn add(&mut self, slice: &Slice) {
        self.stores += slice.stores;
        self.seconds += slice.seconds;
        self.cpu_ns += slice.cpu_ns;
        self.calls = self.calls.zip(slice.calls).map(|(sum, calls)| sum + calls);
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

    /// System calls or doorbells of the storing threads for each store, when known.
    #[allow(clippy::cast_precision_loss, reason = "a mean needs no 53 bits")]
    pub(crate) fn calls_per_store(&self) -> Option<f64> {
        self.calls.map(|calls| calls as f64 / self.stores as f64)
    }

    /// The figures of a report.
    pub(crate) fn latency(&self) -> LatencySummary {
        self.latencies.summary()
    }
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
    /// A second loop beside the limit, where there is one.
    pub bare: Option<Total>,
    /// Stores a second, ours / limit.
    pub rate: Ratio,
    /// Stores a second, ours / bare.
    pub rate_bare: Option<Ratio>,
    /// Median latency, ours / limit.
    pub p50: Ratio,
    /// As `p50`, of latencies less what the timer costs.
    pub p50_net: Ratio,
    /// Stores a second, limit / limit.
    pub control: Ratio,
}

impl Outcome {
    /// Why the figures mean nothing, if they do.
    pub(crate) fn void(&self) -> Option<String> {
        // A ratio that is no number lies in no range.
        let near_one = |ratio: f64, tolerance: f64| (1.0 - tolerance..=1.0 + tolerance).contains(&ratio);
        let Ratio { median, low, high } = self.control;
        if self.schedule.rounds < ROUNDS_MIN {
            let rounds = self.schedule.rounds;
            return Some(format!("{rounds} rounds give no interval, {ROUNDS_MIN} do: give more --seconds"));
        }
        if !near_one(median, CONTROL_TOLERANCE) {
            return Some(format!(
                "the limit differs from itself by more than {:.0} % (control {median:.3}): this machine is too unsteady \
                 now. Run it again when nothing else runs",
                CONTROL_TOLERANCE * 100.0
            ));
        }
        if !near_one(low, SPREAD_TOLERANCE) || !near_one(high, SPREAD_TOLERANCE) {
            return Some(format!(
                "the limit may differ from itself by more than {:.0} % (control [{low:.3}, {high:.3}]): ours \
                 may as well, by chance. Give more --seconds, or run it again when nothing else runs",
                SPREAD_TOLERANCE * 100.0
            ));
        }
        None
    }
}

/// Those who take turns.
pub(crate) struct Contest<'a> {
    /// Ours.
    pub ours: &'a mut dyn Contender,
    /// The limit.
    pub limit: &'a mut dyn Contender,
    /// A second loop beside the limit, where there is one.
    pub bare: Option<&'a mut dyn Contender>,
    /// What a latency contains of the clock's own cost.
    pub timer_ns: u64,
}

#[derive(Default)]
struct Ratios {
    rate: Vec<f64>,
    rate_bare: Vec<f64>,
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
            let mut bare = None;
            if !forward {
                bare = self.bare_slice(length)?;
            }
            let (ours, limit, again) = if forward {
                (self.ours.slice(length)?, self.limit.slice(length)?, self.limit.slice(length)?)
            } else {
                let again = self.limit.slice(length)?;
                let limit = self.limit.slice(length)?;
                (self.ours.slice(length)?, limit, again)
            };
            if forward {
                bare = self.bare_slice(length)?;
            }
            if let Some((bare, total)) = bare.zip(bare_total.as_mut()) {
                ratios.rate_bare.push(ours.rate() / bare.rate());
                total.add(&bare);
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
            rate_bare: (!ratios.rate_bare.is_empty()).then(|| median(ratios.rate_bare)),
            p50: median(ratios.p50),
            p50_net: median(ratios.p50_net),
            control: median(ratios.control),
        })
    }

    fn bare_slice(&mut self, length: Duration) -> Result<Option<Slice>, Failure> {
        self.bare.as_mut().map(|bare| bare.slice(length)).transpose()
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

#[cfg(test)]
mod tests {
    use super::*;

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
            Ok(Slice { stores, seconds: duration.as_secs_f64(), cpu_ns: 1, calls: None, latencies })
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
        assert!((outcome.control.median - 1.0).abs() < 0.001, "{:?}", outcome.control);
        assert_eq!(outcome.void(), None);
        assert!(outcome.bare.is_some_and(|bare| bare.stores_per_s() > outcome.limit.stores_per_s()));
        assert_eq!(outcome.ours.calls_per_store(), None);
    }

    fn void(rounds: u32, median: f64, low: f64, high: f64) -> String {
        let mut outcome = contest(1.0, 1.0);
        outcome.schedule.rounds = rounds;
        outcome.control = Ratio { median, low, high };
        outcome.void().unwrap_or_default()
    }

    #[test]
    fn an_unsteady_machine_makes_the_run_void() {
        assert!(void(20, 1.06, 1.05, 1.07).contains("more than 5 % (control 1.060)"));
        assert!(void(20, f64::NAN, 1.0, 1.0).contains("more than 5 %"));
        // A median of 1 by luck: what was measured could as well be a tenth more or less.
        assert!(void(20, 1.0, 0.89, 1.01).contains("more than 10 % (control [0.890, 1.010])"));
        assert!(void(20, 1.0, 0.99, 1.11).contains("more than 10 %"));
        assert!(void(20, 1.0, 0.99, f64::NAN).contains("more than 10 %"));
        assert!(void(5, 1.0, 1.0, 1.0).contains("5 rounds give no interval"));
    }

    #[test]
    fn a_steady_one_does_not() {
        assert_eq!(void(6, 1.04, 0.91, 1.09), "");
        assert_eq!(void(7000, 1.002, 1.001, 1.003), "", "a bias within the tolerance");
    }

    #[test]
    fn a_control_that_scatters_makes_the_run_void() {
        // The limit is twice as fast in one of two slices, which of the two changing as by the toss of a coin.
        let (mut ours, mut limit) = (Tossing(0x5eed), Tossing(0xc0de));
        let mut contest = Contest { ours: &mut ours, limit: &mut limit, bare: None, timer_ns: 0 };
        let outcome = contest.run(Schedule { rounds: 20, slice: Duration::from_millis(500) }).unwrap();
        assert!(outcome.void().is_some_and(|why| why.contains("more than 10 %")), "{:?}", outcome.control);
    }

    struct Tossing(u32);

    impl Contender for Tossing {
        fn slice(&mut self, duration: Duration) -> Result<Slice, Failure> {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let stores = 1_000_000 << (self.0 >> 31);
            let seconds = duration.as_secs_f64();
            let mut latencies = Latencies::new();
            latencies.record(Duration::from_micros(1));
            Ok(Slice { stores, seconds, cpu_ns: 1, calls: None, latencies })
        }
    }
}
