//! Power cuts of a pair of nodes, one in each guest, over RDMA, whose disks lose with the power what was not flushed.
//!
//! A client in the guest of the primary writes, and says what it was answered; the ledger of that is kept here. What was acknowledged
//! must be there after either guest lost its power, what was flushed after both did.

use std::time::Duration;

use crate::failure::{Context, Failure, Result};
use crate::rxe::guests::Guests;
use crate::rxe::port::Running;
use crate::rxe::random::Random;

use super::ensure;
use super::ledger::Kept;
use super::nodes::{Nodes, Plan, with_nodes};
use super::roles::SOON;

/// A small volume: moments matter, not amounts.
pub(super) const PLAN: Plan = Plan {
    blocks: 1024,
    ring_mib: 8,
    disk_bytes: 256 << 20,
    most: 8,
    under: "",
    mediated: true,
    keys: "",
    paired: Duration::from_secs(120),
    limit: Duration::from_secs(300),
};

/// The other node is missed late: an emulated one may stand still for half a second, and the service is to move by power cuts only. How soon it is
/// missed is what the tests of failover measure, with what is usual.
const PATIENT: Plan = Plan { keys: "silence-ms = 5000", ..PLAN };

/// The moment of a cut is chosen within this, from the first acknowledgment on.
const MOMENT: Duration = Duration::from_millis(800);

/// The second of two cuts comes so long after the first at most.
const APART: Duration = Duration::from_millis(5);

/// A primary writes so long alone, so that the other may still be given what it lacks.
const ALONE: Duration = Duration::from_millis(500);

/// Cuts of both until one came after a flush was acknowledged: on a busy machine a moment is short.
const FLUSH_TRIES: u32 = 5;

/// Cuts after which a node that does not sync must have lost something.
const UNSYNCED_CUTS: u32 = 3;

/// In each round one of them loses its power, and then both do. The pair and its disks go on from round to
/// round.
pub(super) fn cuts(guests: &Guests, random: &mut Random, rounds: u32) -> Result<()> {
    with_nodes(guests, random, PATIENT, |nodes| {
        (1..=rounds).try_for_each(|round| nodes.round().context(|| format!("round {round} of {rounds}")))
    })
}

/// The same cut of both finds out nodes that sync no segment.
pub(super) fn unsynced(guests: &Guests, random: &mut Random) -> Result<()> {
    let plan = Plan { under: "LD_PRELOAD=/usr/lib/unsynced.so", ..PATIENT };
    with_nodes(guests, random, plan, |nodes| {
        for _ in 0..UNSYNCED_CUTS {
            let flushes = nodes.ledger.flushes;
            match nodes.both_lose_power() {
                Err(failure) if nodes.ledger.flushes > flushes => {
                    println!("found out: {failure}");
                    return Ok(());
                }
                Err(failure) => return Err(failure),
                Ok(()) => println!("nothing was lost: once more"),
            }
        }
        Err(Failure::new(format!("{UNSYNCED_CUTS} cuts did not find out that nothing is synced")))
    })
}

impl Nodes<'_> {
    fn round(&mut self) -> Result<()> {
        if self.tosses() {
            self.secondary_loses_power().context(|| "the secondary's power".to_owned())?;
        } else {
            self.primary_loses_power().context(|| "the primary's power".to_owned())?;
        }
        for _ in 0..FLUSH_TRIES {
            let flushes = self.ledger.flushes;
            self.both_lose_power().context(|| "the power of both".to_owned())?;
            if self.ledger.flushes > flushes {
                return Ok(());
            }
            println!("no flush was acknowledged, so that none could be lost: once more");
        }
        Err(Failure::new("no flush was acknowledged".to_owned()))
    }

    /// A client of the node that serves; on return it has written for a time that is chosen.
    fn start_writer_for_a_moment(&mut self) -> Result<Running> {
        let writer = self.start_writer()?;
        std::thread::sleep(self.random.duration(MOMENT));
        Ok(writer)
    }

    fn primary_loses_power(&mut self) -> Result<()> {
        let (gone, other) = (self.serving, 1 - self.serving);
        let writer = self.start_writer_for_a_moment()?;
        self.cut_under(writer, |nodes| nodes.cut(gone))?;
        self.take_over(other)?;
        self.judge(Kept::Acknowledged)?;
        self.start(&[gone])?;
        self.until_paired()?;
        ensure(self.serving == other, || "the one that served does not go on".to_owned())
    }

    fn secondary_loses_power(&mut self) -> Result<()> {
        let (serving, other) = (self.serving, 1 - self.serving);
        let mut writer = self.start_writer_for_a_moment()?;
        self.cut(other);
        self.go_alone()?;
        // Some of these lines are of before; those that are not come after all that were held.
        writer.line_after("F", SOON)?;
        writer.line_after("F", SOON)?;
        std::thread::sleep(self.random.duration(ALONE));
        if self.tosses() {
            println!("and then the primary's, which serves alone");
            self.cut_under(writer, |nodes| nodes.cut(serving))?;
            self.start(&[0, 1])?;
        } else {
            self.stop_writer(writer)?;
            self.start(&[other])?;
        }
        self.until_paired()?;
        ensure(self.serving == serving, || "the one that served does not go on".to_owned())?;
        self.judge(Kept::Acknowledged)
    }

    fn both_lose_power(&mut self) -> Result<()> {
        let writer = self.start_writer_for_a_moment()?;
        let first = usize::from(self.tosses());
        let apart = self.random.duration(APART);
        self.cut_under(writer, |nodes| {
            let (first, second) = (nodes.guest(first), nodes.guest(1 - first));
            std::thread::scope(|scope| {
                scope.spawn(|| first.kill());
                std::thread::sleep(apart);
                second.kill();
            });
            nodes.cuts += 2;
        })?;
        self.start(&[0, 1])?;
        self.until_paired()?;
        self.judge(Kept::Flushed)
    }
}
