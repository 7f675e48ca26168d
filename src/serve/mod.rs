//! The doors of a node: what it is told, who may ask it and who watches it.

pub mod admin;
pub mod config;
pub mod metrics;
