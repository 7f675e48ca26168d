//! Each test with its name, how often it runs, and when it is given up.

use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::random::Random;

use super::{
    bench, bring_up, demo, ensure, failover, faults, holders, latency, leaks, power, programs, resync, tcp,
    verbs,
};

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

/// At which a test is given up.
const CASE_MAX: Duration = Duration::from_secs(180);
/// The same, of one that takes long.
const LONG_MAX: Duration = Duration::from_secs(360);

impl Case {
    /// At which one round of it is given up.
    pub(crate) fn limit(&self) -> Duration {
        match self.name {
            name if name == BY_NAME[3] => resync::LIMIT,
            name if name == BY_NAME[4] => latency::LIMIT,
            name if name == BY_NAME[6] => failover::LIMIT,
            name if BY_NAME.contains(&name) || POWER.contains(&name) => LONG_MAX,
            _ => CASE_MAX,
        }
    }

    /// How many times it runs when so many rounds are asked for, of it by `name` or of everything.
    pub(crate) fn times(&self, rounds: u32, by_name: bool) -> u32 {
        match self.random {
            _ if MANY_ONLY.contains(&self.name) && !by_name && rounds < MANY => 0,
            false => 1,
            // Half a minute or more each, of several cuts; and fifty times the same already.
            true if [POWER[1], POWER[2], "reconnects", "failover"].contains(&self.name) && !by_name => {
                rounds.div_ceil(3)
            }
            true => rounds,
        }
    }
}

/// Where a test runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum On {
    /// In one guest, or on this host.
    One(fn(&dyn Machine) -> Result<()>),
    /// In both guests, which are on, with the link between them whole.
    Two(fn(&Guests, &mut Random) -> Result<()>),
    /// The same, with so many rounds one after another in what it has set up.
    Rounds(fn(&Guests, &mut Random, u32) -> Result<()>),
}

/// Those that take programs which the guests have on request only.
const PERFTEST: [&str; 2] = ["perftest", "bench-perftest"];
/// Those that take long, or show what is shown without guests too, and are run by name only.
const BY_NAME: [&str; 7] = [
    "bench-single",
    "bench-deep",
    PERFTEST[1],
    "resync-long",
    "resync-latency",
    "contract",
    "failover-flaps",
];
/// Those that start guests over and over.
const POWER: [&str; 3] = ["power-unsynced", "power", "resync"];

/// Those that runs with few rounds leave out: one shows of another that it finds what it is for, others are shown over RDMA too, and of
/// processes also on one machine.
const MANY_ONLY: [&str; 7] = [
    POWER[0],
    "failover-confirm",
    "cut-tcp",
    "holder-power-tcp",
    "killed-tcp",
    "reconnects-tcp",
    "bench-alone",
];
/// So many rounds are many.
pub(crate) const MANY: u32 = 20;

/// Every test, in the order of running.
const CASES: &[Case] = &[
    Case {
        name: "bring-up",
        about: "the soft-RoCE device is active, the verbs library sees it",
        random: false,
        on: On::One(bring_up::device_is_active),
    },
    Case {
        name: "boot",
        about: "both guests were up in time",
        random: false,
        on: On::Two(bring_up::both_are_up),
    },
    Case {
        name: "started-again",
        about: "two starts of a guest have random numbers of their own, and the time of now",
        random: false,
        on: On::Two(bring_up::starts_differ),
    },
    Case {
        name: "rdma",
        about: "queue pairs between the guests, made by address and by connection manager",
        random: false,
        on: On::Two(bring_up::rdma_between_guests),
    },
    Case {
        name: PERFTEST[0],
        about: "with --perftest: the delay and rate of bare RDMA writes between the guests",
        random: false,
        on: On::Two(bring_up::perftest),
    },
    Case {
        name: "files",
        about: "files go in and out unchanged, a command's end is told, several run at once, none outlives a test",
        random: false,
        on: On::Two(bring_up::files_and_commands),
    },
    Case {
        name: "doctor",
        about: "the doctor's lines about RDMA, good and bad",
        random: false,
        on: On::Two(programs::doctor),
    },
    Case {
        name: "soft-roce",
        about: "a soft-RoCE device comes and goes by the program's own command",
        random: false,
        on: On::Two(programs::soft_roce),
    },
    Case {
        name: "c",
        about: "a program in C in each guest: what one stores over rdma the other has",
        random: false,
        on: On::Two(programs::in_c),
    },
    Case {
        name: BY_NAME[5],
        about: "by name only: the contract of fabrics over tcp, in a machine with soft-RoCE",
        random: false,
        on: On::One(tcp::contract),
    },
    Case {
        name: "contract-rdma",
        about: "the same contract over real verbs, both ends in one machine, and what only verbs can get wrong",
        random: false,
        on: On::One(verbs::contract),
    },
    Case {
        name: "epochs",
        about: "the contract of epochs over real verbs, by each way of finding stores that the guests' kernel has",
        random: false,
        on: On::One(verbs::epochs),
    },
    Case {
        name: "epoch-kills",
        about: "owners and holders are killed while epochs are committed: the copy is a whole epoch; of 20 rounds, 200 kills",
        random: true,
        on: On::Rounds(verbs::epoch_kills),
    },
    Case {
        name: "device",
        about: "a port that goes down, and what fifty reconnections leave behind",
        random: false,
        on: On::One(verbs::alone),
    },
    Case {
        name: "bench",
        about: "a holder in one guest, a measured owner in the other",
        random: false,
        on: On::Two(tcp::bench),
    },
    Case {
        name: "bench-alone",
        about: "the bench over RDMA with its own holder, all in one machine",
        random: false,
        on: On::One(bench::alone),
    },
    Case {
        name: "bench-rdma",
        about: "the mirrored region over RDMA beside bare verbs, in short",
        random: false,
        on: On::Two(|guests, _| bench::rdma(guests, bench::Part::Brief, bench::SHORT, false)),
    },
    Case {
        name: BY_NAME[0],
        about: "by name only: bench-rdma at depth 1, long enough for its ratios to mean something",
        random: false,
        on: On::Two(|guests, _| bench::rdma(guests, bench::Part::Single, bench::SINGLE, false)),
    },
    Case {
        name: BY_NAME[1],
        about: "by name only: as bench-single, of the workloads with more in flight",
        random: false,
        on: On::Two(|guests, _| bench::rdma(guests, bench::Part::Deep, bench::DEEP, false)),
    },
    Case {
        name: BY_NAME[2],
        about: "by name only, with --perftest: as bench-rdma, with other people's bare loops beside",
        random: false,
        on: On::Two(|guests, _| bench::rdma(guests, bench::Part::All, bench::SHORT, true)),
    },
    Case {
        name: "cut-tcp",
        about: "as cut, over tcp",
        random: false,
        on: On::Two(|guests, random| faults::cut_and_heal(guests, random, "tcp")),
    },
    Case {
        name: "owner-power-tcp",
        about: "as owner-power, over tcp",
        random: false,
        on: On::Two(|guests, random| faults::owner_loses_power(guests, random, "tcp")),
    },
    Case {
        name: "holder-power-tcp",
        about: "as holder-power, over tcp",
        random: false,
        on: On::Two(|guests, random| faults::holder_loses_power(guests, random, "tcp")),
    },
    Case {
        name: "killed-tcp",
        about: "as killed, over tcp",
        random: false,
        on: On::Two(|guests, random| holders::killed(guests, random, "tcp")),
    },
    Case {
        name: "reconnects-tcp",
        about: "as reconnects, over tcp",
        random: false,
        on: On::Two(|guests, random| leaks::reconnects(guests, random, "tcp")),
    },
    Case {
        name: "demo",
        about: "mirrorbus demo between the guests, each being the owner once",
        random: false,
        on: On::Two(|guests, random| demo::both_ways(guests, random, "rdma")),
    },
    Case {
        name: "cut",
        about: "the link fails in each way: no call is late, reconnecting goes on with equal copies",
        random: true,
        on: On::Two(|guests, random| faults::cut_and_heal(guests, random, "rdma")),
    },
    Case {
        name: "owner-power",
        about: "the owner's machine loses power: the copy is a prefix with all that was acknowledged",
        random: true,
        on: On::Two(|guests, random| faults::owner_loses_power(guests, random, "rdma")),
    },
    Case {
        name: "holder-power",
        about: "the holder's machine loses power: the owner is told in time",
        random: true,
        on: On::Two(|guests, random| faults::holder_loses_power(guests, random, "rdma")),
    },
    Case {
        name: "killed",
        about: "the holder's process is killed: the owner is told within 100 ms",
        random: true,
        on: On::Two(|guests, random| holders::killed(guests, random, "rdma")),
    },
    Case {
        name: "fenced",
        about: "the copy is revoked while its owner posts: no byte changes afterwards",
        random: true,
        on: On::Two(|guests, random| holders::fenced(guests, random, "rdma")),
    },
    Case {
        name: "stopped",
        about: "the holder's process stands still: stores become visible all the same",
        random: true,
        on: On::Two(|guests, random| holders::stopped(guests, random, "rdma")),
    },
    Case {
        name: "reconnects",
        about: "50 reconnections under load: nothing leaks on either side",
        random: true,
        on: On::Two(|guests, random| leaks::reconnects(guests, random, "rdma")),
    },
    Case {
        name: POWER[0],
        about: "nodes that skip the sync of segments are found out by a power cut of both",
        random: false,
        on: On::Two(power::unsynced),
    },
    Case {
        name: POWER[1],
        about: "nodes on disks that lose what was not flushed: power cuts of either and of both",
        random: true,
        on: On::Rounds(power::cuts),
    },
    Case {
        name: "failover",
        about: "by a mediator, a fault a round: links, nodes, the mediator, a pause; one serves, and nothing is lost",
        random: true,
        on: On::Rounds(failover::faults),
    },
    Case {
        name: MANY_ONLY[1],
        about: "the same where nodes go by no clock, with a guest that stands still and its clocks with it",
        random: true,
        on: On::Rounds(failover::faults_without_a_clock),
    },
    Case {
        name: BY_NAME[6],
        about: "by name only: a hundred cuts of a link, while now this and now that node reaches the mediator",
        random: true,
        on: On::Two(failover::flaps),
    },
    Case {
        name: POWER[2],
        about: "a node that was away is given what it lacks and little more, through cuts of the link and of power",
        random: true,
        on: On::Two(|guests, random| resync::away(guests, random, resync::SHORT)),
    },
    Case {
        name: BY_NAME[3],
        about: "by name only: as resync, 128 MiB of 512 changed, and ten cuts of the link",
        random: true,
        on: On::Two(|guests, random| resync::away(guests, random, resync::LONG)),
    },
    Case {
        name: BY_NAME[4],
        about: "by name only, and alone: what a client feels of a resync, and what that has left of its rate",
        random: false,
        on: On::Two(latency::measure),
    },
];

/// The tests of these names; without any, all but those that are for asking for.
pub(crate) fn choose(names: &[String], perftest: bool) -> Result<Vec<&'static Case>> {
    let has = |case: &&Case| perftest || !PERFTEST.contains(&case.name);
    if names.is_empty() {
        return Ok(CASES.iter().filter(has).filter(|case| !BY_NAME.contains(&case.name)).collect());
    }
    let find = |name: &String| {
        CASES.iter().filter(has).find(|case| case.name == name).ok_or_else(|| {
            let list: Vec<_> =
                CASES.iter().map(|case| format!("  {:<18} {}", case.name, case.about)).collect();
            Failure::new(format!("no test {name:?}; there are\n{}", list.join("\n")))
        })
    };
    names.iter().map(find).collect()
}

/// Whether what was chosen is a measurement, of programs as users have them, in guests with fio: that is no test's neighbour.
pub(crate) fn is_measurement(chosen: &[&Case]) -> Result<bool> {
    let is = chosen.iter().any(|case| case.name == BY_NAME[4]);
    ensure(!is || chosen.len() == 1, || {
        format!("{} runs alone: its guests are not those of tests", BY_NAME[4])
    })?;
    Ok(is)
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
