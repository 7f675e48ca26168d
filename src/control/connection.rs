//! The control connection: one per pair of peers, authenticated both ways, with channels for the application.
//!
//! ```text
//!               prefaces, Noise        first record                close(), or Close came
//!   Opening ───────────────────▶ AwaitHello ──────▶ Established ───────────▶ Closing
//!      │                              │                  │  │ Close came         │ Close came,
//!      │ close()                      │ close()          │  └─────────────▶ Closed ◀── or CLOSE_TIME_MAX
//!      ├──────────────────────────────┴──────────────────┼─────────────────────▲  │
//!      ▼ any error, from any state but Closed            ▼                        (final)
//!   Failed (final, keeps the cause)
//! ```
//!
//! * Established comes once, after the peer's first record decrypted: not before is the peer authenticated.
//! * Exactly one [`Event::Closed`] comes, last. After it bytes of the peer are dropped (Closed) or answered with the
//!   cause (Failed).
//! * Silence does not close: a peer that is stopped may still take stores on a one-sided medium. The layer above
//!   decides. Only messages that passed their tag count as heard.
//! * What waits is bounded: [`SEND_QUEUE_BYTES_MAX`] and one heartbeat or close message of queued bytes,
//!   [`EVENTS_MAX`] events, one incomplete record.

use std::time::Instant;

use super::config::ConnectionConfig;
use super::link::{Close, Link, Shell, Side};
use super::message::{Incoming, encode_close};
use super::noise::RECORD_OVERHEAD;
use super::opening::{Opened, Opening};
use super::preface::{Preface, PrefaceKind};
use super::{
    CLOSE_TIME_MAX, Channel, CloseReason, ControlError, Ended, Event, HANDSHAKE_TIME_MAX, KeySet,
    MESSAGE_BYTES_MAX, SEND_QUEUE_BYTES_MAX, SendError, State,
};

#[derive(Debug)]
enum Phase {
    Opening { opening: Opening, deadline: Instant },
    AwaitHello { opened: Box<Opened>, deadline: Instant },
    Established(Box<Link>),
    Closing { link: Box<Link>, reason: CloseReason, deadline: Instant },
    Closed,
    Failed(ControlError),
}

/// One control connection, without its socket.
#[derive(Debug)]
pub struct Connection {
    phase: Phase,
    shell: Shell,
}

impl Connection {
    /// The side that connected. Uses the first key.
    #[must_use]
    pub fn initiate(config: ConnectionConfig, keys: &KeySet, now: Instant) -> Self {
        let own =
            Preface { kind: PrefaceKind::Control, refusal: None, versions: config.versions, session: None };
        let mut shell = Shell::new(Side::Initiator, config.hello);
        let opening = Opening::initiate(own, keys.first().clone(), &mut shell.outgoing);
        Self { phase: Phase::Opening { opening, deadline: now + HANDSHAKE_TIME_MAX }, shell }
    }

    /// The side that was connected to. Accepts any of the keys. Feed it the stream from its first byte, preface
    /// included.
    #[must_use]
    pub fn accept(config: ConnectionConfig, keys: &KeySet, now: Instant) -> Self {
        let opening = Opening::accept(PrefaceKind::Control, config.versions, Some(keys.secrets()));
        let shell = Shell::new(Side::Responder, config.hello);
        Self { phase: Phase::Opening { opening, deadline: now + HANDSHAKE_TIME_MAX }, shell }
    }

    /// Takes bytes that came from the peer, however split. Give at most 64 KiB and drain [`Connection::poll_event`]
    /// after each call.
    ///
    /// # Errors
    /// The cause, when the connection fails or has failed. [`Connection::poll_transmit`] may still have a refusal to
    /// send.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), ControlError> {
        self.check_handshake_deadline(now)?;
        loop {
            match self.advance(&mut bytes, now) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(cause) => return Err(self.fail(cause)),
            }
        }
    }

    /// Takes note that the peer's stream ended.
    ///
    /// # Errors
    /// [`ControlError::Truncated`] when that was not in good order, or the earlier cause.
    pub fn handle_eof(&mut self) -> Result<(), ControlError> {
        let during = match &self.phase {
            Phase::Opening { .. } | Phase::AwaitHello { .. } => "during the handshake",
            Phase::Established(_) => "without a close",
            Phase::Closing { reason, .. } => {
                let reason = Ended::ByUs(*reason);
                self.close_with(reason);
                return Ok(());
            }
            Phase::Closed => return Ok(()),
            Phase::Failed(cause) => return Err(cause.clone()),
        };
        Err(self.fail(ControlError::Truncated { during }))
    }

    /// Queues a message of at most [`MESSAGE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was queued.
    pub fn send(&mut self, channel: Channel, body: &[u8]) -> Result<(), SendError> {
        let link = match &mut self.phase {
            Phase::Established(link) => link,
            Phase::Opening { .. } | Phase::AwaitHello { .. } => return Err(SendError::NotEstablished),
            Phase::Closing { .. } | Phase::Closed => return Err(SendError::Closed),
            Phase::Failed(cause) => return Err(SendError::Failed(cause.clone())),
        };
        if channel == Channel::OWN {
            return Err(SendError::ReservedChannel);
        }
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(SendError::TooLong { len: body.len(), max: MESSAGE_BYTES_MAX });
        }
        let (queued, len) = (self.shell.outgoing.len(), 1 + body.len() + RECORD_OVERHEAD);
        if queued + len > SEND_QUEUE_BYTES_MAX {
            return Err(SendError::Full { queued, len, max: SEND_QUEUE_BYTES_MAX });
        }
        self.shell.plain.clear();
        self.shell.plain.push(channel.0);
        self.shell.plain.extend_from_slice(body);
        match link.sealer.seal_record(&self.shell.plain, &mut self.shell.outgoing) {
            Ok(()) => Ok(()),
            Err(cause) => Err(SendError::Failed(self.fail(cause.into()))),
        }
    }

    /// Appends what is to be sent to `out`; false when there is nothing. Send it before asking again: the bound on
    /// what waits covers only what was not handed out.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        let some = !self.shell.outgoing.is_empty();
        out.append(&mut self.shell.outgoing);
        some
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shell.events.pop_front()
    }

    /// When to call [`Connection::handle_timeout`] at the latest. Changes with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Opening { deadline, .. }
            | Phase::AwaitHello { deadline, .. }
            | Phase::Closing { deadline, .. } => Some(*deadline),
            Phase::Established(link) if link.silent => Some(link.beat_at),
            Phase::Established(link) => Some(link.beat_at.min(link.heard_at + self.shell.hello.silence())),
            Phase::Closed | Phase::Failed(_) => None,
        }
    }

    /// Does what is due by `now`.
    ///
    /// # Errors
    /// The cause, when the connection fails or has failed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ControlError> {
        self.check_handshake_deadline(now)?;
        let done = match &mut self.phase {
            Phase::Opening { .. } | Phase::AwaitHello { .. } | Phase::Closed => Ok(()),
            Phase::Established(link) => self.shell.beat(link, now),
            Phase::Closing { reason, deadline, .. } => {
                if *deadline <= now {
                    let reason = Ended::ByUs(*reason);
                    self.close_with(reason);
                }
                Ok(())
            }
            Phase::Failed(cause) => return Err(cause.clone()),
        };
        done.map_err(|cause| self.fail(cause.into()))
    }

    /// Closes in good order: what was queued goes out first, then the peer is told and answers. Before the connection
    /// is established it ends at once. Has no effect on one that is closing or has ended.
    pub fn close(&mut self, reason: CloseReason, now: Instant) {
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Opening { .. } | Phase::AwaitHello { .. } => self.close_with(Ended::ByUs(reason)),
            Phase::Established(mut link) => {
                match link.sealer.seal_record(&encode_close(reason), &mut self.shell.outgoing) {
                    Ok(()) => self.phase = Phase::Closing { link, reason, deadline: now + CLOSE_TIME_MAX },
                    Err(cause) => {
                        self.phase = Phase::Established(link);
                        self.fail(cause.into());
                    }
                }
            }
            same @ (Phase::Closing { .. } | Phase::Closed | Phase::Failed(_)) => self.phase = same,
        }
    }

    /// Where the connection stands.
    #[must_use]
    pub const fn state(&self) -> State {
        match &self.phase {
            Phase::Opening { .. } | Phase::AwaitHello { .. } => State::Handshaking,
            Phase::Established(_) => State::Established,
            Phase::Closing { .. } => State::Closing,
            Phase::Closed => State::Closed,
            Phase::Failed(_) => State::Failed,
        }
    }

    /// The cause, if the connection failed.
    #[must_use]
    pub const fn failure(&self) -> Option<&ControlError> {
        match &self.phase {
            Phase::Failed(cause) => Some(cause),
            Phase::Opening { .. }
            | Phase::AwaitHello { .. }
            | Phase::Established(_)
            | Phase::Closing { .. }
            | Phase::Closed => None,
        }
    }

    /// Takes one piece off `bytes` and does what it asks for; false when more bytes are needed.
    fn advance(&mut self, bytes: &mut &[u8], now: Instant) -> Result<bool, ControlError> {
        match &mut self.phase {
            Phase::Opening { opening, deadline } => {
                let Some(mut opened) = opening.step(bytes, &mut self.shell.outgoing)? else {
                    return Ok(false);
                };
                let deadline = *deadline;
                if self.shell.side == Side::Initiator {
                    self.shell.seal_hello(&mut opened.secured.sealer)?;
                }
                self.phase = Phase::AwaitHello { opened: Box::new(opened), deadline };
                Ok(true)
            }
            Phase::AwaitHello { opened, .. } => {
                let Some(record) = opened.intake.take_frame(bytes)? else { return Ok(false) };
                self.shell.plain.clear();
                opened.secured.opener.open_record(&record, &mut self.shell.plain)?;
                let Incoming::Hello(peer) = Incoming::decode(&self.shell.plain)? else {
                    return Err(ControlError::Protocol { why: "the first message is no greeting".into() });
                };
                let Phase::AwaitHello { opened, .. } = std::mem::replace(&mut self.phase, Phase::Closed)
                else {
                    unreachable!("the phase was matched above");
                };
                let link = self.shell.establish(*opened, peer, now)?;
                self.phase = Phase::Established(Box::new(link));
                Ok(true)
            }
            Phase::Established(link) => {
                let Some(close) = self.shell.receive(link, bytes, now)? else { return Ok(false) };
                if let Close::Came(reason) = close {
                    link.sealer.seal_record(&encode_close(reason), &mut self.shell.outgoing)?;
                    self.close_with(Ended::ByPeer(reason));
                }
                Ok(true)
            }
            Phase::Closing { link, reason, .. } => {
                let Some(close) = self.shell.receive(link, bytes, now)? else { return Ok(false) };
                if let Close::Came(_) = close {
                    let reason = Ended::ByUs(*reason);
                    self.close_with(reason);
                }
                Ok(true)
            }
            Phase::Closed => Ok(false),
            Phase::Failed(cause) => Err(cause.clone()),
        }
    }

    fn check_handshake_deadline(&mut self, now: Instant) -> Result<(), ControlError> {
        match &self.phase {
            Phase::Opening { deadline, .. } | Phase::AwaitHello { deadline, .. } if *deadline <= now => {
                Err(self.fail(ControlError::HandshakeTimeout { limit: HANDSHAKE_TIME_MAX }))
            }
            Phase::Opening { .. }
            | Phase::AwaitHello { .. }
            | Phase::Established(_)
            | Phase::Closing { .. }
            | Phase::Closed
            | Phase::Failed(_) => Ok(()),
        }
    }

    fn close_with(&mut self, reason: Ended) {
        self.phase = Phase::Closed;
        self.shell.events.push_back(Event::Closed { reason });
    }

    /// Fails for ever, once; returns the cause that stands.
    fn fail(&mut self, cause: ControlError) -> ControlError {
        match &self.phase {
            Phase::Failed(first) => return first.clone(),
            // A refusal may wait to be sent; it follows the preface.
            Phase::Opening { .. } | Phase::AwaitHello { .. } => {}
            Phase::Established(_) | Phase::Closing { .. } | Phase::Closed => self.shell.outgoing.clear(),
        }
        self.phase = Phase::Failed(cause.clone());
        self.shell.events.push_back(Event::Closed { reason: Ended::Failed(cause.clone()) });
        cause
    }
}

/// Doors for tests and fuzzing, to reach the decoder behind the tag.
#[cfg(any(test, fuzzing))]
impl Connection {
    /// Sends this plain text as first record in place of the greeting.
    pub fn override_hello(&mut self, plain: Vec<u8>) {
        assert!(plain.len() + RECORD_OVERHEAD <= super::HANDSHAKE_MESSAGE_MAX, "the peer would not read on");
        self.shell.hello_override = Some(plain);
    }

    /// Seals any plain text as the next record of an established connection.
    pub fn send_plain(&mut self, plain: &[u8]) {
        let Phase::Established(link) = &mut self.phase else { panic!("send_plain in {:?}", self.state()) };
        link.sealer.seal_record(plain, &mut self.shell.outgoing).expect("the harness keeps to the bounds");
    }
}
