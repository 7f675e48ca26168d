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

    /// Cuts the connection and waits for the thread. No event comes after this.
    pub(super) fn abort(&self) {
        let _ = rustix::net::shutdown(&self.shared.socket, rustix::net::Shutdown::Both);
        self.shared.wake();
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

fn run(shared: &Shared, mut on_event: impl FnMut(Event)) {
    let mut output = Vec::new();
    let mut sent = 0;
    let mut input = vec![0; READ_BYTES];
    loop {
        let (events, timeout) = {
            let mut connection = shared.lock();
            // An error shows as a `Closed` event as well.
            let _ = connection.handle_timeout(Instant::now());
            if sent == output.len() {
                output.clear();
                sent = 0;
            }
            connection.poll_transmit(&mut output);
            let events: Vec<Event> = std::iter::from_fn(|| connection.poll_event()).collect();
            (events, connection.poll_timeout())
        };
        let mut gone = flush(shared, &output, &mut sent);
        let closed = events.iter().any(|event| matches!(event, Event::Closed { .. }));
        events.into_iter().for_each(&mut on_event);
        if closed {
            return;
        }
        if !gone && wait_ready(shared.socket.as_fd(), sent < output.len(), shared.wake.as_fd(), timeout) {
            gone = fill(shared, &mut input);
        }
        let mut counter = [0; 8];
        let _ = rustix::io::read(&shared.wake, &mut counter);
        if gone {
            let mut connection = shared.lock();
            let _ = connection.handle_eof();
            let events: Vec<Event> = std::iter::from_fn(|| connection.poll_event()).collect();
            drop(connection);
            let closed = events.iter().any(|event| matches!(event, Event::Closed { .. }));
            events.into_iter().for_each(&mut on_event);
            if !closed {
                let reason = Ended::ByUs(CloseReason::Finished);
                on_event(Event::Closed { reason });
            }
            return;
        }
    }
}

/// Sends what can be sent; `true` when the stream is gone.
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

/// Takes what has come, at most one buffer; `true` when the stream is gone.
fn fill(shared: &Shared, input: &mut [u8]) -> bool {
    match rustix::net::recv(&shared.socket, &mut *input, RecvFlags::DONTWAIT) {
        Ok((_, 0)) => true,
        Ok((_, count)) => {
            // An error shows as a `Closed` event.
            let _ = shared.lock().handle_bytes(&input[..count], Instant::now());
            false
        }
        Err(Errno::AGAIN | Errno::INTR) => false,
        Err(_) => true,
    }
}
