//! A list of steps: each is timed, none hides another, and the end counts what passed, failed and was skipped.

use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};

/// What a step found. A step that is one check counts as one; a step that runs tests counts each of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Checks that passed.
    pub(crate) passed: usize,
    /// Checks that failed.
    pub(crate) failed: usize,
    /// Checks that were not made, each with its reason.
    pub(crate) skipped: Vec<String>,
}

impl Counts {
    /// One check, passed.
    pub(crate) const fn one() -> Self {
        Self { passed: 1, failed: 0, skipped: Vec::new() }
    }
}

/// The steps so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    took: Duration,
    counts: Counts,
    failure: Option<Failure>,
}

impl Steps {
    /// Runs a step and prints a line about it. A failure is kept: the steps after it run all the same.
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce() -> Result<Counts>) {
        println!("== {name}");
        let start = Instant::now();
        let (mut counts, failure) = match work() {
            Ok(counts) => (counts, None),
            Err(failure) => (Counts::default(), Some(failure)),
        };
        if failure.is_some() {
            counts.failed = 1;
        }
        if let Some(failure) = &failure {
            println!("{failure}");
        }
        let row = Row { name: name.to_owned(), took: start.elapsed(), counts, failure };
        println!("== {:<7} {:>7.1} s  {name}", row.verdict(), row.took.as_secs_f64());
        self.rows.push(row);
    }

    /// Prints the closing table and the summary; an error when a step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n{:<34} {:>8}  result", "step", "minutes");
        for row in &self.rows {
            println!("{:<34} {:>8.2}  {}", row.name, row.took.as_secs_f64() / 60.0, row.verdict());
            for reason in &row.counts.skipped {
                println!("{:<34} {:>8}  skipped: {reason}", "", "");
            }
            if let Some(failure) = &row.failure {
                println!("{:<34} {:>8}  {failure}", "", "");
            }
        }
        let minutes = self.rows.iter().map(|row| row.took.as_secs_f64()).sum::<f64>() / 60.0;
        println!("{:<34} {minutes:>8.2}", "all");
        let [passed, failed, skipped] = self.totals();
        println!("\n{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 { Ok(()) } else { Err(Failure::new(self.names_of_failed())) }
    }

    fn totals(&self) -> [usize; 3] {
        let sum = |count: fn(&Counts) -> usize| self.rows.iter().map(|row| count(&row.counts)).sum();
        [sum(|counts| counts.passed), sum(|counts| counts.failed), sum(|counts| counts.skipped.len())]
    }

    fn names_of_failed(&self) -> String {
        let failed = self.rows.iter().filter(|row| row.counts.failed > 0);
        format!("failed: {}", failed.map(|row| row.name.as_str()).collect::<Vec<_>>().join(", "))
    }
}

impl Row {
    const fn verdict(&self) -> &'static str {
        match (self.counts.failed, self.counts.passed, self.counts.skipped.is_empty()) {
            (0, 0, false) => "not run",
            (0, ..) => "ok",
            _ => "FAILED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_counted_and_hides_nothing() {
        let mut steps = Steps::default();
        steps.run("first", || Ok(Counts { passed: 3, failed: 0, skipped: vec!["x (why)".into()] }));
        steps.run("second", || Err(Failure::new("broke".into())));
        steps.run("third", || Ok(Counts { passed: 1, failed: 2, skipped: Vec::new() }));
        steps.run("fourth", || Ok(Counts { skipped: vec!["y (why)".into()], ..Counts::default() }));
        assert_eq!(steps.totals(), [4, 3, 2]);
        let verdicts: Vec<_> = steps.rows.iter().map(Row::verdict).collect();
        assert_eq!(verdicts, ["ok", "FAILED", "FAILED", "not run"]);
        assert_eq!(steps.finish().unwrap_err().to_string(), "failed: second, third");
    }

    #[test]
    fn all_passed_is_no_failure() {
        let mut steps = Steps::default();
        steps.run("only", || Ok(Counts::one()));
        assert_eq!(steps.totals(), [1, 0, 0]);
        assert!(steps.finish().is_ok());
    }
}
