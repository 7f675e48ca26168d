//! etcd as the arbiter of who serves, in place of a mediator: the way to it, through the JSON gateway of its version 3.
//!
//! ```text
//!  mediator   question ─▶ its process: rules, register, disk ─▶ answer
//!  etcd       range ─▶ register, its revision ─▶ the same rules, here ─▶ txn: write if the revision is still that ─▶ answer
//! ```
//!
//! etcd keeps a register for each dataset as it was written, and decides nothing but whether one was changed meanwhile.

mod base64;
mod client;
mod gateway;
mod language;
mod secret;

pub use client::Client;
pub use gateway::{EtcdConfig, EtcdError, EtcdLogin, EtcdTls, Gateway};
