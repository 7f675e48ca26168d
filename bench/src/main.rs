//! `mirrorbus-bench`: latency and rate of a mirrored region, as a ratio to the limit measured in the same run.
//!
//! ```text
//! options ─▶ workload ─▶ subject (the mirrored region) ─┐
//!                    └─▶ limit (the bare loop) ─────────┴▶ driver (one loop for all) ─▶ pair (in turn) ─▶ outcome ─▶ report
//! ```
#![deny(unsafe_code)]

mod child;
mod driver;
mod epoch;
mod histogram;
mod limit;
mod machine;
mod nbd;
mod options;
mod outcome;
#[path = "../../src/cli/pages.rs"]
mod pages;
mod pair;
#[cfg(feature = "rdma")]
mod perftest;
mod ratio;
mod report;
mod store;
mod subject;
mod workload;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use limit::Limit;
use machine::Machine;
use options::{Cli, Command, RegionOptions};
use pair::Contender;
use pair::Contest;
use report::Report;
use subject::Subject;
use workload::Workload;

/// Why a run ended without figures: a sentence for the user.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The options make no sense.
const EXIT_USAGE: u8 = 2;
/// The figure that the run is judged by is void.
const EXIT_VOID: u8 = 3;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Region(options) => region(&options),
        Command::LimitPeer(options) => {
            if options.with_stdin {
                child::end_with_parent(|| ());
            }
            limit::serve(&options).map(|()| ExitCode::SUCCESS)
        }
        Command::Store(options) => match options.mistake() {
            None => store::run(&options),
            Some(why) => {
                eprintln!("mirrorbus-bench: {why}");
                Ok(ExitCode::from(EXIT_USAGE))
            }
        },
        Command::Epoch(options) => match options.mistake() {
            None => epoch::run(&options),
            Some(why) => {
                eprintln!("mirrorbus-bench: {why}");
                Ok(ExitCode::from(EXIT_USAGE))
            }
        },
        Command::Nbd(options) => match options.mistake() {
            None => nbd::run(&options),
            Some(why) => {
                eprintln!("mirrorbus-bench: {why}");
                Ok(ExitCode::from(EXIT_USAGE))
            }
        },
        Command::StoreTurns(options) => store::run_turns(&options),
        Command::StorePeer(options) => store::run_peer(&options).map(|never| match never {}),
        Command::Pages(arguments) => {
            pages::write(Cli::command(), &arguments).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Command::Hold(options) => subject::hold(&options).map(|never| match never {}),
    };
    result.unwrap_or_else(|error| {
        eprintln!("mirrorbus-bench: {error}");
        ExitCode::FAILURE
    })
}

fn region(options: &RegionOptions) -> Result<ExitCode, Failure> {
    let workload = match options.workload() {
        Ok(workload) => workload,
        Err(why) => {
            eprintln!("mirrorbus-bench: {why}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let machine = Machine::here();
    let mut limit = Limit::new(&workload, options.level, options.limit_peer.as_deref())?;
    let mut ours = Ours::new(&workload, options)?;
    let idle_cpu = idle(options.idle);
    let timer_ns = histogram::timer_cost();
    let (limit_does, limit_copies_per_byte) = (limit.does, limit.copies_per_byte);
    let (limit, bare) = limit.contenders();
    let mut contest = Contest { ours: ours.contender(), limit, bare, timer_ns };
    let outcome = contest.run(options.schedule())?;
    let (ours_does, copies) = ours.describe();
    let report = Report {
        workload,
        level: options.level,
        ours_does,
        ours_copies_per_byte: Some(copies),
        limit_does,
        limit_copies_per_byte,
        outcome,
        timer_ns,
        idle_cpu,
        perftest: limit::perftest(options)?,
        machine,
    };
    deliver(&report, options)
}

/// Does nothing for so many seconds; the part of one processor that this process took meanwhile.
fn idle(seconds: f64) -> Option<f64> {
    let before = driver::process_time();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    #[allow(clippy::cast_precision_loss, reason = "some seconds in nanoseconds")]
    let spent = (driver::process_time() - before) as f64;
    (seconds > 0.0).then_some(spent / 1e9 / seconds)
}

/// What stands against the limit.
enum Ours {
    /// The mirrored region.
    Region(Subject),
    /// The limit itself.
    Limit(Limit),
}

impl Ours {
    fn new(workload: &Workload, options: &RegionOptions) -> Result<Self, Failure> {
        if options.limit_only {
            return Ok(Self::Limit(Limit::new(workload, options.level, None)?));
        }
        Ok(Self::Region(Subject::open(workload, options)?))
    }

    fn contender(&mut self) -> &mut dyn Contender {
        match self {
            Self::Region(subject) => subject.contender(),
            Self::Limit(limit) => limit.contenders().0,
        }
    }

    fn describe(&self) -> (String, f64) {
        match self {
            Self::Region(subject) => (subject.does.clone(), subject.copies_per_byte),
            Self::Limit(limit) => ("the limit itself (--limit-only)".to_owned(), limit.copies_per_byte),
        }
    }
}

fn deliver(report: &Report, options: &RegionOptions) -> Result<ExitCode, Failure> {
    print!("{}", report::table::render(report));
    let write = |path: &std::path::Path, text: String| {
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    if let Some(path) = &options.json {
        write(path, format!("{:#}\n", report::json::render(report)))?;
    }
    if let Some(path) = &options.html {
        write(path, report::html::render(report)?)?;
    }
    Ok(if report.void().is_some() { ExitCode::from(EXIT_VOID) } else { ExitCode::SUCCESS })
}
