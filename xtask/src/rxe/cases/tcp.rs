//! The project's own programs, over tcp.

use std::time::Duration;

use crate::failure::Result;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::random::Random;

use super::{KEY, ensure, share_key, start_holder};

pub(super) fn contract(machine: &dyn Machine) -> Result<()> {
    let output = machine.run("contract ::tcp:: --test-threads=2", Duration::from_secs(120))?;
    let line = output.lines().find(|line| line.starts_with("test result: ok.")).unwrap_or_default();
    println!("{line}");
    ensure(!line.is_empty() && !line.contains(" 0 passed"), || output.clone())
}

pub(super) fn bench(guests: &Guests, _: &mut Random) -> Result<()> {
    let limit = Duration::from_secs(90);
    share_key(guests)?;
    let (holder, url) = start_holder(guests, "tcp", "16M", limit)?;
    let address = guests.b.address();
    let mut limit_peer =
        guests.b.spawn(&format!("exec mirrorbus-bench limit-peer --listen {address}:7171"), limit)?;
    limit_peer.line(Duration::from_secs(30))?;
    let output = guests.a.exec(
        &format!(
            "mirrorbus-bench region --fabric tcp --peer {url} --key {KEY} --limit-peer {address}:7171 \
             --region 16M --seconds 1 --block --json /tmp/bench.json"
        ),
        limit,
    )?;
    // 3: measured, but the machine was unsteady. Speed is not what is tested here.
    let measured = matches!(output.end, crate::rxe::port::End::Exit(0 | 3));
    ensure(measured, || format!("{:?}: {}", output.end, output.text()))?;
    let json = guests.a.pull("/tmp/bench.json")?;
    ensure(serde_json::from_slice::<serde_json::Value>(&json).is_ok(), || "no report".to_owned())?;
    guests.b.signal(&limit_peer, "KILL")?;
    guests.b.signal(&holder, "TERM")?;
    holder.wait()?.success().map(drop)
}
