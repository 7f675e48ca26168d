//! What has no client in front: the store in the process that writes, and bare verbs, which are what it cannot be faster than.
//!
//! All are one process of `mirrorbus-bench store-turns` in guest `a`, which is told of each turn through a FIFO.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use crate::failure::{Context, Failure, Result};
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::port::Running;

use super::contender::{Contender, Job, LONG, SOON, Sample, Side, VOLUME};

/// Bytes of memory that bare verbs write to.
const BARE_MEMORY: &str = "16M";

/// Bytes of the ring, as that of [`Ours`](super::ours::Ours).
const RING: u32 = 64 << 20;

/// The process that takes turns, and those of guest `b` that it speaks to.
#[derive(Debug, Default)]
struct Bench {
    turns: Option<Running>,
    others: Vec<Running>,
}

impl Bench {
    fn start(guests: &Guests) -> Result<Self> {
        let (here, there) = (guests.a.address(), guests.b.address());
        let urls = |own: &str, peer: &str| format!("--listen rdma://{own}:7080 --peer rdma://{peer}:7080");
        let follow = format!(
            "mkdir -p /tmp/follower; mkfifo /tmp/life; exec mirrorbus-bench store-peer --directory /tmp/follower {} \
             --ring {RING} <>/tmp/life",
            urls(&there, &here)
        );
        let limit_peer = format!("{there}:7171");
        let receive = format!(
            "exec mirrorbus-bench limit-peer --fabric rdma --listen {limit_peer} --memory {BARE_MEMORY}"
        );
        let mut others = Vec::new();
        for (command, line) in [(follow, "following"), (receive, "listening on ")] {
            let mut other = guests.b.spawn(&command, LONG)?;
            other.line_after(line, SOON)?;
            others.push(other);
        }
        let write = format!(
            "mkfifo /tmp/turns; exec mirrorbus-bench store-turns --directory /tmp/writer {} --ring {RING} \
             --volume {VOLUME} --limit-peer {limit_peer} --limit-memory {BARE_MEMORY} <>/tmp/turns",
            urls(&here, &there)
        );
        let mut turns = guests.a.spawn(&write, LONG)?;
        turns.line_after("ready", SOON)?;
        Ok(Self { turns: Some(turns), others })
    }

    fn turn(&mut self, guests: &Guests, what: &str, job: Job, duration: Duration) -> Result<Sample> {
        let turns = self.turns.as_mut().ok_or_else(|| Failure::new("it does not run".to_owned()))?;
        let (depth, milliseconds) = (job.depth, duration.as_millis());
        guests.a.run(&format!("echo {what} {depth} {milliseconds} >/tmp/turns"), SOON)?;
        let line = turns.line_after("{", duration + SOON)?;
        let told: Value =
            serde_json::from_str(&format!("{{{line}")).context(|| format!("its turn: {line}"))?;
        let number = |name: &str| {
            let found = told[name].as_f64().filter(|&number| number > 0.0);
            found.ok_or_else(|| Failure::new(format!("no {name} in its turn: {told}")))
        };
        Ok(Sample { iops: number("iops")?, p50_us: number("p50_us")? })
    }

    fn stop(&mut self, guests: &Guests) -> Result<()> {
        if let Some(turns) = self.turns.take() {
            guests.a.signal(&turns, "TERM")?;
        }
        self.others.drain(..).try_for_each(|other| guests.b.signal(&other, "TERM"))
    }
}

/// The store, and bare verbs in the sizes of a write and of its record: in the order in which they are to be brought up.
pub(super) fn all() -> (InProcess, [Bare; 2]) {
    let bench = Rc::new(RefCell::new(Bench::default()));
    let bare = |name, about, engine| Bare { bench: Rc::clone(&bench), name, about, engine };
    let write = "4 KiB RDMA writes into memory and their completions: no log, no map, no disk, no client";
    let record =
        "the same with 64 bytes more, as a write's record has: a second packet, where the path's MTU is 4096";
    (
        InProcess(Rc::clone(&bench)),
        [bare("bare verbs", write, "bare"), bare("bare verbs, log", record, "record")],
    )
}

/// The store.
#[derive(Debug)]
pub(super) struct InProcess(Rc<RefCell<Bench>>);

impl Contender for InProcess {
    fn name(&self) -> &'static str {
        "ours, in process"
    }

    fn about(&self) -> &'static str {
        "a volume of a pair over RDMA, written by the process that has it; no NBD"
    }

    fn side(&self) -> Side {
        Side::Ours
    }

    fn bring_up(&mut self, guests: &Guests) -> Result<()> {
        *self.0.borrow_mut() = Bench::start(guests)?;
        Ok(())
    }

    fn engine(&self) -> String {
        "store".to_owned()
    }

    /// It has filled itself.
    fn fill(&mut self, _: &Guests) -> Result<()> {
        Ok(())
    }

    fn turn(&mut self, guests: &Guests, job: Job, duration: Duration) -> Result<Sample> {
        self.0.borrow_mut().turn(guests, &self.engine(), job, duration)
    }

    fn tear_down(&mut self, guests: &Guests) -> Result<()> {
        self.0.borrow_mut().stop(guests)
    }
}

/// Bare verbs.
#[derive(Debug)]
pub(super) struct Bare {
    bench: Rc<RefCell<Bench>>,
    name: &'static str,
    about: &'static str,
    /// As a turn is asked for.
    engine: &'static str,
}

impl Contender for Bare {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    /// Its process is that of [`InProcess`].
    fn bring_up(&mut self, guests: &Guests) -> Result<()> {
        let shortest = Duration::from_millis(100);
        self.turn(guests, Job::ALL[0], shortest).map(drop)
    }

    fn engine(&self) -> String {
        self.engine.to_owned()
    }

    /// There is nothing to fill.
    fn fill(&mut self, _: &Guests) -> Result<()> {
        Ok(())
    }

    fn turn(&mut self, guests: &Guests, job: Job, duration: Duration) -> Result<Sample> {
        self.bench.borrow_mut().turn(guests, &self.engine(), job, duration)
    }

    fn tear_down(&mut self, _: &Guests) -> Result<()> {
        Ok(())
    }
}
