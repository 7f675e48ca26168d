//! `mirrorbus doctor` and `mirrorbus soft-roce` where there is something for them.

use std::time::Duration;

use crate::failure::Result;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::random::Random;

use super::{KEY, ensure, share_key};

const SHORT: Duration = Duration::from_secs(30);

/// Fails unless each part is in the text.
fn all_in(text: &str, parts: &[&str]) -> Result<()> {
    parts.iter().try_for_each(|part| ensure(text.contains(part), || format!("{part:?} is not in: {text}")))
}

pub(super) fn doctor(guests: &Guests, _: &mut Random) -> Result<()> {
    let address = guests.a.address();
    let doctor = || guests.a.run("mirrorbus doctor", SHORT);
    let lines = doctor()?;
    lines.lines().filter(|line| line.contains("RDMA")).for_each(|line| println!("{line}"));
    let whole = [
        "ok    epochs, soft-dirty: a store was found\n",
        "ok    epochs, mprotect: a store was found\n",
        "ok    RDMA modules: loaded: crc32_generic, rdma_rxe, ib_uverbs, rdma_ucm; missing: none\n",
        "ok    RDMA devices: rxe0\n",
        "ok    RDMA port rxe0/1: ACTIVE, Ethernet, active MTU 4096 of 4096, on eth0 (MTU 9000)\n",
        &format!("ok    RDMA address rxe0/1, index 1: ::ffff:{address} ({address}), RoCE v2, on eth0\n"),
        "ok    RDMA registration on rxe0: 64 MiB were registered; RLIMIT_MEMLOCK soft unlimited",
    ];
    all_in(&lines, &whole)?;
    // For root the limit would not count.
    let other = "ulimit -l 1024; exec start-stop-daemon -S -c nobody -x /bin/mirrorbus -- doctor";
    let small = guests.a.run(other, SHORT)?;
    all_in(&small, &["warn  RDMA registration on rxe0: 64 MiB cannot be registered", "memlock"])?;
    guests.a.run("ip link set eth0 mtu 1500", SHORT)?;
    let narrow = doctor()?;
    guests.a.run("ip link set eth0 mtu 9000", SHORT)?;
    all_in(&narrow, &["warn  RDMA port rxe0/1: ACTIVE, Ethernet, active MTU 1024", "mtu 9000"])?;
    guests.a.run("ip link set eth0 down", SHORT)?;
    let down = doctor()?;
    guests.a.run(
        ". /bin/link-up; until rdma link show rxe0/1 | grep -q 'state ACTIVE'; do sleep 0.05; done",
        SHORT,
    )?;
    all_in(&down, &["warn  RDMA port rxe0/1: DOWN", "ip link set eth0 up", "warn  RDMA addresses of rxe0"])
}

/// `ffi/examples/counter.c`, linked with the C library.
pub(super) fn in_c(guests: &Guests, _: &mut Random) -> Result<()> {
    share_key(guests)?;
    let url = format!("rdma://{}:7070", guests.b.address());
    let mut holder = guests.b.spawn(&format!("exec counter hold {url} {KEY}"), SHORT)?;
    holder.line_after("listening on ", SHORT)?;
    let said = guests.a.run(&format!("exec counter count {url} {KEY}"), SHORT)?;
    print!("{said}");
    all_in(&said, &["4000 stores are visible at the holder\n"])?;
    let copy = holder.wait()?.success()?;
    all_in(&copy, &["counter 0 is 1000\n", "counter 1 is 2000\n", "counter 2 is 3000\n", "counter 3 is 4000"])
}

pub(super) fn soft_roce(guests: &Guests, _: &mut Random) -> Result<()> {
    let soft_roce = |words: &str| guests.a.run(&format!("mirrorbus soft-roce {words} --netdev eth0"), SHORT);
    all_in(&soft_roce("up")?, &["rxe0 is on eth0 already", "port 1 is ACTIVE"])?;
    all_in(&soft_roce("down")?, &["removed rxe0 from eth0"])?;
    all_in(&soft_roce("down")?, &["no soft-RoCE device on eth0"])?;
    all_in(&guests.a.run("mirrorbus doctor", SHORT)?, &["warn  RDMA devices: none", "soft-roce up"])?;
    // From the beginning: no module is loaded that needs another. The list of modules is made where modprobe looks.
    let unload = "ln -sfn . /lib/modules/$(uname -r); depmod; rmmod rdma_rxe; rmmod crc32_generic; ! rdma link show rxe0";
    guests.a.run(unload, SHORT)?;
    let up = soft_roce("up")?;
    print!("{up}");
    all_in(
        &up,
        &["loaded crc32_generic\n", "loaded rdma_rxe\n", "added rxe_eth0 on eth0\n", "port 1 is ACTIVE"],
    )?;
    ensure(!up.contains("warning"), || up.clone())?;
    guests.a.run("ip link set eth0 mtu 1500", SHORT)?;
    all_in(&soft_roce("up")?, &["warning: the MTU of eth0 is 1500", "mtu 9000"])?;
    let refused = guests.a.exec("mirrorbus soft-roce up --netdev eth7", SHORT)?.text();
    all_in(&refused, &["no network card \"eth7\"", "eth0"])?;
    soft_roce("down")?;
    guests.a.run("ip link set eth0 mtu 9000; rdma link add rxe0 type rxe netdev eth0", SHORT)?;
    guests.a.until_up()
}
