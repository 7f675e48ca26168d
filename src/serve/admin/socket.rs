//! The admin socket's place in the filesystem.
//!
//! The socket has mode 0600 from the moment at which it exists: on Linux a socket takes its mode, at the bind, from the descriptor.

use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::base::Deadline;

/// How long whoever has the socket is given to show that he is there.
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Listens at `path`. A socket file that nobody listens on is what a killed node left, and is replaced.
///
/// # Errors
/// Another listens there, or the directory does not allow it.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            match connect(path, &mut Deadline::within(LOOK_TIME_MAX)) {
                // A file of another kind refuses connections too, and is not ours to remove.
                Err(refused) if refused.kind() == ErrorKind::ConnectionRefused && is_socket(path) => {
                    std::fs::remove_file(path)?;
                    bind(path)
                }
                Ok(_) | Err(_) => Err(error),
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

fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = socket()?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects by the deadline: the kernel alone would wait as long as the queue of a stopped node is full.
///
/// # Errors
/// Nobody listens, or not in time.
pub(super) fn connect(path: &Path, deadline: &mut Deadline) -> io::Result<UnixStream> {
    let socket = socket()?;
    let address = SocketAddrUnix::new(path)?;
    loop {
        let left = deadline.remaining().ok_or_else(|| io::Error::from(ErrorKind::TimedOut))?;
        set_socket_timeout(&socket, Timeout::Send, Some(left))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(UnixStream::from(socket)),
            // A full queue, for as long as was to be waited; or a signal.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn socket() -> io::Result<std::os::fd::OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}
