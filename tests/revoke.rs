//! What a holder takes away stays away: from an owner that does not care, from one that was stopped in the middle of a
//! store, from one that stores all the time. And what a stopped holder can and cannot keep an owner from.

mod common;

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/line_child.rs"]
mod child;
#[path = "revoke/fence.rs"]
mod fence;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/ledger.rs"]
mod ledger;
#[path = "revoke/rogue.rs"]
mod rogue;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/roles.rs"]
mod roles;
#[path = "revoke/stopped_holder.rs"]
mod stopped_holder;

/// Does nothing unless this process was started by one of the tests.
#[test]
fn role() {
    match child::role().as_deref() {
        None => {}
        Some("holder") => roles::hold(),
        Some("storer") => roles::store(),
        Some("rogue") => rogue::write_regardless(),
        Some(other) => panic!("no role {other}"),
    }
}
