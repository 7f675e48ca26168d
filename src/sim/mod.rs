//! A simulated world for tests: it drives the very code that ships, from a seed, and fails where and when it is told to.
//!
//! What is there: a disk that keeps apart what is live and what is durable, a network of one-sided stores that may be torn off at any byte, and the
//! least store that uses segments, ring, destage and replay as a node does. Two nodes of a dataset are simulated beside the store that they are of.

mod disk;
pub(crate) mod files;
mod network;
mod random;
pub(crate) mod scheduler;
mod store;
mod store_tests;

pub(crate) use disk::{Disk, DiskError};
pub(crate) use network::Network;
pub(crate) use random::Random;
