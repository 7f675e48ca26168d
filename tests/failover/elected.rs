//! The mediator is lost first, and for long enough: the two nodes agree which of them goes on, and it does when the other is lost too.

use mirrorbus::serve::admin::{DatasetStatus, ReplicationState};

use crate::client::Client;
use crate::lost_mediator::Written;
use crate::proxy::Passage;
use crate::rig::Medium;
use crate::writer::Ended;
use crate::{assert_kept, assert_whole, cuttable, is_alone, plan};

/// A pair under writes that has lost its mediator, and has agreed that the node that serves goes on.
fn elected(medium: Medium) -> Written {
    let mut written = Written::new(plan(medium));
    written.rig.arbiter().kill();
    written.rig.wait(written.serving, "elected", is_elected);
    written.wait_for_answers();
    written
}

fn is_elected(status: &DatasetStatus) -> bool {
    status.reason.code == "elected" && status.replication_state == ReplicationState::Established
}

fn the_elected_one_goes_on(medium: Medium) {
    let mut written = elected(medium);
    let (serving, other) = (written.serving, 1 - written.serving);
    written.rig.kill(other);
    written.rig.wait(serving, "alone", is_alone);
    written.wait_for_answers();
    // It is let in, and is no member before the mediator says so.
    written.rig.start(other);
    written.rig.wait(serving, "caught up", |status| status.reason.code == "cannot-set-in");
    written.wait_for_answers();
    written.rig.arbiter().start();
    assert_eq!(assert_whole(&written.rig), serving);
    written.wait_for_answers();
    assert_eq!(written.stop_writing(), Ended::Stopped, "its client never noticed");
    assert_kept(&written.rig, serving, &written.ledger);
    // What the other one has renounced is over.
    written.rig.kill(serving);
    written.rig.wait(other, "alone", is_alone);
    assert_kept(&written.rig, other, &written.ledger);
    written.rig.start(serving);
    assert_eq!(assert_whole(&written.rig), other);
}

#[test]
fn mediator_lost_first_and_the_elected_one_goes_on_shm() {
    the_elected_one_goes_on(Medium::Shm);
}

#[test]
fn mediator_lost_first_and_the_elected_one_goes_on_tcp() {
    the_elected_one_goes_on(Medium::Tcp);
}

#[test]
fn mediator_lost_first_and_the_other_one_does_not_go_on() {
    let mut written = elected(Medium::Tcp);
    let (serving, other) = (written.serving, 1 - written.serving);
    written.kill_serving();
    let renounced = |status: &DatasetStatus| status.reason.code == "renounced";
    written.rig.wait(other, "left to the other", renounced);
    let promoted = written.rig.ask(other, &["promote", "vm"]);
    assert!(!promoted.status.success(), "{promoted:?}\n{}", written.rig.logs());
    written.assert_quiet(other);
    // Not by the mediator's word either: the one that was elected may have gone on.
    written.rig.arbiter().start();
    written.assert_quiet(other);
    assert!(Client::connect(&written.rig.socket(other), "root").is_err(), "it serves");
    written.rig.start(serving);
    let serves = assert_whole(&written.rig);
    assert_kept(&written.rig, serves, &written.ledger);
}

/// The switch back.
#[test]
fn the_mediator_decides_again_when_it_is_back() {
    let mut written = elected(Medium::Tcp);
    let other = 1 - written.serving;
    written.rig.arbiter().start();
    written.rig.wait(written.serving, "mirrored as before", |status| status.reason.code == "mirrored");
    written.wait_for_answers();
    written.kill_serving();
    written.rig.wait(other, "alone", is_alone);
    assert_kept(&written.rig, other, &written.ledger);
    written.rig.start(written.serving);
    assert_eq!(assert_whole(&written.rig), other);
}

/// What it acknowledged alone nobody else knows of, the mediator neither.
#[test]
fn the_elected_one_is_lost_before_the_mediator_is_back() {
    let mut written = elected(Medium::Tcp);
    let (serving, other) = (written.serving, 1 - written.serving);
    written.rig.kill(other);
    written.rig.wait(serving, "alone", is_alone);
    written.wait_for_answers();
    written.kill_serving();
    written.rig.start(other);
    written.rig.arbiter().start();
    written.assert_quiet(other);
    assert!(Client::connect(&written.rig.socket(other), "root").is_err(), "it serves");
    written.rig.start(serving);
    assert_eq!(assert_whole(&written.rig), serving, "{}", written.rig.logs());
    assert_kept(&written.rig, serving, &written.ledger);
}

/// It restarts without the other, and knows by itself that it was alone: the mediator was never told.
#[test]
fn the_elected_one_restarts_by_itself() {
    let mut written = elected(Medium::Shm);
    let (serving, other) = (written.serving, 1 - written.serving);
    written.rig.kill(other);
    written.rig.wait(serving, "alone", is_alone);
    written.wait_for_answers();
    written.kill_serving();
    // Not without the mediator: it cannot know that it was not overtaken since.
    written.rig.start(serving);
    written.assert_quiet(serving);
    written.rig.arbiter().start();
    written.rig.wait(serving, "alone", is_alone);
    assert_kept(&written.rig, serving, &written.ledger);
    written.rig.start(other);
    assert_eq!(assert_whole(&written.rig), serving);
}

/// Both live, and the one that has renounced sees the mediator first.
#[test]
fn the_link_is_cut_behind_the_mediator() {
    let mut written = Written::new(cuttable());
    let (serving, other) = (written.serving, 1 - written.serving);
    written.rig.ways().arbiter[0].set(Passage::Silent);
    written.rig.ways().arbiter[1].set(Passage::Silent);
    written.rig.wait(serving, "elected", is_elected);
    written.rig.ways().set_link(Passage::Silent);
    written.rig.wait(serving, "alone", is_alone);
    written.wait_for_answers();
    written.rig.ways().arbiter[other].set(Passage::Open);
    written.wait_for_answers();
    assert!(Client::connect(&written.rig.socket(other), "root").is_err(), "it serves");
    written.rig.ways().set_all(Passage::Open);
    assert_eq!(assert_whole(&written.rig), serving);
    assert_eq!(written.stop_writing(), Ended::Stopped, "its client never noticed");
    assert_kept(&written.rig, serving, &written.ledger);
}
