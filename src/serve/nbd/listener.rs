//! Where clients arrive: Unix sockets and TCP ports.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::config::{Endpoint, ServerError};
use super::negotiated::TlsMode;

/// Clients that the kernel lets wait to be accepted.
const BACKLOG: i32 = 128;

/// A place where clients arrive. A Unix socket's file is removed on drop.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener, SocketAddr),
}

impl Listener {
    /// Listens at `endpoint`, unless that is a port that others could reach without TLS.
    pub(super) fn bind(endpoint: &Endpoint, tls: TlsMode) -> Result<Self, ServerError> {
        let listen = |error| ServerError::Listen { endpoint: endpoint.clone(), error };
        match endpoint {
            Endpoint::Unix(path) => {
                let listener = bind_unix(path).map_err(listen)?;
                listener.set_nonblocking(true).map_err(listen)?;
                Ok(Self::Unix(listener, path.clone()))
            }
            Endpoint::Tcp(text) => {
                let listener = TcpListener::bind(text).map_err(listen)?;
                listener.set_nonblocking(true).map_err(listen)?;
                let address = listener.local_addr().map_err(listen)?;
                if tls != TlsMode::Required && !address.ip().is_loopback() {
                    return Err(ServerError::PlainBeyondLoopback { address });
                }
                Ok(Self::Tcp(listener, address))
            }
        }
    }

    /// Where it listens, with the real port.
    pub(super) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Unix(_, path) => Endpoint::Unix(path.clone()),
            Self::Tcp(_, address) => Endpoint::Tcp(address.to_string()),
        }
    }

    /// The next client, if one waits.
    pub(super) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let accepted = match self {
            Self::Unix(listener, _) => listener.accept().map(|(stream, _)| OwnedFd::from(stream)),
            Self::Tcp(listener, _) => listener.accept().and_then(|(stream, _)| {
                // A reply is sent whole; and a host that vanished is noticed some day.
                set_tcp_nodelay(&stream, true)?;
                set_socket_keepalive(&stream, true)?;
                Ok(OwnedFd::from(stream))
            }),
        };
        match accepted {
            Ok(socket) => {
                // What is accepted does not inherit the listener's way of not waiting on Linux; it is said all the same.
                rustix::io::ioctl_fionbio(&socket, false)?;
                Ok(Some(socket))
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => Ok(None),
                _ => Err(error),
            },
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener, _) => listener.as_fd(),
            Self::Tcp(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A socket file on which nobody listens is a leftover of a server that was killed, and is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match bind_unix_once(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_leftover(path) => {
            std::fs::remove_file(path)?;
            bind_unix_once(path)
        }
        bound => bound,
    }
}

/// The file is made with the mode that the socket has, so that there is no moment in which others may connect.
fn bind_unix_once(path: &Path) -> io::Result<UnixListener> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Whether `path` is a socket that refuses, as any other file would. One whose queue is full has a server, which does not wait here: the socket
/// that looks does not block.
fn is_leftover(path: &Path) -> bool {
    let looks = || -> io::Result<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        drop(UnixStream::from(socket));
        Ok(())
    };
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    is_socket && looks().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}
