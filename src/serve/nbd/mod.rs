//! The network block device protocol: disks for virtual machines, the kernel and the tools of disk images.
//!
//! ```text
//!  server      listeners, one thread per client          config, tls, listener
//!  connection  one client: negotiation, then requests    socket: plain or TLS
//!  handshake   the negotiation, without I/O              option, negotiated
//!  transmission  the requests of one client              read, write, request, batch, output, input, channel
//!  export      what is served: the contract with the store
//! ```
//!
//! Source: "The NBD protocol", `doc/proto.md` of the reference implementation; fixed newstyle with structured replies and
//! `base:allocation`. What is answered how is a table in `docs/protocol.md`.
//!
//! The numbers that clients see are the protocol's; errors have texts too, where the client takes structured replies.

mod batch;
mod channel;
mod config;
mod connection;
mod ended;
mod errno;
mod export;
mod handshake;
mod input;
mod listener;
mod negotiated;
mod option;
mod output;
mod read;
mod request;
mod server;
mod socket;
mod tls;
mod transmission;
mod wire;
mod write;

pub use channel::Channel;
pub use config::{Endpoint, ServerConfig, ServerError};
pub use ended::Ended;
pub use export::{
    Export, ExportError, ExportErrorKind, ExportName, Exports, ExtentRun, Extents, Fill, GONE_POLL_MAX, Mark,
    Payload, PeerExtents, PeerRun,
};
pub use handshake::Handshake;
pub use input::Input;
pub use negotiated::{Chosen, HandshakeEnd, Progress, TlsMode};
pub use server::{CONNECTIONS_MAX, STOP_TIME_MAX, Server};
pub use tls::{TlsError, TlsFiles};
pub use transmission::Transmission;
pub use wire::PAYLOAD_BYTES_MAX;
