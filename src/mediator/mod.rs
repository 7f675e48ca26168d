//! The mediator: an arbiter in a failure domain of its own, and the way to it.

mod client;

pub use client::{Client, MediatorError};
