//! One suite for every fabric: what a region promises, whatever carries its stores.

#![allow(clippy::cast_possible_truncation, reason = "test data is made of the low bits of counters")]

mod common;

macro_rules! on_every_fabric {
    ($($name:ident),* $(,)?) => {
        mod shm { $(#[test] fn $name() { super::$name(crate::common::Fabric::Shm); })* }
        mod tcp { $(#[test] fn $name() { super::$name(crate::common::Fabric::Tcp); })* }
        mod tcp_sealed { $(#[test] fn $name() { super::$name(crate::common::Fabric::TcpSealed); })* }
    };
}

/// What needs neither staging memory nor a fence holds over a device window too.
macro_rules! over_a_device_too {
    ($($name:ident),* $(,)?) => {
        on_every_fabric!($($name),*);
        mod device { $(#[test] fn $name() { super::$name(crate::common::Fabric::Device); })* }
    };
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
