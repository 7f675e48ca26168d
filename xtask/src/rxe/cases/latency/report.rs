//! What the rounds say, against what is promised.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::Round;
use crate::failure::Result;
use crate::rxe::control::Tolerance;
use crate::rxe::fio::Figures;
use crate::rxe::guests::Size;
use crate::rxe::ratio::{Ratio, median};
use crate::rxe::report::deliver;

/// The 99th percentile with a resync under way is at most so many times that without.
const LATENCY_MOST: f64 = 2.0;
/// The rate of a resync under clients is at least such a part of that without.
const RATE_LEAST: f64 = 0.25;

/// A percentile so far out differs from itself more than a median does, and what is asked is whether it was doubled: equal things must not
/// differ by half of that.
const TOLERANCE: Tolerance = Tolerance { median: 0.25, spread: 0.5 };

/// What is told.
pub(super) struct Report<'a> {
    pub(super) rounds: &'a [Round],
    pub(super) window: Duration,
    pub(super) changed_mib: u64,
}

/// Something that is promised of a ratio.
struct Bound {
    name: &'static str,
    promise: String,
    ratio: Ratio,
    control: Ratio,
    is_met: bool,
    void: Option<String>,
}

impl Bound {
    fn verdict(&self) -> String {
        match (&self.void, self.is_met) {
            (Some(why), _) => format!("VOID: {why}"),
            (None, true) => "met".to_owned(),
            (None, false) => "NOT MET".to_owned(),
        }
    }
}

/// One round in a line.
pub(super) fn line(round: &Round) -> String {
    let Round { without: [one, other], alone, with, idle, busy, .. } = round;
    format!(
        "p99 {:.0} and {:.0} µs in a pair, {:.0} alone, {:.0} with a resync ({:.0}, {:.0}, {:.0}, {:.0} writes), which moves {} without \
         clients, {} with one",
        one.p99_us,
        other.p99_us,
        alone.p99_us,
        with.p99_us,
        one.writes,
        other.writes,
        alone.writes,
        with.writes,
        mib(*idle),
        mib(*busy)
    )
}

impl Report<'_> {
    /// Prints the table, and writes the JSON below this directory.
    pub(super) fn deliver(&self, root: &Path) -> Result<()> {
        deliver(|text| self.write(text), &self.json(), &root.join("target/rxe/resync-latency.json"))
    }

    /// A figure's median over the rounds.
    fn of(&self, figure: impl Fn(&Round) -> f64) -> Ratio {
        median(self.rounds.iter().map(figure).collect())
    }

    /// What the resync does to a primary that is alone anyway.
    fn with_to_alone(&self) -> Ratio {
        self.of(|round| round.with.p99_us / round.alone.p99_us)
    }

    fn bounds(&self) -> [Bound; 2] {
        let count = self.rounds.len();
        let without = |round: &Round| f64::midpoint(round.without[0].p99_us, round.without[1].p99_us);
        let latency = self.of(|round| round.with.p99_us / without(round));
        let latency_control = self.of(|round| round.without[0].p99_us / round.without[1].p99_us);
        let rate = self.of(|round| round.busy / round.idle);
        let rate_control = self.of(|round| round.idle_halves[0] / round.idle_halves[1]);
        [
            Bound {
                name: "p99, with / without",
                promise: format!("at most {LATENCY_MOST}"),
                ratio: latency,
                control: latency_control,
                is_met: latency.median <= LATENCY_MOST,
                void: TOLERANCE.void(latency_control, count),
            },
            Bound {
                name: "rate, with / without",
                promise: format!("at least {RATE_LEAST}"),
                ratio: rate,
                control: rate_control,
                is_met: rate.median >= RATE_LEAST,
                void: TOLERANCE.void(rate_control, count),
            },
        ]
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "4 KiB random writes, one at a time, and a resync of {} MiB · {} rounds, windows of {:.1} s · two emulated guests of \
             {} processors, soft-RoCE",
            self.changed_mib,
            self.rounds.len(),
            self.window.as_secs_f64(),
            Size::MEASURED.processors,
        )?;
        let without = |figure: fn(&Figures) -> f64| {
            self.of(|round| f64::midpoint(figure(&round.without[0]), figure(&round.without[1]))).median
        };
        let with = |figure: fn(&Figures) -> f64| self.of(|round| figure(&round.with)).median;
        let [p50, p99, iops]: [fn(&Figures) -> f64; 3] = [|it| it.p50_us, |it| it.p99_us, |it| it.iops];
        writeln!(text, "\n{:<24}{:>10}{:>10}{:>8}{:>16}", "", "p50 µs", "p99 µs", "IOPS", "resync")?;
        let mut row = |name: &str, latencies: [f64; 3], rate: Option<f64>| {
            let rate = rate.map_or_else(String::new, mib);
            let [p50, p99, iops] = latencies;
            writeln!(text, "{name:<24}{p50:>10.0}{p99:>10.0}{iops:>8.0}{rate:>16}")
        };
        row("a pair", [p50, p99, iops].map(without), None)?;
        let alone = |figure: fn(&Figures) -> f64| self.of(|round| figure(&round.alone)).median;
        row("the primary alone", [p50, p99, iops].map(alone), None)?;
        row("during a resync", [p50, p99, iops].map(with), Some(self.of(|round| round.busy).median))?;
        let idle = mib(self.of(|round| round.idle).median);
        writeln!(text, "{:<24}{:>28}{idle:>16}", "a resync alone", "")?;
        writeln!(text, "\n{:<24}{:<22}{:<22}{:<16}", "", "ratio", "control", "promised")?;
        for bound in self.bounds() {
            let (ratio, control) = (interval(bound.ratio), interval(bound.control));
            writeln!(
                text,
                "{:<24}{ratio:<22}{control:<22}{:<16}{}",
                bound.name,
                bound.promise,
                bound.verdict()
            )?;
        }
        writeln!(text, "{:<24}{}", "p99, with / alone", interval(self.with_to_alone()))
    }

    fn json(&self) -> Value {
        let figures = |figures: &Figures| {
            let Figures { iops, writes, p50_us, p99_us } = figures;
            json!({ "iops": iops, "writes": writes, "p50_us": p50_us, "p99_us": p99_us })
        };
        let rounds = self.rounds.iter().map(|round| {
            json!({ "without": round.without.iter().map(figures).collect::<Vec<_>>(), "alone": figures(&round.alone),
                    "with": figures(&round.with),
                    "idle_bytes_per_second": round.idle, "idle_halves": round.idle_halves,
                    "busy_bytes_per_second": round.busy })
        });
        let bounds = self.bounds().map(|bound| {
            json!({ "name": bound.name, "promise": bound.promise, "ratio": ratio(bound.ratio),
                    "control": ratio(bound.control), "met": bound.is_met, "void_why": bound.void })
        });
        json!({
            "size_bytes": 4096, "depth": 1, "processors": Size::MEASURED.processors, "changed_mib": self.changed_mib,
            "window_seconds": self.window.as_secs_f64(), "bounds": bounds,
            "p99_with_to_alone": ratio(self.with_to_alone()), "rounds": rounds.collect::<Vec<_>>(),
        })
    }
}

fn ratio(ratio: Ratio) -> Value {
    json!({ "median": ratio.median, "low": ratio.low, "high": ratio.high })
}

fn interval(ratio: Ratio) -> String {
    format!("{:.2} [{:.2}, {:.2}]", ratio.median, ratio.low, ratio.high)
}

fn mib(bytes_per_second: f64) -> String {
    format!("{:.2} MiB/s", bytes_per_second / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rxe::report::text_of;

    fn figures(p99_us: f64) -> Figures {
        Figures { iops: 200.0, writes: 1000.0, p50_us: 2000.0, p99_us }
    }

    fn round(second: f64, with: f64, busy: f64) -> Round {
        let without = [figures(4000.0), figures(second)];
        let idle = f64::from(8 << 20);
        Round { without, alone: figures(1000.0), with: figures(with), idle, idle_halves: [idle, idle], busy }
    }

    fn table(round: Round, count: usize) -> (String, Value) {
        let rounds = vec![round; count];
        let report = Report { rounds: &rounds, window: Duration::from_secs(4), changed_mib: 64 };
        (text_of(|text| report.write(text)), report.json())
    }

    #[test]
    fn what_is_kept_and_what_is_not_is_told() {
        let quarter = f64::from(2 << 20);
        let (kept, json) = table(round(4000.0, 8000.0, quarter), 6);
        assert_eq!(kept.matches(" met\n").count(), 2, "{kept}");
        assert_eq!(json.pointer("/bounds/0/met"), Some(&json!(true)));
        assert!(kept.contains("p99, with / alone       8.00 [8.00, 8.00]\n"), "{kept}");
        let (missed, json) = table(round(4000.0, 8100.0, quarter * 0.99), 6);
        assert_eq!(missed.matches("NOT MET").count(), 2, "{missed}");
        assert_eq!(
            (json.pointer("/bounds/1/met"), json.pointer("/rounds/5/with/p99_us")),
            (Some(&json!(false)), Some(&json!(8100.0)))
        );
    }

    #[test]
    fn a_control_that_is_off_or_too_few_rounds_make_it_void() {
        let (off, json) = table(round(2000.0, 4000.0, 1e6), 6);
        assert_eq!(off.matches("VOID").count(), 1, "{off}");
        assert!(json.pointer("/bounds/0/void_why").is_some_and(Value::is_string));
        let (few, _) = table(round(4000.0, 8000.0, 1e6), 5);
        assert_eq!(few.matches("VOID: 5 rounds").count(), 2, "{few}");
    }
}
