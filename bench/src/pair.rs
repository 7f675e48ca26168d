//! Ours and the limit in turn.
//!
//! Machines drift by a factor of two within minutes, so only neighbouring slices are compared:
//!
//! ```text
//! round 0   ours   limit   limit again   [bare]
//! round 1   [bare]   limit again   limit   ours
//! ```
//!
//! The figure is the median of the rounds' ratios; its interval comes from the order statistics of the rounds, without
//! any assumption on their distribution. What they are worth is [`Outcome`]'s to say.

use std::time::Duration;

use crate::Failure;
use crate::driver::Slice;
use crate::outcome::{Outcome, Total};
use crate::ratio::median;

/// Rounds that a run should have.
pub(crate) const ROUNDS_WANTED: u32 = 20;
/// Slices are no longer than this, unless asked for.
const SLICE_MAX: Duration = Duration::from_millis(500);
/// Slices are no shorter than this, unless asked for.
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
    /// Slices that make up `total`: as long as asked for; else of half a second, shorter where that gives [`ROUNDS_WANTED`].
    pub(crate) fn of(total: Duration, slice: Option<Duration>) -> Self {
        let slice = slice.unwrap_or((total / ROUNDS_WANTED).clamp(SLICE_MIN, SLICE_MAX)).min(total);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an hour has 360 000 slices of the shortest kind"
        )]
        let rounds = (total.as_secs_f64() / slice.as_secs_f64()).round().max(1.0) as u32;
        Self { rounds, slice }
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
    p50_bare: Vec<f64>,
    p50: Vec<f64>,
    p50_net: Vec<f64>,
    control: Vec<f64>,
    control_p50: Vec<f64>,
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
                ratios.p50_bare.push(p50(&ours, 0) / p50(&bare, 0));
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
            p50_bare: (!ratios.p50_bare.is_empty()).then(|| median(ratios.p50_bare)),
            p50: median(ratios.p50),
            p50_net: median(ratios.p50_net),
            control: median(ratios.control),
            control_p50: median(ratios.control_p50),
        })
    }

    fn bare_slice(&mut self, length: Duration) -> Result<Option<Slice>, Failure> {
        self.bare.as_mut().map(|bare| bare.slice(length)).transpose()
    }
}

impl Ratios {
    fn add(&mut self, ours: &Slice, limit: &Slice, again: &Slice, timer_ns: u64) {
        self.rate.push(ours.rate() / limit.rate());
        self.p50.push(p50(ours, 0) / p50(limit, 0));
        self.p50_net.push(p50(ours, timer_ns) / p50(limit, timer_ns));
        self.control.push(limit.rate() / again.rate());
        self.control_p50.push(p50(limit, 0) / p50(again, 0));
    }
}

/// The median latency of a slice, less what of it is the timer's.
#[allow(clippy::cast_precision_loss, reason = "latencies have three digits")]
fn p50(slice: &Slice, less: u64) -> f64 {
    slice.latencies.at(0.5).saturating_sub(less).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Latencies;
    use crate::outcome::Figure;

    #[test]
    fn slices_fill_the_time_asked_for() {
        let schedule = |seconds| Schedule::of(Duration::from_secs_f64(seconds), None);
        assert_eq!(schedule(10.0), Schedule { rounds: 20, slice: Duration::from_millis(500) });
        assert_eq!(schedule(60.0), Schedule { rounds: 120, slice: Duration::from_millis(500) });
        assert_eq!(schedule(5.0), Schedule { rounds: 20, slice: Duration::from_millis(250) });
        assert_eq!(schedule(2.0), Schedule { rounds: 8, slice: Duration::from_millis(250) });
        assert_eq!(schedule(0.1), Schedule { rounds: 1, slice: Duration::from_millis(100) });
        let slice = Duration::from_millis(250);
        assert_eq!(Schedule::of(Duration::from_secs(12), Some(slice)), Schedule { rounds: 48, slice });
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
        assert!((outcome.control_p50.median - 1.0).abs() < 0.002, "{:?}", outcome.control_p50);
        assert_eq!((outcome.void(Figure::Rate), outcome.void(Figure::P50)), (None, None));
        assert!(outcome.bare.is_some_and(|bare| bare.stores_per_s() > outcome.limit.stores_per_s()));
        assert!(
            outcome.p50_bare.is_some_and(|ratio| (ratio.median - 2.5).abs() < 0.05),
            "{:?}",
            outcome.p50_bare
        );
        assert_eq!(outcome.ours.calls_per_store(), None);
    }

    #[test]
    fn a_control_that_scatters_makes_its_own_figure_void() {
        // The limit is twice as fast in one of two slices, which of the two changing as by the toss of a coin.
        let (mut ours, mut limit) = (Tossing(0x5eed), Tossing(0xc0de));
        let mut contest = Contest { ours: &mut ours, limit: &mut limit, bare: None, timer_ns: 0 };
        let outcome = contest.run(Schedule { rounds: 20, slice: Duration::from_millis(500) }).unwrap();
        let of_rate = outcome.void(Figure::Rate);
        assert!(of_rate.is_some_and(|why| why.contains("more than 10 %")), "{:?}", outcome.control);
        assert_eq!(outcome.void(Figure::P50), None, "each latency is the same");
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
