//! `mirrorbus-bench store`: writes to a volume of a mirrored pair, in process, beside the copies that they make.
//!
//! ```text
//!  this process: primary, one thread that writes ══ shm or tcp ══ a child: secondary
//!  the limit: the same bytes copied twice and summed once, with a fence for each acknowledged batch
//!  messages: the same bytes sent to a process that receives them and answers, over tcp within this machine
//! ```
//!
//! With `--safety` a pair that has a mediator stands beside one that has none.
//!
//! The limit is what memory allows for the copies made. It has no log, no map and no disk, so it stays one for every store.

mod limit;
mod measure;
mod messages;
mod options;
mod peer;
mod report;
mod safety;
mod steady;
mod subject;
mod turns;

use std::process::ExitCode;

use crate::Failure;
use crate::histogram;
use crate::machine::Machine;
use crate::outcome::Figure;
use crate::pair::{Contest, Schedule};
pub(crate) use options::{StoreFabric, StoreOptions, StorePeerOptions, StoreTurnsOptions};
pub(crate) use peer::run as run_peer;
pub(crate) use turns::run as run_turns;

/// Measures.
///
/// # Errors
/// The pair did not come up, or a write failed.
pub(crate) fn run(options: &StoreOptions) -> Result<ExitCode, Failure> {
    let machine = Machine::here();
    if options.safety {
        let safety = safety::run(options)?;
        print!("{}", safety.table(&machine));
        write(options, &safety.json())?;
        return Ok(if safety.void().is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(crate::EXIT_VOID)
        });
    }
    let mut subject = subject::Subject::open(options)?;
    if let Some(rate) = options.steady {
        let steady = steady::run(options, &mut subject, rate)?;
        print!("{}", steady.table());
        write(options, &steady.json())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut limit = limit::Limit::new(options)?;
    let mut messages = messages::messages(options)?;
    let (messages, _) = messages.contenders();
    let timer_ns = histogram::timer_cost();
    let mut contest = Contest { ours: &mut subject, limit: &mut limit, bare: Some(messages), timer_ns };
    let outcome = contest.run(Schedule::of(options.duration(), None))?;
    let status = subject.status();
    let report = report::Report { options, outcome: &outcome, status: &status, machine: &machine, timer_ns };
    print!("{}", report.table());
    write(options, &report.json())?;
    // As with the mirrored region: one at a time is judged by its median, several by their rate.
    let figure = if options.depth == 1 { Figure::P50 } else { Figure::Rate };
    Ok(if outcome.void(figure).is_some() { ExitCode::from(crate::EXIT_VOID) } else { ExitCode::SUCCESS })
}

fn write(options: &StoreOptions, report: &serde_json::Value) -> Result<(), Failure> {
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{report:#}\n"))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}
