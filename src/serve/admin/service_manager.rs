//! Tells the service manager how far the node is: systemd's `Type=notify`.
//!
//! One datagram to the socket that `NOTIFY_SOCKET` names, and nothing where that is not set (sd_notify(3)).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceState {
    /// Everything listens; units that wait for this one may start.
    Ready,
    /// The end has begun.
    Stopping,
    /// A line for `systemctl status`.
    Status(String),
}

impl ServiceState {
    fn datagram(&self) -> String {
        match self {
            Self::Ready => "READY=1".into(),
            Self::Stopping => "STOPPING=1".into(),
            // A second line would be a second message.
            Self::Status(text) => format!("STATUS={}", text.replace('\n', " ")),
        }
    }
}

/// Tells it; false when nobody is to be told.
///
/// # Errors
/// The socket that is named cannot be written to.
pub fn notify_service_manager(state: &ServiceState) -> io::Result<bool> {
    match std::env::var("NOTIFY_SOCKET") {
        Ok(name) if !name.is_empty() => send(&name, state).map(|()| true),
        Ok(_) | Err(_) => Ok(false),
    }
}

/// A name that begins with @ is one of the abstract namespace.
fn send(name: &str, state: &ServiceState) -> io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(rest) => SocketAddr::from_abstract_name(rest)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let datagram = state.datagram();
    let sent = socket.send_to_addr(datagram.as_bytes(), &address)?;
    if sent == datagram.len() { Ok(()) } else { Err(io::Error::other("the message was cut")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_a_datagram() {
        let name = format!("mirrorbus-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let abstract_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, name) in [(by_path, path.to_str().unwrap()), (abstract_name, &format!("@{name}"))] {
            for (state, text) in [
                (ServiceState::Ready, "READY=1"),
                (ServiceState::Stopping, "STOPPING=1"),
                (ServiceState::Status("2 datasets\nserved".into()), "STATUS=2 datasets served"),
            ] {
                send(name, &state).unwrap();
                let mut buffer = [0; 100];
                let count = socket.recv(&mut buffer).unwrap();
                assert_eq!(std::str::from_utf8(&buffer[..count]).unwrap(), text);
            }
        }
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.to_str().unwrap(), &ServiceState::Ready).is_err());
    }
}
