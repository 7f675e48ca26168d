//! The doors of a node: clients of volumes, whoever operates it, who watches it; and what it is told.

pub mod admin;
mod checks;
pub mod config;
mod exports;
mod hooks;
pub mod metrics;
pub mod nbd;
mod node;
mod subject;

pub use exports::DatasetExports;
pub use node::{Node, NodeError};
