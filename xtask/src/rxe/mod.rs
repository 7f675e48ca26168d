//! `cargo xtask rxe`: tests on soft-RoCE, the RDMA device that is all software, in two emulated machines.
//!
//! ```text
//! packages, kernel, modules ─┐
//! artifacts ─────────────────┴▶ image ─▶ guests (two of guest, on qemu, disk and port) ─▶ cases
//! ```
//!
//! Nothing is asked of this machine's kernel: no RDMA, no modules, no KVM, no network device, no root. The link between the
//! guests can be cut, and their power. How to write a test: docs/guests.md.

mod artifacts;
mod cases;
mod config;
mod console;
mod control;
mod cpio;
mod disk;
mod extra;
mod fio;
mod guest;
mod guests;
mod host;
mod image;
mod kernel;
mod libraries;
mod machine;
mod mediator;
mod modules;
mod packages;
mod pair;
mod peers;
mod port;
mod qemu;
mod random;
mod report;
mod saved;
// The bench's: one way to make a median and its interval.
#[path = "../../../bench/src/ratio.rs"]
mod ratio;

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};
use crate::install;
use crate::shell::root;
use crate::steps::Counts;

use artifacts::Artifact;
use cases::{Case, On};
use extra::Extra;
use guests::{Guests, Size};
use host::Host;
use random::Random;

pub(crate) use cases::MANY as ROUNDS_MANY;
pub(crate) use peers::run as compare;

/// `cargo xtask rxe`
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Tests by name; all without any. An unknown name lists them
    tests: Vec<String>,
    /// Run those tests that choose at random so many times; `power`, `resync`, `reconnects` and `failover` a third of that unless named
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// What the choices at random begin with; printed by each run
    #[arg(long)]
    seed: Option<u64>,
    /// Afterwards leave the guests on and take commands from stdin, one a line
    #[arg(long, conflicts_with = "host")]
    keep: bool,
    /// No guests: use this host's own soft-RoCE, for the tests that need one machine
    #[arg(long)]
    host: bool,
    /// Give the guests `ib_write_lat` and `ib_write_bw` too, and run them
    #[arg(long, conflicts_with = "host")]
    perftest: bool,
}

impl Arguments {
    /// Every test, those that choose at random so many times: what CI runs.
    pub(crate) const fn all(rounds: u32) -> Self {
        Self { tests: Vec::new(), rounds, seed: None, keep: false, host: false, perftest: false }
    }

    /// How many times a test runs.
    fn times(&self, case: &Case) -> u32 {
        case.times(self.rounds, !self.tests.is_empty())
    }
}

/// A line of the closing table.
struct Row {
    name: String,
    took: Duration,
    result: Result<()>,
}

/// Runs the tests asked for; an error when one failed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let failed = test(arguments)?.failed;
    if failed == 0 { Ok(()) } else { Err(Failure::new(format!("{failed} tests failed"))) }
}

/// Runs the tests asked for and counts them; an error when none could be run.
pub(crate) fn test(arguments: &Arguments) -> Result<Counts> {
    let chosen = cases::choose(&arguments.tests, arguments.perftest)?;
    let is_measurement = cases::is_measurement(&chosen)?;
    install::verbs()?;
    let mut random = Random::new(arguments.seed);
    let cache = root().join("target/rxe");
    let (rows, skipped) = if arguments.host {
        let artifacts = artifacts::build()?;
        on_host(&Host::up(&cache, &artifacts)?, &chosen)
    } else {
        let guests = if is_measurement {
            guests(&cache, Extra::Fio, Size::MEASURED, artifacts::released)?
        } else {
            let extra = if arguments.perftest { Extra::Perftest } else { Extra::Nothing };
            guests(&cache, extra, Size::TESTED, artifacts::build)?
        };
        // With many rounds each start is one from nothing.
        if !is_measurement && arguments.rounds < cases::MANY {
            guests.save();
        }
        let rows = in_guests(&guests, &chosen, arguments, &mut random, &cache.join("logs"));
        if arguments.keep {
            console::serve(&guests)?;
        }
        let left_out = chosen.iter().filter(|case| arguments.times(case) == 0);
        let why = |case: &&Case| format!("{} (with {} rounds, or by name)", case.name, cases::MANY);
        (rows, left_out.map(why).collect())
    };
    count(&rows, skipped)
}

/// All that it takes to have the guests up, with the programs that are built.
fn guests(cache: &Path, extra: Extra, size: Size, build: fn() -> Result<Vec<Artifact>>) -> Result<Guests> {
    if !cfg!(target_arch = "x86_64") {
        let why = "the guests are x86-64 and run this machine's programs: use --host on another processor";
        return Err(Failure::new(why.to_owned()));
    }
    install::emulator()?;
    let artifacts = build()?;
    let (kernel, userland) = (packages::kernel(cache)?, packages::userland(cache, extra)?);
    let image = image::build(cache, &kernel, &userland, &artifacts, extra)?;
    let program = artifacts.into_iter().find(|artifact| artifact.name == "mirrorbus");
    let program = program.ok_or_else(|| Failure::new("cargo built no mirrorbus".to_owned()))?.path;
    Guests::up(&image, &cache.join("run"), size, program)
}

fn in_guests(
    guests: &Guests,
    chosen: &[&Case],
    arguments: &Arguments,
    random: &mut Random,
    logs: &Path,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for case in chosen {
        let times = arguments.times(case);
        if times == 0 {
            continue;
        }
        // Rounds that are one run, and the runs.
        let (together, runs) = if matches!(case.on, On::Rounds(_)) { (times, 1) } else { (1, times) };
        for run in 1..=runs {
            let name = match (together, run) {
                (1, 1) => case.name.to_owned(),
                (1, _) => format!("{} ({run})", case.name),
                _ => format!("{} ({together} rounds)", case.name),
            };
            let row = timed(name, case, || {
                guests.mend()?;
                // Cutting the guests' power ends all that it waits for.
                watched(
                    case.limit() * together,
                    || guests.kill(),
                    || match case.on {
                        On::One(body) => body(&guests.a),
                        On::Two(body) => body(guests, random),
                        On::Rounds(body) => body(guests, random, together),
                    },
                )
            });
            if row.result.is_err() {
                if let Err(failure) = guests.keep_logs(logs, case.name) {
                    println!("the logs could not be kept: {failure}");
                }
                // Whatever it may have done to the kernels and disks there is not to be in the next one's way.
                guests.kill();
                guests.remove_disks();
            }
            rows.push(row);
        }
    }
    rows
}

/// What was run, and what was not with its reason.
fn on_host(host: &Host, chosen: &[&Case]) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    for case in chosen {
        match case.on {
            On::One(body) => rows.push(timed(case.name.to_owned(), case, || body(host))),
            On::Two(_) | On::Rounds(_) => skipped.push(format!("{} (needs two machines)", case.name)),
        }
    }
    (rows, skipped)
}

fn timed(name: String, case: &Case, body: impl FnOnce() -> Result<()>) -> Row {
    println!("-- {name}: {}", case.about);
    let start = Instant::now();
    let result = body();
    if let Err(failure) = &result {
        println!("{failure}");
    }
    Row { name, took: start.elapsed(), result }
}

/// Gives up when the body does not end within `most`: what it waits for must end by that.
fn watched<T>(most: Duration, give_up: impl FnOnce() + Send, body: impl FnOnce() -> T) -> T {
    let (running, ended) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(most) == Err(RecvTimeoutError::Timeout) {
                println!("no end within {most:?}: cutting the guests' power");
                give_up();
            }
        });
        let result = body();
        drop(running);
        result
    })
}

/// Prints the table. Nothing at all is a failure: it proves nothing.
fn count(rows: &[Row], skipped: Vec<String>) -> Result<Counts> {
    println!("\n{:<34} {:>8}  result", "test", "seconds");
    for Row { name, took, result } in rows {
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{name:<34} {:>8.1}  {verdict}", took.as_secs_f64());
    }
    let all: f64 = rows.iter().map(|row| row.took.as_secs_f64()).sum();
    println!("{:<34} {all:>8.1}", "all");
    skipped.iter().for_each(|what| println!("skipped: {what}"));
    let failed: Vec<_> = rows.iter().filter(|row| row.result.is_err()).map(|row| row.name.as_str()).collect();
    let counts = Counts { passed: rows.len() - failed.len(), failed: failed.len(), skipped };
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped.len());
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    if rows.is_empty() { Err(Failure::new("no test ran".to_owned())) } else { Ok(counts) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn the_command_line_is_read() {
        let parse = |words: &str| Line::try_parse_from(["rxe"].into_iter().chain(words.split_whitespace()));
        let line = parse("--rounds 5 --keep bring-up cut-carrier").unwrap().arguments;
        assert_eq!((line.rounds, line.keep, line.host), (5, true, false));
        assert_eq!(line.tests, ["bring-up", "cut-carrier"]);
        assert!(parse("--host --keep").is_err());
        assert!(parse("--rounds many").is_err());
    }

    #[test]
    fn a_test_that_does_not_end_is_ended() {
        let (power, cut) = channel::<()>();
        let end = watched(Duration::from_millis(10), move || drop(power), || cut.recv());
        assert!(end.is_err(), "what it waited for has ended");
        let (power, _cut) = channel::<()>();
        watched(Duration::from_secs(60), || power.send(()).unwrap(), || {});
    }

    #[test]
    fn what_failed_and_what_was_skipped_is_counted() {
        let row = |result| Row { name: "x".to_owned(), took: Duration::ZERO, result };
        let counts =
            count(&[row(Ok(())), row(Err(Failure::new("y".to_owned())))], vec!["z (why)".to_owned()]);
        let counts = counts.unwrap();
        assert_eq!((counts.passed, counts.failed, counts.skipped.len()), (1, 1, 1));
        assert!(count(&[], vec!["z (why)".to_owned()]).is_err());
    }
}
