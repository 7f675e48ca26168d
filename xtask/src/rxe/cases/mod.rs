//! The tests, by name.

mod bring_up;
mod faults;
mod tcp;
mod verbs;

use std::path::Path;
use std::time::Duration;

use crate::failure::{Context, Failure, Result};
use crate::shell::root;

use super::guests::Guests;
use super::machine::Machine;
use super::port::Running;
use super::random::Random;

/// A test.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What it shows, in a line.
    pub(crate) about: &'static str,
    /// Whether it chooses at random, so that another round is another test.
    pub(crate) random: bool,
    pub(crate) on: On,
}

/// Where a test runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum On {
    /// In one guest, or on this host.
    One(fn(&dyn Machine) -> Result<()>),
    /// In both guests, which are on, with the link between them whole.
    Two(fn(&Guests, &mut Random) -> Result<()>),
}

/// Every test, in the order of running.
const CASES: &[Case] = &[
    Case {
        name: "bring-up",
        about: "the soft-RoCE device is active, the verbs library sees it",
        random: false,
        on: On::One(bring_up::device_is_active),
    },
    Case {
        name: "rdma",
        about: "queue pairs between the guests, made by address and by connection manager",
        random: false,
        on: On::Two(bring_up::rdma_between_guests),
    },
    Case {
        name: "files",
        about: "files go in and out unchanged, a command's end is told, several run at once",
        random: false,
        on: On::Two(bring_up::files_and_commands),
    },
    Case {
        name: "contract",
        about: "the contract of fabrics over tcp, in a machine with soft-RoCE",
        random: false,
        on: On::One(tcp::contract),
    },
    Case {
        name: "contract-rdma",
        about: "the same contract over real verbs, both ends in one machine",
        random: false,
        on: On::One(verbs::contract),
    },
    Case {
        name: "bench",
        about: "a holder in one guest, a measured owner in the other",
        random: false,
        on: On::Two(tcp::bench),
    },
    Case {
        name: "cut",
        about: "the link fails in each way: no call is late, reconnecting goes on with equal copies",
        random: true,
        on: On::Two(faults::cut_and_heal),
    },
    Case {
        name: "owner-power",
        about: "the owner's machine loses power: the copy is a prefix with all that was acknowledged",
        random: true,
        on: On::Two(faults::owner_loses_power),
    },
    Case {
        name: "holder-power",
        about: "the holder's machine loses power: the owner is told in time",
        random: true,
        on: On::Two(faults::holder_loses_power),
    },
];

/// The tests of these names; all without any.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Case>> {
    if names.is_empty() {
        return Ok(CASES.iter().collect());
    }
    let find = |name: &String| {
        CASES.iter().find(|case| case.name == name).ok_or_else(|| {
            let list: Vec<_> =
                CASES.iter().map(|case| format!("  {:<14} {}", case.name, case.about)).collect();
            Failure::new(format!("no test {name:?}; there are\n{}", list.join("\n")))
        })
    };
    names.iter().map(find).collect()
}

/// Fails unless `what` holds.
fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::new(what())) }
}

/// Where a test has its key in each guest.
const KEY: &str = "/tmp/key";

/// Makes a key in guest `b` and copies it to guest `a`.
fn share_key(guests: &Guests) -> Result<()> {
    let short = Duration::from_secs(30);
    guests.b.run(&format!("rm -f {KEY}; mirrorbus keygen {KEY}"), short)?;
    copy(guests, KEY)?;
    guests.a.run(&format!("chmod 600 {KEY}"), short).map(drop)
}

/// Copies a file of guest `b` to guest `a`.
fn copy(guests: &Guests, path: &str) -> Result<()> {
    let place = root().join("target/rxe/run/copied");
    std::fs::write(&place, guests.b.pull(path)?).context(|| format!("writing {}", place.display()))?;
    guests.a.push(Path::new(&place), path)
}

/// Starts a holder in guest `b`, with the key of [`share_key`], and returns its URL once it listens.
fn start_holder(guests: &Guests, size: &str, limit: Duration) -> Result<(Running, String)> {
    let url = format!("tcp://{}:7070", guests.b.address());
    let command = format!("exec mirrorbus hold --listen {url} --size {size} --key {KEY} --mlock try");
    let mut holder = guests.b.spawn(&command, limit)?;
    holder.line_after("listening on ", Duration::from_secs(30))?;
    Ok((holder, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_chosen_by_name() {
        assert_eq!(choose(&[]).unwrap().len(), CASES.len());
        let chosen = choose(&["cut".to_owned(), "bring-up".to_owned()]).unwrap();
        assert_eq!(chosen.iter().map(|case| case.name).collect::<Vec<_>>(), ["cut", "bring-up"]);
        let failure = choose(&["cuts".to_owned()]).unwrap_err().to_string();
        assert!(failure.contains("cuts") && failure.contains("bring-up"), "{failure}");
    }

    #[test]
    fn names_differ() {
        let names: std::collections::BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
    }
}
