//! The handshake of a data stream: admits one stream to a session that a control connection made.
//!
//! ```text
//!  initiator   Opening ──────▶ Done                    (sends its purpose as first record)
//!  responder   Opening ──────▶ AwaitPurpose ──────▶ Done
//!                 └ needs_token() ▶ provide_tokens()
//! ```
//!
//! The pre-shared key is a token which the session's owner got over the control connection. A responder may hold
//! several, one per queue that it expects: it tries each and says which one fitted. The token should be forgotten
//! once it admitted a stream. What the initiator means the stream for (`purpose`) is authenticated, and so cannot be
//! exchanged on the way; it also proves that message 1 was not replayed.

use std::time::Instant;

use super::key::Token;
use super::noise::{RecordError, RecordOpener, RecordSealer};
use super::opening::{Opened, Opening};
use super::preface::{Preface, PrefaceKind, VERSIONS};
use super::{ControlError, HANDSHAKE_TIME_MAX};
use crate::base::SessionId;

/// Bytes of a purpose.
pub const PURPOSE_BYTES_MAX: usize = 64;
/// Tokens that are tried on one stream: bounds the work that a stranger can ask for.
pub const TOKENS_MAX: usize = 256;
/// Bytes beyond the handshake that are kept for [`DataHandshake::finish`].
pub const LEFTOVER_BYTES_MAX: usize = 128 * 1024;

/// The handshake of one data stream, without its socket.
#[derive(Debug)]
pub struct DataHandshake {
    phase: Phase,
    outgoing: Vec<u8>,
    leftover: Vec<u8>,
    deadline: Instant,
    /// The initiator's own purpose.
    purpose: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Phase {
    Opening(Opening),
    AwaitPurpose(Box<Opened>),
    Done { cipher: DataCipher, purpose: Vec<u8>, token_index: usize, version: u16 },
    Failed(ControlError),
}

impl DataHandshake {
    /// The side that connected.
    ///
    /// # Errors
    /// [`ControlError::Oversize`] when the purpose is longer than [`PURPOSE_BYTES_MAX`].
    pub fn initiate(
        session: SessionId,
        token: &Token,
        purpose: &[u8],
        now: Instant,
    ) -> Result<Self, ControlError> {
        if purpose.len() > PURPOSE_BYTES_MAX {
            return Err(ControlError::Oversize {
                what: "purpose",
                len: purpose.len(),
                max: PURPOSE_BYTES_MAX,
            });
        }
        let own =
            Preface { kind: PrefaceKind::Data, refusal: None, versions: VERSIONS, session: Some(session) };
        let mut outgoing = Vec::new();
        let opening = Opening::initiate(own, token.secret().clone(), &mut outgoing);
        Ok(Self::new(opening, outgoing, Some(purpose.to_vec()), now))
    }

    /// The side that was connected to. Feed it the stream from its first byte, preface included.
    #[must_use]
    pub fn accept(now: Instant) -> Self {
        Self::new(Opening::accept(PrefaceKind::Data, VERSIONS, None), Vec::new(), None, now)
    }

    fn new(opening: Opening, outgoing: Vec<u8>, purpose: Option<Vec<u8>>, now: Instant) -> Self {
        let deadline = now + HANDSHAKE_TIME_MAX;
        Self { phase: Phase::Opening(opening), outgoing, leftover: Vec::new(), deadline, purpose }
    }

    /// The session that the stream names, once the preface came and until tokens are provided.
    #[must_use]
    pub fn needs_token(&self) -> Option<SessionId> {
        match &self.phase {
            Phase::Opening(opening) => opening.needs_keys(),
            Phase::AwaitPurpose(_) | Phase::Done { .. } | Phase::Failed(_) => None,
        }
    }

    /// [`DataHandshake::provide_tokens`] with one or none.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn provide_token(&mut self, token: Option<&Token>) -> Result<(), ControlError> {
        self.provide_tokens(token.map_or(&[], std::slice::from_ref))
    }

    /// The tokens that the session expects; none when the session is not known: the stream is then refused.
    ///
    /// # Errors
    /// When there are none, or more than [`TOKENS_MAX`].
    ///
    /// # Panics
    /// When [`DataHandshake::needs_token`] returned `None`.
    pub fn provide_tokens(&mut self, tokens: &[Token]) -> Result<(), ControlError> {
        let Phase::Opening(opening) = &mut self.phase else { panic!("tokens provided in a later phase") };
        let provided = if tokens.len() > TOKENS_MAX {
            Err(ControlError::Oversize { what: "list of tokens", len: tokens.len(), max: TOKENS_MAX })
        } else {
            let keys = tokens.iter().map(|token| token.secret().clone()).collect();
            opening.provide_keys(keys, &mut self.outgoing)
        };
        provided.map_err(|cause| self.fail(cause))
    }

    /// Takes bytes that came from the peer, however split. What follows the handshake is kept for
    /// [`DataHandshake::finish`], up to [`LEFTOVER_BYTES_MAX`]: look at [`DataHandshake::is_done`] after each call.
    ///
    /// # Errors
    /// The cause, when the handshake fails or has failed.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), ControlError> {
        self.handle_timeout(now)?;
        loop {
            match self.advance(&mut bytes) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(cause) => return Err(self.fail(cause)),
            }
        }
    }

    /// Takes note that the peer's stream ended.
    ///
    /// # Errors
    /// [`ControlError::Truncated`] unless the handshake was done.
    pub fn handle_eof(&mut self) -> Result<(), ControlError> {
        if self.is_done() {
            return Ok(());
        }
        Err(self.fail(ControlError::Truncated { during: "during the handshake of a data stream" }))
    }

    /// Appends what is to be sent to `out`; false when there is nothing.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        let some = !self.outgoing.is_empty();
        out.append(&mut self.outgoing);
        some
    }

    /// When to call [`DataHandshake::handle_timeout`].
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Opening(_) | Phase::AwaitPurpose(_) => Some(self.deadline),
            Phase::Done { .. } | Phase::Failed(_) => None,
        }
    }

    /// Fails the handshake when its time is over.
    ///
    /// # Errors
    /// The cause, when the handshake fails or has failed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ControlError> {
        match &self.phase {
            Phase::Opening(_) | Phase::AwaitPurpose(_) if self.deadline <= now => {
                Err(self.fail(ControlError::HandshakeTimeout { limit: HANDSHAKE_TIME_MAX }))
            }
            Phase::Opening(_) | Phase::AwaitPurpose(_) | Phase::Done { .. } => Ok(()),
            Phase::Failed(cause) => Err(cause.clone()),
        }
    }

    /// The peer is authenticated. Send what [`DataHandshake::poll_transmit`] has, then [`DataHandshake::finish`].
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done { .. })
    }

    /// What the initiator means the stream for, once done.
    #[must_use]
    pub fn purpose(&self) -> Option<&[u8]> {
        self.done().map(|(purpose, _, _)| purpose)
    }

    /// Which of the provided tokens fitted, counted from 0, once done.
    #[must_use]
    pub fn matched(&self) -> Option<usize> {
        self.done().map(|(_, token_index, _)| token_index)
    }

    /// The version in use, once done.
    #[must_use]
    pub fn version(&self) -> Option<u16> {
        self.done().map(|(_, _, version)| version)
    }

    fn done(&self) -> Option<(&[u8], usize, u16)> {
        match &self.phase {
            Phase::Done { purpose, token_index, version, .. } => Some((purpose, *token_index, *version)),
            Phase::Opening(_) | Phase::AwaitPurpose(_) | Phase::Failed(_) => None,
        }
    }

    /// The cipher of the stream, and the bytes of it that came already.
    ///
    /// # Panics
    /// When it is not done, or what was to be sent was not taken.
    #[must_use]
    pub fn finish(self) -> (DataCipher, Vec<u8>) {
        assert!(self.outgoing.is_empty(), "{} bytes of the handshake were not sent", self.outgoing.len());
        match self.phase {
            Phase::Done { cipher, .. } => (cipher, self.leftover),
            Phase::Opening(_) | Phase::AwaitPurpose(_) | Phase::Failed(_) => {
                panic!("the handshake is not done")
            }
        }
    }

    fn advance(&mut self, bytes: &mut &[u8]) -> Result<bool, ControlError> {
        match &mut self.phase {
            Phase::Opening(opening) => {
                let Some(mut opened) = opening.step(bytes, &mut self.outgoing)? else { return Ok(false) };
                self.phase = match self.purpose.take() {
                    Some(purpose) => {
                        opened.secured.sealer.seal_record(&purpose, &mut self.outgoing)?;
                        done(opened, purpose)
                    }
                    None => Phase::AwaitPurpose(Box::new(opened)),
                };
                Ok(true)
            }
            Phase::AwaitPurpose(opened) => {
                let Some(record) = opened.intake.take_frame(bytes)? else { return Ok(false) };
                let mut purpose = Vec::new();
                opened.secured.opener.open_record(&record, &mut purpose)?;
                if purpose.len() > PURPOSE_BYTES_MAX {
                    return Err(ControlError::Oversize {
                        what: "purpose",
                        len: purpose.len(),
                        max: PURPOSE_BYTES_MAX,
                    });
                }
                // The phase is moved out by way of a failure that nobody sees.
                let moved = std::mem::replace(&mut self.phase, Phase::Failed(ControlError::Authentication));
                let Phase::AwaitPurpose(opened) = moved else { unreachable!("the phase was matched above") };
                self.phase = done(*opened, purpose);
                Ok(true)
            }
            Phase::Done { .. } => {
                let len = self.leftover.len() + bytes.len();
                if len > LEFTOVER_BYTES_MAX {
                    return Err(ControlError::Oversize {
                        what: "rest after the handshake",
                        len,
                        max: LEFTOVER_BYTES_MAX,
                    });
                }
                self.leftover.extend_from_slice(bytes);
                *bytes = &[];
                Ok(false)
            }
            Phase::Failed(cause) => Err(cause.clone()),
        }
    }

    fn fail(&mut self, cause: ControlError) -> ControlError {
        if let Phase::Failed(first) = &self.phase {
            return first.clone();
        }
        self.phase = Phase::Failed(cause.clone());
        cause
    }
}

fn done(opened: Opened, purpose: Vec<u8>) -> Phase {
    let Opened { secured, version, key_index, .. } = opened;
    let cipher = DataCipher { sealer: secured.sealer, opener: secured.opener };
    Phase::Done { cipher, purpose, token_index: key_index, version }
}

/// Seals and opens the records of a data stream. See [`RecordSealer`] and [`RecordOpener`] for the form.
#[derive(Debug)]
pub struct DataCipher {
    sealer: RecordSealer,
    opener: RecordOpener,
}

impl DataCipher {
    /// See [`RecordSealer::seal_record`].
    ///
    /// # Errors
    /// As there.
    pub fn seal_record(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.sealer.seal_record(plain, out)
    }

    /// See [`RecordOpener::open_record`].
    ///
    /// # Errors
    /// As there.
    pub fn open_record(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.opener.open_record(record, out)
    }

    /// The two directions, for two threads.
    #[must_use]
    pub fn split(self) -> (RecordSealer, RecordOpener) {
        (self.sealer, self.opener)
    }
}
