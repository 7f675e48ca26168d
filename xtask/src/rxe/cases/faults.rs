//! Links that fail and machines that lose power, while an owner in guest `a` stores to a holder in guest `b`.
//!
//! The owner is the role `store` of `tests/across.rs`: it ends badly when a call returns later than it was told to. The
//! judge of a copy is the role `judge`.

use std::time::{Duration, Instant};

use crate::failure::{Context, Result};
use crate::rxe::guest::Guest;
use crate::rxe::guests::{Cut, Guests};
use crate::rxe::machine::Machine;
use crate::rxe::port::{End, Running};
use crate::rxe::random::Random;

use super::{KEY, ensure, share_key, start_holder};

/// Bytes of the region that `tests/across.rs` has.
const SIZE: &str = "256K";

/// When all of a test must be over.
const LIMIT: Duration = Duration::from_secs(90);

/// When an owner must have found its link lost: silence for 2 s, and what a busy machine adds.
const NOTICED: Duration = Duration::from_secs(10);

/// The moment of a fault is chosen within this.
const MOMENT: Duration = Duration::from_millis(700);

/// The command of a role of `tests/across.rs`.
fn role(name: &str, url: &str, seed: u64, more: &str) -> String {
    format!(
        "MIRRORBUS_TEST_ROLE={name} TEST_URL={url} TEST_KEY={KEY} TEST_SEED={seed} {more} \
         exec across role --exact --nocapture --test-threads=1"
    )
}

/// An owner that has begun to store.
fn start_owner(guest: &Guest, url: &str, seed: u64) -> Result<Running> {
    let mut owner = guest.spawn(&role("store", url, seed, ""), LIMIT)?;
    owner.line_after("attached", Duration::from_secs(30))?;
    owner.line_after("acked ", Duration::from_secs(30))?;
    Ok(owner)
}

pub(super) fn cut_and_heal(guests: &Guests, random: &mut Random) -> Result<()> {
    share_key(guests)?;
    let (holder, url) = start_holder(guests, SIZE, 2 * LIMIT)?;
    for how in Cut::ALL {
        let seed = random.number();
        let mut owner = start_owner(&guests.a, &url, seed)?;
        std::thread::sleep(random.duration(MOMENT));
        guests.cut(how)?;
        let cut = Instant::now();
        let lost = owner.line_after("lost after ", NOTICED).context(|| format!("{how:?}"))?;
        println!("{how:?}: noticed in {:.1} s; {lost}", cut.elapsed().as_secs_f64());
        guests.heal()?;
        let healed = Instant::now();
        owner.line_after("resumed", Duration::from_secs(30)).context(|| format!("{how:?}"))?;
        println!("{how:?}: resumed {:.1} s after healing", healed.elapsed().as_secs_f64());
        let acked = owner.line_after("acked ", Duration::from_secs(30))?;
        let output = owner.wait()?.success().context(|| format!("{how:?}"))?;
        let acked = last_acked(&output).max(acked.parse().unwrap_or(0));
        judge(&guests.a, &url, seed, acked)?;
    }
    guests.b.signal(&holder, "TERM")?;
    holder.wait()?.success().map(drop)
}

pub(super) fn owner_loses_power(guests: &Guests, random: &mut Random) -> Result<()> {
    share_key(guests)?;
    let (holder, url) = start_holder(guests, SIZE, 2 * LIMIT)?;
    let seed = random.number();
    let owner = start_owner(&guests.a, &url, seed)?;
    std::thread::sleep(random.duration(MOMENT));
    guests.a.kill();
    let output = owner.wait()?;
    ensure(output.end == End::PowerLost, || format!("{output:?}"))?;
    // The judge is a new owner on the machine that holds the copy: the one that takes over.
    judge(&guests.b, &url, seed, last_acked(&output.text()))?;
    guests.b.signal(&holder, "TERM")?;
    holder.wait()?.success()?;
    let start = Instant::now();
    guests.a.restart()?;
    println!("guest a up again in {:.1} s", start.elapsed().as_secs_f64());
    guests.a.run(&format!("ping -c 1 -W 5 {}", guests.b.address()), Duration::from_secs(10)).map(drop)
}

pub(super) fn holder_loses_power(guests: &Guests, random: &mut Random) -> Result<()> {
    share_key(guests)?;
    let (holder, url) = start_holder(guests, SIZE, LIMIT)?;
    let mut owner = start_owner(&guests.a, &url, random.number())?;
    std::thread::sleep(random.duration(MOMENT));
    guests.b.kill();
    let cut = Instant::now();
    let lost = owner.line_after("lost after ", NOTICED)?;
    println!("noticed in {:.1} s; {lost}", cut.elapsed().as_secs_f64());
    let end = holder.wait()?.end;
    ensure(end == End::PowerLost, || format!("{end:?}"))?;
    guests.a.signal(&owner, "KILL")?;
    owner.wait().map(drop)
}

/// The last count that an owner printed whole.
fn last_acked(output: &str) -> u64 {
    let mut counts = output.lines().filter_map(|line| line.strip_prefix("acked ")?.parse().ok());
    counts.next_back().unwrap_or(0)
}

/// Takes the copy over in `guest`, and has it judged.
fn judge(guest: &Guest, url: &str, seed: u64, acked: u64) -> Result<()> {
    let output = guest.run(&role("judge", url, seed, &format!("TEST_ACKED={acked}")), LIMIT)?;
    let found = output.lines().find_map(|line| line.strip_prefix("prefix of ")?.parse::<u64>().ok());
    println!("{acked} stores were said to be acknowledged, the copy has {}", found.unwrap_or(0));
    ensure(found.is_some_and(|found| found >= acked && acked > 0), || output.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_count_is_read() {
        assert_eq!(last_acked("attached\nacked 5\nacked 17\nlost after 17 of 20"), 17);
        assert_eq!(last_acked("attached\n"), 0);
    }
}
