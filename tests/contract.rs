//! One suite for every fabric: what a region promises, whatever carries its stores.

mod common;

#[path = "contract/lane.rs"]
mod lane;
#[path = "contract/link.rs"]
mod link;
