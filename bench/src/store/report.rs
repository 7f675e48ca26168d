//! A run of `store`, as a table and as JSON.

use std::fmt::Write;

use mirrorbus::base::format_bytes;
use mirrorbus::store::DatasetStatus;
use serde_json::{Value, json};

use super::options::StoreOptions;
use crate::machine::Machine;
use crate::outcome::{Figure, Outcome, Total};
use crate::ratio::Ratio;

/// What is told.
pub(super) struct Report<'a> {
    pub(super) options: &'a StoreOptions,
    pub(super) outcome: &'a Outcome,
    pub(super) status: &'a DatasetStatus,
    pub(super) machine: &'a Machine,
    pub(super) timer_ns: u64,
}

impl Report<'_> {
    /// Bytes written to the files of this node for each byte that was written to the volume.
    #[allow(clippy::cast_precision_loss, reason = "a ratio needs no 53 bits")]
    fn amplification(&self) -> f64 {
        self.status.counts.destaged_bytes as f64 / self.status.counts.write_bytes.max(1) as f64
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { options, outcome, machine, .. } = self;
        writeln!(
            text,
            "{:?} · writes of {} at random in {} · {} acknowledged together · ring {}",
            options.fabric,
            format_bytes(options.size),
            format_bytes(options.volume),
            options.depth,
            format_bytes(options.ring)
        )?;
        writeln!(text, "{}, {} cores, load {}\n", machine.cpu, machine.cores, machine.load)?;
        writeln!(
            text,
            "{:<10}{:>12}{:>10}{:>10}{:>10}{:>12}",
            "", "writes/s", "p50 ns", "p99 ns", "p99.9 ns", "max ns"
        )?;
        let messages = outcome.bare.as_ref().map(|messages| ("messages", messages));
        for (name, total) in [("store", &outcome.ours), ("limit", &outcome.limit)].into_iter().chain(messages)
        {
            let latency = total.latency();
            writeln!(
                text,
                "{name:<10}{:>12.0}{:>10}{:>10}{:>10}{:>12}",
                total.stores_per_s(),
                latency.p50,
                latency.p99,
                latency.p999,
                latency.max
            )?;
        }
        let interval = |ratio: Ratio| format!("{:.3} [{:.3}, {:.3}]", ratio.median, ratio.low, ratio.high);
        writeln!(text, "\nrate / limit      {}", interval(outcome.rate))?;
        writeln!(text, "p50 / limit       {}", interval(outcome.p50))?;
        for (name, ratio) in [("rate", outcome.rate_bare), ("p50", outcome.p50_bare)] {
            if let Some(ratio) = ratio {
                writeln!(text, "{:<18}{}", format!("{name} / messages"), interval(ratio))?;
            }
        }
        writeln!(text, "rate, limit/limit {}", interval(outcome.control))?;
        writeln!(text, "p50, limit/limit  {}", interval(outcome.control_p50))?;
        writeln!(text, "bytes destaged for each byte written  {:.3}", self.amplification())?;
        writeln!(
            text,
            "copies of each byte here              ring, peer's memory, page cache: 3; the limit: 2"
        )?;
        writeln!(text, "about {} ns of each latency are the timer", self.timer_ns)?;
        for (name, figure) in [("rate", Figure::Rate), ("p50", Figure::P50)] {
            if let Some(why) = outcome.void(figure) {
                writeln!(text, "\n{name} VOID: {why}")?;
            }
        }
        Ok(())
    }

    pub(super) fn json(&self) -> Value {
        let Self { options, outcome, .. } = self;
        let total = |total: &Total| {
            let latency = total.latency();
            json!({
                "writes_per_s": total.stores_per_s(),
                "p50_ns": latency.p50, "p99_ns": latency.p99, "p999_ns": latency.p999, "max_ns": latency.max,
                "cpu_ns_per_write": total.cpu_ns_per_store(),
            })
        };
        let ratio = |ratio: Ratio| json!({ "median": ratio.median, "low": ratio.low, "high": ratio.high });
        json!({
            "size": options.size, "depth": options.depth, "volume": options.volume, "ring": options.ring,
            "fabric": format!("{:?}", options.fabric).to_lowercase(),
            "store": total(&outcome.ours), "limit": total(&outcome.limit), "messages": outcome.bare.as_ref().map(total),
            "ratio": {
                "rate": ratio(outcome.rate), "p50": ratio(outcome.p50),
                "rate_messages": outcome.rate_bare.map(ratio), "p50_messages": outcome.p50_bare.map(ratio),
                "control": ratio(outcome.control), "control_p50": ratio(outcome.control_p50),
            },
            "write_amplification": self.amplification(),
            "timer_ns": self.timer_ns,
            "void_rate_why": outcome.void(Figure::Rate),
            "void_p50_why": outcome.void(Figure::P50),
        })
    }
}
