//! The roles of `tests/across.rs` in the guests: owners that store, holders, and the judge of what is left.

use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::rxe::guest::Guest;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::port::Running;

use super::{KEY, ensure, share_key, start_holder};

/// Bytes of the region that `tests/across.rs` has.
const SIZE: &str = "256K";

/// When all of a role must be over.
pub(super) const LIMIT: Duration = Duration::from_secs(90);

/// When a role must have said the next thing.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// The file whose making tells a role to go on.
pub(super) const GO: &str = "/tmp/go";

/// What a role is told.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) url: &'a str,
    pub(super) seed: u64,
    /// Further variables, as the shell sets them.
    pub(super) more: String,
}

impl<'a> Told<'a> {
    pub(super) const fn new(url: &'a str, seed: u64) -> Self {
        Self { url, seed, more: String::new() }
    }

    pub(super) fn with(mut self, variable: &str, value: impl std::fmt::Display) -> Self {
        self.more += &format!("{variable}={value} ");
        self
    }

    /// The command of a role.
    fn command(&self, role: &str) -> String {
        let Self { url, seed, more } = self;
        format!(
            "MIRRORBUS_TEST_ROLE={role} TEST_URL={url} TEST_KEY={KEY} TEST_SEED={seed} {more} \
             exec across role --exact --nocapture --test-threads=1"
        )
    }

    /// Starts a role.
    pub(super) fn start(&self, guest: &Guest, role: &str) -> Result<Running> {
        guest.spawn(&self.command(role), LIMIT)
    }

    /// Starts an owner, and waits until it is attached.
    pub(super) fn start_owner(&self, guest: &Guest, role: &str) -> Result<Running> {
        let mut owner = self.start(guest, role)?;
        owner.line_after("attached", SOON)?;
        Ok(owner)
    }

    /// Takes the copy over in `guest`, and has it judged: of how many stores it is a prefix. It must have all that was said
    /// to be acknowledged, which must not be nothing.
    pub(super) fn judge(self, guest: &Guest, acked: u64) -> Result<u64> {
        let output = guest.run(&self.with("TEST_ACKED", acked).command("judge"), LIMIT)?;
        let found = output.lines().find_map(|line| line.strip_prefix("prefix of ")?.parse::<u64>().ok());
        println!("{acked} stores were said to be acknowledged, the copy has {}", found.unwrap_or(0));
        found.filter(|found| *found >= acked && acked > 0).ok_or_else(|| Failure::new(output.clone()))
    }

    /// The same, of an owner that ended in good order: the copy has its stores and no other, so the two were equal.
    pub(super) fn judge_equal(self, guest: &Guest, output: &str) -> Result<()> {
        let acked = last_acked(output);
        let found = self.judge(guest, acked)?;
        ensure(found == acked, || format!("the copy has {found} stores, its owner had {acked}"))
    }
}

/// A holder of the region in guest `b`: the process, and its URL.
pub(super) fn holder(guests: &Guests, medium: &str) -> Result<(Running, String)> {
    share_key(guests)?;
    start_holder(guests, medium, SIZE, 2 * LIMIT)
}

/// Ends a holder, which must end in good order.
pub(super) fn end_holder(guests: &Guests, holder: Running) -> Result<()> {
    guests.b.signal(&holder, "TERM")?;
    holder.wait()?.success().map(drop)
}

/// The last count that an owner printed whole.
pub(super) fn last_acked(output: &str) -> u64 {
    let mut counts = output.lines().filter_map(|line| line.strip_prefix("acked ")?.parse().ok());
    counts.next_back().unwrap_or(0)
}

/// A count that a role printed.
pub(super) fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Failure::new(format!("{text:?} is no number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_count_is_read() {
        assert_eq!(last_acked("attached\nacked 5\nacked 17\nlost after 17 of 20"), 17);
        assert_eq!(last_acked("attached\n"), 0);
    }

    #[test]
    fn a_role_is_told_all_of_it() {
        let told = Told::new("tcp://h:1", 7).with("TEST_A", 5).with("TEST_B", "x");
        let command = told.command("store");
        for part in ["ROLE=store ", "TEST_URL=tcp://h:1 ", "TEST_SEED=7 ", "TEST_A=5 TEST_B=x "] {
            assert!(command.contains(part), "{command}");
        }
    }
}
