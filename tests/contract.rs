//! One suite for every fabric: what a region promises, whatever carries its stores.

#![allow(clippy::cast_possible_truncation, reason = "test data is made of the low bits of counters")]

mod common;

#[path = "contract/bounds.rs"]
mod bounds;
#[path = "contract/lane.rs"]
mod lane;
#[path = "contract/link.rs"]
mod link;
