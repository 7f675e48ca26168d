//! The mediator is lost: what is served goes on, and nothing is decided until it is back.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mirrorbus::serve::admin::{ReplicationState, Role};
use rustix::process::Signal;

use crate::arbiter::Decider;
use crate::child::seed;
use crate::client::{Client, content};
use crate::common::Random;
use crate::ledger::Ledger;
use crate::rig::{Medium, NAMES, PATIENCE, Plan, Rig};
use crate::writer::{Ended, Writer};
use crate::{BLOCKS, assert_kept, assert_whole, is_alone, plan, served, wait_until};

/// How long nothing must happen.
const QUIET_TIME: Duration = Duration::from_secs(3);
/// What a node does meanwhile is the same with etcd: long enough for what differs.
const QUIET_TIME_ETCD: Duration = Duration::from_secs(1);

/// A client that is not answered for so long has read all that was answered before.
const READ_TIME: Duration = Duration::from_millis(500);

/// A pair under writes.
pub(crate) struct Written {
    quiet_time: Duration,
    pub(crate) rig: Rig,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) serving: usize,
    writer: Option<Writer>,
}

impl Written {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut random = Random(seed("a lost mediator"));
        let quiet_time = if plan.decider == Decider::Etcd { QUIET_TIME_ETCD } else { QUIET_TIME };
        let rig = Rig::pair(plan);
        let ledger = Arc::new(Mutex::new(Ledger::new(BLOCKS)));
        let serving = rig.wait_for_pair();
        let writer = Some(Writer::start(rig.client(serving), ledger.clone(), random.next()));
        std::thread::sleep(Duration::from_millis(50));
        Self { quiet_time, rig, ledger, serving, writer }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.ledger.lock().unwrap().acknowledged
    }

    pub(crate) fn wait_for_answers(&self) {
        let before = self.acknowledged();
        wait_until(&self.rig, "the client is answered", || self.acknowledged() > before + 16);
    }

    /// A node acknowledges nothing and lets nobody in, for a while; nor is the client answered. What was acknowledged before that the client may read
    /// late: so it is the node that is asked how far it went.
    pub(crate) fn assert_quiet(&self, node: usize) {
        let (mut committed, mut seen, began) = (None, false, Instant::now());
        while began.elapsed() < self.quiet_time || !seen {
            let status = self.rig.status(node);
            seen |= status.is_some();
            assert!(began.elapsed() < PATIENCE, "{} says nothing\n{}", NAMES[node], self.rig.logs());
            let alone = status.as_ref().is_some_and(is_alone);
            assert!(!alone, "{} serves: {status:?}\n{}", NAMES[node], self.rig.logs());
            if let Some(status) = status.filter(|status| status.role == Role::Primary) {
                let before = *committed.get_or_insert(status.lsn.committed);
                let found = status.lsn.committed;
                assert_eq!(found, before, "acknowledged without the peer\n{}", self.rig.logs());
            }
        }
        wait_until(&self.rig, "the client is answered no more", || {
            let before = self.acknowledged();
            std::thread::sleep(READ_TIME);
            self.acknowledged() == before
        });
    }

    pub(crate) fn stop_writing(&mut self) -> Ended {
        self.writer.take().unwrap().stop()
    }

    /// Kills the node that serves, under its client.
    pub(crate) fn kill_serving(&mut self) {
        self.rig.kill(self.serving);
        assert_eq!(self.writer.take().unwrap().ended(), Ended::Lost);
    }
}

#[test]
fn without_the_mediator_service_goes_on() {
    let mut written = Written::new(plan(Medium::Tcp));
    written.rig.arbiter().kill();
    let began = Instant::now();
    while began.elapsed() < QUIET_TIME {
        written.wait_for_answers();
        let status = written.rig.status(written.serving).unwrap();
        let pair = (status.role, status.replication_state);
        assert_eq!(pair, (Role::Primary, ReplicationState::Established), "{}", written.rig.logs());
    }
    written.rig.arbiter().start();
    written.wait_for_answers();
    assert_eq!(written.stop_writing(), Ended::Stopped, "its client never noticed");
    assert_eq!(assert_whole(&written.rig), written.serving);
    assert_kept(&written.rig, written.serving, &written.ledger);
}

#[test]
fn mediator_lost_first_and_then_the_primary() {
    let mut written = Written::new(plan(Medium::Tcp));
    let (serving, other) = (written.serving, 1 - written.serving);
    written.rig.arbiter().kill();
    std::thread::sleep(Duration::from_millis(100));
    written.kill_serving();
    assert!(Client::connect(&written.rig.socket(other), "root").is_err(), "it serves");
    written.assert_quiet(other);
    // The operator's word goes by the mediator as well.
    let promoted = written.rig.ask(other, &["promote", "vm"]);
    assert!(!promoted.status.success(), "{promoted:?}\n{}", written.rig.logs());
    written.assert_quiet(other);
    written.rig.arbiter().start();
    written.rig.wait(other, "alone", is_alone);
    assert_kept(&written.rig, other, &written.ledger);
    written.rig.start(serving);
    assert_eq!(assert_whole(&written.rig), other);
}

#[test]
fn mediator_lost_first_and_then_the_secondary() {
    lost_first_and_then_the_secondary(plan(Medium::Tcp));
}

pub(crate) fn lost_first_and_then_the_secondary(plan: Plan) {
    let mut written = Written::new(plan);
    let (serving, other) = (written.serving, 1 - written.serving);
    written.rig.arbiter().kill();
    std::thread::sleep(Duration::from_millis(100));
    written.rig.kill(other);
    written
        .rig
        .wait(serving, "without a link", |status| status.replication_state == ReplicationState::LinkLost);
    written.assert_quiet(serving);
    let alone = written.rig.ask(serving, &["alone", "vm"]);
    assert!(!alone.status.success(), "{alone:?}\n{}", written.rig.logs());
    written.assert_quiet(serving);
    written.rig.arbiter().start();
    written.rig.wait(serving, "alone", is_alone);
    written.wait_for_answers();
    assert_eq!(written.stop_writing(), Ended::Stopped, "its client never noticed");
    assert_kept(&written.rig, serving, &written.ledger);
    written.rig.start(other);
    assert_eq!(assert_whole(&written.rig), serving);
}

/// The node finds that the mediator has lost its state, and says what is to be done.
fn wait_until_told_to_seed(rig: &Rig, node: usize) {
    rig.wait(node, "told to be seeded", |status| status.reason.text.contains("seed"));
}

#[test]
fn a_lost_mediator_state_is_refused_until_seeded() {
    a_lost_state_is_refused_until_seeded(plan(Medium::Tcp));
}

pub(crate) fn a_lost_state_is_refused_until_seeded(plan: Plan) {
    let mut written = Written::new(plan);
    let (serving, other) = (written.serving, 1 - written.serving);
    written.rig.arbiter().kill();
    written.rig.arbiter().forget();
    written.rig.arbiter().start();
    written.rig.kill(other);
    wait_until_told_to_seed(&written.rig, serving);
    written.assert_quiet(serving);
    written.rig.told(serving, &["seed", "vm"]);
    written.rig.wait(serving, "alone", is_alone);
    written.wait_for_answers();
    assert_eq!(written.stop_writing(), Ended::Stopped, "its client never noticed");
    assert_kept(&written.rig, serving, &written.ledger);
    written.rig.start(other);
    assert_eq!(assert_whole(&written.rig), serving);
    // What the mediator has now it keeps.
    let again = written.rig.ask(serving, &["seed", "vm"]);
    assert_eq!(again.status.code(), Some(4), "{again:?}");
}

/// Nor does the one that was overtaken hear of it from there; where the other serves it can be seeded all the same.
#[test]
fn a_mediator_that_forgets_a_take_over_is_seeded_by_whoever_took_over() {
    let mut rig = Rig::pair(plan(Medium::Tcp));
    let paused = assert_whole(&rig);
    rig.freeze(paused);
    let other = 1 - paused;
    let mut client = served(&rig, other);
    rig.arbiter().kill();
    rig.arbiter().forget();
    rig.arbiter().start();
    rig.signal(paused, Signal::CONT);
    wait_until_told_to_seed(&rig, paused);
    // Its connection to the mediator that ended may only be found broken now.
    wait_until(&rig, "it is seeded", || rig.ask(other, &["seed", "vm"]).status.success());
    assert_eq!(client.write(0, &content(0, 1)), 0);
    assert_eq!(assert_whole(&rig), other, "{}", rig.logs());
}
