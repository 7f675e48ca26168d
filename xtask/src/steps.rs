//! A list of steps: each is timed, none hides another, and the end counts what passed, failed and was skipped.

use std::thread;
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

/// What a step does.
type Work<'a> = Box<dyn FnOnce() -> Result<Counts> + Send + 'a>;

/// Steps that run one after another beside those of another chain.
#[derive(Default)]
pub(crate) struct Chain<'a>(Vec<(&'a str, Work<'a>)>);

impl<'a> Chain<'a> {
    /// With this step behind the others.
    pub(crate) fn then(mut self, name: &'a str, work: impl FnOnce() -> Result<Counts> + Send + 'a) -> Self {
        self.0.push((name, Box::new(work)));
        self
    }

    fn run(self) -> Vec<Row> {
        self.0.into_iter().map(|(name, work)| Row::of(name, work)).collect()
    }
}

/// The steps so far.
#[derive(Debug)]
pub(crate) struct Steps {
    began: Instant,
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
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), rows: Vec::new() }
    }

    /// Runs a step. A failure is kept: the steps after it run all the same.
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce() -> Result<Counts>) {
        self.rows.push(Row::of(name, work));
    }

    /// Runs these chains at the same time: a compiler of one crate leaves processors idle, and tests wait. Not for steps that measure time.
    pub(crate) fn run_together(&mut self, chains: [Chain<'_>; 2]) {
        thread::scope(|scope| {
            let running = chains.map(|chain| scope.spawn(|| chain.run()));
            for chain in running {
                self.rows.extend(chain.join().expect("it does not panic"));
            }
        });
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
        let minutes = self.began.elapsed().as_secs_f64() / 60.0;
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
    /// Runs a step and prints a line about it.
    fn of(name: &str, work: impl FnOnce() -> Result<Counts>) -> Self {
        println!("== {name}");
        let start = Instant::now();
        let (mut counts, failure) = match work() {
            Ok(counts) => (counts, None),
            Err(failure) => (Counts::default(), Some(failure)),
        };
        if let Some(failure) = &failure {
            counts.failed = 1;
            println!("{failure}");
        }
        let row = Self { name: name.to_owned(), took: start.elapsed(), counts, failure };
        println!("== {:<7} {:>7.1} s  {name}", row.verdict(), row.took.as_secs_f64());
        row
    }

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
        let mut steps = Steps::new();
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
    fn chains_run_at_the_same_time_and_each_step_counts() {
        let (asks, answers) = std::sync::mpsc::channel();
        let one = Chain::default()
            .then("waits", move || {
                let found = answers.recv_timeout(Duration::from_secs(60));
                found.map(|()| Counts::one()).map_err(|_| Failure::new("alone".into()))
            })
            .then("breaks", || Err(Failure::new("broke".into())));
        let other = Chain::default().then("tells", move || {
            asks.send(()).map(|()| Counts::one()).map_err(|_| Failure::new("alone".into()))
        });
        let mut steps = Steps::new();
        steps.run_together([one, other]);
        assert_eq!(steps.totals(), [2, 1, 0]);
        let names: Vec<_> = steps.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["waits", "breaks", "tells"]);
    }

    #[test]
    fn all_passed_is_no_failure() {
        let mut steps = Steps::new();
        steps.run("only", || Ok(Counts::one()));
        assert_eq!(steps.totals(), [1, 0, 0]);
        assert!(steps.finish().is_ok());
    }
}
