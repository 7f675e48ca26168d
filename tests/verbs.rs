//! Over real verbs: the contract of every fabric, from the same source, and what only verbs can get wrong.
//!
//! Needs an RDMA device, so `cargo test` does not build it; `cargo xtask rxe contract-rdma` runs it where one can be had.
//! `MIRRORBUS_TEST_RDMA` is the device's address. Without it each test fails: what was asked for is not skipped.

#![allow(clippy::cast_possible_truncation, reason = "test data is made of the low bits of counters")]

mod common;

macro_rules! on_every_fabric {
    ($($name:ident),* $(,)?) => {
        mod rdma { $(#[test] fn $name() { super::$name(crate::common::Fabric::Rdma); })* }
    };
}

macro_rules! over_a_device_too {
    ($($name:ident),* $(,)?) => { on_every_fabric!($($name),*); };
}

#[path = "contract/application.rs"]
mod application;
#[path = "contract/bounds.rs"]
mod bounds;
#[path = "contract/epoch.rs"]
mod epoch;
#[path = "contract/fetch.rs"]
mod fetch;
#[path = "contract/lane.rs"]
mod lane;
#[path = "contract/link.rs"]
mod link;

/// Runs alone: it disturbs the device, or counts what the process has.
#[path = "verbs/alone.rs"]
mod alone;
#[path = "common/child.rs"]
mod child;
#[path = "verbs/limits.rs"]
mod limits;
#[path = "verbs/queues.rs"]
mod queues;
#[path = "verbs/rig.rs"]
mod rig;
#[path = "verbs/strangers.rs"]
mod strangers;
