//! A queue over an RDMA connection.
//!
//! `post` builds a request where it lies, `doorbell` hands the batch to the device. A place in the send queue is free again
//! when a signaled request behind it completed ([`Slots`](super::slots)). The device reads the source of a write whenever
//! it likes until then; what is small enough to travel within the request is read at the doorbell.
//!
//! A flush is a read of a few bytes of the window: by the rules of the wire it is answered after every write before it is
//! visible to the peer's processor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rdma_sys::{ibv_wc, ibv_wc_status};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::batch::{BATCH_MAX, Batch, Request};
use super::connection::Connection;
use super::slots::Slots;
use super::watch::Watch;
use super::{CompletionQueue, MemoryRegion, RemoteWindow, VerbsError};
use crate::base::{Medium, Unsupported};
use crate::fabric::{
    Armed, Capabilities, Completion, Grant, Operation, Queue, QueueError, SourceUse, WorkRequest,
};

/// Completions taken at once.
const COMPLETIONS_MAX: usize = 16;
/// Bytes that a flush reads.
const FLUSH_BYTES: usize = 8;
/// Stores gathered into one write: long enough that the cost of a request vanishes in it.
const COALESCE_BYTES: usize = 128 * 1024;
/// The longest message, where a device allows longer: one request is one completion, and holds up what is behind it.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Memory that this side's requests read and write.
#[derive(Debug)]
pub(super) struct LocalRegions {
    pub(super) local: MemoryRegion,
    /// Whether reads may go there.
    pub(super) target: bool,
    /// Where flushes read to; what comes there means nothing.
    pub(super) scratch: MemoryRegion,
}

/// Reads under way: the number of the last, and the local bytes that all of them span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    last: u64,
    start: usize,
    end: usize,
}

impl Reading {
    const fn touches(self, offset: usize, len: usize) -> bool {
        len > 0 && offset < self.end && self.start < offset + len
    }
}

/// What a queue is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) connection: Arc<Connection>,
    pub(super) completions: Arc<CompletionQueue>,
    pub(super) regions: Arc<LocalRegions>,
    pub(super) windows: Vec<RemoteWindow>,
    pub(super) watch: Arc<Watch>,
    pub(super) depth: usize,
    pub(super) message_bytes_max: usize,
    pub(super) durable: Result<(), Unsupported>,
}

/// A queue over an RDMA connection.
pub struct VerbsQueue {
    pub(super) connection: Arc<Connection>,
    pub(super) completions: Arc<CompletionQueue>,
    pub(super) regions: Arc<LocalRegions>,
    pub(super) windows: Vec<RemoteWindow>,
    watch: Arc<Watch>,
    capabilities: Capabilities,
    pub(super) inline_bytes_max: usize,
    slots: Slots,
    pub(super) batch: Batch,
    /// Reads into the region that may be under way: writes from where they put their bytes wait for them in the device.
    reading: Option<Reading>,
    taken: Box<[ibv_wc]>,
    /// Of `taken`, those still to be looked at.
    next: usize,
    end: usize,
    armed: bool,
    /// Something was taken since it was armed, or slept for: there may be an event to be taken.
    event_may_wait: bool,
    /// Readable when a completion came, once armed, or the queue failed.
    event: OwnedFd,
}

impl std::fmt::Debug for VerbsQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerbsQueue").field("slots", &self.slots).field("windows", &self.windows).finish()
    }
}

impl VerbsQueue {
    pub(super) fn new(parts: Parts) -> Result<Self, VerbsError> {
        let Parts { connection, completions, regions, windows, watch, depth, message_bytes_max, durable } =
            parts;
        assert!(completions.capacity() >= depth, "{} completions, {depth} requests", completions.capacity());
        let event =
            epoll::create(CreateFlags::CLOEXEC).map_err(|error| VerbsError::system("epoll_create", error))?;
        for fd in [completions.fd(), connection.life.fd()] {
            epoll::add(&event, fd, EventData::new_u64(0), EventFlags::IN)
                .map_err(|error| VerbsError::system("epoll_ctl", error))?;
        }
        let capabilities = Capabilities {
            medium: Medium::Rdma,
            message_bytes_max: message_bytes_max.min(MESSAGE_BYTES_MAX),
            depth_max: depth,
            source: SourceUse::UntilCompleted,
            coalesce_bytes_max: COALESCE_BYTES.min(message_bytes_max),
            one_sided: true,
            visible_on_completion: false,
            durable,
        };
        // SAFETY: all zeroes is a value of this struct of numbers.
        let taken = (0..COMPLETIONS_MAX).map(|_| unsafe { std::mem::zeroed() }).collect();
        Ok(Self {
            inline_bytes_max: connection.queue_pair.inline_bytes_max(),
            connection,
            completions,
            regions,
            windows,
            watch,
            capabilities,
            slots: Slots::new(depth),
            batch: Batch::new(),
            reading: None,
            taken,
            next: 0,
            end: 0,
            armed: false,
            event_may_wait: false,
            event,
        })
    }

    /// The window that `request` lies within, or why there is none.
    #[inline]
    fn check(&self, request: &WorkRequest) -> Result<RemoteWindow, QueueError> {
        let WorkRequest { window, remote_offset, len, operation, .. } = *request;
        if operation == Operation::Read && !self.regions.target {
            return Err(QueueError::OutOfRange { window, offset: remote_offset, len, limit: 0 });
        }
        let local_bytes = self.regions.local.memory().len();
        let bytes_max = self.capabilities.message_bytes_max;
        let windows = self.windows.iter();
        Grant::admit(request, windows, |window| &window.grant, local_bytes, bytes_max).copied()
    }

    #[inline]
    fn build(&mut self, request: &WorkRequest, window: RemoteWindow) {
        let (wanted, read) = match request.operation {
            Operation::Write => (request.signaled, false),
            Operation::Read | Operation::Flush => (true, true),
        };
        let (number, signaled) = self.slots.take(request.wr_id, wanted);
        assert!(
            self.slots.outstanding() <= self.completions.capacity(),
            "{} requests may complete, {} completions have room",
            self.slots.outstanding(),
            self.completions.capacity()
        );
        let (region, local_offset, remote_offset, len) = if request.operation == Operation::Flush {
            (&self.regions.scratch, 0, 0, FLUSH_BYTES.min(window.grant.len))
        } else {
            (&self.regions.local, request.local_offset, request.remote_offset, request.len)
        };
        let reading = self.reading.filter(|reading| !self.slots.is_retired(reading.last));
        self.batch.push(Request {
            number,
            read,
            signaled,
            inline: !read && len <= self.inline_bytes_max && len > 0,
            // A write's source may be where a read before it puts its bytes; the device keeps that order only if asked.
            fence: !read && reading.is_some_and(|reading| reading.touches(local_offset, len)),
            local: region.address() + local_offset as u64,
            local_key: region.local_key(),
            len: u32::try_from(len).expect("at most the longest message"),
            remote: window.address + remote_offset as u64,
            remote_key: window.key,
        });
        if request.operation == Operation::Read {
            let before = reading.unwrap_or(Reading { last: number, start: local_offset, end: local_offset });
            let (start, end) = (before.start.min(local_offset), before.end.max(local_offset + len));
            self.reading = Some(Reading { last: number, start, end });
        }
    }

    #[inline]
    fn hand_over(&mut self) -> Result<(), QueueError> {
        let queue_pair = &self.connection.queue_pair;
        // SAFETY: every request of the batch was checked to lie within its memory region; `regions` keeps that registered
        // and mapped until the queue pair, which `connection` holds, is destroyed: see `Drop`.
        let handed = self.batch.hand_over(|first| unsafe { queue_pair.post(first) });
        handed.map_err(|error| {
            self.connection.fail(QueueError::System { call: "ibv_post_send", error: error.to_string() })
        })
    }

    /// What a completion says.
    fn judge(&mut self, status: ibv_wc_status::Type, number: u64) -> Result<Option<Completion>, QueueError> {
        if status != ibv_wc_status::IBV_WC_SUCCESS {
            return Err(self.connection.fail(self.cause_of(status)));
        }
        self.slots.complete(number).map_err(|expected| {
            let why = format!("the device completed request {number}, the next is {expected:?}");
            self.connection.fail(QueueError::Protocol { why })
        })
    }

    /// Why a request failed. The first failure in a send queue is the cause of all behind it.
    fn cause_of(&self, status: ibv_wc_status::Type) -> QueueError {
        match status {
            ibv_wc_status::IBV_WC_RETRY_EXC_ERR => {
                QueueError::PeerGone { why: "its device did not answer, however often it was asked".into() }
            }
            ibv_wc_status::IBV_WC_WR_FLUSH_ERR => {
                QueueError::PeerGone { why: "the queue pair was stopped".into() }
            }
            ibv_wc_status::IBV_WC_REM_ACCESS_ERR => {
                QueueError::Revoked { granted: self.windows[0].grant.generation }
            }
            ibv_wc_status::IBV_WC_REM_INV_REQ_ERR | ibv_wc_status::IBV_WC_REM_OP_ERR => {
                QueueError::Protocol {
                    why: format!("the peer's device refused a request: {}", text_of(status)),
                }
            }
            _ => QueueError::System { call: "a work request", error: text_of(status) },
        }
    }
}

pub(super) fn text_of(status: ibv_wc_status::Type) -> String {
    // SAFETY: gives a constant string for any number.
    let text = unsafe { rdma_sys::ibv_wc_status_str(status) };
    // SAFETY: as above.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl Queue for VerbsQueue {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn post(&mut self, requests: &[WorkRequest]) -> Result<usize, QueueError> {
        self.connection.life.check()?;
        if requests.len() > 1 {
            requests.iter().try_for_each(|request| self.check(request).map(|_| ()))?;
        }
        for (taken, request) in requests.iter().enumerate() {
            let window = self.check(request)?;
            if self.slots.free() == 0 {
                return Ok(taken);
            }
            self.build(request, window);
            if self.batch.is_full() {
                self.hand_over()?;
            }
        }
        Ok(requests.len())
    }

    fn doorbell(&mut self) -> Result<(), QueueError> {
        self.connection.life.check()?;
        self.hand_over()
    }

    fn poll(&mut self) -> Result<Option<Completion>, QueueError> {
        self.connection.life.check()?;
        loop {
            while self.next < self.end {
                let (status, number) = (self.taken[self.next].status, self.taken[self.next].wr_id);
                self.next += 1;
                if let Some(completion) = self.judge(status, number)? {
                    return Ok(Some(completion));
                }
            }
            let end = self.completions.poll(&mut self.taken).map_err(|error| {
                self.connection.fail(QueueError::System { call: "ibv_poll_cq", error: error.to_string() })
            })?;
            (self.next, self.end) = (0, end);
            if end == 0 {
                return Ok(None);
            }
            self.event_may_wait = true;
        }
    }

    fn free_slots(&self) -> usize {
        self.slots.free()
    }

    fn arm(&mut self) -> Result<Armed, QueueError> {
        self.connection.life.check()?;
        if self.next < self.end {
            return Ok(Armed::PollAgain);
        }
        // What came since and was not taken has made the event readable: a sleep ends at once. Behind that one the event is looked for in any
        // case, so that none stays there that nothing is taken for.
        if self.armed && !std::mem::replace(&mut self.event_may_wait, true) {
            return Ok(Armed::Sleep);
        }
        if self.completions.take_event() {
            self.armed = false;
        }
        if self.armed {
            return Ok(Armed::Sleep);
        }
        self.completions.arm().map_err(|error| {
            self.connection
                .fail(QueueError::System { call: "arming the completion queue", error: error.to_string() })
        })?;
        (self.armed, self.event_may_wait) = (true, false);
        // What completed before it was asked for tells nobody.
        Ok(Armed::PollAgain)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.event.as_fd())
    }
}

impl Drop for VerbsQueue {
    fn drop(&mut self) {
        self.watch.forget(&self.connection);
        // The device may be reading the local memory: the queue pair ends before that is deregistered. The watch may hold
        // the connection a moment longer, but a stopped queue pair reads nothing.
        let _ = self.connection.queue_pair.stop();
    }
}

const _: () = assert!(BATCH_MAX >= COMPLETIONS_MAX);
