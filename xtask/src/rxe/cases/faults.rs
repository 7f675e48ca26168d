//! Links that fail and machines that lose power, while an owner in guest `a` stores to a holder in guest `b`.
//!
//! The owner is the role `store` of `tests/across.rs`: several of its threads wait, and it ends badly when a call of any
//! returns later than it was told to, or is told of more than is acknowledged.

use std::time::{Duration, Instant};

use crate::failure::{Context, Result};
use crate::rxe::guests::{Cut, Guests};
use crate::rxe::machine::Machine;
use crate::rxe::port::End;
use crate::rxe::random::Random;

use super::ensure;
use super::roles::{SOON, Told, end_holder, holder, last_acked};

/// When an owner must have found its link lost: silence for 2 s, and what a busy machine adds.
const NOTICED: Duration = Duration::from_secs(10);

/// The moment of a fault is chosen within this.
const MOMENT: Duration = Duration::from_millis(700);

pub(super) fn cut_and_heal(guests: &Guests, random: &mut Random, medium: &str) -> Result<()> {
    let (holder, url) = holder(guests, medium)?;
    for how in Cut::ALL {
        cut_once(guests, random, &url, how).context(|| format!("{how:?}"))?;
    }
    end_holder(guests, holder)
}

fn cut_once(guests: &Guests, random: &mut Random, url: &str, how: Cut) -> Result<()> {
    let seed = random.number();
    let mut owner = Told::new(url, seed).start_owner(&guests.a, "store")?;
    owner.line_after("acked ", SOON)?;
    std::thread::sleep(random.duration(MOMENT));
    guests.cut(how)?;
    let cut = Instant::now();
    let lost = owner.line_after("lost after ", NOTICED)?;
    println!("{how:?}: noticed in {:.1} s; {lost}", cut.elapsed().as_secs_f64());
    guests.heal()?;
    let healed = Instant::now();
    owner.line_after("resumed", SOON)?;
    println!("{how:?}: resumed {:.1} s after healing", healed.elapsed().as_secs_f64());
    let output = owner.wait()?.success()?;
    Told::new(url, seed).judge_equal(&guests.a, &output)
}

pub(super) fn owner_loses_power(guests: &Guests, random: &mut Random, medium: &str) -> Result<()> {
    let (holder, url) = holder(guests, medium)?;
    let seed = random.number();
    let mut owner = Told::new(&url, seed).start_owner(&guests.a, "store")?;
    owner.line_after("acked ", SOON)?;
    std::thread::sleep(random.duration(MOMENT));
    guests.a.kill();
    let output = owner.wait()?;
    ensure(output.end == End::PowerLost, || format!("{output:?}"))?;
    // The judge is a new owner on the machine that holds the copy: the one that takes over.
    Told::new(&url, seed).judge(&guests.b, last_acked(&output.text()))?;
    end_holder(guests, holder)?;
    let start = Instant::now();
    guests.a.restart()?;
    println!("guest a up again in {:.1} s", start.elapsed().as_secs_f64());
    guests.a.run(&format!("ping -c 1 -W 5 {}", guests.b.address()), Duration::from_secs(10)).map(drop)
}

pub(super) fn holder_loses_power(guests: &Guests, random: &mut Random, medium: &str) -> Result<()> {
    let (holder, url) = holder(guests, medium)?;
    let mut owner = Told::new(&url, random.number()).start_owner(&guests.a, "store")?;
    owner.line_after("acked ", SOON)?;
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
