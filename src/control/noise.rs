//! The Noise handshake and the records after it, over `snow`.
//!
//! A record is a little-endian `u16` length, the ciphertext and its 16-byte tag. Its nonce is its number in its
//! direction, so a record that is dropped, repeated or moved fails, and so does all after it. Sealing and opening
//! share nothing that changes: the two halves may live on two threads.

use std::fmt;
use std::sync::Arc;

use snow::{Builder, HandshakeState, StatelessTransportState};

use super::ControlError;
use super::frame::LENGTH_LEN;
use super::key::Secret;
use crate::base::SessionId;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const TAG_LEN: usize = 16;

/// Plain bytes of one record.
pub const RECORD_PLAIN_MAX: usize = 65_535 - TAG_LEN;
/// What a record takes beyond its plain bytes: length and tag.
pub const RECORD_OVERHEAD: usize = LENGTH_LEN + TAG_LEN;

/// Why a record could not be sealed or opened. Final for its direction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// More plain bytes than a record takes.
    #[error("{len} bytes do not fit one record, the limit is {max}")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The tag does not fit.
    #[error(
        "record {number} of {len} bytes failed its tag: it was altered, repeated, moved, or never sealed by the peer"
    )]
    Forged {
        /// The number that was expected, from 0.
        number: u64,
        /// Its length without the prefix.
        len: usize,
    },
    /// 2⁶⁴ − 1 records went this way; another would use a nonce twice.
    #[error("all nonces of this stream are used: connect anew")]
    Exhausted,
}

/// Seals the records of one direction.
pub struct RecordSealer {
    noise: Arc<StatelessTransportState>,
    number: u64,
}

impl RecordSealer {
    /// Appends to `out` one whole record, length included, that carries `plain`. Allocates only to grow `out`.
    ///
    /// # Errors
    /// [`RecordError::TooLong`], [`RecordError::Exhausted`]; `out` is as before.
    pub fn seal_record(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        if plain.len() > RECORD_PLAIN_MAX {
            return Err(RecordError::TooLong { len: plain.len(), max: RECORD_PLAIN_MAX });
        }
        if self.number == u64::MAX {
            return Err(RecordError::Exhausted);
        }
        let sealed_len = plain.len() + TAG_LEN;
        let start = out.len();
        let len = u16::try_from(sealed_len).expect("RECORD_PLAIN_MAX fits the length");
        out.extend_from_slice(&len.to_le_bytes());
        out.resize(start + LENGTH_LEN + sealed_len, 0);
        let written = self
            .noise
            .write_message(self.number, plain, &mut out[start + LENGTH_LEN..])
            .expect("length and nonce were checked");
        assert_eq!(written, sealed_len, "a record has one tag");
        self.number += 1;
        Ok(())
    }
}

/// Opens the records of one direction.
pub struct RecordOpener {
    noise: Arc<StatelessTransportState>,
    number: u64,
    failed: Option<RecordError>,
}

impl RecordOpener {
    /// Appends to `out` what the record (without its length) carries. Allocates only to grow `out`.
    ///
    /// # Errors
    /// [`RecordError::Forged`], [`RecordError::Exhausted`]: final, `out` is as before.
    pub fn open_record(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let fail = |slot: &mut Option<RecordError>, cause: RecordError| {
            *slot = Some(cause.clone());
            Err(cause)
        };
        if self.number == u64::MAX {
            return fail(&mut self.failed, RecordError::Exhausted);
        }
        let start = out.len();
        out.resize(start + record.len().saturating_sub(TAG_LEN), 0);
        let Ok(written) = self.noise.read_message(self.number, record, &mut out[start..]) else {
            out.truncate(start);
            return fail(&mut self.failed, RecordError::Forged { number: self.number, len: record.len() });
        };
        assert_eq!(start + written, out.len(), "a record has one tag");
        self.number += 1;
        Ok(())
    }
}

impl fmt::Debug for RecordSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordSealer").field("number", &self.number).finish_non_exhaustive()
    }
}

impl fmt::Debug for RecordOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordOpener").field("number", &self.number).finish_non_exhaustive()
    }
}

/// What a finished handshake leaves: both directions, and a name that both sides derive alike.
#[derive(Debug)]
pub(super) struct Secured {
    pub(super) sealer: RecordSealer,
    pub(super) opener: RecordOpener,
    pub(super) session: SessionId,
}

/// One Noise handshake. Its messages carry no payload.
#[derive(Debug)]
pub(super) struct Handshake(Box<HandshakeState>);

impl Handshake {
    pub(super) fn initiator(key: &Secret, prologue: &[u8]) -> Result<Self, ControlError> {
        builder(key, prologue)?.build_initiator().map(Box::new).map(Self).map_err(broken)
    }

    pub(super) fn responder(key: &Secret, prologue: &[u8]) -> Result<Self, ControlError> {
        builder(key, prologue)?.build_responder().map(Box::new).map(Self).map_err(broken)
    }

    pub(super) fn write(&mut self) -> Result<Vec<u8>, ControlError> {
        let mut message = [0; super::HANDSHAKE_MESSAGE_MAX];
        let len = self.0.write_message(&[], &mut message).map_err(broken)?;
        Ok(message[..len].to_vec())
    }

    /// Checks the peer's message: wrong key, altered prologue and garbage look the same.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<(), ControlError> {
        let mut payload = [0; super::HANDSHAKE_MESSAGE_MAX];
        match self.0.read_message(message, &mut payload) {
            Ok(0) => Ok(()),
            Ok(len) => {
                Err(ControlError::Protocol { why: format!("{len} bytes of payload in the handshake") })
            }
            Err(snow::Error::Decrypt | snow::Error::Input | snow::Error::Dh) => {
                Err(ControlError::Authentication)
            }
            Err(error) => Err(broken(error)),
        }
    }

    pub(super) fn finish(self) -> Result<Secured, ControlError> {
        let mut session = [0; 16];
        session.copy_from_slice(&self.0.get_handshake_hash()[..16]);
        let noise = Arc::new(self.0.into_stateless_transport_mode().map_err(broken)?);
        Ok(Secured {
            sealer: RecordSealer { noise: Arc::clone(&noise), number: 0 },
            opener: RecordOpener { noise, number: 0, failed: None },
            session: SessionId::from_bytes(session),
        })
    }
}

fn builder<'a>(key: &'a Secret, prologue: &'a [u8]) -> Result<Builder<'a>, ControlError> {
    let parameters = PATTERN.parse().expect("the pattern is well formed");
    Builder::new(parameters)
        .psk(0, key.bytes())
        .and_then(|builder| builder.prologue(prologue))
        .map_err(broken)
}

#[expect(clippy::needless_pass_by_value, reason = "takes what map_err gives")]
fn broken(error: snow::Error) -> ControlError {
    ControlError::Cryptography { why: error.to_string() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::KeySet;

    pub(in crate::control) fn secured_pair() -> (Secured, Secured) {
        let keys = KeySet::from_bytes(&[[1; 32]]).unwrap();
        let mut left = Handshake::initiator(keys.first(), b"prologue").unwrap();
        let mut right = Handshake::responder(keys.first(), b"prologue").unwrap();
        right.read(&left.write().unwrap()).unwrap();
        left.read(&right.write().unwrap()).unwrap();
        (left.finish().unwrap(), right.finish().unwrap())
    }

    #[test]
    fn records_both_ways_without_allocation_once_warm() {
        let (mut left, mut right) = secured_pair();
        assert_eq!(left.session, right.session);
        let plain = vec![7; RECORD_PLAIN_MAX];
        let (mut wire, mut back) = (Vec::new(), Vec::new());
        let mut capacities = None;
        for _ in 0..3 {
            wire.clear();
            back.clear();
            left.sealer.seal_record(&plain, &mut wire).unwrap();
            assert_eq!(wire.len(), plain.len() + RECORD_OVERHEAD);
            right.opener.open_record(&wire[LENGTH_LEN..], &mut back).unwrap();
            assert_eq!(back, plain);
            let now = (wire.capacity(), back.capacity());
            assert_eq!(*capacities.get_or_insert(now), now);
        }
        wire.clear();
        right.sealer.seal_record(b"", &mut wire).unwrap();
        left.opener.open_record(&wire[LENGTH_LEN..], &mut back).unwrap();
        assert_eq!(back, plain, "an empty record appends nothing");
    }

    #[test]
    fn altered_repeated_and_short_records_are_final() {
        for damage in 0..4 {
            let (mut left, mut right) = secured_pair();
            let mut wire = Vec::new();
            left.sealer.seal_record(b"store", &mut wire).unwrap();
            let mut record = wire[LENGTH_LEN..].to_vec();
            let mut back = vec![1];
            match damage {
                0 => record[2] ^= 1,
                1 => record.truncate(15),
                2 => record.clear(),
                _ => {
                    right.opener.open_record(&record, &mut Vec::new()).unwrap();
                }
            }
            let cause = right.opener.open_record(&record, &mut back).unwrap_err();
            assert!(matches!(cause, RecordError::Forged { .. }), "{cause}");
            assert_eq!(back, [1], "nothing of it came out");
            wire.clear();
            left.sealer.seal_record(b"good", &mut wire).unwrap();
            assert_eq!(right.opener.open_record(&wire[LENGTH_LEN..], &mut back).unwrap_err(), cause);
        }
    }

    #[test]
    fn a_nonce_is_never_used_twice() {
        let (mut left, mut right) = secured_pair();
        left.sealer.number = u64::MAX - 1;
        right.opener.number = u64::MAX - 1;
        let mut wire = Vec::new();
        left.sealer.seal_record(b"last", &mut wire).unwrap();
        let before = wire.clone();
        assert_eq!(left.sealer.seal_record(b"one more", &mut wire), Err(RecordError::Exhausted));
        assert_eq!(wire, before);
        let mut back = Vec::new();
        right.opener.open_record(&wire[LENGTH_LEN..], &mut back).unwrap();
        assert_eq!(back, b"last");
        assert_eq!(right.opener.open_record(&wire[LENGTH_LEN..], &mut back), Err(RecordError::Exhausted));
        let long = vec![0; RECORD_PLAIN_MAX + 1];
        assert!(matches!(
            right.sealer.seal_record(&long, &mut wire),
            Err(RecordError::TooLong { len: 65_520, .. })
        ));
    }
}
