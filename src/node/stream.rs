//! Byte streams to a peer: TCP or Unix sockets, by address.

use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::base::{Deadline, FabricUrl};
use crate::fabric::check_built;

/// How long a socket file's holder is given to show that it is there.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Connects to the control port of `url`: each address that the name has, in turn.
///
/// # Errors
/// The last failure, with the address.
pub(crate) fn dial(url: &FabricUrl, deadline: &mut Deadline) -> io::Result<OwnedFd> {
    check_built(url.medium()).map_err(io::Error::other)?;
    match url {
        FabricUrl::Shm { socket } => {
            dial_unix(socket, deadline).map_err(|error| named(&error, &socket.display()))
        }
        FabricUrl::ShmDevice { address, .. }
        | FabricUrl::Tcp { address, .. }
        | FabricUrl::Rdma { address } => {
            let mut last = io::Error::new(ErrorKind::NotFound, format!("{address} has no address"));
            for target in super::names::resolve(address, deadline).map_err(|error| named(&error, address))? {
                let left = deadline.remaining().ok_or_else(|| io::Error::from(ErrorKind::TimedOut))?;
                match TcpStream::connect_timeout(&target, left) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(stream.into());
                    }
                    Err(error) => last = named(&error, &target),
                }
            }
            Err(last)
        }
    }
}

/// Whether nobody listens at `url`, by the word of the machine there: so a process that has ended is told from one that is not heard. `false`
/// when there is no word within the time.
#[cfg(feature = "store")]
pub(crate) fn is_vacant(url: &FabricUrl, within: Duration) -> bool {
    let is_file = matches!(url, FabricUrl::Shm { .. });
    match dial(url, &mut Deadline::within(within)) {
        Ok(_) => false,
        Err(error) => {
            error.kind() == ErrorKind::ConnectionRefused || is_file && error.kind() == ErrorKind::NotFound
        }
    }
}

/// Connects by the deadline: the kernel alone would wait as long as the queue of a stopped holder is full.
fn dial_unix(path: &Path, deadline: &mut Deadline) -> io::Result<OwnedFd> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let address = SocketAddrUnix::new(path)?;
    loop {
        let left = deadline.remaining().ok_or_else(|| io::Error::from(ErrorKind::TimedOut))?;
        set_socket_timeout(&socket, Timeout::Send, Some(left))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            // The time is over, or a signal came: the deadline knows.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(socket)
}

fn named(error: &io::Error, what: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// What a holder listens on. A Unix socket's file is removed on drop.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens on `url`; returns the address with the real port.
    pub(crate) fn bind(url: &FabricUrl) -> io::Result<(Self, FabricUrl)> {
        check_built(url.medium()).map_err(io::Error::other)?;
        match url {
            FabricUrl::Shm { socket } => {
                let listener = bind_unix(socket).map_err(|error| named(&error, &socket.display()))?;
                listener.set_nonblocking(true)?;
                Ok((Self::Unix(listener, socket.clone()), url.clone()))
            }
            FabricUrl::ShmDevice { address, device } => {
                let (listener, address) = bind_tcp(address)?;
                Ok((Self::Tcp(listener), FabricUrl::ShmDevice { address, device: device.clone() }))
            }
            FabricUrl::Tcp { address, encrypt } => {
                let (listener, address) = bind_tcp(address)?;
                Ok((Self::Tcp(listener), FabricUrl::Tcp { address, encrypt: *encrypt }))
            }
            FabricUrl::Rdma { address } => {
                let (listener, address) = bind_tcp(address)?;
                Ok((Self::Tcp(listener), FabricUrl::Rdma { address }))
            }
        }
    }

    /// Where it listens, on a network.
    #[cfg(feature = "rdma")]
    pub(crate) fn address(&self) -> io::Result<std::net::SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Unix(..) => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// The next stream, if one waits.
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let accepted = match self {
            Self::Tcp(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(OwnedFd::from(stream))
            }),
            Self::Unix(listener, _) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                Ok(OwnedFd::from(stream))
            }),
        };
        match accepted {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            // The stranger hung up before it was accepted.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
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

fn bind_tcp(address: &str) -> io::Result<(TcpListener, String)> {
    let listener = TcpListener::bind(address).map_err(|error| named(&error, &address))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    Ok((listener, format!("{host}:{port}")))
}

/// Binds a socket that only this user may connect to. A socket file that nobody listens on is a leftover of a holder
/// that was killed, and is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let bind = || -> io::Result<UnixListener> {
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(listener)
    };
    match bind() {
        // A holder that is stopped takes nobody, and is there all the same.
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            match dial_unix(path, &mut Deadline::within(LOOK_MAX)) {
                // A file of another kind refuses connections too, and is not ours to remove.
                Err(refused) if refused.kind() == ErrorKind::ConnectionRefused && is_socket(path) => {
                    std::fs::remove_file(path)?;
                    bind()
                }
                _ => Err(error),
            }
        }
        other => other,
    }
}

/// Whether a socket lies at `path` itself, not where a link there leads.
fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// Sleeps until `fd` or `wake` is ready, `until` at most. Returns whether `fd` can be read or has ended.
pub(crate) fn wait_ready(
    fd: BorrowedFd<'_>,
    wants_write: bool,
    wake: BorrowedFd<'_>,
    until: Option<Instant>,
) -> bool {
    use rustix::event::{PollFd, PollFlags};
    let flags = if wants_write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut fds = [PollFd::from_borrowed_fd(fd, flags), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
    let left = until.map(|at| at.saturating_duration_since(Instant::now()));
    let timeout = left.map(timespec);
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(_) => fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
        Err(_) => false,
    }
}

/// `left` as the kernel takes it.
pub(crate) fn timespec(left: Duration) -> rustix::event::Timespec {
    rustix::event::Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_that_accepts_nobody_keeps_nobody_beyond_the_deadline() {
        let path = std::env::temp_dir().join(format!("mirrorbus-dial-{}.sock", std::process::id()));
        let _listener = UnixListener::bind(&path).unwrap();
        let url = FabricUrl::Shm { socket: path.clone() };
        let (finished, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // Those who gave up stay in the queue, until it is full.
            let mut dialed = 0;
            while dial(&url, &mut Deadline::within(Duration::from_millis(100))).is_ok() {
                dialed += 1;
            }
            finished.send(dialed)
        });
        let dialed = end.recv_timeout(Duration::from_secs(30));
        std::fs::remove_file(&path).unwrap();
        assert!(dialed.expect("a connection attempt does not end") > 0);
    }

    #[test]
    fn the_place_of_a_holder_that_accepts_nobody_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("mirrorbus-taken-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        // Those who wait at its door fill the queue.
        let mut waiting = Vec::new();
        while let Ok(stream) = dial_unix(&path, &mut Deadline::within(Duration::from_millis(100))) {
            waiting.push(stream);
        }
        let (finished, end) = std::sync::mpsc::channel();
        let place = path.clone();
        std::thread::spawn(move || finished.send(bind_unix(&place).map(drop).map_err(|error| error.kind())));
        let bound = end.recv_timeout(Duration::from_secs(10));
        assert!(path.exists(), "the socket of another is gone");
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bound.expect("it waits without a deadline"), Err(ErrorKind::AddrInUse));
    }

    #[test]
    fn only_a_socket_is_replaced() {
        let path = std::env::temp_dir().join(format!("mirrorbus-kept-{}.sock", std::process::id()));
        std::fs::write(&path, b"somebody's file").unwrap();
        let refused = bind_unix(&path).map(drop).map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::AddrInUse));
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's file");
        std::fs::remove_file(&path).unwrap();
        // What a holder that was killed leaves: a socket on which nobody listens.
        drop(UnixListener::bind(&path).unwrap());
        drop(bind_unix(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}
