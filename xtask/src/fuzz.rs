//! `cargo xtask fuzz`: runs each target of `fuzz/` for a while.
//!
//! A target reads what a peer sends. Most inputs die at an authentication tag or a checksum, so each target prints,
//! now and then, how many came past it: `deep: N of M`; the last line counts. A run in which none did fails.
//!
//! A target takes one processor: as many run at the same time as there are.

use std::num::NonZero;
use std::thread;

use crate::failure::{Failure, Result};
use crate::install;
use crate::shell::{Ended, cargo, root, run as run_program, tee, tee_at_end};

/// How long each target runs unless told otherwise.
pub(crate) const SECONDS: u32 = 10;

/// How long each target runs in `ci --full`.
pub(crate) const SECONDS_FULL: u32 = 120;

/// How much longer a target runs again that did not get past a tag or checksum.
const TIMES_LONGER: [u32; 2] = [3, 10];

/// From here on slower code that is built sooner does not pay.
const SECONDS_LONG: u32 = 60;

/// How the targets are built for runs of `seconds`.
fn profile(seconds: u32) -> &'static [&'static str] {
    // Slower code is built by all processors in a third of the time, and the sanitizer is for `unsafe`, which few of them reach: the long runs have it.
    if seconds < SECONDS_LONG { &["--dev", "--sanitizer", "none"] } else { &["--release"] }
}

/// Builds every target for runs of `seconds`.
pub(crate) fn build(seconds: u32) -> Result<()> {
    if !root().join("fuzz/Cargo.toml").exists() {
        return Err(Failure::new("there is no fuzz/Cargo.toml: nothing to fuzz".to_owned()));
    }
    install::cpp_compiler()?;
    install::nightly()?;
    install::cargo_tool("fuzz", "it builds and runs the fuzz targets")?;
    run_program(cargo(&["+nightly", "fuzz", "build"]).args(profile(seconds)))
}

/// Builds every target and runs it for `seconds`.
pub(crate) fn run(seconds: u32) -> Result<()> {
    build(seconds)?;
    let built = profile(seconds);
    let listed = tee(&mut cargo(&["+nightly", "fuzz", "list"]))?;
    let targets: Vec<_> = listed.output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if !listed.success || targets.is_empty() {
        return Err(Failure::new("cargo fuzz list names no target".to_owned()));
    }
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    for together in targets.chunks(at_once) {
        for (target, ended) in together.iter().zip(side_by_side(together, seconds, built)) {
            let (report, why) = until_deep(target, ended?, seconds, built)?;
            lines.push(format!("{target}: {}", report.describe()));
            if let Some(why) = why {
                failed.push(format!("{target} {why}"));
            }
        }
    }
    println!("\nfuzz, {seconds} s each:");
    lines.iter().for_each(|line| println!("  {line}"));
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("fuzz: {}", failed.join("; ")))) }
}

/// What a target found, and why that is refused. One that did not get far, on a machine that does much else, is given more time.
fn until_deep(
    target: &str,
    mut ended: Ended,
    seconds: u32,
    built: &[&str],
) -> Result<(Report, Option<&'static str>)> {
    let mut longer = TIMES_LONGER.iter();
    loop {
        let report = Report::read(&ended.output);
        let why = report.refusal(ended.success);
        match longer.next() {
            Some(times) if why.is_some() && ended.success => {
                println!("{target}: {}: {times} times as long", report.describe());
                for again in side_by_side(&[target], times * seconds, built) {
                    ended = again?;
                }
            }
            Some(_) | None => return Ok((report, why)),
        }
    }
}

/// Runs these targets at the same time.
fn side_by_side(targets: &[&str], seconds: u32, built: &[&str]) -> Vec<Result<Ended>> {
    let limit = format!("-max_total_time={seconds}");
    let one = |target: &str| {
        let run = [&["+nightly", "fuzz", "run"], built, &[target, "--", &limit, "-print_final_stats=1"]];
        tee_at_end(&mut cargo(&run.concat()))
    };
    thread::scope(|scope| {
        let runs: Vec<_> = targets.iter().map(|target| scope.spawn(|| one(target))).collect();
        runs.into_iter().map(|run| run.join().expect("it does not panic")).collect()
    })
}

/// What a target's output tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    executions: Option<u64>,
    edges: Option<u64>,
    features: Option<u64>,
    deep: Option<(u64, u64)>,
}

impl Report {
    fn read(output: &str) -> Self {
        let mut report = Self::default();
        for line in output.lines() {
            let after = |mark: &str| {
                let (_, rest) = line.split_once(mark)?;
                rest.split_whitespace().next()?.parse::<u64>().ok()
            };
            report.executions = after("stat::number_of_executed_units:").or(report.executions);
            report.edges = after(" cov: ").or(report.edges);
            report.features = after(" ft: ").or(report.features);
            if line.starts_with("deep: ") {
                report.deep = after("deep: ").zip(after(" of ")).or(report.deep);
            }
        }
        report
    }

    fn describe(&self) -> String {
        let number = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
        let deep =
            self.deep.map_or_else(|| "deep ?".to_owned(), |(deep, all)| format!("deep {deep} of {all}"));
        let [executions, edges, features] = [self.executions, self.edges, self.features].map(number);
        format!("{executions} executions, cov {edges}, ft {features}, {deep}")
    }

    fn refusal(&self, success: bool) -> Option<&'static str> {
        match (success, self.executions, self.deep) {
            (false, ..) => Some("crashed: the input is in fuzz/artifacts"),
            (true, None | Some(0), _) => Some("executed nothing"),
            (true, _, None) => Some("did not print `deep: N of M`"),
            (true, _, Some((0, _))) => Some("got no input past the tag or checksum"),
            (true, ..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "#2\tINITED cov: 14 ft: 15 corp: 1/1b exec/s: 0 rss: 39Mb\n\
        #5131\tNEW    cov: 402 ft: 1313 corp: 60/2kb\ndeep: 77 of 9000\nstat::number_of_executed_units: 9000\n";

    #[test]
    fn the_last_figures_are_read() {
        let report = Report::read(OUTPUT);
        assert_eq!(report.describe(), "9000 executions, cov 402, ft 1313, deep 77 of 9000");
        assert_eq!(report.refusal(true), None);
    }

    #[test]
    fn crashes_and_empty_runs_are_refused() {
        let report = |from: &str, to: &str| Report::read(&OUTPUT.replace(from, to));
        assert!(report("", "").refusal(false).unwrap().contains("crashed"));
        assert!(report("units: 9000", "units: 0").refusal(true).unwrap().contains("nothing"));
        assert!(report("deep: 77", "deep: 0").refusal(true).unwrap().contains("no input"));
        assert!(report("deep: ", "shallow: ").refusal(true).unwrap().contains("did not print"));
    }
}
