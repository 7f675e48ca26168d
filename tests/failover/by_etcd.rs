//! The same with etcd in place of the mediator.

use crate::arbiter::Decider;
use crate::cut::exactly_one_serves;
use crate::killed::a_killed_primary_is_taken_over;
use crate::lost_mediator::{a_lost_state_is_refused_until_seeded, lost_first_and_then_the_secondary};
use crate::proxy::Passage;
use crate::rig::{Medium, Plan};
use crate::{cuttable, plan};

fn by_etcd(plan: Plan) -> Plan {
    Plan { decider: Decider::Etcd, ..plan }
}

#[test]
fn a_killed_primary_is_taken_over_by_etcd() {
    a_killed_primary_is_taken_over(by_etcd(plan(Medium::Tcp)), 1);
}

#[test]
fn exactly_one_serves_by_etcd_when_the_link_is_cut() {
    exactly_one_serves(by_etcd(cuttable()), Passage::Silent, None, 0);
}

#[test]
fn etcd_lost_first_and_then_the_secondary() {
    lost_first_and_then_the_secondary(by_etcd(plan(Medium::Tcp)));
}

#[test]
fn an_etcd_that_lost_its_state_is_refused_until_seeded() {
    a_lost_state_is_refused_until_seeded(by_etcd(plan(Medium::Tcp)));
}
