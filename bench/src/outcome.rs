//! What a run gave, and what its figures are worth.
//!
//! The limit against itself is the control, of the rate and of the median latency each. A ratio is void when the median of
//! its own kind's control is further than [`CONTROL_TOLERANCE`] from 1: something favours one place in the round. It is void
//! as well when the control's interval reaches further than [`SPREAD_TOLERANCE`] from 1, although the median may be 1 by luck:
//! this run could not have told a difference of that size from none, in the control or in the ratio. That the interval
//! contains 1 itself is not asked for: over many rounds it grows so narrow that a bias far within the tolerance leaves 1
//! outside.
//!
//! The kinds fail apart from each other: a stall of a tenth of a second is lost in a slice's median latency, and moves its
//! rate by as much as it took of the slice. Which of them makes the run void as a whole is the [`Figure`] that it is judged by.

use crate::driver::Slice;
use crate::histogram::{Latencies, LatencySummary};
use crate::pair::Schedule;
use crate::ratio::Ratio;

/// How far from 1 the control's median may lie.
const CONTROL_TOLERANCE: f64 = 0.05;
/// How far from 1 the control's interval may reach.
const SPREAD_TOLERANCE: f64 = 0.10;
/// The fewest rounds of which there is an interval: the extremes of five contain the median with 93.75 %.
const ROUNDS_MIN: u32 = 6;

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
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { stores: 0, seconds: 0.0, cpu_ns: 0, calls: Some(0), latencies: Latencies::new() }
    }

    /// Adds a slice.
    pub(crate) fn add(&mut self, slice: &Slice) {
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

/// A kind of ratio, with a control of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Of stores a second.
    Rate,
    /// Of median latencies.
    P50,
}

impl Figure {
    /// As reports write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50 => "p50",
        }
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
    /// Median latency, ours / bare.
    pub p50_bare: Option<Ratio>,
    /// Median latency, ours / limit.
    pub p50: Ratio,
    /// As `p50`, of latencies less what the timer costs.
    pub p50_net: Ratio,
    /// Stores a second, limit / limit.
    pub control: Ratio,
    /// Median latency, limit / limit.
    pub control_p50: Ratio,
}

impl Outcome {
    /// The limit against itself in `figure`.
    pub(crate) const fn control_of(&self, figure: Figure) -> Ratio {
        match figure {
            Figure::Rate => self.control,
            Figure::P50 => self.control_p50,
        }
    }

    /// Why the ratios of this kind mean nothing, if they do.
    pub(crate) fn void(&self, figure: Figure) -> Option<String> {
        void(self.schedule.rounds, figure.name(), self.control_of(figure))
    }
}

/// Why ratios mean nothing, if they do: after so many rounds, by the ratio of what they stand beside, the limit, to itself.
pub(crate) fn void(rounds: u32, name: &str, control: Ratio) -> Option<String> {
    // A ratio that is no number lies in no range.
    let near_one = |ratio: f64, tolerance: f64| (1.0 - tolerance..=1.0 + tolerance).contains(&ratio);
    let Ratio { median, low, high } = control;
    if rounds < ROUNDS_MIN {
        return Some(format!("{rounds} rounds give no interval, {ROUNDS_MIN} do: give more --seconds"));
    }
    if !near_one(median, CONTROL_TOLERANCE) {
        return Some(format!(
            "the limit differs from itself by more than {:.0} % (control of the {name} {median:.3}): this machine is too unsteady \
             now. Run it again when nothing else runs",
            CONTROL_TOLERANCE * 100.0
        ));
    }
    if !near_one(low, SPREAD_TOLERANCE) || !near_one(high, SPREAD_TOLERANCE) {
        return Some(format!(
            "the limit may differ from itself by more than {:.0} % (control of the {name} [{low:.3}, {high:.3}]): ours \
             may as well, by chance. Give more --seconds, or run it again when nothing else runs",
            SPREAD_TOLERANCE * 100.0
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn void(rounds: u32, median: f64, low: f64, high: f64) -> String {
        let mut outcome = crate::report::sample::report().outcome;
        outcome.schedule.rounds = rounds;
        outcome.control = Ratio { median, low, high };
        let of_rate = outcome.void(Figure::Rate);
        if rounds >= ROUNDS_MIN {
            assert_eq!(outcome.void(Figure::P50), None, "its own control is as it was");
        }
        // The same rule for the other kind.
        outcome.control_p50 = std::mem::replace(&mut outcome.control, outcome.control_p50);
        let of_p50 = outcome.void(Figure::P50);
        assert_eq!(of_p50.map(|why| why.replace("of the p50", "of the rate")), of_rate);
        of_rate.unwrap_or_default()
    }

    #[test]
    fn an_unsteady_machine_makes_a_figure_void() {
        assert!(void(20, 1.06, 1.05, 1.07).contains("more than 5 % (control of the rate 1.060)"));
        assert!(void(20, f64::NAN, 1.0, 1.0).contains("more than 5 %"));
        // A median of 1 by luck: what was measured could as well be a tenth more or less.
        assert!(void(20, 1.0, 0.89, 1.01).contains("more than 10 % (control of the rate [0.890, 1.010])"));
        assert!(void(20, 1.0, 0.99, 1.11).contains("more than 10 %"));
        assert!(void(20, 1.0, 0.99, f64::NAN).contains("more than 10 %"));
        assert!(void(5, 1.0, 1.0, 1.0).contains("5 rounds give no interval"));
    }

    #[test]
    fn a_steady_one_does_not() {
        assert_eq!(void(6, 1.04, 0.91, 1.09), "");
        assert_eq!(void(7000, 1.002, 1.001, 1.003), "", "a bias within the tolerance");
    }
}
