//! What operators say goes by the mediator.

use mirrorbus::serve::admin::{ReplicationState, Role};

use crate::client::{BLOCK, content};
use crate::rig::{Medium, Plan, Rig};
use crate::{assert_whole, is_alone, plan, served};

/// The exit status of a command that the node refused.
const REFUSED: Option<i32> = Some(4);

#[test]
fn the_secondary_is_not_promoted_while_the_primary_serves() {
    let rig = Rig::pair(plan(Medium::Tcp));
    let serving = rig.wait_for_pair();
    let mut client = rig.client(serving);
    let refused = rig.ask(1 - serving, &["promote", "vm"]);
    assert_eq!(refused.status.code(), REFUSED, "{refused:?}\n{}", rig.logs());
    assert_eq!(client.write(0, &content(0, 1)), 0);
    let status = rig.status(serving).unwrap();
    let pair = (status.role, status.replication_state);
    assert_eq!(pair, (Role::Primary, ReplicationState::Established), "{}", rig.logs());
}

/// A word too many does no harm.
#[test]
fn the_operator_may_say_what_the_mediator_decided() {
    let mut rig = Rig::pair(plan(Medium::Tcp));
    let serving = rig.wait_for_pair();
    assert_eq!(rig.client(serving).write(0, &content(0, 1)), 0);
    rig.kill(serving);
    let other = 1 - serving;
    // Before it took over, or behind that: either way it serves then, and nobody else does.
    let _ = rig.ask(other, &["promote", "vm"]);
    rig.wait(other, "alone", is_alone);
    assert_eq!(served(&rig, other).read(0, 4096), Ok(content(0, 1).to_vec()));
    rig.start(serving);
    assert_eq!(assert_whole(&rig), other);
}

#[test]
fn without_a_mediator_there_is_none_to_seed() {
    let mut rig = Rig::pair(Plan::new(Medium::Tcp));
    let serving = rig.wait_for_pair();
    let refused = rig.ask(serving, &["seed", "vm"]);
    assert_eq!(refused.status.code(), REFUSED, "{refused:?}");
    // And the operator is the arbiter.
    assert_eq!(rig.client(serving).write(BLOCK as u64, &content(1, 1)), 0);
    rig.kill(serving);
    rig.told(1 - serving, &["promote", "vm"]);
    assert_eq!(served(&rig, 1 - serving).read(BLOCK as u64, 4096), Ok(content(1, 1).to_vec()));
}
