//! The mediator: an arbiter in a failure domain of its own, and the way to it.

mod client;
mod registers;
mod server;

pub use client::{Client, Line};
pub use registers::RegistersError;
#[cfg(test)]
pub(crate) use server::gate;
pub use server::{CONNECTIONS_MAX, Mediator, MediatorServerConfig, MediatorStartError};
