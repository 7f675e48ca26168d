//! The receiver: the loop that feeds a [`Responder`] from a socket, in a thread that the caller makes.
//!
//! It looks for bytes without sleeping for [`Receiver::new`]'s `spin` after the last ones came, then sleeps in the
//! kernel; with zero it sleeps at once. It takes no further bytes while answers wait for room, so that a requester
//! which does not take its answers is held back by TCP itself.
//!
//! When it ends by itself after a Nak, it closes its sending side and goes on to receive and drop bytes until the
//! peer closes: closing with bytes unread would reset the connection and could destroy the Nak on its way.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::buffer::{Outbox, Staging};
use super::responder::{Refusal, Responder};
use super::wire::{Input, RecordCipher, Wire, WireError};
use crate::fabric::ExportedWindow;

/// Bytes received at once. Small enough to be in the processor's own cache still when they are verified and copied.
const STAGING_BYTES: usize = 512 << 10;
/// Bytes of answers that wait at most.
const OUTBOX_BYTES: usize = 512 << 10;
const _: () = assert!(OUTBOX_BYTES >= 2 * Responder::OUTBOX_BYTES_MIN);
const _: () = assert!(STAGING_BYTES >= 2 * super::frame::FRAME_BYTES_MAX + super::wire::RECORD_PLAIN_MAX);
/// Longest sleep: after so long at most, a stop is seen.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Longest time spent on telling the peer why we end.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// Empty looks at the socket between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 16;

/// Why a receiver ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiverEndReason {
    /// It was told to.
    #[error("stopped")]
    Stopped,
    /// The connection is gone.
    #[error("the peer is gone: {why}")]
    PeerGone {
        /// What was seen.
        why: String,
    },
    /// The peer asked for what is not granted, or sent what is no frame.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A record did not open.
    #[error("a sealed record was refused: {why}")]
    Cipher {
        /// What the cipher said.
        why: String,
    },
}

/// What a receiver did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiverCounts {
    /// Requests carried out.
    pub frames: u64,
    /// Payload bytes that entered windows or left them.
    pub bytes: u64,
}

/// The end of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverEnd {
    /// Why.
    pub reason: ReceiverEndReason,
    /// What it did before.
    pub counts: ReceiverCounts,
}

/// One connection's responder, with its socket.
pub struct Receiver {
    wire: Wire,
    staging: Staging,
    outbox: Outbox,
    responder: Responder,
    spin: Duration,
}

impl Receiver {
    /// Serves `windows` to the requester at the other end of `stream`, which is connected and authenticated.
    /// `leftover` is what was received behind the handshake's last byte.
    #[must_use]
    pub fn new(
        stream: OwnedFd,
        windows: Vec<Arc<ExportedWindow>>,
        spin: Duration,
        cipher: Option<Box<dyn RecordCipher>>,
        leftover: Vec<u8>,
    ) -> Self {
        let (wire, leftover) = Wire::new(stream, cipher, leftover);
        Self {
            wire,
            staging: Staging::new(STAGING_BYTES, &leftover),
            outbox: Outbox::new(OUTBOX_BYTES),
            responder: Responder::new(windows),
            spin,
        }
    }

    /// Serves until the connection ends, the peer is refused, or `stop` is set; a stop is seen within 50 ms, and at
    /// once when the caller also shuts a duplicate of the socket down.
    pub fn run(&mut self, stop: &AtomicBool) -> ReceiverEnd {
        let reason = match self.wire.set_patience(SLEEP_MAX).and_then(|()| self.serve(stop)) {
            Ok(()) => match self.responder.refusal() {
                Some(refusal) => {
                    self.farewell(stop);
                    refusal.into()
                }
                None => ReceiverEndReason::Stopped,
            },
            Err(WireError::Gone(why)) => ReceiverEndReason::PeerGone { why },
            Err(WireError::Cipher(why)) => ReceiverEndReason::Cipher { why },
        };
        ReceiverEnd { reason, counts: self.counts() }
    }

    /// What was done so far.
    #[must_use]
    pub const fn counts(&self) -> ReceiverCounts {
        ReceiverCounts { frames: self.responder.frames(), bytes: self.responder.bytes() }
    }

    /// Serves until stopped or refused.
    fn serve(&mut self, stop: &AtomicBool) -> Result<(), WireError> {
        while !stop.load(Ordering::Relaxed) {
            let step = self.responder.handle(self.staging.bytes(), &mut self.outbox);
            self.staging.consume(step.consumed);
            self.outbox.push(&mut self.wire)?;
            if self.responder.refusal().is_some() {
                break;
            }
            if step.blocked {
                self.sleep_for_room(PollFlags::OUT)?;
            } else if !self.answers_wait() {
                self.await_input(stop)?;
            } else if self.staging.fill(&mut self.wire, false)? == Input::None {
                self.sleep_for_room(PollFlags::IN | PollFlags::OUT)?;
            }
        }
        Ok(())
    }

    fn answers_wait(&self) -> bool {
        !self.outbox.is_empty() || self.wire.backlog()
    }

    /// Receives: spins first, then sleeps, [`SLEEP_MAX`] at most.
    fn await_input(&mut self, stop: &AtomicBool) -> Result<(), WireError> {
        if !self.spin.is_zero() {
            let mut began = None;
            loop {
                for _ in 0..LOOKS_PER_CLOCK {
                    if self.staging.fill(&mut self.wire, false)? == Input::Some {
                        return Ok(());
                    }
                }
                // The clock starts after the first empty looks: it is not read while bytes come all the time.
                if began.get_or_insert_with(Instant::now).elapsed() >= self.spin {
                    break;
                }
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
        }
        self.staging.fill(&mut self.wire, true)?;
        Ok(())
    }

    /// Sleeps until the socket is ready, [`SLEEP_MAX`] at most.
    fn sleep_for_room(&self, events: PollFlags) -> Result<(), WireError> {
        let timeout = Timespec::try_from(SLEEP_MAX).expect("a constant of milliseconds");
        match poll(&mut [PollFd::from_borrowed_fd(self.wire.fd(), events)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(WireError::Gone(format!("poll: {error}"))),
        }
    }

    /// Sees the Nak off; see the head of this file.
    fn farewell(&mut self, stop: &AtomicBool) {
        let end = Instant::now() + FAREWELL_MAX;
        let over = || Instant::now() >= end || stop.load(Ordering::Relaxed);
        while self.answers_wait() && !over() {
            if self.sleep_for_room(PollFlags::OUT).is_err() || self.outbox.push(&mut self.wire).is_err() {
                return;
            }
        }
        self.wire.finish_sending();
        let mut scratch = Vec::with_capacity(STAGING_BYTES);
        while !over() && self.wire.discard(&mut scratch) {}
    }
}
