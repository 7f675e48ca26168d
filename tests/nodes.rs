//! Pairs of real nodes with real clients: killed at random moments, used by the programs that people use, and in bad conditions.
//!
//! The ledger of what was acknowledged is kept in this process, which lives. `MIRRORBUS_FULL=1` runs the long version, `MIRRORBUS_SEED`
//! repeats the choices of an earlier run (not the processor's timing). A tool that is missing fails its test and names the package;
//! `cargo xtask test` installs them.

mod common;

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "common/line_child.rs"]
mod child;
#[path = "common/nbd_client.rs"]
mod client;
#[path = "common/tool.rs"]
mod tool;

#[path = "nodes/arbiter.rs"]
mod arbiter;
#[path = "nodes/bad_files.rs"]
mod bad_files;
#[path = "nodes/databases.rs"]
mod databases;
#[path = "nodes/device.rs"]
mod device;
#[path = "nodes/disk.rs"]
mod disk;
#[path = "nodes/etcd.rs"]
mod etcd;
#[path = "nodes/full.rs"]
mod full;
#[path = "nodes/kills.rs"]
mod kills;
#[path = "nodes/ledger.rs"]
mod ledger;
#[path = "nodes/mediator.rs"]
mod mediator;
#[path = "nodes/memory.rs"]
mod memory;
#[path = "nodes/mounted.rs"]
mod mounted;
#[path = "nodes/postgres.rs"]
mod postgres;
#[path = "nodes/proxy.rs"]
mod proxy;
#[path = "nodes/reclaim.rs"]
mod reclaim;
#[path = "nodes/resync.rs"]
mod resync;
#[path = "nodes/rig.rs"]
mod rig;
#[path = "nodes/s6.rs"]
mod s6;
#[path = "nodes/s7.rs"]
mod s7;
#[path = "nodes/stop.rs"]
mod stop;
#[path = "nodes/tools.rs"]
mod tools;
#[path = "nodes/writer.rs"]
mod writer;
