//! A node that was away for longer than the ring reaches back is brought up to date over RDMA, from the files of the one that went on.
//!
//! What it costs is counted by the primary and compared with what the ledger says was changed. The link is cut while it lasts, and in a second
//! outage the power of either, at a moment that is chosen; what was acknowledged must be there whichever of the two serves afterwards.

use std::time::{Duration, Instant};

use crate::failure::{Context, Failure, Result};
use crate::rxe::guests::{Cut, Guests};
use crate::rxe::machine::Machine;
use crate::rxe::random::Random;

use super::ledger::Kept;
use super::nodes::{Nodes, Plan, Status, with_nodes};
use super::roles::SOON;
use super::{ensure, number};

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Amounts {
    volume_mib: u64,
    /// Before the outages: so much that moving all would be noticed.
    before_mib: u64,
    /// In each outage.
    changed_mib: u64,
    /// Of the ring: less than this may come by it instead of out of the files.
    ring_mib: u64,
    /// Of the link, while it is brought up to date.
    cuts: u64,
    /// When all of it is over in any event.
    limit: Duration,
}

/// What the guests do in a minute. Most of that goes to reading the whole volume, four times.
pub(super) const SHORT: Amounts = Amounts {
    volume_mib: 16,
    before_mib: 9,
    changed_mib: 3,
    ring_mib: 2,
    cuts: 3,
    limit: Duration::from_secs(300),
};

/// When the whole of it is given up, with [`LONG`] amounts too.
pub(super) const LIMIT: Duration = Duration::from_secs(1800);

/// What is promised, at its size.
pub(super) const LONG: Amounts = Amounts {
    volume_mib: 512,
    before_mib: 128,
    changed_mib: 128,
    ring_mib: 8,
    cuts: 10,
    limit: Duration::from_secs(1500),
};

/// The moment of a power cut is chosen within this, from the beginning of a resync on.
const MOMENT: Duration = Duration::from_millis(1500);

/// Outages until a resync was seen on its way.
const OUTAGES: u64 = 3;

/// Bytes that are written after the marker, and are with both.
const PHASE: u64 = 1 << 20;

const BLOCK: u64 = 4096;

/// Two outages, one with cuts of the link when it is over, one with a cut of the power.
pub(super) fn away(guests: &Guests, random: &mut Random, amounts: Amounts) -> Result<()> {
    let Amounts { volume_mib, ring_mib, limit, .. } = amounts;
    let blocks = usize::try_from((volume_mib << 20) / BLOCK).expect("a small volume");
    let disk_bytes = (2 * volume_mib + 128) << 20;
    let plan = Plan {
        blocks,
        ring_mib,
        disk_bytes,
        most: 128,
        under: "",
        mediated: false,
        keys: "",
        paired: limit / 2,
        limit,
    };
    with_nodes(guests, random, plan, |nodes| {
        // What is there before, and is not to be moved.
        nodes.write(amounts.before_mib << 20)?;
        nodes.until_marked()?;
        // A phase that is not over when the other leaves.
        nodes.write(PHASE)?;
        seen(amounts, |amounts| nodes.resync_through_cuts(amounts))
            .context(|| "a resync with cuts of the link".to_owned())?;
        seen(amounts, |amounts| nodes.resync_through_a_kill(amounts))
            .context(|| "a resync with a cut of the power".to_owned())
    })
}

/// An outage, and more of them, each with more that is changed, until a resync was seen on its way: it may be over before anybody has looked.
fn seen(amounts: Amounts, mut outage: impl FnMut(Amounts) -> Result<bool>) -> Result<()> {
    for number in 1..=OUTAGES {
        if outage(Amounts { changed_mib: number * amounts.changed_mib, ..amounts })? {
            return Ok(());
        }
        println!("it was brought up to date before anybody saw it: once more, with more");
    }
    Err(Failure::new(format!("none of {OUTAGES} resyncs was seen on its way")))
}

/// What resyncs have moved: data, and tables and maps.
fn moved(status: &Status) -> Result<(u64, u64)> {
    Ok((number(status, "/counters/resync_data_bytes")?, number(status, "/counters/resync_table_bytes")?))
}

impl Nodes<'_> {
    /// The status of the node that serves.
    fn of_primary(&self) -> Result<Status> {
        self.status(self.serving).ok_or_else(|| Failure::new("the primary does not answer".to_owned()))
    }

    /// A client writes so many bytes, and a little more.
    fn write(&mut self, bytes: u64) -> Result<()> {
        let written = |nodes: &Self| number(&nodes.of_primary()?, "/counters/write_bytes");
        let (from, began) = (written(self)?, Instant::now());
        let writer = self.start_writer()?;
        while written(self)? < from + bytes {
            ensure(began.elapsed() < LONG.limit / 5, || format!("{bytes} bytes are not written in time"))?;
            std::thread::sleep(Duration::from_millis(50));
        }
        self.stop_writer(writer)
    }

    /// Waits until the marker of the one that serves is at the end of its log.
    fn until_marked(&self) -> Result<()> {
        let until = Instant::now() + 2 * SOON;
        loop {
            let status = self.of_primary()?;
            if number(&status, "/lsn/marker")? >= number(&status, "/lsn/appended")? {
                return Ok(());
            }
            ensure(Instant::now() < until, || format!("the marker does not move: {status}"))?;
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the one that serves brings the other up to date, or has done so; whether it still does.
    fn until_it_resyncs(&self) -> Result<bool> {
        let until = Instant::now() + 2 * SOON;
        loop {
            let status = self.of_primary()?;
            match status["replication_state"].as_str() {
                Some("SyncSource") => return Ok(true),
                Some("Established") => return Ok(false),
                state => ensure(Instant::now() < until, || format!("no resync begins: {state:?}, {status}"))?,
            }
        }
    }

    /// Whether the link was cut while there was something to move.
    fn resync_through_cuts(&mut self, amounts: Amounts) -> Result<bool> {
        let (serving, other) = (self.serving, 1 - self.serving);
        self.cut(other);
        self.go_alone()?;
        let before = self.of_primary()?;
        let phase = number(&before, "/lsn/appended")? - number(&before, "/lsn/marker")?;
        let known = self.ledger.acknowledged();
        self.write(amounts.changed_mib << 20)?;
        let changed = self.ledger.changed_since(&known) as u64 * BLOCK;
        self.start(&[other])?;
        let began = Instant::now();
        let cuts = self.cut_link(amounts.cuts, moved(&before)?.0, changed)?;
        self.until_paired()?;
        ensure(self.serving == serving, || "the one that served does not go on".to_owned())?;
        let (before, after) = (moved(&before)?, moved(&self.of_primary()?)?);
        let (data, tables) = (after.0 - before.0, after.1 - before.1);
        println!(
            "{changed} bytes were changed, in a phase of {phase}: {data} of data and {tables} of tables were moved in {:.1} s, \
             through {cuts} cuts of the link",
            began.elapsed().as_secs_f64()
        );
        ensure(data + (amounts.ring_mib << 20) >= changed, || {
            "that was no resync: the ring had what was lacking".to_owned()
        })?;
        let most = changed * 11 / 10 + 2 * phase;
        ensure(data + tables <= most, || format!("{data} and {tables} bytes were moved, at most {most}"))?;
        self.judge(Kept::Acknowledged)?;
        Ok(cuts > 0)
    }

    /// Cuts the link so often, each time when a part more has been moved; how often, before there was no more to move.
    fn cut_link(&self, count: u64, before: u64, bytes: u64) -> Result<u64> {
        for cut in 1..=count {
            let part = before + cut * bytes / (count + 1);
            loop {
                if !self.until_it_resyncs()? {
                    return Ok(cut - 1);
                }
                if moved(&self.of_primary()?)?.0 >= part {
                    break;
                }
            }
            self.guests.cut(Cut::Carrier)?;
            let until = Instant::now() + SOON;
            while self.of_primary()?["replication_state"] == "SyncSource" {
                ensure(Instant::now() < until, || "the primary does not notice the cut".to_owned())?;
            }
            self.guests.heal()?;
        }
        Ok(count)
    }

    /// The one that was brought up to date serves then; the next time one of the two loses its power when that has begun, which it is whether it was
    /// seen.
    fn resync_through_a_kill(&mut self, amounts: Amounts) -> Result<bool> {
        let (gone, other) = (self.serving, 1 - self.serving);
        self.cut(gone);
        self.take_over(other)?;
        self.judge(Kept::Acknowledged).context(|| "what was brought up to date".to_owned())?;
        self.write(amounts.changed_mib << 20)?;
        self.start(&[gone])?;
        if !self.until_it_resyncs()? {
            self.until_paired()?;
            return Ok(false);
        }
        std::thread::sleep(self.random.duration(MOMENT));
        let killed = if self.tosses() { gone } else { other };
        let state = self.of_primary()?["replication_state"].to_string();
        self.cut(killed);
        let which = if killed == other { "primary" } else { "secondary" };
        println!("the {which} loses its power when the primary is {state}");
        if killed == gone {
            self.until_alone()?;
        }
        self.start(&[killed])?;
        self.until_paired()?;
        self.judge(Kept::Acknowledged)?;
        let verify = "mirrorbus verify vm --admin /tmp/admin";
        self.guest(self.serving).run(verify, amounts.limit)?;
        Ok(true)
    }

    /// The other one is gone: the one that serves was alone, or goes on alone.
    fn until_alone(&self) -> Result<()> {
        let until = Instant::now() + SOON;
        loop {
            match self.of_primary()?["replication_state"].as_str() {
                Some("Alone") => return Ok(()),
                Some("LinkLost") => return self.go_alone(),
                state => {
                    ensure(Instant::now() < until, || format!("the primary does not notice: {state:?}"))?
                }
            }
        }
    }
}
