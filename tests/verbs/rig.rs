//! A queue and the memory at its other end, without a region, a holder or a lane between.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mirrorbus::Mapping;
use mirrorbus::fabric::verbs::bare::{BarePeer, BareQueue, connect_queue};
use mirrorbus::fabric::verbs::{Connector, VerbsQueue};
use mirrorbus::fabric::{Completion, Operation, Queue, QueueError, WindowId, WorkRequest};
use mirrorbus::memory::MapOptions;

use crate::common::{RDMA_ADDRESS, soon};

/// How long any step may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The address of the device under test.
pub(crate) fn device_address() -> SocketAddr {
    let address = std::env::var(RDMA_ADDRESS).unwrap_or_else(|_| panic!("{RDMA_ADDRESS} is not set"));
    SocketAddr::new(address.parse().unwrap(), 0)
}

/// Memory that a peer exports, with the thread that lets queues in.
pub(crate) struct Peer {
    pub(crate) memory: Arc<Mapping>,
    target: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<BarePeer>>,
}

impl Peer {
    pub(crate) fn new(size: usize) -> Self {
        let _ = env_logger::try_init();
        let memory = Arc::new(Mapping::anonymous(size, MapOptions::default()).unwrap());
        let mut peer = BarePeer::listen(device_address(), memory.clone()).unwrap();
        let target = SocketAddr::new(device_address().ip(), peer.port());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                peer.serve(&stop).unwrap();
                peer
            })
        };
        Self { memory, target, stop, thread: Some(thread) }
    }

    /// A queue into the memory, and this side's memory.
    pub(crate) fn queue(&self, depth: usize) -> (Connector, VerbsQueue, Arc<Mapping>) {
        let local = Arc::new(Mapping::anonymous(self.memory.len(), MapOptions::default()).unwrap());
        let (connector, queue) = connect_queue(self.target, local.clone(), depth, &mut soon()).unwrap();
        (connector, queue, local)
    }

    /// A bare queue into the memory.
    pub(crate) fn bare(&self, depth: usize) -> (BareQueue, Arc<Mapping>) {
        let local = Arc::new(Mapping::anonymous(self.memory.len(), MapOptions::default()).unwrap());
        (BareQueue::connect(self.target, local.clone(), depth, &mut soon()).unwrap(), local)
    }

    /// Lets nobody in any more; what was let in stands.
    pub(crate) fn quiet(&mut self) -> BarePeer {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn write(wr_id: u64, offset: usize, len: usize, signaled: bool) -> WorkRequest {
    WorkRequest {
        wr_id,
        operation: Operation::Write,
        window: WindowId(1),
        local_offset: offset,
        remote_offset: offset,
        len,
        signaled,
    }
}

pub(crate) fn flush(wr_id: u64) -> WorkRequest {
    WorkRequest { operation: Operation::Flush, ..write(wr_id, 0, 0, true) }
}

/// The next completion.
pub(crate) fn next(queue: &mut VerbsQueue) -> Result<Completion, QueueError> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(completion) = queue.poll()? {
            return Ok(completion);
        }
        assert!(Instant::now() < until, "nothing completes");
        std::thread::yield_now();
    }
}

/// Waits for the bare queue to complete request `number`.
pub(crate) fn complete(queue: &mut BareQueue, number: u64) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    while queue.poll()? != Some(number) {
        assert!(Instant::now() < until, "nothing completes");
        std::thread::yield_now();
    }
    Ok(())
}

pub(crate) fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)) == Ok(1)
}
