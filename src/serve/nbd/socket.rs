//! The stream to a client, plain or under TLS, and what ends it from outside.
//!
//! In the negotiation every wait has the negotiation's deadline. After it a client may be silent as long as it likes, and a send waits
//! as long as the client does not read: its thread is its own. The [`Lifeline`] ends both.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use rustls::ServerConnection;

use super::channel::Channel;
use crate::memory::VolatileSlice;

/// Plain bytes that TLS keeps for one record or a few, before they are sealed and sent.
const TLS_BUFFER_BYTES: usize = 256 << 10;
/// How long the goodbye of a connection under TLS waits for a client that does not read.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);

/// How long the next request is looked for before the thread sleeps. To be woken costs about as much, and more where it is on another
/// processor; so a client that sends its next request when it has the reply does not pay for it each time.
const LOOK_TIME: Duration = Duration::from_micros(50);

/// One connection's socket, as the server that may end it sees it.
#[derive(Debug)]
pub(super) struct Lifeline {
    socket: OwnedFd,
    /// What has come is still answered.
    stopping: AtomicBool,
    /// Nothing is answered any more.
    cut: AtomicBool,
}

impl Lifeline {
    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self { socket, stopping: AtomicBool::new(false), cut: AtomicBool::new(false) }
    }

    /// Lets the connection end as soon as what has come is answered.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Read);
    }

    /// Ends it now.
    pub(super) fn cut(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.cut.store(true, Ordering::SeqCst);
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }
}

/// A stream without encryption.
#[derive(Debug)]
pub(super) struct Socket {
    lifeline: Arc<Lifeline>,
    /// Of the negotiation, as long as it lasts.
    deadline: Option<Instant>,
    /// The last request came within the time of a look: so may the next.
    is_brisk: bool,
    /// It was found to be. After the server's stop it would not show any more that a client had hung up one way.
    is_gone: Cell<bool>,
}

impl Socket {
    pub(super) const fn new(lifeline: Arc<Lifeline>, deadline: Instant) -> Self {
        Self { lifeline, deadline: Some(deadline), is_brisk: false, is_gone: Cell::new(false) }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.lifeline.socket.as_fd()
    }

    /// What comes within a short while, if that is likely.
    fn look(&self, target: &mut [u8], began: Instant) -> io::Result<Option<usize>> {
        while self.is_brisk && began.elapsed() < LOOK_TIME {
            match rustix::net::recv(self.fd(), &mut *target, RecvFlags::DONTWAIT) {
                Ok((_, count)) => return Ok(Some(count)),
                // The client may be on this very processor.
                Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Waits until something comes.
    fn receive_after_look(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        if let Some(count) = self.look(target, began)? {
            return Ok(count);
        }
        loop {
            match rustix::net::recv(self.fd(), &mut *target, RecvFlags::empty()) {
                Ok((_, count)) => {
                    self.is_brisk = began.elapsed() < 4 * LOOK_TIME;
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the socket is ready for `flags`, or the deadline.
    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        loop {
            let left = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::Error::new(ErrorKind::TimedOut, "the negotiation took too long"));
            }
            let timeout = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            });
            let mut fds = [PollFd::from_borrowed_fd(self.fd(), flags)];
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Channel for Socket {
    fn receive(&mut self, target: &mut [u8]) -> io::Result<usize> {
        loop {
            let stopping = self.lifeline.stopping.load(Ordering::SeqCst);
            if !stopping {
                if self.deadline.is_none() {
                    return self.receive_after_look(target);
                }
                self.wait(PollFlags::IN)?;
            }
            match rustix::net::recv(self.fd(), &mut *target, RecvFlags::DONTWAIT) {
                Ok((_, count)) => return Ok(count),
                Err(Errno::AGAIN) if stopping => return Ok(0),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let waits = if self.deadline.is_some() { SendFlags::DONTWAIT } else { SendFlags::empty() };
        while !bytes.is_empty() {
            match rustix::net::send(self.fd(), bytes, SendFlags::NOSIGNAL | waits) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn receive_into(&mut self, target: VolatileSlice<'_>) -> io::Result<()> {
        let mut done = 0;
        while done < target.len() {
            match target.receive(done, target.len() - done, self.fd())? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }

    fn available(&self) -> usize {
        rustix::io::ioctl_fionread(self.fd()).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    fn gone(&self) -> bool {
        if self.is_gone.get() || self.lifeline.cut.load(Ordering::SeqCst) {
            return true;
        }
        let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1..)) {
            return false;
        }
        // A read side that the server itself has shut down looks as if the client had hung up. Asked for after the look, for that
        // shutdown may come at any time.
        let hung_up = if self.lifeline.stopping.load(Ordering::SeqCst) {
            PollFlags::HUP | PollFlags::ERR
        } else {
            PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP
        };
        self.is_gone.set(fds[0].revents().intersects(hung_up));
        self.is_gone.get()
    }
}

/// The socket as the TLS library reads and writes it.
struct Raw<'a>(&'a mut Socket);

impl Read for Raw<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        self.0.receive(target)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream under TLS.
#[derive(Debug)]
pub(super) struct Tls {
    socket: Socket,
    session: ServerConnection,
}

impl Tls {
    /// Shakes hands.
    ///
    /// # Errors
    /// The client speaks no TLS, shows no certificate that is wanted, or takes too long.
    pub(super) fn accept(socket: Socket, config: &Arc<rustls::ServerConfig>) -> io::Result<Self> {
        let mut session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        let mut tls = Self { socket, session };
        while tls.session.is_handshaking() {
            tls.write_out()?;
            if tls.session.is_handshaking() && !tls.read_in()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        tls.write_out()?;
        Ok(tls)
    }

    fn write_out(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Raw(&mut self.socket))?;
        }
        Ok(())
    }

    /// Waits for what the client sends next; false at the end.
    fn read_in(&mut self) -> io::Result<bool> {
        if self.session.read_tls(&mut Raw(&mut self.socket))? == 0 {
            return Ok(false);
        }
        if let Err(error) = self.session.process_new_packets() {
            // An alert tells the client why.
            let _ = self.write_out();
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        self.write_out()?;
        Ok(true)
    }
}

impl Channel for Tls {
    fn receive(&mut self, target: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(target) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Without a goodbye the end may be an attacker's; what was not asked for is not answered all the same.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if !self.read_in()? {
                return Ok(0);
            }
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.session.writer().write(bytes)?;
            bytes = &bytes[count..];
            self.write_out()?;
        }
        Ok(())
    }

    fn available(&self) -> usize {
        // What is in the socket is sealed.
        0
    }

    fn gone(&self) -> bool {
        self.socket.gone()
    }
}

/// Either.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<Tls>),
}

impl Stream {
    /// The negotiation is over.
    pub(super) fn lift_deadline(&mut self) {
        match self {
            Self::Plain(socket) => socket.deadline = None,
            Self::Tls(tls) => tls.socket.deadline = None,
        }
    }

    /// Says goodbye, where there is a way to, and hangs up.
    pub(super) fn close(&mut self) {
        let deadline = Instant::now() + GOODBYE_TIME_MAX;
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => {
                tls.socket.deadline = Some(deadline);
                tls.session.send_close_notify();
                let _ = tls.write_out();
                &mut tls.socket
            }
        };
        let _ = rustix::net::shutdown(socket.fd(), Shutdown::Both);
    }
}

impl Channel for Stream {
    fn receive(&mut self, target: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.receive(target),
            Self::Tls(tls) => tls.receive(target),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.send(bytes),
            Self::Tls(tls) => tls.send(bytes),
        }
    }

    fn receive_into(&mut self, target: VolatileSlice<'_>) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.receive_into(target),
            Self::Tls(tls) => tls.receive_into(target),
        }
    }

    fn available(&self) -> usize {
        match self {
            Self::Plain(socket) => socket.available(),
            Self::Tls(tls) => tls.available(),
        }
    }

    fn gone(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.gone(),
            Self::Tls(tls) => tls.gone(),
        }
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
