//! `cargo xtask compare --guests`: a volume mirrored over soft-RoCE beside what the kernel replicates disks with, on the same two guests in
//! the same run.
//!
//! ```text
//! contender (one file each) ─▶ rounds (turns, in each round one of each) ─▶ outcome (ratios, controls, what is void) ─▶ report
//! ```
//!
//! In a round ours have one turn each, the others two, one before ours and one behind; every second round goes backwards, so that a drift of the
//! machine, and what a turn leaves to be done behind it, fall on both alike. Compared are only turns of one round. A contender that does not come up ends the command: a table
//! without it would look like one in which nothing was missing.

mod contender;
mod disks;
mod drbd;
mod in_process;
mod md;
mod nbd;
mod nvme;
mod ours;
mod outcome;
mod report;

use std::time::Duration;

use crate::failure::{Context, Failure, Result};
use crate::shell::root;

use super::artifacts;
use super::extra::Extra;
use super::guests::{Guests, Size};

use contender::{Contender, Job, Sample, Side};
use outcome::Outcome;
use report::Report;

/// Before each turn: what the one before left to be written is written then.
const REST: Duration = Duration::from_millis(200);

/// The turns of one contender at one job.
#[derive(Debug, Default)]
struct Turns {
    first: Vec<Sample>,
    /// Of those that have a second turn in each round.
    second: Vec<Sample>,
}

/// Brings all up, measures, and tells.
pub(crate) fn run(rounds: u32, slice: Duration) -> Result<()> {
    let cache = root().join("target/rxe");
    let guests = super::guests(&cache, Extra::Peers, Size::COMPARED, artifacts::released)?;
    let result = compare(&guests, rounds, slice);
    if result.is_err()
        && let Err(failure) = guests.keep_logs(&cache.join("logs"), "compare")
    {
        println!("the logs could not be kept: {failure}");
    }
    result
}

fn compare(guests: &Guests, rounds: u32, slice: Duration) -> Result<()> {
    disks::make(guests)?;
    let mut all = contenders();
    bring_up(&mut all, guests)?;
    let turns = measure(&mut all, guests, rounds, slice)?;
    // Backwards: the last one may stand on the first.
    for contender in all.iter_mut().rev() {
        let name = contender.name();
        let torn = contender.tear_down(guests);
        torn.context(|| {
            format!("{name} is not as it should be in the end, so its figures are worth nothing")
        })?;
    }
    let outcomes: Vec<_> =
        Job::ALL.into_iter().zip(&turns).map(|(job, turns)| Outcome::of(job, &all, turns)).collect();
    Report { contenders: &all, outcomes: &outcomes, rounds, slice }.deliver(&root().join("target/compare"))
}

/// Everything that is compared, ours first.
fn contenders() -> Vec<Box<dyn Contender>> {
    let (in_process, [bare, bare_record]) = in_process::all();
    vec![
        Box::new(ours::Ours::default()),
        Box::new(in_process),
        Box::new(drbd::Drbd),
        Box::new(nvme::Nvme),
        Box::new(nbd::Nbd),
        Box::new(bare),
        Box::new(bare_record),
    ]
}

/// Brings up all, and names each that does not come.
fn bring_up(all: &mut [Box<dyn Contender>], guests: &Guests) -> Result<()> {
    let mut failures = Vec::new();
    for contender in all {
        println!("-- {}: {}", contender.name(), contender.about());
        if let Err(failure) = contender.bring_up(guests).and_then(|()| contender.fill(guests)) {
            failures.push(format!("{} cannot be brought up: {failure}", contender.name()));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::new(failures.join("\n"))) }
}

/// The turns of each contender at each job.
fn measure(
    all: &mut [Box<dyn Contender>],
    guests: &Guests,
    rounds: u32,
    slice: Duration,
) -> Result<Vec<Vec<Turns>>> {
    let sides: Vec<_> = all.iter().map(|contender| contender.side()).collect();
    let mut jobs = Vec::new();
    for job in Job::ALL {
        println!("-- depth {}: {rounds} rounds of {slice:?} for each", job.depth);
        let mut turns: Vec<_> = all.iter().map(|_| Turns::default()).collect();
        for round in 0..rounds {
            for (index, again) in order(&sides, round) {
                let contender = &mut all[index];
                let name = contender.name();
                std::thread::sleep(REST);
                let sample = contender.turn(guests, job, slice);
                let sample = sample.context(|| format!("{name}, depth {}, round {round}", job.depth))?;
                let turns = &mut turns[index];
                if again { turns.second.push(sample) } else { turns.first.push(sample) }
            }
        }
        jobs.push(turns);
    }
    Ok(jobs)
}

/// Whose turn it is in a round, one after another, and whether it is the second of a contender.
fn order(sides: &[Side], round: u32) -> Vec<(usize, bool)> {
    let of = |side, again| {
        let all = (0..sides.len()).filter(move |&index| sides[index] == side);
        all.map(move |index| (index, again))
    };
    let mut order: Vec<_> =
        of(Side::Theirs, false).chain(of(Side::Ours, false)).chain(of(Side::Theirs, true)).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_and_the_others_two() {
        let sides = [Side::Ours, Side::Theirs, Side::Theirs];
        let forward = [(1, false), (2, false), (0, false), (1, true), (2, true)];
        assert_eq!(order(&sides, 0), forward);
        let mut backward = order(&sides, 1);
        backward.reverse();
        assert_eq!(backward, forward);
    }

    #[test]
    fn ours_come_first_and_names_differ() {
        let all = contenders();
        let sides: Vec<_> = all.iter().map(|contender| contender.side()).collect();
        assert_eq!(sides.iter().position(|side| *side == Side::Theirs), Some(2));
        assert!(sides[2..].iter().all(|side| *side == Side::Theirs));
        let names: std::collections::BTreeSet<_> = all.iter().map(|contender| contender.name()).collect();
        assert_eq!(names.len(), all.len());
    }
}
