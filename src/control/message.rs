//! What a record on the control connection carries: channel `u8`, then a body.
//!
//! ```text
//!  channel 0, the connection's own:   kind u8, then
//!    1 Hello      capabilities u64 │ heartbeat ms u32 │ silence ms u32 │ opaque (the rest, ≤ 256)
//!    2 Heartbeat  nothing
//!    3 Close      reason u16
//!  other channels:   the application's body, as it is
//! ```
//!
//! What the decoder reads is authenticated and yet not trusted: each length and value is checked.

use std::time::Duration;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::config::milliseconds;
use super::{CloseReason, ControlError, Hello};

/// A service of the application that shares the connection with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Channel(pub u8);

impl Channel {
    /// The mirrored region: attach, grants, fences.
    pub const MIRROR: Self = Self(1);
    /// The connection's own.
    pub(super) const OWN: Self = Self(0);
}

const HELLO: u8 = 1;
const HEARTBEAT: u8 = 2;
const CLOSE: u8 = 3;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HelloWire {
    capabilities: U64,
    heartbeat_ms: U32,
    silence_ms: U32,
}
const _: () = assert!(size_of::<HelloWire>() == 16, "the greeting has a fixed head");

/// A decoded record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    Hello(Hello),
    Heartbeat,
    Close(CloseReason),
    Application(Channel, &'a [u8]),
}

impl<'a> Incoming<'a> {
    pub(super) fn decode(plain: &'a [u8]) -> Result<Self, ControlError> {
        let broken = |why: String| Err(ControlError::Protocol { why });
        match plain {
            [] => broken("a message without a channel".into()),
            [0] => broken("a message of the connection's own without a kind".into()),
            [0, HELLO, rest @ ..] => decode_hello(rest).map(Self::Hello),
            [0, HEARTBEAT] => Ok(Self::Heartbeat),
            [0, CLOSE, low, high] => {
                Ok(Self::Close(CloseReason::from_code(u16::from_le_bytes([*low, *high]))))
            }
            [0, kind, rest @ ..] => broken(format!("kind {kind} with {} bytes on channel 0", rest.len())),
            [channel, body @ ..] if body.len() > super::MESSAGE_BYTES_MAX => broken(format!(
                "message of {} bytes on channel {channel}, the limit is {}",
                body.len(),
                super::MESSAGE_BYTES_MAX
            )),
            [channel, body @ ..] => Ok(Self::Application(Channel(*channel), body)),
        }
    }
}

fn decode_hello(bytes: &[u8]) -> Result<Hello, ControlError> {
    let Ok((head, opaque)) = HelloWire::ref_from_prefix(bytes) else {
        return Err(ControlError::Protocol { why: format!("a greeting of {} bytes", bytes.len()) });
    };
    let interval = |ms: U32| Duration::from_millis(u64::from(ms.get()));
    Hello::new(
        head.capabilities.get(),
        interval(head.heartbeat_ms),
        interval(head.silence_ms),
        opaque.to_vec(),
    )
    .map_err(|error| ControlError::Protocol { why: error.to_string() })
}

pub(super) fn encode_hello(hello: &Hello) -> Vec<u8> {
    let head = HelloWire {
        capabilities: hello.capabilities().into(),
        heartbeat_ms: milliseconds(hello.heartbeat()).into(),
        silence_ms: milliseconds(hello.silence()).into(),
    };
    [&[Channel::OWN.0, HELLO], head.as_bytes(), hello.opaque()].concat()
}

pub(super) const fn encode_heartbeat() -> [u8; 2] {
    [Channel::OWN.0, HEARTBEAT]
}

pub(super) fn encode_close(reason: CloseReason) -> [u8; 4] {
    let [low, high] = reason.code().to_le_bytes();
    [Channel::OWN.0, CLOSE, low, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let hello =
            Hello::new(0x0102, Duration::from_millis(500), Duration::from_secs(2), vec![0xaa, 0xbb]).unwrap();
        let bytes = encode_hello(&hello);
        assert_eq!(bytes, [0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0xf4, 1, 0, 0, 0xd0, 7, 0, 0, 0xaa, 0xbb]);
        assert_eq!(Incoming::decode(&bytes).unwrap(), Incoming::Hello(hello));
        assert_eq!(Incoming::decode(&encode_heartbeat()).unwrap(), Incoming::Heartbeat);
        for reason in [CloseReason::Silence, CloseReason::Other(999)] {
            assert_eq!(Incoming::decode(&encode_close(reason)).unwrap(), Incoming::Close(reason));
        }
        assert_eq!(Incoming::decode(&[7, 1, 2]).unwrap(), Incoming::Application(Channel(7), &[1, 2]));
    }

    #[test]
    fn nonsense_is_named() {
        let mut long = vec![1; super::super::MESSAGE_BYTES_MAX + 2];
        let mut fast =
            encode_hello(&Hello::new(0, super::super::INTERVAL_MIN, Duration::from_secs(1), vec![]).unwrap());
        fast[10] = 0;
        for (bytes, word) in [
            (&[][..], "without a channel"),
            (&[0], "without a kind"),
            (&[0, 9, 1], "kind 9"),
            (&[0, 2, 0], "kind 2 with 1 bytes"),
            (&[0, 3, 0], "kind 3"),
            (&[0, 1, 5, 5], "greeting of 2 bytes"),
            (&fast, "heartbeat of 0ns"),
            (&long, "61441 bytes"),
        ] {
            let error = Incoming::decode(bytes).unwrap_err().to_string();
            assert!(error.contains(word), "{error} names {word}");
        }
        long.pop();
        assert!(Incoming::decode(&long).is_ok());
    }
}
