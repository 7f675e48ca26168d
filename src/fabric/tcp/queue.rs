//! The requester's side: a [`Queue`] over one connection.
//!
//! `post` copies the source into the outbox, computes the checksum on that private copy and is done with the source:
//! what the peer verifies is what was sent, whatever others store into the mapping meanwhile. `doorbell` hands the
//! outbox to the kernel; `poll` hands it what it could not take before, and takes answers.
//!
//! A slot is a request that wants an answer. Requests without one leave nothing to remember here: they are bounded by
//! the outbox and by TCP's own window, so any number of them may go between two signaled ones.
//!
//! The connection failing to send is not yet the queue's end: the peer's Nak may wait to be received, and it is the
//! better reason. From then on nothing more is taken, and `poll` reads on until it has the reason.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::buffer::{Outbox, Staging};
use super::frame::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_PAYLOAD_MAX, Frame, FrameDecoder, FrameKind, Header,
    NakReason, SIGNALED,
};
use super::wire::{Input, RECORD_PLAIN_MAX, RecordCipher, Wire, WireError};
use crate::base::{Generation, Medium, Unsupported};
use crate::fabric::{
    Armed, Capabilities, Completion, Grant, Operation, Queue, QueueError, SourceUse, WorkRequest,
};
use crate::memory::{Mapping, VolatileSlice};

/// Most requests outstanding that want an answer.
pub const DEPTH_MAX: usize = 4096;
/// Bytes of requests that wait for the kernel at most.
const OUTBOX_BYTES: usize = 512 << 10;
/// Bytes of answers received at once.
const STAGING_BYTES: usize = 384 << 10;
const _: () = assert!(OUTBOX_BYTES >= 2 * FRAME_BYTES_MAX);
const _: () = assert!(STAGING_BYTES >= FRAME_BYTES_MAX + RECORD_PLAIN_MAX);

/// A request that wants an answer.
#[derive(Debug, Clone, Copy)]
struct Outstanding {
    psn: u64,
    wr_id: u64,
    /// Where a Read puts its bytes: offset and length in the local mapping.
    read: Option<(usize, usize)>,
}

/// A queue over TCP.
pub struct TcpQueue {
    wire: Wire,
    local: Arc<Mapping>,
    grants: Vec<Grant>,
    capabilities: Capabilities,
    depth: usize,
    outbox: Outbox,
    staging: Staging,
    decoder: FrameDecoder,
    next_psn: u64,
    outstanding: VecDeque<Outstanding>,
    /// Bytes may wait in the staging buffer that were not looked at since they came.
    staged: bool,
    /// The caller may have slept on the socket: the next poll looks at it even with nothing outstanding.
    armed: bool,
    cannot_send: Option<QueueError>,
    failed: Option<QueueError>,
}

impl TcpQueue {
    /// A queue to the peer at the other end of `stream`, which is connected and authenticated.
    ///
    /// `local` is where requests read and write on this side, `grants` what the peer granted; `depth` is bounded by 1
    /// and [`DEPTH_MAX`]; `durable` says whether the peer can sync what backs its windows; `leftover` is what was
    /// received behind the handshake's last byte.
    #[must_use]
    pub fn new(
        stream: OwnedFd,
        local: Arc<Mapping>,
        grants: Vec<Grant>,
        depth: usize,
        durable: Result<(), Unsupported>,
        cipher: Option<Box<dyn RecordCipher>>,
        leftover: Vec<u8>,
    ) -> Self {
        let depth = depth.clamp(1, DEPTH_MAX);
        let (wire, leftover) = Wire::new(stream, cipher, leftover);
        let capabilities = Capabilities {
            medium: Medium::Tcp,
            message_bytes_max: FRAME_PAYLOAD_MAX,
            depth_max: DEPTH_MAX,
            source: SourceUse::AtPost,
            coalesce_bytes_max: FRAME_PAYLOAD_MAX,
            one_sided: false,
            visible_on_completion: true,
            durable,
        };
        Self {
            wire,
            local,
            grants,
            capabilities,
            depth,
            outbox: Outbox::new(OUTBOX_BYTES),
            staging: Staging::new(STAGING_BYTES, &leftover),
            decoder: FrameDecoder::new(),
            next_psn: 0,
            outstanding: VecDeque::with_capacity(depth),
            staged: !leftover.is_empty(),
            armed: true,
            cannot_send: None,
            failed: None,
        }
    }

    /// The grant that `request` lies within, or why there is none.
    #[inline]
    fn check(&self, request: &WorkRequest) -> Result<&Grant, QueueError> {
        Grant::admit(request, self.grants.iter(), |grant| grant, self.local.len(), FRAME_PAYLOAD_MAX)
    }

    /// Puts a checked request into the outbox; `false` when it finds no room.
    #[inline]
    fn encode(&mut self, request: &WorkRequest) -> Result<bool, QueueError> {
        let generation = self.check(request)?.generation;
        let (kind, len) = match request.operation {
            Operation::Write => (FrameKind::Write, request.len),
            Operation::Read => (FrameKind::Read, request.len),
            Operation::Flush => (FrameKind::Flush, 0),
        };
        let flags = if kind == FrameKind::Write && request.signaled { SIGNALED } else { 0 };
        let header = Header {
            kind,
            flags,
            len,
            psn: self.next_psn,
            wr_id: request.wr_id,
            offset: if kind == FrameKind::Flush { 0 } else { request.remote_offset as u64 },
            window: request.window.0,
            generation: generation.0,
        };
        if header.wants_answer() && self.outstanding.len() == self.depth {
            return Ok(false);
        }
        let carried = if kind.carries_payload() { len } else { 0 };
        let Some(frame) = self.outbox.reserve(FRAME_HEADER_BYTES + carried) else { return Ok(false) };
        let (head, payload) = frame.split_first_chunk_mut().expect("a frame is longer than its header");
        self.local.slice().read(request.local_offset * usize::from(carried > 0), payload);
        if self.local.lost() {
            self.outbox.unreserve(FRAME_HEADER_BYTES + carried);
            return Err(self.fail(QueueError::MappingLost { side: "local" }));
        }
        header.encode(payload, head);
        self.next_psn += 1;
        if header.wants_answer() {
            let read = (kind == FrameKind::Read).then_some((request.local_offset, len));
            self.outstanding.push_back(Outstanding { psn: header.psn, wr_id: request.wr_id, read });
        }
        Ok(true)
    }

    /// Hands the outbox to the kernel. A failure is kept for [`poll`](Queue::poll).
    #[inline]
    fn push(&mut self) {
        if self.cannot_send.is_none()
            && let Err(error) = self.outbox.push(&mut self.wire)
        {
            self.cannot_send = Some(wire_failure(error));
        }
    }

    fn fail(&mut self, error: QueueError) -> QueueError {
        self.failed.get_or_insert(error).clone()
    }

    fn alive(&self) -> Result<(), QueueError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// The next answer among the bytes at hand.
    #[inline]
    fn take_answer(&mut self) -> Result<Option<Completion>, QueueError> {
        if !self.staged {
            return Ok(None);
        }
        let bytes = self.staging.bytes();
        match self.decoder.decode(bytes) {
            Ok(None) => {
                self.staged = false;
                Ok(None)
            }
            Ok(Some(frame)) => {
                let completion = answer(&frame, &mut self.outstanding, &self.local, &self.grants)?;
                let taken = frame.wire_bytes();
                self.staging.consume(taken);
                self.staged = !self.staging.bytes().is_empty();
                Ok(Some(completion))
            }
            Err(error) => Err(QueueError::Protocol { why: error.to_string() }),
        }
    }

    /// Looks at the socket.
    #[inline]
    fn receive(&mut self) -> Result<bool, QueueError> {
        match self.staging.fill(&mut self.wire, false) {
            Ok(Input::Some) => {
                self.staged = true;
                Ok(true)
            }
            Ok(Input::None) => Ok(false),
            Err(error) => Err(wire_failure(error)),
        }
    }
}

/// What an answer completes; a Read's bytes go to the local mapping.
#[inline]
fn answer(
    frame: &Frame<'_>,
    outstanding: &mut VecDeque<Outstanding>,
    local: &Mapping,
    grants: &[Grant],
) -> Result<Completion, QueueError> {
    let header = &frame.header;
    let protocol = |why: String| QueueError::Protocol { why };
    match header.kind {
        FrameKind::Ack | FrameKind::ReadReply => {}
        FrameKind::Nak => return Err(refused(header, grants)),
        kind @ (FrameKind::Write | FrameKind::Read | FrameKind::Flush) => {
            return Err(protocol(format!("{kind:?} came as answer {}", header.psn)));
        }
    }
    loop {
        let Some(request) = outstanding.pop_front() else {
            let (psn, wr_id) = (header.offset, header.wr_id);
            return Err(protocol(format!(
                "answer to request {psn} of wr_id {wr_id:#x}, which is not outstanding"
            )));
        };
        let named = request.psn == header.offset && request.wr_id == header.wr_id;
        match (named, request.read, header.kind) {
            (true, None, FrameKind::Ack) => return Ok(Completion { wr_id: request.wr_id }),
            (true, Some((offset, len)), FrameKind::ReadReply) if len == header.len => {
                if VolatileSlice::are_few_words(offset, len) {
                    local.slice().write_words(offset, frame.payload);
                } else {
                    local.slice().write(offset, frame.payload);
                }
                if local.lost() {
                    return Err(QueueError::MappingLost { side: "local" });
                }
                return Ok(Completion { wr_id: request.wr_id });
            }
            (false, None, _) if request.psn < header.offset => {}
            _ => return Err(protocol(format!("{:?} {header:?} does not answer {request:?}", header.kind))),
        }
    }
}

fn refused(header: &Header, grants: &[Grant]) -> QueueError {
    let granted = grants.iter().map(|grant| grant.generation).max().unwrap_or(Generation(0));
    match NakReason::from_wire(header.flags) {
        Some(NakReason::Revoked | NakReason::StaleGeneration) => QueueError::Revoked { granted },
        Some(NakReason::MappingLost) => QueueError::MappingLost { side: "peer's" },
        reason => {
            let why = reason.map_or_else(|| format!("reason {}", header.flags), |reason| reason.to_string());
            let (psn, wr_id) = (header.offset, header.wr_id);
            QueueError::Protocol { why: format!("the peer refused request {psn} (wr_id {wr_id:#x}): {why}") }
        }
    }
}

fn wire_failure(error: WireError) -> QueueError {
    match error {
        WireError::Gone(why) => QueueError::PeerGone { why },
        WireError::Cipher(why) => QueueError::Protocol { why: format!("sealed record: {why}") },
    }
}

impl Queue for TcpQueue {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn post(&mut self, requests: &[WorkRequest]) -> Result<usize, QueueError> {
        self.alive()?;
        if self.cannot_send.is_some() {
            return Ok(0);
        }
        if requests.len() > 1 {
            requests.iter().try_for_each(|request| self.check(request).map(|_| ()))?;
        }
        for (taken, request) in requests.iter().enumerate() {
            if !self.encode(request)? {
                return Ok(taken);
            }
        }
        Ok(requests.len())
    }

    fn doorbell(&mut self) -> Result<(), QueueError> {
        self.alive()?;
        self.push();
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<Completion>, QueueError> {
        self.alive()?;
        if self.wants_write() {
            self.push();
        }
        loop {
            match self.take_answer() {
                Ok(None) => {}
                Ok(completion) => return Ok(completion),
                Err(error) => return Err(self.fail(error)),
            }
            if self.outstanding.is_empty() && !self.armed && self.cannot_send.is_none() {
                return Ok(None);
            }
            self.armed = false;
            match (self.receive(), self.cannot_send.clone()) {
                (Ok(true), _) => {}
                (Ok(false), None) => return Ok(None),
                (Ok(false) | Err(_), Some(error)) | (Err(error), None) => return Err(self.fail(error)),
            }
        }
    }

    fn free_slots(&self) -> usize {
        self.depth - self.outstanding.len()
    }

    fn arm(&mut self) -> Result<Armed, QueueError> {
        self.alive()?;
        self.armed = true;
        let ready = self.staged || self.cannot_send.is_some();
        Ok(if ready { Armed::PollAgain } else { Armed::Sleep })
    }

    fn syscalls(&self) -> Option<u64> {
        Some(self.wire.calls())
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wire.fd())
    }

    fn wants_write(&self) -> bool {
        self.cannot_send.is_none() && (!self.outbox.is_empty() || self.wire.backlog())
    }
}
