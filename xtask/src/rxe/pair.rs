//! A pair of nodes with their files in memory, one in each guest, for measurements: mirrored over soft-RoCE, with a volume that is
//! reached by NBD over a Unix socket.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::{Context, Failure, Result};

use super::cases::{KEY, share_key};
use super::config::Config;
use super::guest::Guest;
use super::guests::Guests;
use super::machine::Machine;
use super::port::Running;

/// When a node must have come up, gone, or noticed something, on a host that does much else.
const SOON: Duration = Duration::from_secs(120);

/// A node runs for as long as a measurement takes.
const LONG: Duration = Duration::from_secs(6 * 3600);

/// How fio reaches the volume in the guest that serves.
pub(crate) const ENGINE: &str = "--ioengine=nbd --uri='nbd+unix:///disk?socket=/tmp/ours.nbd'";

/// What a node in a guest is asked by.
pub(crate) const STATUS: &str = "mirrorbus status --json --admin /tmp/ours.admin";

/// What a pair is made with; sizes as the configuration has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) region: &'static str,
    pub(crate) segment: &'static str,
    pub(crate) volume: &'static str,
}

/// The nodes. Of the two the one in guest `a` serves, by its name.
#[derive(Debug)]
pub(crate) struct Pair {
    sizes: Sizes,
    nodes: [Option<Running>; 2],
}

impl Pair {
    /// Nodes that are not started yet.
    pub(crate) const fn new(sizes: Sizes) -> Self {
        Self { sizes, nodes: [None, None] }
    }

    /// Starts both, and waits until they are a pair.
    pub(crate) fn bring_up(&mut self, guests: &Guests) -> Result<()> {
        share_key(guests)?;
        let Sizes { region, segment, volume } = self.sizes;
        let config = Config {
            admin: "/tmp/ours.admin",
            directory: "/tmp/ours",
            key: KEY,
            nbd: "/tmp/ours.nbd",
            region,
            segment,
            volume: "disk",
            size: volume,
            more: "",
        };
        for guest in guests.both() {
            let config = config.of(guest, guests);
            guest.run(&format!("cat >/tmp/ours.toml <<'EOF'\n{config}\nEOF\n"), SOON)?;
        }
        self.start(guests, 0)?;
        self.start(guests, 1)?;
        until_paired(guests).map_err(|failure| with_logs(guests, &failure))
    }

    /// Starts the node in a guest.
    pub(crate) fn start(&mut self, guests: &Guests, index: usize) -> Result<()> {
        let script = "RUST_LOG=info exec mirrorbus node --config /tmp/ours.toml >>/tmp/ours.log 2>&1";
        self.nodes[index] = Some(guests.both()[index].spawn(script, LONG)?);
        Ok(())
    }

    /// Ends the node in a guest, as an operator does.
    pub(crate) fn stop(&mut self, guests: &Guests, index: usize) -> Result<()> {
        let Some(node) = self.nodes[index].take() else { return Ok(()) };
        guests.both()[index].signal(&node, "TERM")?;
        node.wait()?.success().map(drop)
    }

    /// Ends both. What was measured must have been a pair to the end.
    pub(crate) fn tear_down(&mut self, guests: &Guests) -> Result<()> {
        ensure_paired(&status(&guests.a)?)?;
        self.stop(guests, 0)?;
        self.stop(guests, 1)
    }
}

/// Waits until the two are a pair.
pub(crate) fn until_paired(guests: &Guests) -> Result<()> {
    let until = Instant::now() + SOON;
    loop {
        let paired = status(&guests.a).and_then(|status| ensure_paired(&status));
        if paired.is_ok() || Instant::now() > until {
            return paired;
        }
    }
}

/// The failure, with the ends of the nodes' logs.
pub(crate) fn with_logs(guests: &Guests, failure: &Failure) -> Failure {
    let logs = guests.both().map(|guest| {
        let log = guest.run("tail -n 25 /tmp/ours.log", SOON);
        format!("--- {}\n{}", guest.name, log.unwrap_or_else(|failure| failure.to_string()))
    });
    Failure::new(format!("{failure}\n{}", logs.join("\n")))
}

fn ensure_paired(status: &Value) -> Result<()> {
    if status["role"] == "Primary" && status["replication_state"] == "Established" {
        return Ok(());
    }
    Err(Failure::new(format!("the two nodes are not mirrored: {status}")))
}

/// What the node in this guest says of its dataset.
pub(crate) fn status(guest: &Guest) -> Result<Value> {
    dataset(&guest.run(STATUS, SOON)?)
}

/// The same, in what [`STATUS`] prints.
pub(crate) fn dataset(text: &str) -> Result<Value> {
    let mut status: Value = serde_json::from_str(text).context(|| format!("a node's status: {text}"))?;
    let dataset = status.pointer_mut("/datasets/0").map(Value::take);
    dataset.ok_or_else(|| Failure::new(format!("a node has no dataset: {text}")))
}
