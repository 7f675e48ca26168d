//! Failover by a mediator, of a pair of nodes over RDMA: the link cut in each way, nodes killed, paused, without power, and the mediator out of reach.
//!
//! In each guest a client writes to blocks of its own whenever the node there serves, and says what it was answered; the ledger of that is
//! kept here. After each fault both are mirrored again, and in the end all that was acknowledged to either is there.

mod clients;

use std::time::{Duration, Instant};

use crate::failure::{Context, Result};
use crate::rxe::guests::{Cut, Guests};
use crate::rxe::machine::Machine;
use crate::rxe::port::Running;
use crate::rxe::qemu::Card;
use crate::rxe::random::Random;

use super::ensure;
use super::ledger::Kept;
use super::nodes::{Nodes, Plan, with_nodes};
use super::power;
use super::roles::{GO, SOON};
use clients::{after, seconds};

/// The pair whose power is cut, for longer.
const PLAN: Plan = Plan { limit: Duration::from_secs(1700), ..power::PLAN };

/// Nodes that go by no clock.
const CONFIRMING: Plan = Plan { keys: "reads = \"confirm\"", ..PLAN };

/// When all of it is given up.
pub(super) const LIMIT: Duration = Duration::from_secs(1800);

/// The moment of a fault is chosen within this, from when the pair is whole.
const MOMENT: Duration = Duration::from_millis(700);

/// For so long nobody is to be answered where nobody may serve, and so long after a decision nobody but the one that serves.
const QUIET: Duration = Duration::from_secs(2);

/// A pause, in which the other one takes over.
const PAUSE: Duration = Duration::from_secs(8);

/// Blocks of the other client that a watcher reads.
const WATCHED: usize = 32;

/// Cuts of a link that flaps.
const FLAPS: u32 = 100;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Link(Cut),
    PrimaryKilled,
    SecondaryKilled,
    PrimaryLosesPower,
    SecondaryLosesPower,
    /// The mediator is out of reach for a while, and then the secondary is gone.
    MediatorFirst,
    MediatorAndLink,
    /// The primary stands still.
    Paused(Still),
}

/// What of the primary stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Still {
    Process,
    /// Its guest, with the clocks: how much time went by it cannot tell.
    Machine,
}

/// With the last one where nodes go by no clock.
const FAULTS: [Fault; 12] = [
    Fault::PrimaryLosesPower,
    Fault::Link(Cut::Silent),
    Fault::Paused(Still::Process),
    Fault::Link(Cut::Carrier),
    Fault::Link(Cut::ToA),
    Fault::Link(Cut::ToB),
    Fault::PrimaryKilled,
    Fault::SecondaryKilled,
    Fault::SecondaryLosesPower,
    Fault::MediatorFirst,
    Fault::MediatorAndLink,
    Fault::Paused(Still::Machine),
];

/// So many faults, in an order that is chosen; all of them before one comes again.
pub(super) fn faults(guests: &Guests, random: &mut Random, rounds: u32) -> Result<()> {
    suffered(guests, random, rounds, PLAN, &FAULTS[..FAULTS.len() - 1])
}

/// The same with nodes that go by no clock.
pub(super) fn faults_without_a_clock(guests: &Guests, random: &mut Random, rounds: u32) -> Result<()> {
    suffered(guests, random, rounds, CONFIRMING, &FAULTS)
}

fn suffered(guests: &Guests, random: &mut Random, rounds: u32, plan: Plan, faults: &[Fault]) -> Result<()> {
    with_nodes(guests, random, plan, |nodes| {
        let mut failover = Failover::new(nodes)?;
        let mut left = Vec::new();
        for round in 1..=rounds {
            if left.is_empty() {
                left.extend(faults);
            }
            let fault = left.swap_remove(failover.below(left.len()));
            failover.suffer(fault).context(|| format!("{fault:?}, {round} of {rounds}"))?;
        }
        failover.finish()
    })
}

/// A link that comes and goes, while now this and now that node does not reach the mediator.
pub(super) fn flaps(guests: &Guests, random: &mut Random) -> Result<()> {
    with_nodes(guests, random, PLAN, |nodes| {
        let mut failover = Failover::new(nodes)?;
        for flap in 1..=FLAPS {
            failover.flap().context(|| format!("flap {flap} of {FLAPS}"))?;
        }
        failover.finish()
    })
}

struct Failover<'a, 'b> {
    nodes: &'a mut Nodes<'b>,
    /// The client of each guest.
    roamers: [Option<Running>; 2],
}

impl<'a, 'b> Failover<'a, 'b> {
    /// A pair under clients.
    fn new(nodes: &'a mut Nodes<'b>) -> Result<Self> {
        let mut failover = Self { nodes, roamers: [None, None] };
        failover.start_roamers()?;
        Ok(failover)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.nodes.random.number() >> 32).expect("32 bits") % end
    }

    /// All is whole again, and served.
    fn until_whole(&mut self) -> Result<()> {
        self.nodes.guests.heal()?;
        self.nodes.until_paired()?;
        self.start_roamers()?;
        self.until_answered(self.nodes.serving)
    }

    fn suffer(&mut self, fault: Fault) -> Result<()> {
        self.until_whole()?;
        std::thread::sleep(self.nodes.random.duration(MOMENT));
        let (primary, secondary) = (self.nodes.serving, 1 - self.nodes.serving);
        let names = ["a", "b"];
        println!("{fault:?}, while {} serves", names[primary]);
        match fault {
            Fault::Link(how) => {
                self.nodes.guests.cut(how)?;
                let serving = self.until_one_serves()?;
                println!("{} serves", names[serving]);
            }
            Fault::PrimaryKilled | Fault::PrimaryLosesPower => {
                self.roamer(secondary).catch_up();
                let began = Instant::now();
                if fault == Fault::PrimaryKilled {
                    self.kill_node(primary)?;
                } else {
                    self.lose_power(primary)?;
                }
                self.roamer(secondary).line_after("w ", SOON)?;
                println!("the first write is answered {:?} later", began.elapsed());
                self.until_one_serves()?;
                self.nodes.start(&[primary])?;
            }
            Fault::SecondaryKilled | Fault::SecondaryLosesPower => {
                if fault == Fault::SecondaryKilled {
                    self.kill_node(secondary)?;
                } else {
                    self.lose_power(secondary)?;
                }
                let serving = self.until_one_serves()?;
                ensure(serving == primary, || "the one that is gone serves".to_owned())?;
                self.nodes.start(&[secondary])?;
            }
            Fault::MediatorFirst => self.mediator_first(primary, secondary)?,
            Fault::MediatorAndLink => {
                self.set_mediator([false, false])?;
                self.nodes.guests.cut(Cut::Silent)?;
                // What was on its way is answered, and the loss is noticed.
                std::thread::sleep(QUIET);
                self.assert_quiet(&[0, 1])?;
            }
            Fault::Paused(what) => self.pause(what, primary, secondary)?,
        }
        self.until_whole()
    }

    /// Whether the mediator is reached from each guest.
    fn set_mediator(&self, reached: [bool; 2]) -> Result<()> {
        for (guest, reached) in self.nodes.guests.both().into_iter().zip(reached) {
            guest.set_carrier(Card::Aside, reached)?;
        }
        Ok(())
    }

    fn kill_node(&self, index: usize) -> Result<()> {
        self.nodes.guest(index).run("killall -9 mirrorbus", SOON).map(drop)
    }

    /// Takes what the client there has said with it.
    fn lose_power(&mut self, index: usize) -> Result<()> {
        self.nodes.cut(index);
        let output = self.roamers[index].take().expect("it is started with its guest").wait()?;
        self.nodes.ledger.take_all(&output.text())
    }

    /// The one that serves is elected; then the other one is gone, and it goes on all the same.
    fn mediator_first(&mut self, primary: usize, secondary: usize) -> Result<()> {
        self.set_mediator([false, false])?;
        self.nodes.until("is elected", primary, |status| status["reason"]["code"] == "elected")?;
        self.kill_node(secondary)?;
        let serving = self.until_one_serves()?;
        ensure(serving == primary, || "the one that is gone serves".to_owned())?;
        self.nodes.start(&[secondary])
    }

    /// The primary stands still, and a client there asks for what the other one writes meanwhile.
    fn pause(&mut self, what: Still, primary: usize, secondary: usize) -> Result<()> {
        let guest = self.nodes.guest(primary);
        let [from, _] = Self::blocks(secondary);
        let mut watcher = self.nodes.start_role("disk-watcher", primary, from..from + WATCHED)?;
        watcher.line_after("found ", SOON)?;
        match what {
            Still::Process => drop(guest.run("killall -STOP mirrorbus", SOON)?),
            Still::Machine => guest.set_running(false)?,
        }
        std::thread::sleep(PAUSE / 2);
        let written = self.until_written(secondary, from)?;
        let asked_later = seconds() + 1;
        // It asks anew meanwhile.
        std::thread::sleep(PAUSE / 2);
        watcher.catch_up();
        match what {
            Still::Process => drop(guest.run("killall -CONT mirrorbus", SOON)?),
            Still::Machine => guest.set_running(true)?,
        }
        // It reads on at whichever serves here, sooner or later.
        std::thread::sleep(QUIET);
        self.nodes.guests.heal()?;
        guest.signal(&watcher, "TERM")?;
        let output = watcher.wait()?.text();
        let answers = after(&output, asked_later);
        println!("{} reads were answered that were asked for after writes at the other one", answers.len());
        for answer in &answers {
            let old = answer.iter().zip(&written).any(|(found, written)| found < written);
            ensure(!old, || {
                format!("a read was answered with {answer:?}, after {written:?} were acknowledged")
            })?;
        }
        Ok(())
    }

    fn flap(&mut self) -> Result<()> {
        std::thread::sleep(self.nodes.random.duration(MOMENT));
        let reached = [self.below(3) > 0, self.below(3) > 0];
        self.set_mediator(reached)?;
        let how = Cut::ALL[self.below(Cut::ALL.len())];
        self.nodes.guests.cut(how)?;
        std::thread::sleep(self.nodes.random.duration(2 * MOMENT));
        self.nodes.guests.heal()?;
        // In some rounds it is whole before the next cut.
        if self.below(4) == 0 { self.until_whole() } else { Ok(()) }
    }

    /// All that was acknowledged is there, on both.
    fn finish(mut self) -> Result<()> {
        self.until_whole()?;
        for index in [0, 1] {
            self.nodes.guest(index).run(&format!("touch {GO}"), SOON)?;
            let roamer = self.roamers[index].take().expect("it is started with its guest");
            let output = roamer.wait()?.success()?;
            self.nodes.ledger.take_all(&output)?;
        }
        self.nodes.judge(Kept::Acknowledged)?;
        let serving = self.nodes.guest(self.nodes.serving);
        serving.run("mirrorbus verify vm --admin /tmp/admin", PLAN.limit).map(drop)
    }
}
