//! Holders that are killed, fenced or stopped while an owner stores.

use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};
use crate::rxe::guests::{Cut, Guests};
use crate::rxe::machine::Machine;
use crate::rxe::port::End;
use crate::rxe::random::Random;

use super::roles::{GO, SOON, Told, end_holder, holder, number};
use super::{ensure, share_key};

/// The moment of a fault is chosen within this.
const MOMENT: Duration = Duration::from_millis(500);

/// Within this an owner knows that its holder's process was killed.
const TOLD: Duration = Duration::from_millis(100);

/// An emulator takes longer over what a machine does for the first time. Silence alone would be told after 500 ms, each time.
const TOLD_TRIES: u32 = 3;

/// The silence after which a holder is called silent is 2 s: a stop is shorter or longer than that.
const STOP_MIN: Duration = Duration::from_millis(1000);
const STOP_MORE: Duration = Duration::from_millis(2500);

/// On the other guest's side of the stop, lines that were under way have come by then.
const UNDER_WAY: Duration = Duration::from_millis(300);

/// An owner becomes deaf so long before its holder is fenced: after half a second its device gives up.
const DEAF_MIN: Duration = Duration::from_millis(80);
const DEAF_MORE: Duration = Duration::from_millis(150);

/// A busy machine may not keep to that.
const DEAF_TRIES: u32 = 5;

/// What arrives after a fence, for it to have been in the middle of stores: heartbeats alone are far less.
const POSTED_BYTES_MIN: u64 = 16 << 10;

pub(super) fn killed(guests: &Guests, random: &mut Random, medium: &str) -> Result<()> {
    let mut told = Vec::new();
    for _ in 0..TOLD_TRIES {
        let within = killed_once(guests, random, medium)?;
        if within <= TOLD {
            return Ok(());
        }
        println!("that is more than {TOLD:?}: once more");
        told.push(within);
    }
    Err(Failure::new(format!("told only after {told:?}, never within {TOLD:?}")))
}

/// How long it took, with the word's way to the other machine.
fn killed_once(guests: &Guests, random: &mut Random, medium: &str) -> Result<Duration> {
    let (holder, url) = holder(guests, medium)?;
    let process = guests.b.run(&format!("cat /run/process.{}", holder.id), SOON)?;
    let address = format!("{}:7272", guests.b.address());
    let executioner = Told::new(&url, 0).with("TEST_PROCESS", process.trim()).with("TEST_LISTEN", &address);
    let mut executioner = executioner.start(&guests.b, "executioner")?;
    executioner.line_after("waits at ", SOON)?;
    let told = Told::new(&url, random.number())
        .with("TEST_EXECUTIONER", &address)
        .with("TEST_DELAY_MS", random.duration(MOMENT).as_millis());
    let mut owner = told.start_owner(&guests.a, "told")?;
    let lost = owner.line_after("lost after ", SOON)?;
    let within = owner.line_after("told within ", SOON)?;
    println!("told within {within} of the word to kill; lost after {lost}");
    owner.wait()?.success()?;
    executioner.wait()?.success()?;
    let end = holder.wait()?.end;
    ensure(end == End::Exit(128 + 9), || format!("the holder was not killed: {end:?}"))?;
    Ok(Duration::from_micros(number(within.strip_suffix(" us").unwrap_or_default())?))
}

pub(super) fn fenced(guests: &Guests, random: &mut Random, medium: &str) -> Result<()> {
    share_key(guests)?;
    fence_once(guests, random, medium, false)?;
    for _ in 0..DEAF_TRIES {
        let after = fence_once(guests, random, medium, true)?;
        if after >= POSTED_BYTES_MIN {
            return Ok(());
        }
        println!("only {after} bytes came after the fence, which shows nothing: once more");
    }
    Err(Failure::new(format!("in {DEAF_TRIES} fences the owner never went on sending after one")))
}

/// Returns how many bytes came to the holder after its fence had returned. A `deaf` owner hears neither of the fence nor
/// anything else: its device goes on sending what it was given, and sends again what is not answered, until it gives up.
fn fence_once(guests: &Guests, random: &mut Random, medium: &str, deaf: bool) -> Result<u64> {
    guests.b.run(&format!("rm -f {GO}1 {GO}2"), SOON)?;
    let (seed, address) = (random.number(), guests.b.address());
    let (url, line) = (format!("{medium}://{address}:7070"), format!("{address}:7272"));
    let delay = DEAF_MIN + random.duration(DEAF_MORE);
    let mut holder = Told::new(&url, seed)
        .with("TEST_GO", GO)
        .with("TEST_LISTEN", &line)
        .with("TEST_DELAY_MS", delay.as_millis())
        .start(&guests.b, "fenced-holder")?;
    holder.line_after("told at ", SOON)?;
    let told = Told::new(&url, seed).with("TEST_HOLDER", &line);
    let mut owner = told.start_owner(&guests.a, "fenced-owner")?;
    owner.line_after("storing", SOON)?;
    std::thread::sleep(random.duration(MOMENT));
    guests.b.run(&format!("touch {GO}1"), SOON)?;
    if deaf {
        guests.cut(Cut::ToA)?;
    }
    let fenced = holder.line_after("fenced in ", SOON)?;
    let received = holder.line_after("received ", SOON)?;
    let lost = owner.line_after("lost after ", SOON)?;
    guests.heal()?;
    let after = owner.line_after("", SOON)?;
    println!(
        "deaf: {deaf}; fenced in {fenced}; bytes received: {received}; owner: lost after {lost}; {after}"
    );
    let acked = number(&holder.line_after("acked ", SOON)?)?;
    owner.wait()?.success()?;
    ensure(fenced.ends_with("exact: true"), || format!("the fence was not exact: {fenced}"))?;
    let after = received.split(' ').nth(2).map_or(Ok(0), number)?;
    Told::new(&url, seed).with("TEST_STORES", "walk").judge(&guests.a, acked)?;
    guests.b.run(&format!("touch {GO}2"), SOON)?;
    holder.wait()?.success()?;
    Ok(after)
}

pub(super) fn stopped(guests: &Guests, random: &mut Random, medium: &str) -> Result<()> {
    let (holder, url) = holder(guests, medium)?;
    guests.a.run(&format!("rm -f {GO}"), SOON)?;
    let seed = random.number();
    let mut owner = Told::new(&url, seed).with("TEST_GO", GO).start_owner(&guests.a, "visible")?;
    guests.b.signal(&holder, "STOP")?;
    let (stopped, stop) = (Instant::now(), STOP_MIN + random.duration(STOP_MORE));
    let (mut first, mut last) = (None, 0);
    // On a machine that does much else it is stopped for longer, until a store became visible meanwhile.
    while stopped.elapsed() < stop || first.is_none_or(|first| last <= first) {
        ensure(stopped.elapsed() < stop + SOON, || format!("no store became visible behind {first:?}"))?;
        last = number(&owner.line_after("visible ", SOON)?)?;
        if stopped.elapsed() > UNDER_WAY {
            first.get_or_insert(last);
        }
    }
    let stop = stopped.elapsed();
    let state = guests.b.run(&format!("cat /proc/$(cat /run/process.{})/stat", holder.id), SOON)?;
    guests.b.signal(&holder, "CONT")?;
    ensure(state.contains(") T "), || format!("the holder was not stopped: {state}"))?;
    println!(
        "while the holder was stopped for {:.1} s: visible {} to {last}",
        stop.as_secs_f64(),
        first.unwrap_or(0)
    );
    guests.a.run(&format!("touch {GO}"), SOON)?;
    let output = owner.wait()?.success()?;
    Told::new(&url, seed).judge_equal(&guests.a, &output)?;
    end_holder(guests, holder)
}
