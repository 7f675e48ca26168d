//! The doors of a node: who uses its volumes, what it is told, who may ask it and who watches it.

pub mod admin;
pub mod config;
pub mod metrics;
pub mod nbd;
