//! The tests, by name.

mod bench;
mod bring_up;
mod demo;
mod failover;
mod faults;
mod holders;
mod key;
mod latency;
mod leaks;
mod ledger;
mod list;
mod nodes;
mod power;
mod programs;
mod resync;
mod roles;
mod tcp;
mod verbs;

use std::time::Duration;

use crate::failure::{Failure, Result};

use super::guests::Guests;
use super::machine::Machine;
use super::port::Running;

use key::copy;
pub(super) use key::{KEY, share_key};
pub(crate) use list::{Case, MANY, On, choose, is_measurement};

/// A number of a status, by its path.
fn number(status: &nodes::Status, path: &str) -> Result<u64> {
    let number = status.pointer(path).and_then(nodes::Status::as_u64);
    number.ok_or_else(|| Failure::new(format!("no number {path} in {status}")))
}

/// Fails unless `what` holds.
fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::new(what())) }
}

/// Starts a holder in guest `b`, with the key of [`share_key`], and returns its URL once it listens.
fn start_holder(guests: &Guests, medium: &str, size: &str, limit: Duration) -> Result<(Running, String)> {
    let url = format!("{medium}://{}:7070", guests.b.address());
    let command = format!("exec mirrorbus hold --listen {url} --size {size} --key {KEY} --mlock try");
    let mut holder = guests.b.spawn(&command, limit)?;
    holder.line_after("listening on ", Duration::from_secs(30))?;
    Ok((holder, url))
}
