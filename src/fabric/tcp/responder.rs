//! The responder: bytes of requests in, changes of windows and bytes of answers out. No I/O and no clock, so that
//! the same code runs behind a socket, in tests and under a fuzzer.
//!
//! Invariants:
//! * A byte of a window changes only by a Write that passed every check, while the window is entered.
//! * Answers are in the order of their requests. An Ack is made after everything up to its request is in place, and
//!   at the latest when the input given to [`Responder::handle`] is used up.
//! * A request is looked at only while there is room for its answer. After a Nak nothing is looked at any more.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::buffer::Outbox;
use super::frame::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, Frame, FrameDecoder, FrameError, FrameKind, Header, NakReason,
};
use crate::fabric::{Access, ExportedWindow};
use crate::memory::VolatileSlice;

/// What [`Responder::handle`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Requests wait for room in the outbox: drain it, then give the rest of the input again.
    pub blocked: bool,
}

/// Why a responder refused to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A frame that was in order asked for what is not granted.
    #[error("request {psn} of wr_id {wr_id:#x} was refused: {reason}")]
    Request {
        /// Its number.
        psn: u64,
        /// Its id.
        wr_id: u64,
        /// Why.
        reason: NakReason,
    },
    /// The bytes were not the frame that was due.
    #[error(transparent)]
    Garbled(#[from] FrameError),
}

/// Applies one connection's requests to the windows granted to it.
#[derive(Debug)]
pub struct Responder {
    windows: Vec<Arc<ExportedWindow>>,
    decoder: FrameDecoder,
    answer_psn: u64,
    owed: Option<Owed>,
    refusal: Option<Refusal>,
    frames: u64,
    bytes: u64,
}

/// The Ack that the requests applied so far have coming.
#[derive(Debug, Clone, Copy)]
struct Owed {
    psn: u64,
    wr_id: u64,
}

impl Responder {
    /// Room that an outbox needs at least: the longest answer beside an Ack and a Nak.
    pub const OUTBOX_BYTES_MIN: usize = FRAME_BYTES_MAX + 2 * FRAME_HEADER_BYTES;

    /// Serves `windows`.
    #[must_use]
    pub const fn new(windows: Vec<Arc<ExportedWindow>>) -> Self {
        let decoder = FrameDecoder::new();
        Self { windows, decoder, answer_psn: 0, owed: None, refusal: None, frames: 0, bytes: 0 }
    }

    /// Requests carried out.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Payload bytes that entered windows or left them.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Why nothing is carried out any more, once that is so. The Nak is in the outbox by then.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Carries out the complete frames at the start of `input`, as far as `outbox` has room for the answers. Called
    /// with no input it changes nothing.
    ///
    /// # Panics
    /// When `outbox` holds nothing and yet has no room for the longest answer.
    pub fn handle(&mut self, input: &[u8], outbox: &mut Outbox) -> Step {
        let mut consumed = 0;
        let mut blocked = false;
        while self.refusal.is_none() {
            // Room for the Ack owed, and the Nak that this request may meet.
            if !has_room(outbox, 2 * FRAME_HEADER_BYTES) {
                blocked = true;
                break;
            }
            let mut decoder = self.decoder.clone();
            match decoder.decode(&input[consumed..]) {
                Ok(None) => break,
                Ok(Some(frame)) => match self.carry_out(&frame, outbox) {
                    Ok(true) => {
                        self.decoder = decoder;
                        consumed += frame.wire_bytes();
                        self.frames += 1;
                    }
                    Ok(false) => {
                        blocked = true;
                        break;
                    }
                    Err(refusal) => self.refuse(refusal, outbox),
                },
                Err(error) => self.refuse(Refusal::Garbled(error), outbox),
            }
        }
        if let Some(owed) = self.owed.take() {
            self.answer(FrameKind::Ack, 0, owed.psn, owed.wr_id, outbox);
        }
        Step { consumed, blocked }
    }

    /// `false` when the answer finds no room now.
    fn carry_out(&mut self, frame: &Frame<'_>, outbox: &mut Outbox) -> Result<bool, Refusal> {
        let header = &frame.header;
        let refuse = |reason| Refusal::Request { psn: header.psn, wr_id: header.wr_id, reason };
        match header.kind {
            FrameKind::Write => self.write(frame).map_err(refuse)?,
            FrameKind::Read => {
                if !self.read(header, outbox).map_err(refuse)? {
                    return Ok(false);
                }
                // The reply completes all before it.
                self.owed = None;
                return Ok(true);
            }
            FrameKind::Flush => {
                // Frames are applied here in order by plain stores; the fence puts them before the Ack for every
                // other processor, whatever the medium of the Ack.
                fence(Ordering::SeqCst);
                let window = self.window(header).map_err(refuse)?;
                let Some(_guard) = window.enter() else { return Err(refuse(NakReason::Revoked)) };
                lost(window).map_err(refuse)?;
            }
            FrameKind::ReadReply | FrameKind::Ack | FrameKind::Nak => {
                return Err(FrameError::Kind { psn: header.psn, found: header.kind as u8 }.into());
            }
        }
        if header.wants_answer() {
            self.owed = Some(Owed { psn: header.psn, wr_id: header.wr_id });
        }
        Ok(true)
    }

    #[inline]
    fn window(&self, header: &Header) -> Result<&ExportedWindow, NakReason> {
        let window = self.windows.iter().find(|window| window.grant().window.0 == header.window);
        let window = window.ok_or(NakReason::UnknownWindow)?;
        if window.grant().generation.0 != header.generation {
            return Err(NakReason::StaleGeneration);
        }
        Ok(window)
    }

    #[inline]
    fn write(&mut self, frame: &Frame<'_>) -> Result<(), NakReason> {
        let header = &frame.header;
        let window = self.window(header)?;
        if window.grant().access != Access::ReadWrite {
            return Err(NakReason::ReadOnly);
        }
        let guard = window.enter().ok_or(NakReason::Revoked)?;
        let offset = usize::try_from(header.offset).map_err(|_| NakReason::OutOfRange)?;
        let target = guard.range(offset, header.len).ok_or(NakReason::OutOfRange)?;
        target.write(0, frame.payload);
        drop(guard);
        lost(window)?;
        self.bytes += header.len as u64;
        Ok(())
    }

    fn read(&mut self, header: &Header, outbox: &mut Outbox) -> Result<bool, NakReason> {
        let window = self.window(header)?;
        let guard = window.enter().ok_or(NakReason::Revoked)?;
        let offset = usize::try_from(header.offset).map_err(|_| NakReason::OutOfRange)?;
        let source = guard.range(offset, header.len).ok_or(NakReason::OutOfRange)?;
        let len = FRAME_HEADER_BYTES + header.len;
        // Beside the reply there must stay room for the Ack or Nak that ends the batch.
        if !has_room(outbox, len + 2 * FRAME_HEADER_BYTES) {
            return Ok(false);
        }
        let frame = outbox.reserve(len).expect("the room was checked");
        let (head, payload) = frame.split_first_chunk_mut().expect("a frame is longer than its header");
        if VolatileSlice::are_few_words(offset, header.len) {
            source.read_words(0, payload);
        } else {
            source.read(0, payload);
        }
        drop(guard);
        if let Err(reason) = lost(window) {
            outbox.unreserve(len);
            return Err(reason);
        }
        let reply = Header {
            kind: FrameKind::ReadReply,
            flags: 0,
            psn: self.answer_psn,
            offset: header.psn,
            ..*header
        };
        reply.encode(payload, head);
        self.answer_psn += 1;
        self.bytes += header.len as u64;
        Ok(true)
    }

    /// Acknowledges what was carried out, then says that nothing more will be.
    fn refuse(&mut self, refusal: Refusal, outbox: &mut Outbox) {
        if let Some(owed) = self.owed.take() {
            self.answer(FrameKind::Ack, 0, owed.psn, owed.wr_id, outbox);
        }
        let (psn, wr_id, reason) = match refusal {
            Refusal::Request { psn, wr_id, reason } => (psn, wr_id, reason),
            Refusal::Garbled(_) => (self.decoder.next_psn(), 0, NakReason::Garbled),
        };
        self.answer(FrameKind::Nak, reason as u8, psn, wr_id, outbox);
        self.refusal = Some(refusal);
    }

    fn answer(&mut self, kind: FrameKind, flags: u8, psn: u64, wr_id: u64, outbox: &mut Outbox) {
        let header = Header {
            kind,
            flags,
            len: 0,
            psn: self.answer_psn,
            wr_id,
            offset: psn,
            window: 0,
            generation: 0,
        };
        let frame =
            outbox.reserve(FRAME_HEADER_BYTES).expect("a request is looked at only with room to answer");
        header.encode(&[], frame.try_into().expect("a header was reserved"));
        self.answer_psn += 1;
    }
}

/// Whether `len` bytes find room.
#[inline]
fn has_room(outbox: &mut Outbox, len: usize) -> bool {
    let room = outbox.reserve(len).is_some();
    if room {
        outbox.unreserve(len);
    }
    assert!(room || !outbox.is_empty(), "an empty outbox has no room for {len} bytes");
    room
}

#[inline]
fn lost(window: &ExportedWindow) -> Result<(), NakReason> {
    if window.mapping().lost() { Err(NakReason::MappingLost) } else { Ok(()) }
}
