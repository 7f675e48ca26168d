//! The comparison as a table and as JSON.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::failure::Result;

use super::contender::{Contender, VOLUME};
use super::outcome::{Figure, Outcome, Ratios};
use crate::rxe::guests::Size;
use crate::rxe::ratio::Ratio;
use crate::rxe::report::deliver;

/// What is told.
pub(super) struct Report<'a> {
    pub(super) contenders: &'a [Box<dyn Contender>],
    /// One for each job.
    pub(super) outcomes: &'a [Outcome],
    pub(super) rounds: u32,
    pub(super) slice: Duration,
}

impl Report<'_> {
    /// Prints the table, and writes `guests.json` into a directory.
    pub(super) fn deliver(&self, directory: &Path) -> Result<()> {
        deliver(|text| self.write(text), &self.json(), &directory.join("guests.json"))
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "4 KiB random writes over {VOLUME} · {} rounds of {} s · two emulated guests of one processor, each on one of the host's, soft-RoCE",
            self.rounds,
            self.slice.as_secs_f64()
        )?;
        write!(text, "\n{:<18}", "")?;
        for outcome in self.outcomes {
            let depth = outcome.job.depth;
            write!(text, "{:>14}{:>14}", format!("p50 µs, {depth}"), format!("IOPS, {depth}"))?;
        }
        writeln!(text)?;
        for (index, contender) in self.contenders.iter().enumerate() {
            write!(text, "{:<18}", contender.name())?;
            for outcome in self.outcomes {
                let sample = outcome.medians[index];
                write!(text, "{:>14.0}{:>14.0}", sample.p50_us, sample.iops)?;
            }
            writeln!(text)?;
        }
        self.outcomes.iter().try_for_each(|outcome| self.ratios(text, outcome))
    }

    /// The ratios of one job, by the figure that it is judged by.
    fn ratios(&self, text: &mut String, outcome: &Outcome) -> std::fmt::Result {
        let figure = outcome.job.judged_by();
        let what = match figure {
            Figure::P50 => "p50, ours / theirs: below 1 ours is sooner",
            Figure::Rate => "IOPS, ours / theirs: above 1 ours does more",
        };
        write!(text, "\n{:<18}", format!("depth {}", outcome.job.depth))?;
        for (index, _) in outcome.against.iter().flat_map(|against| &against.ours).take(2) {
            write!(text, "{:<22}", self.contenders[*index].name())?;
        }
        writeln!(text, "theirs / theirs       {what}")?;
        for against in &outcome.against {
            write!(text, "{:<18}", self.contenders[against.peer].name())?;
            for (_, ratios) in &against.ours {
                write!(text, "{:<22}", interval(figure.of(ratios)))?;
            }
            let void = against.void(figure, self.rounds as usize);
            let void = void.map_or_else(String::new, |why| format!("  VOID: {why}"));
            writeln!(text, "{}{void}", interval(figure.of(&against.control)))?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let name = |index: usize| self.contenders[index].name();
        let contenders: Vec<_> = self
            .contenders
            .iter()
            .map(|contender| json!({ "name": contender.name(), "about": contender.about() }))
            .collect();
        let jobs = self.outcomes.iter().map(|outcome| {
            let medians = outcome.medians.iter().enumerate().map(|(index, sample)| {
                json!({ "name": name(index), "iops": sample.iops, "p50_us": sample.p50_us })
            });
            let against = outcome.against.iter().map(|against| {
                let ours = against.ours.iter().map(|(index, ratios)| {
                    json!({ "name": name(*index), "rate": ratio(ratios.rate), "p50": ratio(ratios.p50) })
                });
                let Ratios { rate, p50 } = against.control;
                let void = |figure| against.void(figure, self.rounds as usize);
                json!({ "peer": name(against.peer), "ours": ours.collect::<Vec<_>>(),
                        "control": ratio(rate), "control_p50": ratio(p50),
                        "void_rate_why": void(Figure::Rate), "void_p50_why": void(Figure::P50) })
            });
            let judged_by = match outcome.job.judged_by() {
                Figure::Rate => "rate",
                Figure::P50 => "p50",
            };
            json!({ "depth": outcome.job.depth, "judged_by": judged_by,
                    "contenders": medians.collect::<Vec<_>>(), "against": against.collect::<Vec<_>>() })
        });
        json!({
            "size_bytes": 4096, "volume": VOLUME, "rounds": self.rounds, "slice_seconds": self.slice.as_secs_f64(),
            "guests": { "processors": Size::COMPARED.processors, "memory_mib": Size::COMPARED.memory_mib,
                        "each_on_its_own_processor": Size::COMPARED.apart },
            "contenders": contenders, "jobs": jobs.collect::<Vec<_>>(),
        })
    }
}

fn ratio(ratio: Ratio) -> Value {
    json!({ "median": ratio.median, "low": ratio.low, "high": ratio.high })
}

fn interval(ratio: Ratio) -> String {
    format!("{:.2} [{:.2}, {:.2}]", ratio.median, ratio.low, ratio.high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rxe::peers::contender::{Job, Sample};
    use crate::rxe::peers::{Turns, contenders};
    use crate::rxe::report::text_of;

    #[test]
    fn every_contender_has_its_figures_and_each_other_its_ratios() {
        let all = contenders();
        let outcomes = Job::ALL.map(|job| {
            let turns: Vec<_> = (1..=7)
                .map(|speed| {
                    let sample = Sample { iops: f64::from(speed) * 1e3, p50_us: 1e3 / f64::from(speed) };
                    Turns { first: vec![sample; 6], second: vec![sample; 6] }
                })
                .collect();
            Outcome::of(job, &all, &turns)
        });
        let report =
            Report { contenders: &all, outcomes: &outcomes, rounds: 6, slice: Duration::from_millis(500) };
        let (table, json) = (text_of(|text| report.write(text)), report.json());
        for contender in &all {
            assert!(table.contains(&format!("\n{:<18}", contender.name())), "{table}");
        }
        assert!(
            table.contains("\nDRBD              3.00 [3.00, 3.00]     1.50 [1.50, 1.50]     1.00"),
            "{table}"
        );
        assert!(!table.contains("VOID"), "{table}");
        let void = text_of(|text| Report { rounds: 1, ..report }.write(text));
        assert_eq!(void.matches("VOID: 1 rounds").count(), 10, "{void}");
        let pointer = "/jobs/1/against/0/ours/0/rate/median";
        assert!(
            json.pointer(pointer).and_then(Value::as_f64).is_some_and(|rate| (rate * 3.0 - 1.0).abs() < 1e-9)
        );
        assert_eq!(json.pointer("/jobs/0/against/3/peer"), Some(&json!("bare verbs")));
    }
}
