//! The mediator: an arbiter in a failure domain of its own, and the way to it.

mod client;
mod registers;
mod server;

pub use client::Client;
pub use registers::RegistersError;
pub use server::{CONNECTIONS_MAX, Mediator, MediatorServerConfig, MediatorStartError};
