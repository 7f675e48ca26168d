//! `mirrorbus-bench store --steady N`: so many writes a second, one at a time, and how long each took: while a checkpoint was written or room
//! given back, and while neither was.
//!
//! The writer does not catch up: a write that took long delays the next, and is counted once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::options::StoreOptions;
use super::subject::Subject;
use crate::Failure;
use crate::histogram::{Latencies, LatencySummary};

/// What was measured.
pub(super) struct Steady {
    rate: u64,
    /// Writes a second that there were.
    reached: f64,
    rest: (u64, LatencySummary),
    keeping: (u64, LatencySummary),
    checkpoints: u64,
}

/// How much longer it writes at most, until a checkpoint was written.
const LONGER_MAX: Duration = Duration::from_secs(30);

/// Writes for the time that the options give, and on until a checkpoint was written meanwhile.
///
/// # Errors
/// A write failed, or no checkpoint was written within half a minute more.
pub(super) fn run(options: &StoreOptions, subject: &mut Subject, rate: u64) -> Result<Steady, Failure> {
    let gap = Duration::from_nanos(1_000_000_000 / rate);
    let (mut rest, mut keeping) = ((0_u64, Latencies::new()), (0_u64, Latencies::new()));
    let before = subject.status().counts.checkpoints;
    let began = Instant::now();
    let mut due = began;
    let is_over = |subject: &Subject, kept: u64| {
        let took = began.elapsed();
        let is_kept = || kept > 0 && subject.status().counts.checkpoints > before;
        took >= options.duration() && (took >= options.duration() + LONGER_MAX || is_kept())
    };
    while !is_over(subject, keeping.0) {
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        let was = subject.is_keeping();
        let start = Instant::now();
        subject.batch()?;
        let took = start.elapsed();
        let side = if was || subject.is_keeping() { &mut keeping } else { &mut rest };
        side.0 += 1;
        side.1.record(took);
        due = (due + gap).max(Instant::now());
    }
    let checkpoints = subject.status().counts.checkpoints - before;
    if checkpoints == 0 || keeping.0 == 0 {
        return Err(format!(
            "no checkpoint within {:?}: give more --seconds or --steady",
            options.duration() + LONGER_MAX
        )
        .into());
    }
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    let reached = (rest.0 + keeping.0) as f64 / began.elapsed().as_secs_f64();
    let summary = |(count, latencies): (u64, Latencies)| (count, latencies.summary());
    Ok(Steady { rate, reached, rest: summary(rest), keeping: summary(keeping), checkpoints })
}

impl Steady {
    fn rows(&self) -> [(&'static str, &(u64, LatencySummary)); 2] {
        [("otherwise", &self.rest), ("keeping", &self.keeping)]
    }

    #[allow(clippy::cast_precision_loss, reason = "a ratio needs no 53 bits")]
    fn ratio(&self) -> f64 {
        self.keeping.1.p999 as f64 / self.rest.1.p999.max(1) as f64
    }

    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{} writes/s asked for, {:.0} reached, one at a time · {} checkpoints\n\n{:<12}{:>10}{:>10}{:>10}{:>11}{:>12}\n",
            self.rate, self.reached, self.checkpoints, "", "writes", "p50 ns", "p99 ns", "p99.9 ns", "max ns"
        );
        for (name, (count, latency)) in self.rows() {
            let LatencySummary { p50, p99, p999, max, .. } = latency;
            text += &format!("{name:<12}{count:>10}{p50:>10}{p99:>10}{p999:>11}{max:>12}\n");
        }
        text += &format!("\np99.9, keeping / otherwise  {:.2}\n", self.ratio());
        text
    }

    pub(super) fn json(&self) -> Value {
        let mut value = json!({
            "steady": self.rate, "reached": self.reached, "checkpoints": self.checkpoints, "p999_ratio": self.ratio(),
        });
        for (name, (count, latency)) in self.rows() {
            value[name] = json!({ "writes": count, "p50_ns": latency.p50, "p99_ns": latency.p99, "p999_ns": latency.p999,
                                  "max_ns": latency.max });
        }
        value
    }
}
