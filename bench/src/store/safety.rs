//! `mirrorbus-bench store --safety`: what it costs, while all is well, that a mediator decides who serves.
//!
//! A pair with a mediator asks for a lease of its member every few milliseconds, and answers under one; each node looks once a second whether
//! the mediator is there. Beside it, slice by slice, stands a pair of the same build without one. Both are up all the time, so what
//! the one does while the other is measured counts for neither.

use std::fmt::Write;

use serde_json::{Value, json};

use super::options::StoreOptions;
use super::subject::{Decider, Subject};
use crate::Failure;
use crate::driver::Slice;
use crate::machine::Machine;
use crate::outcome::{Total, void};
use crate::pair::{Contender, Schedule};
use crate::ratio::{Ratio, median};

/// What was measured.
pub(super) struct Safety {
    rounds: u32,
    with: Total,
    without: Total,
    /// Writes a second, with a mediator / without.
    rate: Ratio,
    /// The 99th percentile, likewise.
    p99: Ratio,
    /// The pair without a mediator against itself.
    control_rate: Ratio,
    control_p99: Ratio,
}

/// Two pairs in turn, for the time that the options give.
///
/// # Errors
/// A pair did not come up, or a write failed.
pub(super) fn run(options: &StoreOptions) -> Result<Safety, Failure> {
    let mut with = Subject::open_with(options, Decider::Mediator)?;
    let mut without = Subject::open_with(options, Decider::Operator)?;
    let Schedule { rounds, slice } = Schedule::of(options.duration(), None);
    let (mut total, mut total_without) = (Total::new(), Total::new());
    let mut ratios: [Vec<f64>; 4] = Default::default();
    for round in 0..rounds {
        let (ours, beside, again) = if round % 2 == 0 {
            (with.slice(slice)?, without.slice(slice)?, without.slice(slice)?)
        } else {
            let again = without.slice(slice)?;
            let beside = without.slice(slice)?;
            (with.slice(slice)?, beside, again)
        };
        let of_round = [
            ours.rate() / beside.rate(),
            p99(&ours) / p99(&beside),
            beside.rate() / again.rate(),
            p99(&beside) / p99(&again),
        ];
        ratios.iter_mut().zip(of_round).for_each(|(all, one)| all.push(one));
        total.add(&ours);
        total_without.add(&beside);
    }
    let [rate, p99, control_rate, control_p99] = ratios.map(median);
    Ok(Safety { rounds, with: total, without: total_without, rate, p99, control_rate, control_p99 })
}

#[allow(clippy::cast_precision_loss, reason = "latencies have three digits")]
fn p99(slice: &Slice) -> f64 {
    slice.latencies.at(0.99).max(1) as f64
}

impl Safety {
    /// Why which ratios mean nothing.
    pub(super) fn void(&self) -> Vec<String> {
        let controls = [("rate", self.control_rate), ("p99", self.control_p99)];
        controls.into_iter().filter_map(|(name, control)| void(self.rounds, name, control)).collect()
    }

    pub(super) fn table(&self, machine: &Machine) -> String {
        let mut text = String::new();
        self.write(&mut text, machine).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, text: &mut String, machine: &Machine) -> std::fmt::Result {
        writeln!(
            text,
            "{}, {} cores, load {} · {} rounds\n",
            machine.cpu, machine.cores, machine.load, self.rounds
        )?;
        writeln!(
            text,
            "{:<20}{:>12}{:>10}{:>10}{:>10}{:>12}",
            "", "writes/s", "p50 ns", "p99 ns", "p99.9 ns", "max ns"
        )?;
        for (name, total) in [("with a mediator", &self.with), ("without", &self.without)] {
            let latency = total.latency();
            writeln!(
                text,
                "{name:<20}{:>12.0}{:>10}{:>10}{:>10}{:>12}",
                total.stores_per_s(),
                latency.p50,
                latency.p99,
                latency.p999,
                latency.max
            )?;
        }
        let interval = |ratio: Ratio| format!("{:.3} [{:.3}, {:.3}]", ratio.median, ratio.low, ratio.high);
        writeln!(text, "\nwith / without, medians of the rounds with 95 % intervals; without / without")?;
        for (name, ratio, control) in
            [("writes/s", self.rate, self.control_rate), ("p99", self.p99, self.control_p99)]
        {
            writeln!(text, "{name:<10}{:<26}{}", interval(ratio), interval(control))?;
        }
        self.void().iter().try_for_each(|why| writeln!(text, "VOID: {why}"))
    }

    pub(super) fn json(&self) -> Value {
        let interval = |ratio: Ratio| json!({ "median": ratio.median, "low": ratio.low, "high": ratio.high });
        json!({
            "rounds": self.rounds,
            "rate": interval(self.rate), "rate_control": interval(self.control_rate),
            "p99": interval(self.p99), "p99_control": interval(self.control_p99),
            "writes_per_s": { "with": self.with.stores_per_s(), "without": self.without.stores_per_s() },
            "void": self.void(),
        })
    }
}
