//! That the guests are what the other tests take them for.

use std::time::{Duration, Instant, SystemTime};

use crate::failure::Result;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::port::End;
use crate::rxe::random::Random;

use super::{copy, ensure};

const SHORT: Duration = Duration::from_secs(30);

pub(super) fn device_is_active(machine: &dyn Machine) -> Result<()> {
    let link = machine.run("rdma link show rxe0/1", SHORT)?;
    ensure(link.contains("state ACTIVE"), || format!("rxe0 is not active: {link}"))?;
    let device = machine.run("ibv_devinfo --ib-dev=rxe0 --verbose", SHORT)?;
    // The largest that RoCE has: the link below takes it whole.
    for word in ["PORT_ACTIVE", "active_mtu:\t\t4096"] {
        ensure(device.contains(word), || format!("ibv_devinfo does not say {word:?}: {device}"))?;
    }
    Ok(())
}

/// How long the guests may take from power to an active soft-RoCE device.
const BOOT_MAX: Duration = Duration::from_secs(30);

/// In one of so many starts.
const STARTS: usize = 3;

pub(super) fn both_are_up(guests: &Guests, _: &mut Random) -> Result<()> {
    let mut starts = vec![guests.first_start];
    // One that did not come up was started again then, and the machine may have done much else.
    while starts.iter().all(|took| *took > BOOT_MAX) {
        ensure(starts.len() < STARTS, || format!("the guests took {starts:?} to come up, not {BOOT_MAX:?}"))?;
        guests.forget();
        guests.kill();
        let began = Instant::now();
        guests.mend()?;
        starts.push(began.elapsed());
    }
    guests.both().into_iter().try_for_each(|guest| device_is_active(guest))
}

/// How far a guest's clock on the wall may be from ours.
const WALL_MAX: u64 = 60;

/// A guest may go on from what was kept of it: two of its starts must not be one machine twice.
pub(super) fn starts_differ(guests: &Guests, _: &mut Random) -> Result<()> {
    let mut drawn = Vec::new();
    for _ in 0..2 {
        guests.a.restart()?;
        drawn.push(guests.a.run("head -c 16 /dev/urandom | od -x", SHORT)?);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let theirs: u64 = guests.a.run("date +%s", SHORT)?.trim().parse().unwrap_or_default();
        ensure(now.abs_diff(theirs) <= WALL_MAX, || format!("it is {theirs} s there and {now} s here"))?;
        device_is_active(&guests.a)?;
    }
    ensure(drawn[0] != drawn[1], || format!("two starts drew the same random numbers: {}", drawn[0]))
}

pub(super) fn rdma_between_guests(guests: &Guests, _: &mut Random) -> Result<()> {
    device_is_active(&guests.b)?;
    let address = guests.b.address();
    // rping uses the connection manager; `-g 1` is the RoCEv2 address.
    for (waiting, beginning, word) in [
        (
            format!("rping -s -a {address} -C 10 -V"),
            format!("rping -c -a {address} -C 10 -V -v"),
            "ping data",
        ),
        ("ibv_rc_pingpong -g 1".to_owned(), format!("ibv_rc_pingpong -g 1 {address}"), "usec/iter"),
    ] {
        let output = in_both(guests, &waiting, &beginning)?;
        ensure(output.contains(word), || format!("{beginning}: {output}"))?;
    }
    Ok(())
}

pub(super) fn perftest(guests: &Guests, _: &mut Random) -> Result<()> {
    // Not `-R`: with the connection manager the sides send before the other has posted a receive, and on this kernel the
    // sender may then try again for ever. `-x 1` is the RoCEv2 address.
    for (program, bytes, figures) in [
        ("ib_write_lat", 8, "typical"),
        ("ib_write_lat", 4096, "typical"),
        ("ib_write_bw", 4096, "MsgRate"),
        ("ib_write_bw", 65536, "MsgRate"),
    ] {
        let waiting = format!("{program} -F -x 1 -s {bytes} -n 1000");
        let output = in_both(guests, &waiting, &format!("{waiting} {}", guests.b.address()))?;
        let mut lines = output.lines().skip_while(|line| !line.contains(figures));
        let (head, line) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        ensure(!line.trim().is_empty(), || format!("{program}: {output}"))?;
        println!("{program}: {}\n{program}: {}", head.trim(), line.trim());
    }
    Ok(())
}

/// Runs a program whose one side waits, in guest `b`, for the other, in guest `a`: what the latter prints.
fn in_both(guests: &Guests, waiting: &str, beginning: &str) -> Result<String> {
    let server = guests.b.spawn(waiting, SHORT)?;
    let output = until_accepted(guests, beginning)?;
    server.wait()?.success()?;
    Ok(output)
}

/// Runs the side that begins as soon as the other one listens.
fn until_accepted(guests: &Guests, command: &str) -> Result<String> {
    let until = Instant::now() + SHORT;
    loop {
        let output = guests.a.run(command, SHORT);
        if output.is_ok() || Instant::now() > until {
            return output;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(super) fn files_and_commands(guests: &Guests, _: &mut Random) -> Result<()> {
    // Every byte, and no end of a line at the end.
    guests.b.run("head -c 3000000 /dev/urandom >/tmp/file; printf '\\nEND 7 0' >>/tmp/file", SHORT)?;
    copy(guests, "/tmp/file")?;
    let sums: Vec<_> = guests
        .both()
        .map(|guest| guest.run("sha256sum /tmp/file", SHORT))
        .into_iter()
        .collect::<Result<_>>()?;
    ensure(sums[0] == sums[1], || format!("the file changed on its way: {sums:?}"))?;
    let output = guests.a.exec("echo out; echo err >&2; exit 3", SHORT)?;
    ensure(output.text() == "out\nerr\n" && output.end == End::Exit(3), || format!("{output:?}"))?;
    let start = Instant::now();
    let slow = guests.a.exec("sleep 1000 & sleep 1000", Duration::from_secs(1))?;
    ensure(slow.end == End::Exit(137), || format!("the limit did not end it: {slow:?}"))?;
    ensure(start.elapsed() < SHORT, || format!("it ended after {:?}", start.elapsed()))?;
    let running = guests.a.spawn("echo $$; exec sleep 1000", SHORT)?;
    let meanwhile = guests.a.run("ps | grep -c '[s]leep 1000'", SHORT)?;
    ensure(meanwhile.trim() == "1", || format!("sleeping: {meanwhile}"))?;
    guests.a.signal(&running, "TERM")?;
    let end = running.wait()?.end;
    ensure(end == End::Exit(128 + 15), || format!("{end:?}"))?;
    left_behind(guests)
}

/// What a test leaves running is gone when the next one begins, and the guests are not started anew for that.
fn left_behind(guests: &Guests) -> Result<()> {
    for guest in guests.both() {
        for command in ["echo on; sleep 1000 & exec sleep 1000", "trap '' TERM; echo on; sleep 1000"] {
            guest.spawn(command, 2 * SHORT)?.line_after("on", SHORT)?;
        }
    }
    guests.mend()?;
    for guest in guests.both() {
        let left = guest.run("ps | grep '[s]leep 1000'; test -e /tmp/file", SHORT)?;
        ensure(left.is_empty(), || format!("guest {}: {left}", guest.name))?;
    }
    Ok(())
}
