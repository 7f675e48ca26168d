//! Ours, as a client has it: a node in each guest, mirrored over soft-RoCE, and its volume by NBD over a Unix socket.

use std::time::Instant;

use serde_json::Value;

use crate::failure::{Context, Failure, Result};
use crate::rxe::cases::{KEY, share_key};
use crate::rxe::guest::Guest;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::port::Running;

use super::contender::{Contender, LONG, SOON, Side, VOLUME};

/// The nodes.
#[derive(Debug, Default)]
pub(super) struct Ours {
    nodes: Vec<Running>,
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn about(&self) -> &'static str {
        "a volume of `mirrorbus node` over RDMA, by NBD over a Unix socket; files on tmpfs"
    }

    fn side(&self) -> Side {
        Side::Ours
    }

    fn bring_up(&mut self, guests: &Guests) -> Result<()> {
        share_key(guests)?;
        for (guest, peer) in [(&guests.a, &guests.b), (&guests.b, &guests.a)] {
            let config = config(guest, peer);
            let script = format!(
                "cat >/tmp/ours.toml <<'EOF'\n{config}\nEOF\n\
                 RUST_LOG=info exec mirrorbus node --config /tmp/ours.toml >/tmp/ours.log 2>&1"
            );
            self.nodes.push(guest.spawn(&script, LONG)?);
        }
        until_paired(guests).map_err(|failure| {
            let logs = guests.both().map(|guest| {
                let log = guest.run("tail -n 25 /tmp/ours.log", SOON);
                format!("--- {}\n{}", guest.name, log.unwrap_or_else(|failure| failure.to_string()))
            });
            Failure::new(format!("{failure}\n{}", logs.join("\n")))
        })
    }

    fn engine(&self) -> String {
        "--ioengine=nbd --uri='nbd+unix:///disk?socket=/tmp/ours.nbd'".to_owned()
    }

    fn tear_down(&mut self, guests: &Guests) -> Result<()> {
        // What was measured must have been a pair to the end.
        ensure_paired(&status(&guests.a)?)?;
        for (guest, node) in guests.both().into_iter().zip(self.nodes.drain(..)) {
            guest.signal(&node, "TERM")?;
            node.wait()?.success()?;
        }
        Ok(())
    }
}

fn until_paired(guests: &Guests) -> Result<()> {
    let until = Instant::now() + SOON;
    loop {
        let paired = status(&guests.a).and_then(|status| ensure_paired(&status));
        if paired.is_ok() || Instant::now() > until {
            return paired;
        }
    }
}

fn ensure_paired(status: &Value) -> Result<()> {
    if status["role"] == "Primary" && status["replication_state"] == "Established" {
        return Ok(());
    }
    Err(Failure::new(format!("the two nodes are not mirrored: {status}")))
}

/// What the node in this guest says of its dataset.
fn status(guest: &Guest) -> Result<Value> {
    let text = guest.run("mirrorbus status --json --admin /tmp/ours.admin", SOON)?;
    let mut status: Value = serde_json::from_str(&text).context(|| "a node's status".to_owned())?;
    Ok(status["datasets"][0].take())
}

/// The configuration of the node in this guest; of the two the one in guest `a` serves, by its name.
fn config(guest: &Guest, peer: &Guest) -> String {
    let (name, own, peer) = (guest.name, guest.address(), peer.address());
    format!(
        r#"[node]
name = "{name}"
admin = "/tmp/ours.admin"
[[dataset]]
name = "vm"
id = "00112233445566778899aabbccddeeff"
directory = "/tmp/ours"
key = "{KEY}"
listen = "rdma://{own}:7070"
peer = "rdma://{peer}:7070"
region = "64MiB"
segment = "16MiB"
lock = "try"
nbd = ["unix:/tmp/ours.nbd"]
[[dataset.volume]]
name = "disk"
size = "{VOLUME}"
block = 4096"#
    )
}
