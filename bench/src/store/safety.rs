//! `mirrorbus-bench store --safety`: what it costs, while all is well, that a mediator decides who serves.
//!
//! A pair with a mediator asks for a lease of its member every few milliseconds, and answers under one; each node looks once a second whether
//! the mediator is there. It is measured beside a pair of the same build without one, and that beside another of its kind:
//!
//! ```text
//! round 0   with   without   without again
//! round 1   with   without again   without
//! round 2   without   with   without again      … all six orders
//! ```
//!
//! Each pair is made for its slice, and is gone before the next one is made: leases, logs that are still to be destaged and checkpoints that are
//! due are processor time, and would count for whichever pair is measured meanwhile.

use std::fmt::Write;
use std::time::Duration;

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

/// In which order a round measures: the one with a mediator, the one without, and that one's like.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]];
/// Longer than other slices: to make a pair takes as long.
const SLICE: Duration = Duration::from_secs(1);

/// Pairs one after the other; the one with a mediator is measured for as long as the options say.
///
/// # Errors
/// A pair did not come up, or a write failed.
pub(super) fn run(options: &StoreOptions) -> Result<Safety, Failure> {
    let Schedule { rounds, slice } = Schedule::of(options.duration(), Some(SLICE));
    let mut totals = [Total::new(), Total::new(), Total::new()];
    let mut ratios: [Vec<f64>; 4] = Default::default();
    for order in ORDERS.iter().cycle().take(rounds as usize) {
        let mut slices = [None, None, None];
        for which in *order {
            let decider = if which == 0 { Decider::Mediator } else { Decider::Operator };
            let slice = Subject::open_with(options, decider)?.slice(slice)?;
            totals[which].add(&slice);
            slices[which] = Some(slice);
        }
        let [with, without, again] = slices.map(|slice| slice.expect("an order has all three"));
        let of_round = [
            with.rate() / without.rate(),
            p99(&with) / p99(&without),
            without.rate() / again.rate(),
            p99(&without) / p99(&again),
        ];
        ratios.iter_mut().zip(of_round).for_each(|(all, one)| all.push(one));
    }
    let [with, without, _] = totals;
    let [rate, p99, control_rate, control_p99] = ratios.map(median);
    Ok(Safety { rounds, with, without, rate, p99, control_rate, control_p99 })
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
