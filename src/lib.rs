//! Mirrorbus: an embedded memory-mirroring runtime.
//!
//! A program maps a [`Region`] of memory; every store into it through a [`Lane`] is placed in a region that
//! another process or another host holds before it counts as done. See `docs/semantics.md` for what each
//! [`Level`] promises on each fabric.
//!
//! The rooms, each of which knows only those below it:
//!
//! ```text
//! serve     the doors of a node: NBD, configuration, admin socket, metrics
//! store     a dataset on this node: its volumes, its files, its peer
//! mediator  the arbiter of who serves: the process, and the way to it
//! etcd      the way to etcd, as the arbiter in place of a mediator
//! epoch     a memory stored into through a pointer, mirrored by epochs
//! node      threads, sockets, files: joins what follows
//! cluster   who serves: configurations, their changes, leases; pure
//! replica   what a node lacks that was away, how it gets it, how fast
//! volume    block maps: which position of the log has a block's data
//! segment   the log of a block store, in pieces: format, append, destage, replay
//! mirror    region, lane, window, ticket        control   the authenticated connection, without I/O
//! fabric    shm | tcp: one-sided write, read, revoke
//! memory    mappings, volatile access
//! base      ids, levels, errors, addresses, checksums
//! ```
#![deny(unsafe_code)]

pub mod base;
#[cfg(feature = "store")]
pub mod cluster;
pub mod control;
pub mod epoch;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod fabric;
#[cfg(feature = "store")]
pub mod mediator;
#[allow(unsafe_code, reason = "mappings are made of raw memory")]
pub mod memory;
pub mod mirror;
pub mod node;
pub mod replica;
pub mod segment;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(test)]
mod sim;
#[cfg(feature = "store")]
pub mod store;
pub mod volume;

pub use base::{Deadline, FabricUrl, Generation, Level, RegionId};
pub use memory::{Mapping, VolatileSlice};
pub use mirror::{Lane, LaneConfig, SharedLane, Ticket};
pub use node::{Attach, Holder, HolderConfig, HolderGate, KeySet, Region, RegionConfig, ask};

/// Compiles and runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
