//! The admin socket: what operators and their tools ask a running node.
//!
//! A Unix socket that only the node's user may connect to. One JSON object a line goes in, one comes out for each, in order:
//!
//! ```text
//!  {"request":"status"}                                  ─▶  {"reply":"status","name":"alpha",…}
//!  {"request":"promote","dataset":"vm1"}                 ─▶  {"reply":"done"}
//!  {"request":"promote","dataset":"vm2"}                 ─▶  {"reply":"error","code":"no-such-dataset","text":"…"}
//!  {"request":"events","since":7,"follow":true}          ─▶  {"reply":"events","events":[…],"next":9}, and more as they come
//! ```
//!
//! Invariants:
//!
//! * A status is answered within [`STATUS_TIME_MAX`], whatever else hangs. It is taken on a thread of its own
//!   ([`StatusSource`]); if even that hangs, the last one is given, with its age. Commands that may take long run on their connection's
//!   thread, [`COMMANDS_MAX`] at a time, and there are always more connections than these. When all connections are open, the one that
//!   has been idle for longest makes room.
//! * Whatever is sent, nothing grows without a bound: lines, connections, commands, events and time have limits.
//! * Nothing here decides anything: what may be done is the [`Subject`]'s to say.

mod client;
mod events;
mod hook;
pub(in crate::serve) mod lines;
mod message;
mod server;
mod service_manager;
mod socket;
mod source;
mod status;
mod subject;

use std::time::Duration;

pub use client::{AdminClient, ClientError};
pub use events::{Event, EventLog};
pub use hook::{HookState, HookStatus};
pub use message::{DatasetVolumes, Reply, Request};
pub use server::AdminServer;
pub use service_manager::{ServiceState, notify_service_manager};
pub use source::StatusSource;
pub use status::{
    Bucket, CheckKind, CheckStatus, Counters, DatasetStatus, DiskState, HoldProgress, Latencies,
    LatencyStatus, NodeStatus, Reason, ReplicationState, ResyncProgress, RingStatus, Role, VolumeStatus,
    Watermarks,
};
pub use subject::{
    AdminError, DatasetStop, ErrorCode, Outcome, RangeReport, ScrubReport, Side, StopReport, Subject,
    SwitchReport, VerifyReport,
};

/// Where the socket is unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/mirrorbus/admin.sock";

/// Bytes of a request's line at most.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Bytes of a reply's line that a client takes at most: the status of as many volumes as there can be.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 32;

/// Commands that may take long, at a time.
pub const COMMANDS_MAX: usize = 16;

/// How long a connection may say nothing.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a reply may take to be read by whoever asked.
pub const REPLY_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a status may take.
pub const STATUS_TIME_MAX: Duration = Duration::from_secs(1);

/// Events in one line of a reply.
pub const EVENTS_PER_REPLY_MAX: usize = 256;

#[cfg(test)]
mod socket_tests;
#[cfg(test)]
pub(in crate::serve) mod testing;
