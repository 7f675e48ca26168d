//! How a server is made, and why it is not.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::negotiated::TlsMode;
use super::tls::{TlsError, TlsFiles};

/// Where clients reach a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket, which only this user may connect to.
    Unix(PathBuf),
    /// An address and a port; port 0 takes any. Beyond loopback TLS has to be [`Required`](TlsMode::Required).
    Tcp(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "nbd+unix:///?socket={}", path.display()),
            Self::Tcp(address) => write!(f, "nbd://{address}"),
        }
    }
}

/// How to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where to listen, at least one.
    pub endpoints: Vec<Endpoint>,
    /// Whether clients may, or must, use TLS; the same at all endpoints.
    pub tls: TlsMode,
    /// What it takes, unless it is [`Off`](TlsMode::Off).
    pub tls_files: Option<TlsFiles>,
}

impl ServerConfig {
    /// The usual: one Unix socket, no TLS.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { endpoints: vec![Endpoint::Unix(socket.into())], tls: TlsMode::Off, tls_files: None }
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Nobody could reach it.
    #[error("an NBD server without an endpoint: give a socket or an address")]
    NoEndpoint,
    /// It cannot listen there.
    #[error("cannot listen on {endpoint}: {error}")]
    Listen {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        error: io::Error,
    },
    /// Anybody on the network could read and write the disks.
    #[error(
        "{address} is beyond this machine, and TLS is not required: require TLS, with a certificate, or listen on \
         127.0.0.1 or a Unix socket"
    )]
    PlainBeyondLoopback {
        /// Where it would listen.
        address: SocketAddr,
    },
    /// TLS without a certificate.
    #[error("TLS is {mode:?}, and no files are given: name a certificate and its key")]
    NoCertificate {
        /// What was asked for.
        mode: TlsMode,
    },
    /// TLS with a certificate that does not work.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No thread.
    #[error("no thread for an NBD server: {0}")]
    Thread(io::Error),
}
