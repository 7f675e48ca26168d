//! `mirrorbus demo` with the owner in one guest and the holder in the other, both ways.

use std::time::Duration;

use crate::failure::Result;
use crate::rxe::guest::Guest;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::random::Random;

use super::ensure;

const SHORT: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(120);

/// Where a guest takes a command from the other one, as `ssh` would be used elsewhere: a line of the shell, whose input
/// and output the connection is from then on.
const PORT: u16 = 7373;

pub(super) fn both_ways(guests: &Guests, _: &mut Random, medium: &str) -> Result<()> {
    one_way(&guests.a, &guests.b, medium)?;
    one_way(&guests.b, &guests.a, medium)
}

fn one_way(owner: &Guest, holder: &Guest, medium: &str) -> Result<()> {
    let there = holder.address();
    let listening =
        holder.spawn(&format!("exec nc -l -p {PORT} -e sh -c 'read -r line; eval \"$line\"'"), LIMIT)?;
    let state = format!("cat /proc/net/tcp /proc/net/tcp6 | grep -q ':{PORT:04X} [0:]* 0A'");
    let wait = format!("until {state}; do sleep 0.05; done");
    holder.run(&wait, SHORT)?;
    let over = format!(r#"{{ printf '%s\n' "$1"; exec cat; }} | nc {there} {PORT}"#);
    owner.run(&format!("cat >/tmp/over <<'EOF'\n{over}\nEOF\n"), SHORT)?;
    // What is the same in both guests: they come from one image.
    let demo = format!(
        "exec mirrorbus demo --tree /usr/lib --bytes 8M --listen {medium}://{there}:7070 --over 'sh /tmp/over'"
    );
    let output = owner.run(&demo, LIMIT)?;
    println!("owner in guest {}, holder in guest {}:", owner.name, holder.name);
    output.lines().filter(|line| line.starts_with("  ")).for_each(|line| println!("{line}"));
    for part in [&format!("{medium}: holder proves all of it")[..], "everything held"] {
        ensure(output.contains(part), || format!("{part:?} is not in: {output}"))?;
    }
    listening.wait()?.success().map(drop)
}
