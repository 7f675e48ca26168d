//! The two sides against each other, over socket pairs and over loopback TCP.

mod contract;
mod faults;
mod grants;
mod rig;
mod sealed;
