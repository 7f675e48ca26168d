//! Answers requests for metrics, each on a thread of its own, a few at a time, one for each connection.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::http::{self, Refusal, Wanted};
use super::{CONNECTIONS_MAX, HEAD_BYTES_MAX, REQUEST_TIME_MAX, metrics_page};
use crate::base::Deadline;
use crate::serve::admin::StatusSource;
use crate::serve::admin::lines::{LineError, Lines};

/// How long nothing is accepted after that failed.
const BREATHER: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// How long whoever is turned away may take to read it.
const REFUSAL_TIME_MAX: Duration = Duration::from_millis(100);

/// The metrics while they are served. Its end closes the listener; answers that are on their way still go out.
#[derive(Debug)]
pub struct MetricsServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    status: Arc<StatusSource>,
    connections: AtomicUsize,
    stopping: AtomicBool,
    wake: OwnedFd,
}

impl MetricsServer {
    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is taken or not this machine's, or there is no thread left.
    pub fn start(address: SocketAddr, status: Arc<StatusSource>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            status,
            connections: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let acceptor = shared.clone();
        let thread = std::thread::Builder::new().name("mirrorbus-metric".into());
        let accepting = thread.spawn(move || acceptor.accept(&listener))?;
        Ok(Self { shared, address, accepting: Some(accepting) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while !self.stopping.load(Ordering::SeqCst) {
            let wake = PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN);
            let _ = poll(&mut [wake, PollFd::new(listener, PollFlags::IN)], None);
            match listener.accept() {
                Ok((stream, _)) => self.let_in(stream),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    log::warn!("metrics: cannot accept: {error}");
                    let _ = poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], Some(&BREATHER));
                }
            }
        }
    }

    fn let_in(self: &Arc<Self>, stream: TcpStream) {
        let place = PlaceTaken(self.clone());
        if self.connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            let why = format!("{CONNECTIONS_MAX} requests are being answered, the most there can be");
            let answer = http::refusal(Refusal::Busy, &why);
            let _ = Lines::new(&stream, 0).write(&answer, &mut Deadline::within(REFUSAL_TIME_MAX));
            return;
        }
        let thread = std::thread::Builder::new().name("mirrorbus-metric".into());
        if let Err(error) = thread.spawn(move || place.0.serve(&stream)) {
            log::warn!("metrics: no thread for a request: {error}");
        }
    }

    /// Answers one request.
    fn serve(&self, stream: &TcpStream) {
        let mut deadline = Deadline::within(REQUEST_TIME_MAX);
        let mut lines = Lines::new(stream, HEAD_BYTES_MAX);
        let answer = match head(&mut lines, &mut deadline) {
            Ok(Some(first)) => self.answer(http::wanted(&first)),
            Ok(None) => return,
            Err(LineError::TooLong(_)) => {
                let why = format!("the head has more than {HEAD_BYTES_MAX} bytes");
                http::refusal(Refusal::HeadTooLong, &why)
            }
            Err(_) => return,
        };
        if lines.write(&answer, &mut deadline).is_ok() {
            // Whoever is sent more than it asked for after a reset would lose the end of the answer.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = lines.silence(&mut Deadline::within(REFUSAL_TIME_MAX));
        }
    }

    fn answer(&self, wanted: Wanted) -> Vec<u8> {
        match wanted {
            Wanted::Metrics { with_body } => match self.status.get() {
                Ok(status) => http::page(&metrics_page(&status), with_body),
                Err(error) => http::refusal(Refusal::Unavailable, &error.text),
            },
            Wanted::Other(Refusal::NotFound) => {
                http::refusal(Refusal::NotFound, "the metrics are at /metrics")
            }
            Wanted::Other(Refusal::MethodNotAllowed) => {
                http::refusal(Refusal::MethodNotAllowed, "only GET and HEAD are answered")
            }
            Wanted::Other(refusal) => http::refusal(refusal, "this is no request of HTTP/1.1"),
        }
    }
}

/// Reads a request's head to its end; the first line.
fn head(lines: &mut Lines<&TcpStream>, deadline: &mut Deadline) -> Result<Option<Vec<u8>>, LineError> {
    let Some(first) = lines.read(deadline)? else { return Ok(None) };
    let mut bytes = first.len();
    loop {
        match lines.read(deadline)? {
            Some(line) if line.is_empty() || line == b"\r" => return Ok(Some(first)),
            Some(line) => bytes += line.len() + 1,
            None => return Ok(None),
        }
        if bytes > HEAD_BYTES_MAX {
            return Err(LineError::TooLong(HEAD_BYTES_MAX));
        }
    }
}

/// One of the connections.
struct PlaceTaken(Arc<Shared>);

impl Drop for PlaceTaken {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}
