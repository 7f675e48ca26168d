//! What watches a node: its status as text for Prometheus, over HTTP.
//!
//! ```text
//!  GET /metrics ─▶ StatusSource ─▶ NodeStatus ─▶ families of samples, in the text format 0.0.4
//! ```
//!
//! The HTTP is a few lines of our own. A server as a crate has threads, queues and limits of its own that would have to be bounded
//! from outside, to answer one kind of request; here every bound is a constant below. Whoever watches can do nothing else: there
//! is no request that changes anything. Nobody is asked who he is, so the address should be one that only watchers reach.

mod http;
mod latency;
mod page;
mod server;
mod text;

use std::time::Duration;

pub use latency::LatencyRecorder;
pub use page::metrics_page;
pub use server::MetricsServer;

/// The kind of text, as HTTP says it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Requests at a time.
pub const CONNECTIONS_MAX: usize = 8;

/// Bytes of a request's head at most.
pub const HEAD_BYTES_MAX: usize = 8 << 10;

/// How long a request may take, from the connection to the last byte of the answer.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod server_tests;
