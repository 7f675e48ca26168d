//! Fifty reconnections under load, and what both sides have before and after.

use std::time::{Duration, Instant};

use crate::failure::{Context, Result};
use crate::rxe::guest::Guest;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::port::Running;
use crate::rxe::random::Random;

use super::ensure;
use super::roles::{GO, SOON, Told, end_holder, holder};

/// Connects again so many times.
const RECONNECTS: u32 = 50;

/// What ended connections had may be given back a little later.
const GIVEN_BACK: Duration = Duration::from_secs(10);

pub(super) fn reconnects(guests: &Guests, random: &mut Random, medium: &str) -> Result<()> {
    let (holder, url) = holder(guests, medium)?;
    guests.a.run(&format!("rm -f {GO}1 {GO}2"), SOON)?;
    let seed = random.number();
    let told = Told::new(&url, seed).with("TEST_RECONNECTS", RECONNECTS).with("TEST_GO", GO);
    let mut owner = told.start_owner(&guests.a, "reconnects")?;
    owner.line_after("settled", SOON)?;
    let count = || {
        let of_owner = resources(&guests.a, &owner)?;
        Ok((of_owner, resources(&guests.b, &holder)?))
    };
    let before: (String, String) = count()?;
    println!("before: owner {}; holder {}", before.0, before.1);
    ensure(medium != "rdma" || before.1.contains("mr "), || format!("no resources: {before:?}"))?;
    guests.a.run(&format!("touch {GO}1"), SOON)?;
    owner.line_after("settled", 2 * SOON)?;
    let until = Instant::now() + GIVEN_BACK;
    let after = loop {
        let after = resources(&guests.a, &owner)
            .and_then(|of_owner| Ok((of_owner, resources(&guests.b, &holder)?)))?;
        if after == before || Instant::now() > until {
            break after;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    println!("after {RECONNECTS} more: owner {}; holder {}", after.0, after.1);
    ensure(after == before, || format!("something leaks: {before:?}, then {after:?}"))?;
    guests.a.run(&format!("touch {GO}2"), SOON)?;
    let output = owner.wait()?.success()?;
    Told::new(&url, seed).judge_equal(&guests.a, &output)?;
    end_holder(guests, holder)
}

/// The verbs objects of a guest, as its kernel counts them, and the descriptors of a process there.
fn resources(guest: &Guest, process: &Running) -> Result<String> {
    let script = format!("rdma resource show; ls /proc/$(cat /run/process.{})/fd | wc -l", process.id);
    let output = guest.run(&script, SOON).context(|| "counting".to_owned())?;
    let words: Vec<_> = output.split_whitespace().skip(2).collect();
    Ok(format!("{} descriptors", words.join(" ")))
}
