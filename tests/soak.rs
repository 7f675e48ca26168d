//! Long work with a reconnection every second: nothing grows, no store is lost, sequences go on.
//!
//! Holder and owner are processes of their own, so that what they use is theirs alone. Over tcp the owner reaches the
//! holder through a proxy in this process, which cuts every connection once a second in the middle of the work; over
//! shared memory the owner reconnects a link that is up. `MIRRORBUS_FULL=1` works for 60 s instead of 10.

mod common;

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/line_child.rs"]
mod child;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/ledger.rs"]
mod ledger;
#[path = "soak/owner.rs"]
mod owner;
#[path = "soak/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/roles.rs"]
mod roles;
#[path = "soak/usage.rs"]
mod usage;

use std::time::{Duration, Instant};

use child::{Child, PATIENCE, Watchdog, rounds, say, seed};
use common::{Fabric, Scratch};
use mirrorbus::FabricUrl;
use proxy::Proxy;
use roles::HolderChild;
use usage::Usage;

const SIZE: usize = 4 << 20;
/// Work before the first look, so that everything that is made once has been made.
const WARM_UP: Duration = Duration::from_secs(3);

/// Does nothing unless this process was started by one of the tests.
#[test]
fn role() {
    match child::role().as_deref() {
        None => {}
        Some("holder") => roles::hold(),
        Some("worker") => owner::work(),
        Some(other) => panic!("no role {other}"),
    }
}

#[test]
fn nothing_grows_over_shm() {
    soak(Fabric::Shm);
}

#[test]
fn nothing_grows_over_tcp() {
    soak(Fabric::Tcp);
}

#[test]
fn nothing_grows_over_sealed_tcp() {
    soak(Fabric::TcpSealed);
}

fn soak(fabric: Fabric) {
    let title = format!("soak, {fabric:?}");
    let watchdog = Watchdog::new(&title);
    let seed = seed(&title);
    let scratch = Scratch::new();
    let silence = Duration::from_secs(5);
    let (holder, url) = HolderChild { url: fabric.url(&scratch), size: SIZE, file: None, silence }.start();
    let proxy = match &url {
        FabricUrl::Tcp { address, .. } => Some(Proxy::start(address)),
        _ => None,
    };
    let through = match (&url, &proxy) {
        (FabricUrl::Tcp { encrypt, .. }, Some(proxy)) => {
            FabricUrl::Tcp { address: proxy.address(), encrypt: *encrypt }
        }
        _ => url.clone(),
    };
    let variables =
        [("TEST_URL", through.to_string()), ("TEST_SIZE", SIZE.to_string()), ("TEST_SEED", seed.to_string())];
    let worker = Child::spawn("worker", &variables);
    work_for(WARM_UP, &worker, proxy.as_ref());
    let first = look(&holder, &worker);
    watchdog.feed("the first look");
    let length = Duration::from_secs(rounds(10, 60) as u64);
    work_for(length, &worker, proxy.as_ref());
    watchdog.feed("the work");
    let last = settle(&holder, &worker, &first);
    let told = ask(&worker, "end");
    worker.finish();
    say(&format!(
        "{title}: {told}\n  holder {} -> {}\n  owner  {} -> {}",
        first[0], last[0], first[1], last[1]
    ));
}

/// The owner works, with a reconnection about every second, and stands still on return.
fn work_for(time: Duration, worker: &Child, proxy: Option<&Proxy>) {
    let until = Instant::now() + time;
    worker.say("work");
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::sleep(left.min(Duration::from_secs(1)));
        match proxy {
            Some(proxy) => proxy.cut(),
            None => worker.say("reconnect"),
        }
    }
    let answer = ask(worker, "pause");
    assert_eq!(answer, "paused");
}

fn ask(worker: &Child, question: &str) -> String {
    worker.say(question);
    worker.read_text()
}

/// What both use while nothing is under way: the least of several looks, for threads that are about to end do not count.
fn look(holder: &Child, worker: &Child) -> [Usage; 2] {
    let looks = (0..20).map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        [Usage::of(holder.id()), Usage::of(worker.id())]
    });
    looks.reduce(|least, next| [least[0].min(next[0]), least[1].min(next[1])]).unwrap()
}

/// Looks until nothing has grown since `first`. What the last session left may be there until the next one, so each look
/// is after one more reconnection; what each reconnection leaves grows all the more.
fn settle(holder: &Child, worker: &Child, first: &[Usage; 2]) -> [Usage; 2] {
    let until = Instant::now() + PATIENCE;
    loop {
        let last = look(holder, worker);
        if last[0].within(&first[0]) && last[1].within(&first[1]) {
            return last;
        }
        assert!(
            Instant::now() < until,
            "holder: {} has become {}; owner: {} has become {}",
            first[0],
            last[0],
            first[1],
            last[1]
        );
        assert_eq!(ask(worker, "once"), "paused");
    }
}
