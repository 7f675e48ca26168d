//! A pair of nodes, one in each guest, over RDMA, whose disks lose with the power what was not flushed.
//!
//! A client in the guest of the primary writes, and says what it was answered; the ledger of that is kept here, outside of all that loses
//! its power.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};
use crate::rxe::config::Config;
use crate::rxe::disk;
use crate::rxe::guest::Guest;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::mediator::Mediator;
use crate::rxe::port::{End, Running};
use crate::rxe::random::Random;
use crate::shell::root;

use super::ledger::{Kept, Ledger};
use super::roles::{GO, SOON};
use super::{KEY, ensure, share_key};

/// Mounts the disk, where it is not.
const MOUNTED: &str = "{ grep -q ' /disk ' /proc/mounts || mount -t ext4 /dev/vda /disk; }";

/// What a node says of its dataset.
pub(super) type Status = serde_json::Value;

/// What a pair is made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Of the volume.
    pub(super) blocks: usize,
    pub(super) ring_mib: u64,
    pub(super) disk_bytes: u64,
    /// Blocks of a write at most.
    pub(super) most: usize,
    /// Variables that a node is started with.
    pub(super) under: &'static str,
    /// A mediator decides which node serves, or whoever tells them.
    pub(super) mediated: bool,
    /// Further lines of the dataset's table.
    pub(super) keys: &'static str,
    /// Two nodes that meet are a pair by then.
    pub(super) paired: Duration,
    /// When all of a case is over in any event.
    pub(super) limit: Duration,
}

/// Starts a pair on disks that have nothing else; a later pair has them too, unless it needs larger ones.
pub(super) fn with_nodes(
    guests: &Guests,
    random: &mut Random,
    plan: Plan,
    body: impl FnOnce(&mut Nodes<'_>) -> Result<()>,
) -> Result<()> {
    let has_disk = |guest: &Guest| {
        std::fs::metadata(guest.hardware.disk()).is_ok_and(|disk| disk.len() >= plan.disk_bytes)
    };
    if !guests.both().into_iter().all(has_disk) {
        // A disk is there from the start, or not at all.
        guests.kill();
        guests
            .both()
            .into_iter()
            .try_for_each(|guest| disk::make(&guest.hardware.disk(), plan.disk_bytes))?;
        guests.mend()?;
    }
    share_key(guests)?;
    let ledger = Ledger::new(plan.blocks);
    let mediator =
        plan.mediated.then(|| Mediator::start(&guests.program, &root().join("target/rxe/run/mediator")));
    let mediator = mediator.transpose()?;
    let mut nodes = Nodes { guests, random, plan, ledger, mediator, serving: 0, cuts: 0 };
    let result = nodes.set_up().and_then(|()| body(&mut nodes));
    let Ledger { writes, flushes, .. } = nodes.ledger;
    println!("{} power cuts, {writes} writes and {flushes} flushes acknowledged", nodes.cuts);
    result.map_err(|failure| nodes.with_logs(&failure))
}

pub(super) struct Nodes<'a> {
    pub(super) guests: &'a Guests,
    plan: Plan,
    pub(super) random: &'a mut Random,
    pub(super) ledger: Ledger,
    mediator: Option<Mediator>,
    /// Index of the guest that serves.
    pub(super) serving: usize,
    /// Of the power, so far.
    pub(super) cuts: u32,
}

impl<'a> Nodes<'a> {
    pub(super) fn guest(&self, index: usize) -> &'a Guest {
        self.guests.both()[index]
    }

    /// One of two, by chance.
    pub(super) fn tosses(&mut self) -> bool {
        self.random.number() & 1 << 40 == 0
    }

    /// Puts key and configuration on the disks, and starts the nodes.
    fn set_up(&mut self) -> Result<()> {
        let mediator = self.mediator.as_ref();
        let table = |mediator: &Mediator| {
            format!("[dataset.mediator]\naddress = \"{}\"\nkey = \"/disk/mediator.key\"", mediator.url())
        };
        let more = format!("{}\n{}", self.plan.keys, mediator.map(table).unwrap_or_default());
        let (ring, size) = (format!("{}MiB", self.plan.ring_mib), format!("{}KiB", self.plan.blocks * 4));
        let config = Config {
            admin: "/tmp/admin",
            directory: "/disk/vm",
            key: "/disk/key",
            nbd: "/tmp/nbd",
            region: &ring,
            segment: "1MiB",
            volume: "root",
            size: &size,
            more: &more,
        };
        for guest in self.guests.both() {
            let config = config.of(guest, self.guests);
            let script = format!(
                "mkdir -p /disk; {MOUNTED} && rm -rf /disk/* && cp -p {KEY} /disk/key && \
                 cat >/disk/node.toml <<'EOF' && sync\n{config}\nEOF\n"
            );
            guest.run(&script, SOON)?;
            if let Some(mediator) = mediator {
                guest.push(&mediator.key(), "/disk/mediator.key")?;
                guest.run("chmod 600 /disk/mediator.key && sync", SOON)?;
            }
        }
        self.start(&[0, 1])?;
        self.until_paired()
    }

    /// Gives these guests their power, if they have none, and starts their nodes.
    pub(super) fn start(&self, which: &[usize]) -> Result<()> {
        let guests: Vec<_> = which.iter().map(|&index| self.guest(index)).collect();
        let off: Vec<_> = guests.iter().filter(|guest| !guest.is_on()).collect();
        off.iter().try_for_each(|guest| guest.power_on())?;
        off.iter().try_for_each(|guest| guest.until_up())?;
        for guest in guests {
            let node = format!(
                "mkdir -p /disk; {MOUNTED} || exit 1\n\
                 RUST_LOG=info {} exec mirrorbus node --config /disk/node.toml >/tmp/node.log 2>&1",
                self.plan.under
            );
            drop(guest.spawn(&node, self.plan.limit)?);
        }
        Ok(())
    }

    /// What the node in this guest says of its dataset; nothing while it does not answer.
    pub(super) fn status(&self, index: usize) -> Option<Status> {
        let text = self.guest(index).run("mirrorbus status --json --admin /tmp/admin", SOON).ok()?;
        let status: Status = serde_json::from_str(&text).ok()?;
        status["datasets"].get(0).cloned()
    }

    pub(super) fn until_paired(&mut self) -> Result<()> {
        let until = Instant::now() + self.plan.paired;
        loop {
            let statuses = [0, 1].map(|index| self.status(index));
            let serves = |status: &Option<Status>| {
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
                return Err(Failure::new(format!(
                    "the nodes are no pair after {:?}: {reasons:?}",
                    self.plan.paired
                )));
            }
        }
    }

    /// Tells the node in this guest something that it may refuse for a while.
    pub(super) fn tell(&self, index: usize, command: &str) -> Result<()> {
        let guest = self.guest(index);
        let until = Instant::now() + SOON;
        loop {
            let told = guest.run(&format!("mirrorbus {command} vm --admin /tmp/admin"), SOON);
            if told.is_ok() || Instant::now() > until {
                return told.map(drop);
            }
        }
    }

    /// The other one is gone, and was a member: the node in this guest takes over, or is told to.
    pub(super) fn take_over(&mut self, index: usize) -> Result<()> {
        if self.mediator.is_none() {
            self.tell(index, "promote")?;
        }
        self.until("serves", index, |status| status["role"] == "Primary")?;
        self.serving = index;
        Ok(())
    }

    /// Waits until the node in this guest is so.
    pub(super) fn until(&self, what: &str, index: usize, is_so: impl Fn(&Status) -> bool) -> Result<()> {
        let until = Instant::now() + SOON;
        loop {
            let status = self.status(index);
            if status.as_ref().is_some_and(&is_so) {
                return Ok(());
            }
            ensure(Instant::now() < until, || format!("node {index} is not so that it {what}: {status:?}"))?;
        }
    }

    /// The command of a role of `tests/across.rs` at the volume.
    fn role(&self, role: &str, seed: u64) -> String {
        format!(
            "MIRRORBUS_TEST_ROLE={role} TEST_SOCKET=/tmp/nbd TEST_VOLUME=root TEST_BLOCKS={} TEST_SEED={seed} \
             TEST_MOST={} TEST_FIRST={} TEST_GO={GO} exec across role --exact --nocapture --test-threads=1",
            self.plan.blocks,
            self.plan.most,
            self.ledger.next()
        )
    }

    /// Starts a client in this guest that goes to its node whenever that serves, for these blocks.
    pub(super) fn start_role(&mut self, role: &str, index: usize, blocks: Range<usize>) -> Result<Running> {
        let seed = self.random.number();
        let command = format!(
            "TEST_FROM={} TEST_TO={} TEST_CLOCK=/sys/class/rtc/rtc0/since_epoch {}",
            blocks.start,
            blocks.end,
            self.role(role, seed)
        );
        self.guest(index).spawn(&command, self.plan.limit)
    }

    /// A client of the node that serves; on return a write of it is acknowledged.
    pub(super) fn start_writer(&mut self) -> Result<Running> {
        let seed = self.random.number();
        let guest = self.guest(self.serving);
        guest.run(&format!("rm -f {GO}"), SOON)?;
        let mut writer = guest.spawn(&self.role("disk-writer", seed), self.plan.limit)?;
        writer.line_after("w ", SOON)?;
        Ok(writer)
    }

    /// Tells a client to stop, and takes what it has said.
    pub(super) fn stop_writer(&mut self, writer: Running) -> Result<()> {
        self.guest(self.serving).run(&format!("touch {GO}"), SOON)?;
        let output = writer.wait()?.success()?;
        ensure(output.contains("\nstopped\n"), || format!("the client: {output}"))?;
        self.ledger.take_all(&output)
    }

    /// The other one is gone: the one that serves notices, and goes on without it.
    pub(super) fn go_alone(&self) -> Result<()> {
        if self.mediator.is_some() {
            return self.until("serves alone", self.serving, |status| status["replication_state"] == "Alone");
        }
        self.until("has lost the link", self.serving, |status| status["replication_state"] == "LinkLost")?;
        self.tell(self.serving, "alone")
    }

    /// Cuts the power under a client, and takes what it has said.
    pub(super) fn cut_under(&mut self, writer: Running, cut: impl FnOnce(&mut Self)) -> Result<()> {
        cut(self);
        let output = writer.wait()?;
        ensure(output.end == End::PowerLost, || format!("the client ended: {:?}", output.text()))?;
        self.ledger.take_all(&output.text())
    }

    pub(super) fn cut(&mut self, index: usize) {
        self.guest(index).kill();
        self.cuts += 1;
    }

    /// Compares what the serving node has with what must be there; afterwards it is flushed.
    pub(super) fn judge(&mut self, kept: Kept) -> Result<()> {
        let output = self.guest(self.serving).run(&self.role("disk-reader", 0), self.plan.limit)?;
        ensure(output.contains("\nflushed\n"), || format!("not flushed: {output}"))?;
        let found = output.lines().find_map(|line| line.strip_prefix("found ")).unwrap_or_default();
        let later = self.ledger.judge(found, kept)?;
        println!("{kept:?}: all there, and {later} blocks of later writes");
        Ok(())
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
