//! Power cuts of a pair of nodes, one in each guest, over RDMA, whose disks lose with the power what was not flushed.
//!
//! A client in the guest of the primary writes, and says what it was answered; the ledger of that is kept here. What was acknowledged
//! must be there after either guest lost its power, what was flushed after both did.

use std::time::{Duration, Instant};

use crate::failure::{Context, Failure, Result};
use crate::rxe::disk;
use crate::rxe::guest::Guest;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::port::{End, Running};
use crate::rxe::random::Random;

use super::ledger::{Kept, Ledger};
use super::roles::{GO, SOON};
use super::{KEY, ensure, share_key};

/// Blocks of the volume.
const BLOCKS: usize = 1024;

/// The moment of a cut is chosen within this, from the first acknowledgment on.
const MOMENT: Duration = Duration::from_millis(800);

/// The second of two cuts comes so long after the first at most.
const APART: Duration = Duration::from_millis(5);

/// A primary writes so long alone, so that the other may still be given what it lacks.
const ALONE: Duration = Duration::from_millis(500);

/// Two nodes that meet are a pair by then.
const PAIRED: Duration = Duration::from_secs(120);

/// When all of a case is over in any event.
const LIMIT: Duration = Duration::from_secs(300);

/// Cuts after which a node that does not sync must have lost something.
const UNSYNCED_CUTS: u32 = 3;

/// One of them loses its power, and then both do.
pub(super) fn cuts(guests: &Guests, random: &mut Random) -> Result<()> {
    with_nodes(guests, random, "", |nodes| {
        if nodes.tosses() {
            nodes.secondary_loses_power().context(|| "the secondary's power".to_owned())?;
        } else {
            nodes.primary_loses_power().context(|| "the primary's power".to_owned())?;
        }
        nodes.both_lose_power().context(|| "the power of both".to_owned())?;
        ensure(nodes.ledger.flushes > 0, || "no flush was acknowledged".to_owned())
    })
}

/// The same cut of both finds out nodes that sync no segment.
pub(super) fn unsynced(guests: &Guests, random: &mut Random) -> Result<()> {
    with_nodes(guests, random, "LD_PRELOAD=/usr/lib/unsynced.so", |nodes| {
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

/// Starts a pair on new disks, which are gone afterwards.
fn with_nodes(
    guests: &Guests,
    random: &mut Random,
    under: &'static str,
    body: impl FnOnce(&mut Nodes<'_>) -> Result<()>,
) -> Result<()> {
    guests.kill();
    let _disks = Disks(guests);
    guests.both().into_iter().try_for_each(|guest| disk::make(&guest.hardware.disk()))?;
    guests.mend()?;
    share_key(guests)?;
    let ledger = Ledger::new(BLOCKS);
    let mut nodes = Nodes { guests, random, under, ledger, serving: 0, cuts: 0 };
    let result = nodes.set_up().and_then(|()| body(&mut nodes));
    let Ledger { writes, flushes, .. } = nodes.ledger;
    println!("{} power cuts, {writes} writes and {flushes} flushes acknowledged", nodes.cuts);
    result.map_err(|failure| nodes.with_logs(&failure))
}

/// The files of the guests' disks.
struct Disks<'a>(&'a Guests);

impl Drop for Disks<'_> {
    fn drop(&mut self) {
        // A guest that is on has its own open until it is off.
        for guest in self.0.both() {
            let _ = std::fs::remove_file(guest.hardware.disk());
        }
    }
}

struct Nodes<'a> {
    guests: &'a Guests,
    random: &'a mut Random,
    /// Variables that a node is started with.
    under: &'static str,
    ledger: Ledger,
    /// Index of the guest that serves.
    serving: usize,
    cuts: u32,
}

impl<'a> Nodes<'a> {
    fn guest(&self, index: usize) -> &'a Guest {
        self.guests.both()[index]
    }

    /// One of two, by chance.
    fn tosses(&mut self) -> bool {
        self.random.number() & 1 << 40 == 0
    }

    /// Puts key and configuration on the disks, and starts the nodes.
    fn set_up(&mut self) -> Result<()> {
        for guest in self.guests.both() {
            let config = config(guest, self.guests);
            let script = format!(
                "mkdir -p /disk; mount -t ext4 /dev/vda /disk && cp -p {KEY} /disk/key && \
                 cat >/disk/node.toml <<'EOF' && sync\n{config}\nEOF\n"
            );
            guest.run(&script, SOON)?;
        }
        self.start(&[0, 1])?;
        self.until_paired()
    }

    /// Gives these guests their power, if they have none, and starts their nodes.
    fn start(&self, which: &[usize]) -> Result<()> {
        let guests: Vec<_> = which.iter().map(|&index| self.guest(index)).collect();
        let off: Vec<_> = guests.iter().filter(|guest| !guest.is_on()).collect();
        off.iter().try_for_each(|guest| guest.power_on())?;
        off.iter().try_for_each(|guest| guest.until_up())?;
        for guest in guests {
            let node = format!(
                "mkdir -p /disk; grep -q ' /disk ' /proc/mounts || mount -t ext4 /dev/vda /disk || exit 1\n\
                 RUST_LOG=info {} exec mirrorbus node --config /disk/node.toml >/tmp/node.log 2>&1",
                self.under
            );
            drop(guest.spawn(&node, LIMIT)?);
        }
        Ok(())
    }

    /// What the node in this guest says of its dataset; nothing while it does not answer.
    fn status(&self, index: usize) -> Option<serde_json::Value> {
        let text = self.guest(index).run("mirrorbus status --json --admin /tmp/admin", SOON).ok()?;
        let status: serde_json::Value = serde_json::from_str(&text).ok()?;
        status["datasets"].get(0).cloned()
    }

    fn until_paired(&mut self) -> Result<()> {
        let until = Instant::now() + PAIRED;
        loop {
            let statuses = [0, 1].map(|index| self.status(index));
            let serves = |status: &Option<serde_json::Value>| {
                status.as_ref().is_some_and(|status| {
                    status["role"] == "Primary" && status["replication_state"] == "Established"
                })
            };
            if let Some(serving) = statuses.iter().position(serves) {
                self.serving = serving;
                return Ok(());
            }
            if Instant::now() > until {
                let reasons = statuses.map(|status| status.map(|status| status["reason"].to_string()));
                return Err(Failure::new(format!("the nodes are no pair after {PAIRED:?}: {reasons:?}")));
            }
        }
    }

    /// Tells the node in this guest something that it may refuse for a while.
    fn tell(&self, index: usize, command: &str) -> Result<()> {
        let guest = self.guest(index);
        let until = Instant::now() + SOON;
        loop {
            let told = guest.run(&format!("mirrorbus {command} vm --admin /tmp/admin"), SOON);
            if told.is_ok() || Instant::now() > until {
                return told.map(drop);
            }
        }
    }

    /// The command of a role of `tests/across.rs` at the volume.
    fn role(&self, role: &str, seed: u64) -> String {
        format!(
            "MIRRORBUS_TEST_ROLE={role} TEST_SOCKET=/tmp/nbd TEST_VOLUME=root TEST_BLOCKS={BLOCKS} TEST_SEED={seed} \
             TEST_FIRST={} TEST_GO={GO} exec across role --exact --nocapture --test-threads=1",
            self.ledger.next()
        )
    }

    /// A client of the node that serves; on return it writes for a time that is chosen.
    fn start_writer(&mut self) -> Result<Running> {
        let seed = self.random.number();
        let guest = self.guest(self.serving);
        guest.run(&format!("rm -f {GO}"), SOON)?;
        let mut writer = guest.spawn(&self.role("disk-writer", seed), LIMIT)?;
        writer.line_after("w ", SOON)?;
        std::thread::sleep(self.random.duration(MOMENT));
        Ok(writer)
    }

    /// Cuts the power under a client, and takes what it has said.
    fn cut_under(&mut self, writer: Running, cut: impl FnOnce(&mut Self)) -> Result<()> {
        cut(self);
        let output = writer.wait()?;
        ensure(output.end == End::PowerLost, || format!("the client ended: {:?}", output.text()))?;
        self.ledger.take_all(&output.text())
    }

    fn cut(&mut self, index: usize) {
        self.guest(index).kill();
        self.cuts += 1;
    }

    /// Compares what the serving node has with what must be there; afterwards it is flushed.
    fn judge(&mut self, kept: Kept) -> Result<()> {
        let output = self.guest(self.serving).run(&self.role("disk-reader", 0), SOON)?;
        ensure(output.contains("\nflushed\n"), || format!("not flushed: {output}"))?;
        let found = output.lines().find_map(|line| line.strip_prefix("found ")).unwrap_or_default();
        let later = self.ledger.judge(found, kept)?;
        println!("{kept:?}: all there, and {later} blocks of later writes");
        Ok(())
    }

    fn primary_loses_power(&mut self) -> Result<()> {
        let (gone, other) = (self.serving, 1 - self.serving);
        let writer = self.start_writer()?;
        self.cut_under(writer, |nodes| nodes.cut(gone))?;
        self.tell(other, "promote")?;
        self.serving = other;
        self.judge(Kept::Acknowledged)?;
        self.start(&[gone])?;
        self.until_paired()?;
        ensure(self.serving == other, || "the one that served does not go on".to_owned())
    }

    fn secondary_loses_power(&mut self) -> Result<()> {
        let (serving, other) = (self.serving, 1 - self.serving);
        let mut writer = self.start_writer()?;
        self.cut(other);
        let until = Instant::now() + SOON;
        while self.status(serving).is_none_or(|status| status["replication_state"] != "LinkLost") {
            ensure(Instant::now() < until, || "the primary does not notice".to_owned())?;
        }
        self.tell(serving, "alone")?;
        // Some of these lines are of before; those that are not come after all that were held.
        writer.line_after("F", SOON)?;
        writer.line_after("F", SOON)?;
        std::thread::sleep(self.random.duration(ALONE));
        if self.tosses() {
            println!("and then the primary's, which serves alone");
            self.cut_under(writer, |nodes| nodes.cut(serving))?;
            self.start(&[0, 1])?;
        } else {
            self.guest(serving).run(&format!("touch {GO}"), SOON)?;
            let output = writer.wait()?.success()?;
            ensure(output.contains("\nstopped\n"), || format!("the client: {output}"))?;
            self.ledger.take_all(&output)?;
            self.start(&[other])?;
        }
        self.until_paired()?;
        ensure(self.serving == serving, || "the one that served does not go on".to_owned())?;
        self.judge(Kept::Acknowledged)
    }

    fn both_lose_power(&mut self) -> Result<()> {
        let writer = self.start_writer()?;
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

    /// The failure, with the ends of the nodes' logs.
    fn with_logs(&self, failure: &Failure) -> Failure {
        let logs = self.guests.both().map(|guest| {
            let log = guest.run("tail -n 25 /tmp/node.log; mount | grep /disk", SOON);
            format!("--- {}\n{}", guest.name, log.unwrap_or_else(|failure| failure.to_string()))
        });
        Failure::new(format!("{failure}\n{}", logs.join("\n")))
    }
}

/// The configuration of the node in this guest.
fn config(guest: &Guest, guests: &Guests) -> String {
    let peer = guests.both().into_iter().find(|other| other.name != guest.name).expect("there are two");
    let (name, own, peer) = (guest.name, guest.address(), peer.address());
    let size = BLOCKS * 4;
    format!(
        r#"[node]
name = "{name}"
admin = "/tmp/admin"
[[dataset]]
name = "vm"
id = "00112233445566778899aabbccddeeff"
directory = "/disk/vm"
key = "/disk/key"
listen = "rdma://{own}:7070"
peer = "rdma://{peer}:7070"
region = "8MiB"
segment = "1MiB"
lock = "try"
nbd = ["unix:/tmp/nbd"]
[[dataset.volume]]
name = "root"
size = "{size}KiB"
block = 4096"#
    )
}
