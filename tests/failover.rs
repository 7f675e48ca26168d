//! Failover by an arbiter: pairs of real nodes and a real mediator, or etcd, killed, paused and cut off from each other.
//!
//! Nobody says `promote` or `alone` here. What was acknowledged is known in this process, which lives. Which of the two serves is not
//! taken for granted: on a machine that does much else a node may be silent for long enough to be taken for dead. `MIRRORBUS_FULL=1` runs
//! more rounds, `MIRRORBUS_SEED` repeats the choices of an earlier run.

mod common;

#[path = "nodes/arbiter.rs"]
mod arbiter;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/line_child.rs"]
mod child;
#[path = "common/nbd_client.rs"]
mod client;
#[path = "nodes/etcd.rs"]
mod etcd;
#[path = "nodes/ledger.rs"]
mod ledger;
#[path = "nodes/mediator.rs"]
mod mediator;
#[path = "nodes/proxy.rs"]
mod proxy;
#[path = "nodes/rig.rs"]
mod rig;
#[path = "nodes/writer.rs"]
mod writer;

#[path = "failover/bad_input.rs"]
mod bad_input;
#[path = "failover/by_etcd.rs"]
mod by_etcd;
#[path = "failover/can_stop.rs"]
mod can_stop;
#[path = "failover/checks.rs"]
mod checks;
#[path = "failover/confirm.rs"]
mod confirm;
#[path = "failover/cut.rs"]
mod cut;
#[path = "failover/elected.rs"]
mod elected;
#[path = "failover/flaps.rs"]
mod flaps;
#[path = "failover/hold.rs"]
mod hold;
#[path = "failover/hooks.rs"]
mod hooks;
#[path = "failover/killed.rs"]
mod killed;
#[path = "failover/lost_mediator.rs"]
mod lost_mediator;
#[path = "failover/operator.rs"]
mod operator;
#[path = "failover/paused.rs"]
mod paused;
#[path = "failover/probe.rs"]
mod probe;
#[path = "failover/roamer.rs"]
mod roamer;
#[path = "failover/switch.rs"]
mod switch;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use mirrorbus::serve::admin::{DatasetStatus, ReplicationState, Role, SwitchReport};

use arbiter::Decider;
use client::Client;
use ledger::{Kept, Ledger};
use rig::{Medium, NAMES, PATIENCE, Plan, Rig};

/// Blocks of the volume that a writer keeps its ledger of.
const BLOCKS: usize = 2048;

/// What a machine that does much else may keep a node from its processors for. What takes its time from that is told otherwise.
const SILENCE_MS: u64 = 5000;

/// A pair with a mediator. Which of the two is lost is known by the end of its process.
fn plan(medium: Medium) -> Plan {
    Plan { silence_ms: Some(SILENCE_MS), ..usual(medium) }
}

/// One that is missed when it stands still, or its link is cut, for as long as is usual.
fn usual(medium: Medium) -> Plan {
    Plan { decider: Decider::Mediator, ..Plan::new(medium) }
}

/// And with ways that can be cut.
fn cuttable() -> Plan {
    Plan { proxied: true, ..usual(Medium::Tcp) }
}

/// Whether a node serves without the other.
fn is_alone(status: &DatasetStatus) -> bool {
    status.role == Role::Primary && status.replication_state == ReplicationState::Alone
}

/// Waits until a node takes clients; one of them.
fn served(rig: &Rig, node: usize) -> Client {
    let began = Instant::now();
    loop {
        match Client::connect(&rig.socket(node), "root") {
            Ok(client) => return client,
            Err(error) => {
                let name = NAMES[node];
                assert!(began.elapsed() < PATIENCE, "{name} does not serve: {error}\n{}", rig.logs());
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until what is awaited is so.
fn wait_until(rig: &Rig, what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not so\n{}", rig.logs());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Nothing that was acknowledged is lost. No write is under way.
fn assert_kept(rig: &Rig, node: usize, ledger: &Mutex<Ledger>) {
    if let Err(why) = ledger::judge(&mut served(rig, node), ledger, Kept::Acknowledged) {
        panic!("at {}: {why}\n{}", NAMES[node], rig.logs());
    }
}

/// Waits until the two are mirrored, and compares all that they have; which serves.
fn assert_whole(rig: &Rig) -> usize {
    let serving = rig.wait_for_pair();
    rig.told(serving, &["verify", "vm"]);
    serving
}

/// How often a switch is asked for.
const SWITCH_TRIES: u32 = 10;

/// Has the node that serves hand that over; what it says of it. A node may refuse on a machine that does much else, with the service as it was: it is
/// asked again then. `None` if the service has moved though it was refused.
fn switch(rig: &Rig, serving: usize) -> Option<SwitchReport> {
    for _ in 0..SWITCH_TRIES {
        let output = rig.ask(serving, &["switch", "--json"]);
        if output.status.success() {
            return Some(serde_json::from_slice(&output.stdout).unwrap());
        }
        assert_eq!(output.status.code(), Some(4), "{output:?}\n{}", rig.logs());
        println!("a switch is asked for again: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        if rig.wait_for_pair() != serving {
            return None;
        }
    }
    panic!("{SWITCH_TRIES} times it did not switch\n{}", rig.logs());
}

/// Sees to it that this node serves, and the other follows.
fn make_primary(rig: &mut Rig, node: usize) {
    while rig.wait_for_pair() != node {
        rig.kill(1 - node);
        rig.wait(node, "alone", is_alone);
        rig.start(1 - node);
    }
}
