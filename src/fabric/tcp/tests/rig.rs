//! A queue and a receiver, joined; and what tests need to drive them with deadlines.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::base::{Generation, Unsupported};
use crate::fabric::tcp::{
    FRAME_HEADER_BYTES, FrameKind, Header, Receiver, ReceiverEnd, RecordCipher, TcpQueue,
};
use crate::fabric::{
    Access, Armed, Completion, ExportedWindow, Grant, Operation, Queue, QueueError, WindowId, WorkRequest,
};
use crate::memory::{MapOptions, Mapping};

/// No wait of a test lasts longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const WINDOW: WindowId = WindowId(7);
pub(super) const GENERATION: Generation = Generation(3);

pub(super) fn region(len: usize) -> Arc<Mapping> {
    Arc::new(Mapping::anonymous(len, MapOptions::default()).unwrap())
}

pub(super) fn window(len: usize, access: Access) -> Arc<ExportedWindow> {
    ExportedWindow::new(WINDOW, GENERATION, access, region(len))
}

/// Two ends of a Unix stream with small buffers: partial sends happen all the time.
pub(super) fn narrow_pair() -> (OwnedFd, OwnedFd) {
    let (a, b) = UnixStream::pair().unwrap();
    for end in [&a, &b] {
        rustix::net::sockopt::set_socket_send_buffer_size(end, 2048).unwrap();
    }
    (a.into(), b.into())
}

/// Two ends of a loopback connection.
pub(super) fn tcp_pair() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (a.into(), listener.accept().unwrap().0.into())
}

/// A receiver in a thread; joined on drop.
pub(super) struct Serving {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<ReceiverEnd>>,
}

impl Serving {
    pub(super) fn start(mut receiver: Receiver) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        Self { stop, thread: Some(std::thread::spawn(move || receiver.run(&seen))) }
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn end(&mut self) -> ReceiverEnd {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the receiver fails the test even when nobody asked how it ended.
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("the receiver panicked");
            }
        }
    }
}

/// Everything joined: requests go from `local` to `window`.
pub(super) struct Rig {
    pub(super) queue: TcpQueue,
    pub(super) local: Arc<Mapping>,
    pub(super) window: Arc<ExportedWindow>,
    pub(super) serving: Serving,
}

pub(super) type Ciphers = (Box<dyn RecordCipher>, Box<dyn RecordCipher>);

impl Rig {
    pub(super) fn new(ends: (OwnedFd, OwnedFd), len: usize, depth: usize, spin: Duration) -> Self {
        Self::with(ends, window(len, Access::ReadWrite), depth, spin, None, |grant| grant)
    }

    pub(super) fn with(
        ends: (OwnedFd, OwnedFd),
        window: Arc<ExportedWindow>,
        depth: usize,
        spin: Duration,
        ciphers: Option<Ciphers>,
        told: impl FnOnce(Grant) -> Grant,
    ) -> Self {
        let local = region(window.grant().len);
        let (ours, theirs) = ciphers.map_or((None, None), |(ours, theirs)| (Some(ours), Some(theirs)));
        let receiver = Receiver::new(ends.1, vec![Arc::clone(&window)], spin, theirs, Vec::new());
        let serving = Serving::start(receiver);
        let queue = queue(ends.0, &local, told(window.grant()), depth, ours);
        Self { queue, local, window, serving }
    }

    /// Fills the local mapping with bytes that tell where they belong and of which `round` they are.
    pub(super) fn fill(&self, round: u64) {
        self.local.slice().write(0, &pattern(self.local.len(), round));
    }

    pub(super) fn remote(&self) -> Vec<u8> {
        self.window.mapping().slice().to_vec()
    }
}

pub(super) fn queue(
    stream: OwnedFd,
    local: &Arc<Mapping>,
    grant: Grant,
    depth: usize,
    cipher: Option<Box<dyn RecordCipher>>,
) -> TcpQueue {
    let durable = Err(Unsupported { what: "Durable".into(), why: "memory only".into() });
    TcpQueue::new(stream, Arc::clone(local), vec![grant], depth, durable, cipher, Vec::new())
}

pub(super) fn pattern(len: usize, round: u64) -> Vec<u8> {
    let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

pub(super) fn write(wr_id: u64, offset: usize, len: usize, signaled: bool) -> WorkRequest {
    request(Operation::Write, wr_id, offset, len, signaled)
}

pub(super) fn request(
    operation: Operation,
    wr_id: u64,
    offset: usize,
    len: usize,
    signaled: bool,
) -> WorkRequest {
    WorkRequest {
        wr_id,
        operation,
        window: WINDOW,
        local_offset: offset,
        remote_offset: offset,
        len,
        signaled,
    }
}

/// Posts all, polling for room; completions seen on the way go to `seen`.
pub(super) fn post_all(
    queue: &mut TcpQueue,
    mut rest: &[WorkRequest],
    seen: &mut Vec<u64>,
) -> Result<(), QueueError> {
    let end = Instant::now() + PATIENCE;
    while !rest.is_empty() {
        assert!(Instant::now() < end, "{} requests found no room", rest.len());
        let taken = queue.post(rest)?;
        rest = &rest[taken..];
        queue.doorbell()?;
        while let Some(completion) = queue.poll()? {
            seen.push(completion.wr_id);
        }
    }
    Ok(())
}

/// Polls until `wr_id` completes.
pub(super) fn reap(queue: &mut TcpQueue, wr_id: u64, seen: &mut Vec<u64>) -> Result<(), QueueError> {
    let end = Instant::now() + PATIENCE;
    while seen.last() != Some(&wr_id) {
        assert!(Instant::now() < end, "{wr_id} never completed; seen last: {:?}", seen.last());
        if let Some(Completion { wr_id }) = queue.poll()? {
            seen.push(wr_id);
        }
    }
    Ok(())
}

/// The error that ends the queue.
pub(super) fn failure(queue: &mut TcpQueue) -> QueueError {
    let end = Instant::now() + PATIENCE;
    loop {
        // Armed, so that the socket is looked at even when nothing is outstanding.
        match queue.arm().and_then(|_: Armed| queue.poll()) {
            Ok(_) => assert!(Instant::now() < end, "the queue never failed"),
            Err(error) => return error,
        }
        std::thread::yield_now();
    }
}

/// Sleeps as the contract says.
pub(super) fn sleep(queue: &mut TcpQueue) -> Result<(), QueueError> {
    if queue.arm()? == Armed::Sleep {
        let out = if queue.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
        let mut fds = [PollFd::from_borrowed_fd(queue.event_fd().unwrap(), PollFlags::IN | out)];
        let timeout = Timespec::try_from(PATIENCE).unwrap();
        assert_eq!(poll(&mut fds, Some(&timeout)), Ok(1), "slept for {PATIENCE:?} in vain");
    }
    Ok(())
}

/// A frame as a requester would make it.
pub(super) fn frame(
    kind: FrameKind,
    psn: u64,
    offset: u64,
    len: usize,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let header = Header {
        kind,
        flags,
        len,
        psn,
        wr_id: psn + 100,
        offset,
        window: WINDOW.0,
        generation: GENERATION.0,
    };
    encode(header, payload)
}

pub(super) fn encode(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; FRAME_HEADER_BYTES];
    header.encode(payload, bytes.first_chunk_mut().unwrap());
    bytes.extend_from_slice(payload);
    bytes
}
