//! What strangers, wrong peers and an unkind machine do to a holder and to an owner. Each abuse ends in an error that
//! says what was wrong, within bounded time; the holder serves on, which is proven after each by an owner that
//! attaches, stores and finds its bytes there.

mod common;

#[path = "common/child.rs"]
mod child;
#[path = "common/logs.rs"]
mod logs;
#[path = "common/wire.rs"]
mod wire;

#[path = "bad_input/impostors.rs"]
mod impostors;
#[path = "bad_input/requests.rs"]
mod requests;
#[path = "bad_input/resources.rs"]
mod resources;
#[path = "bad_input/strangers.rs"]
mod strangers;

use std::time::{Duration, Instant};

use common::{Fabric, Scratch, holder_config, keys, region_config, soon};
use mirrorbus::{Attach, Deadline, Holder, LaneConfig, Level, Region};

/// Two pages more than a digest chunk would be dull: small, so that attaching costs nothing.
const SIZE: usize = 64 << 10;

/// Runs each function as one test over shared memory and one over tcp.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod shm { $(#[test] fn $name() { super::$name(crate::common::Fabric::Shm); })* }
        mod tcp { $(#[test] fn $name() { super::$name(crate::common::Fabric::Tcp); })* }
    };
}
pub(crate) use on_both;

/// A holder in this process.
fn holder(fabric: Fabric) -> (Holder, Scratch) {
    let scratch = Scratch::new();
    let holder = Holder::start(holder_config(fabric.url(&scratch), SIZE), keys()).unwrap();
    (holder, scratch)
}

/// The owner that was there last is known to be gone.
fn until_disconnected(holder: &Holder) {
    let mut deadline = Deadline::within(Duration::from_secs(20));
    let mut status = holder.status();
    while status.connected {
        assert!(deadline.remaining().is_some(), "still connected: {status:?}");
        status = holder.wait_change(status.changes, Deadline::within(Duration::from_millis(100)));
    }
}

/// A good owner attaches, stores and finds its bytes at the holder.
fn still_serves(holder: &Holder) {
    serves(holder, |_| false);
}

/// How long that may take.
const SERVED_MAX: Duration = Duration::from_secs(10);

/// The same of one that may have to try again, within the same time.
fn serves(holder: &Holder, tries_again: impl Fn(&mirrorbus::node::OpenError) -> bool) {
    until_disconnected(holder);
    let started = Instant::now();
    let config = || region_config(holder.url(), SIZE, Attach::Push { replace: true });
    let region = loop {
        match Region::open(config(), keys()) {
            Ok(region) => break region,
            Err(error) if tries_again(&error) && started.elapsed() < SERVED_MAX => {}
            Err(error) => panic!("no longer serves: {error}"),
        }
    };
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    let ticket = lane.store(777, b"still served").unwrap();
    lane.wait(ticket, Level::Visible, soon()).unwrap();
    assert_eq!(&holder.memory().slice().to_vec()[777..789], b"still served");
    assert_eq!(holder.memory().slice().to_vec(), region.memory().to_vec());
    drop(lane);
    region.close();
    until_disconnected(holder);
    assert!(started.elapsed() < SERVED_MAX, "served after {:?}", started.elapsed());
}
