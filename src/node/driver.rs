//! Drives one control connection: the thread that owns its socket.
//!
//! The connection itself is a pure core behind a lock; this loop moves bytes between it and the socket, keeps its
//! timers, and hands its events to whoever uses the connection. `send` may be called by any thread: it seals the
//! message and wakes the loop. The loop never waits for anything but the socket, a wake-up or the next timer.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::stream::wait_ready;
use crate::control::{Channel, CloseReason, Connection, Ended, Event, SendError};

/// The channel of mirror messages.
pub(super) const MIRROR: Channel = Channel::MIRROR;
/// Bytes read at a time: what a connection takes between two drains of its events.
const READ_BYTES: usize = 64 * 1024;

/// A control connection with its thread.
#[derive(Debug)]
pub(super) struct Driver {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    connection: Mutex<Connection>,
    socket: OwnedFd,
    wake: OwnedFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the loop is awake.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Driver {
    /// Starts the thread. `on_event` runs on it and must not block; `Closed` is the last event.
    ///
    /// # Errors
    /// No descriptor or thread left.
    pub(super) fn start(
        name: &str,
        connection: Connection,
        socket: OwnedFd,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { connection: Mutex::new(connection), socket, wake });
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new().name(name.into()).spawn(move || run(&shared, on_event))?
        };
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Queues a message of the mirror channel.
    pub(super) fn send(&self, body: &[u8]) -> Result<(), SendError> {
        self.shared.lock().send(MIRROR, body)?;
        self.shared.wake();
        Ok(())
    }

    /// Starts an orderly close; the thread ends when the peer answered or a bound passed.
    pub(super) fn close(&self, reason: CloseReason) {
        self.shared.lock().close(reason, Instant::now());
        self.shared.wake();
    }

    /// Cuts the connection; the thread ends by itself.
    pub(super) fn cut(&self) {
        let _ = rustix::net::shutdown(&self.shared.socket, rustix::net::Shutdown::Both);
        self.shared.wake();
    }

    /// Cuts the connection and waits for the thread. No event comes after this.
    pub(super) fn abort(&self) {
        self.cut();
        self.join();
    }

    /// Waits for the thread, unless called on it.
    pub(super) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.abort();
    }
}

/// What a look at the socket gave.
enum Filled {
    Some,
    None,
    Gone,
}

fn run(shared: &Shared, mut on_event: impl FnMut(Event)) {
    drive(shared, &mut on_event);
    // The peer need not wait for the descriptor to be closed.
    let _ = rustix::net::shutdown(&shared.socket, rustix::net::Shutdown::Both);
}

fn drive(shared: &Shared, on_event: &mut impl FnMut(Event)) {
    let mut output = Vec::new();
    let mut sent = 0;
    let mut input = vec![0; READ_BYTES];
    loop {
        let (events, timeout) = {
            let mut connection = shared.lock();
            // An error shows as a `Closed` event as well.
            let _ = connection.handle_timeout(Instant::now());
            let events: Vec<Event> = std::iter::from_fn(|| connection.poll_event()).collect();
            (events, connection.poll_timeout())
        };
        // The end is told here before it is answered: the peer may come anew as soon as it has the answer.
        let closed = deliver(events, on_event);
        let mut gone = transmit(shared, &mut output, &mut sent);
        if closed {
            return;
        }
        if gone {
            // What the peer said before it left counts.
            while matches!(fill(shared, &mut input), Filled::Some) {
                let events: Vec<Event> = {
                    let mut connection = shared.lock();
                    std::iter::from_fn(|| connection.poll_event()).collect()
                };
                if deliver(events, on_event) {
                    return;
                }
            }
        } else if wait_ready(shared.socket.as_fd(), sent < output.len(), shared.wake.as_fd(), timeout) {
            gone = matches!(fill(shared, &mut input), Filled::Gone);
        }
        let mut counter = [0; 8];
        let _ = rustix::io::read(&shared.wake, &mut counter);
        if gone {
            let mut connection = shared.lock();
            let _ = connection.handle_eof();
            let events: Vec<Event> = std::iter::from_fn(|| connection.poll_event()).collect();
            drop(connection);
            if !deliver(events, on_event) {
                let reason = Ended::ByUs(CloseReason::Finished);
                on_event(Event::Closed { reason });
            }
            return;
        }
    }
}

/// Hands the events on; whether the end was among them.
fn deliver(events: Vec<Event>, on_event: &mut impl FnMut(Event)) -> bool {
    let closed = events.iter().any(|event| matches!(event, Event::Closed { .. }));
    events.into_iter().for_each(on_event);
    closed
}

/// Sends what can be sent; `true` when the stream is gone. The connection is asked for more only when everything that it
/// gave before is out, so that its own bound on what waits holds.
fn transmit(shared: &Shared, output: &mut Vec<u8>, sent: &mut usize) -> bool {
    loop {
        if *sent == output.len() {
            output.clear();
            *sent = 0;
            if !shared.lock().poll_transmit(output) {
                return false;
            }
        }
        if flush(shared, output, sent) {
            return true;
        }
        if *sent < output.len() {
            return false;
        }
    }
}

/// Sends until nothing is left or the socket is full; `true` when the stream is gone.
fn flush(shared: &Shared, output: &[u8], sent: &mut usize) -> bool {
    while *sent < output.len() {
        match rustix::net::send(&shared.socket, &output[*sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => *sent += count,
            Err(Errno::AGAIN) => return false,
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
    false
}

/// Takes what has come, at most one buffer.
fn fill(shared: &Shared, input: &mut [u8]) -> Filled {
    match rustix::net::recv(&shared.socket, &mut *input, RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Filled::Gone,
        Ok((_, count)) => {
            // An error shows as a `Closed` event.
            let _ = shared.lock().handle_bytes(&input[..count], Instant::now());
            Filled::Some
        }
        Err(Errno::AGAIN | Errno::INTR) => Filled::None,
        Err(_) => Filled::Gone,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::control::{ConnectionConfig, Hello, KeySet, SEND_QUEUE_BYTES_MAX};

    fn hello() -> ConnectionConfig {
        ConnectionConfig::new(Hello::new(0, Duration::from_secs(9), Duration::from_secs(60), vec![]).unwrap())
    }

    /// A driver whose peer shook hands and reads nothing since.
    fn with_a_peer_that_does_not_read() -> (Driver, UnixStream, Connection) {
        let keys = KeySet::from_bytes(&[[7; 32]]).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let accepting = Connection::accept(hello(), &keys, Instant::now());
        let driver = Driver::start("test", accepting, ours.into(), drop).unwrap();
        let mut peer = Connection::initiate(hello(), &keys, Instant::now());
        let mut buffer = [0; 4096];
        let mut out = Vec::new();
        while !matches!(peer.poll_event(), Some(Event::Established { .. })) {
            use std::io::{Read, Write};
            out.clear();
            peer.poll_transmit(&mut out);
            theirs.write_all(&out).unwrap();
            let count = theirs.read(&mut buffer).unwrap();
            peer.handle_bytes(&buffer[..count], Instant::now()).unwrap();
        }
        (driver, theirs, peer)
    }

    #[test]
    fn the_end_is_told_before_the_peer_has_the_answer() {
        let keys = KeySet::from_bytes(&[[7; 32]]).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (told, ended) = (Arc::new(AtomicBool::new(false)), std::sync::mpsc::channel());
        let tell = told.clone();
        let accepting = Connection::accept(hello(), &keys, Instant::now());
        let _accepting = Driver::start("accepts", accepting, ours.into(), move |event| {
            if matches!(event, Event::Closed { .. }) {
                std::thread::sleep(Duration::from_millis(50));
                tell.store(true, Ordering::SeqCst);
            }
        })
        .unwrap();
        let initiating = Connection::initiate(hello(), &keys, Instant::now());
        let initiating = Driver::start("initiates", initiating, theirs.into(), move |event| {
            if matches!(event, Event::Established { .. } | Event::Closed { .. }) {
                ended.0.send(event).unwrap();
            }
        })
        .unwrap();
        let next = || ended.1.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(next(), Event::Established { .. }));
        initiating.close(CloseReason::Finished);
        assert!(matches!(next(), Event::Closed { .. }));
        assert!(told.load(Ordering::SeqCst), "the answer came before the end was told");
    }

    #[test]
    fn what_a_peer_does_not_take_is_bounded() {
        let (driver, _theirs, _peer) = with_a_peer_that_does_not_read();
        let body = vec![0; 32 * 1024];
        let mut taken = 0;
        // Far more than the queue, one handed-out queue and any socket buffer together.
        while taken < 8 * SEND_QUEUE_BYTES_MAX {
            match driver.send(&body) {
                Ok(()) => taken += body.len(),
                Err(SendError::Full { .. }) => return,
                Err(error) => panic!("{error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{taken} bytes wait for a peer that reads nothing");
    }

    #[test]
    fn a_failed_connection_is_hung_up_on() {
        use std::io::{Read, Write};
        let (_driver, mut theirs, _peer) = with_a_peer_that_does_not_read();
        theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        theirs.write_all(&[16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]).unwrap();
        assert_eq!(theirs.read_to_end(&mut Vec::new()).unwrap(), 0);
    }
}
