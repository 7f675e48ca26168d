//! Owners and holders killed at random moments: what was acknowledged is there, what is there is a prefix, nobody hangs.
//!
//! Each round prints nothing; each test ends with a histogram of the stores in flight at the kills. `MIRRORBUS_FULL=1`
//! runs the long version, `MIRRORBUS_SEED` repeats the stores of an earlier run (not the processor's timing).

mod common;

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/line_child.rs"]
mod child;
#[path = "kills/holder.rs"]
mod holder;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/ledger.rs"]
mod ledger;
#[path = "kills/ledger_tests.rs"]
mod ledger_tests;
#[path = "kills/owner.rs"]
mod owner;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/roles.rs"]
mod roles;

/// Does nothing unless this process was started by one of the tests.
#[test]
fn role() {
    match child::role().as_deref() {
        None => {}
        Some("holder") => roles::hold(),
        Some("storer") => roles::store(),
        Some(other) => panic!("no role {other}"),
    }
}
