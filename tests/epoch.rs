//! Owners killed in the middle of commits, links cut, holders killed: the peer's copy is a whole epoch, and no acknowledged one is lost.
//!
//! `MIRRORBUS_FULL=1` runs the long version, `MIRRORBUS_SEED` repeats the stores of an earlier run (not the processor's timing).

#![allow(clippy::cast_possible_truncation, reason = "test data is made of the low bits of counters")]

mod common;

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/line_child.rs"]
mod child;
#[path = "epoch/kills.rs"]
mod kills;
#[path = "epoch/roles.rs"]
mod roles;

/// Does nothing unless this process was started by one of the tests.
#[test]
fn role() {
    match child::role().as_deref() {
        None => {}
        Some("epoch-owner") => roles::own(),
        Some("epoch-holder") => roles::hold(),
        Some(other) => panic!("no role {other}"),
    }
}
