//! Verbs without a lane: what a measurement holds against one, over the same device, registration and polling.
//!
//! A [`BareQueue`] posts a write or a read with the fewest instructions that do it, and keeps no promise beyond the
//! device's: no order of levels, no bounds of a window, no reconnection. A [`BarePeer`] is the other end; it admits whoever
//! asks for it, so it is for measurements and tests on a network of one's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdma_sys::{ibv_wc, ibv_wc_status};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::os::fd::AsFd;

use super::batch::Request;
use super::{
    Arrival, Connector, Export, Exported, Listener, QueueOptions, RemoteWindow, VerbsError, VerbsQueue,
};
use crate::base::{Deadline, Generation, SessionId};
use crate::control::Token;
use crate::fabric::{Access, ExportedWindow, Grant, WindowId};
use crate::memory::Mapping;

/// What both ends know: no secret.
const SESSION: SessionId = SessionId::from_bytes(*b"mirrorbus: bare.");
const TOKEN: [u8; 32] = *b"mirrorbus: bare, and no secret..";
/// How often a peer looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Completions taken at once, as a queue does.
const COMPLETIONS_MAX: usize = 16;

fn grant(len: usize) -> Grant {
    Grant { window: WindowId(1), generation: Generation(1), len, access: Access::ReadWrite }
}

/// Exports memory to whoever asks.
#[derive(Debug)]
pub struct BarePeer {
    listener: Listener,
    export: Export,
}

impl BarePeer {
    /// Listens at `address`; port 0 takes any.
    ///
    /// # Errors
    /// See [`Listener::bind`].
    pub fn listen(address: SocketAddr, memory: Arc<Mapping>) -> Result<Self, VerbsError> {
        let grant = grant(memory.len());
        let window = ExportedWindow::new(grant.window, grant.generation, grant.access, memory);
        Ok(Self { listener: Listener::bind(address)?, export: Export::new(vec![window]) })
    }

    /// The port it listens at.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// Lets in who asks, until `stop`. Sleeps otherwise: no code runs per write.
    ///
    /// # Errors
    /// The kernel cannot be asked any more.
    pub fn serve(&mut self, stop: &AtomicBool) -> Result<(), VerbsError> {
        let look = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
        while !stop.load(Ordering::SeqCst) {
            let mut fds = [PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN)];
            // An interrupted sleep is a short one.
            let _ = rustix::event::poll(&mut fds, Some(&look));
            while let Some(arrival) = self.listener.next_arrival()? {
                match arrival {
                    Arrival::Request(request) if request.proven(&[token()]).is_some() => {
                        if let Some(windows) = self.export.lacks(&request) {
                            let exported = Exported::new(&request, windows)?;
                            self.export.add(exported);
                        }
                        if let Err(why) = self.export.accept(request, &token()) {
                            log::warn!("{why}");
                        }
                    }
                    Arrival::Request(request) => request.reject("this end is for measurements"),
                    Arrival::Established(key) => self.export.established(key),
                    Arrival::Ended(key) => drop(self.export.ended(key)),
                    Arrival::Stranger => {}
                }
            }
        }
        Ok(())
    }

    /// Takes everything away; see [`Export::revoke`].
    ///
    /// # Errors
    /// As there.
    pub fn revoke(&mut self) -> Result<(), VerbsError> {
        self.export.revoke()
    }
}

fn token() -> Token {
    Token::from_bytes(&TOKEN)
}

/// One queue, with nothing between it and the device.
pub struct BareQueue {
    /// Made as any other; its accounting is not used.
    queue: VerbsQueue,
    window: RemoteWindow,
    posted: u64,
    taken: Box<[ibv_wc]>,
    _connector: Connector,
}

/// Connects a queue of the usual kind to the [`BarePeer`] at `target`, whose memory is as long as `local`.
///
/// # Errors
/// See [`Connector::connect`].
pub fn connect_queue(
    target: SocketAddr,
    local: Arc<Mapping>,
    depth: usize,
    deadline: &mut Deadline,
) -> Result<(Connector, VerbsQueue), VerbsError> {
    let options = QueueOptions { depth, grants: vec![grant(local.len())], durable: Ok(()) };
    let connector = Connector::new(target, local, true)?;
    let queue = connector.connect(SESSION, &token(), &options, deadline)?;
    Ok((connector, queue))
}

impl std::fmt::Debug for BareQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareQueue").field("window", &self.window).field("posted", &self.posted).finish()
    }
}

impl BareQueue {
    /// Connects to the [`BarePeer`] at `target`, whose memory is as long as `local`, with `depth` requests outstanding at
    /// most.
    ///
    /// # Errors
    /// See [`Connector::connect`].
    pub fn connect(
        target: SocketAddr,
        local: Arc<Mapping>,
        depth: usize,
        deadline: &mut Deadline,
    ) -> Result<Self, VerbsError> {
        let (connector, queue) = connect_queue(target, local, depth, deadline)?;
        // SAFETY: all zeroes is a value of this struct of numbers.
        let taken = (0..COMPLETIONS_MAX).map(|_| unsafe { std::mem::zeroed() }).collect();
        let window = queue.windows[0];
        Ok(Self { queue, window, posted: 0, taken, _connector: connector })
    }

    /// The peer's memory.
    #[must_use]
    pub const fn window(&self) -> RemoteWindow {
        self.window
    }

    /// Takes `key` for the key of the peer's memory from now on: what a wrong one does is the device's affair.
    pub const fn set_key(&mut self, key: u32) {
        self.window.key = key;
    }

    /// Adds a write of `len` bytes from `offset` to the same offset of the peer's memory. At most 128 wait for
    /// [`ring`](Self::ring), and as many are in flight as the queue has room for: both are the caller's to count.
    ///
    /// # Panics
    /// When the range lies outside, or the batch is full.
    #[inline]
    pub fn write(&mut self, offset: usize, len: usize, signaled: bool) {
        self.push(offset, len, signaled, false);
    }

    /// Adds a signaled read of `len` bytes, to where flushes read.
    ///
    /// # Panics
    /// As [`write`](Self::write).
    #[inline]
    pub fn flush(&mut self) {
        self.push(0, self.window.grant.len.min(8), true, true);
    }

    #[inline]
    fn push(&mut self, offset: usize, len: usize, signaled: bool, read: bool) {
        let regions = &self.queue.regions;
        let region = if read { &regions.scratch } else { &regions.local };
        let within = |bytes: usize| len <= bytes && offset <= bytes - len;
        assert!(within(region.memory().len()) && within(self.window.grant.len), "{len} bytes at {offset}");
        self.queue.batch.push(Request {
            number: self.posted,
            read,
            signaled,
            inline: !read && len > 0 && len <= self.queue.inline_bytes_max,
            fence: false,
            local: region.address() + offset as u64,
            local_key: region.local_key(),
            len: u32::try_from(len).expect("a message"),
            remote: self.window.address + offset as u64,
            remote_key: self.window.key,
        });
        self.posted += 1;
    }

    /// Hands what was added to the device, as one list.
    ///
    /// # Errors
    /// The device refused.
    #[inline]
    pub fn ring(&mut self) -> Result<(), VerbsError> {
        let queue_pair = &self.queue.connection.queue_pair;
        // SAFETY: every request lies within its region, checked where it was added; the queue holds the regions until its
        // queue pair is stopped.
        self.queue.batch.hand_over(|first| unsafe { queue_pair.post(first) })
    }

    /// Looks for completions; returns the number of the last request of which one came, counted from 0.
    ///
    /// # Errors
    /// A request failed: what the device says of it.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<u64>, String> {
        let count = self.queue.completions.poll(&mut self.taken).map_err(|error| error.to_string())?;
        for completion in &self.taken[..count] {
            if completion.status != ibv_wc_status::IBV_WC_SUCCESS {
                return Err(super::queue::text_of(completion.status));
            }
        }
        Ok(count.checked_sub(1).map(|last| self.taken[last].wr_id))
    }

    /// Requests added so far: the number of the next.
    #[must_use]
    pub const fn posted(&self) -> u64 {
        self.posted
    }

    /// Asks for an event at the next completion; what came before tells nobody, so poll once more, then sleep on
    /// [`event_fd`](Self::event_fd).
    ///
    /// # Errors
    /// The device refused.
    pub fn arm(&mut self) -> Result<(), VerbsError> {
        self.queue.completions.take_event();
        self.queue.completions.arm()
    }

    /// Readable when a completion came after [`arm`](Self::arm).
    #[must_use]
    pub fn event_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.queue.completions.fd()
    }
}
