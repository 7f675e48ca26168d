//! What owner and holder say to each other about a mirror, over the mirror channel of the control connection.
//!
//! Every message is one byte of kind and a little-endian body of fixed size; some are followed by a list, a text or the
//! application's bytes, which fill the rest. docs/protocol.md draws them. Decoding is pure and never panics: a peer is authenticated by
//! then, but may be of another make.

mod bodies;
mod refusal;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use self::bodies::{attach_body, decode_attach, decode_granted, decode_ranges, encode_ranges, granted_body};
pub use self::refusal::RefusalCode;
use crate::control::MESSAGE_BYTES_MAX;
use crate::mirror::ByteRange;

/// Ranges in one `Apply`: the rest follows in others, so that each fits in a control message.
pub(crate) const APPLY_RANGES_MAX: usize = 3000;
/// Digests in one `Digests`.
pub(crate) const DIGESTS_MAX: usize = 1024;
/// Bytes that one digest covers.
pub(crate) const DIGEST_CHUNK_BYTES: usize = 1 << 20;
/// Most bytes that an application asks or answers with: what fits in one message of the control connection.
pub const REQUEST_BYTES_MAX: usize = 56 << 10;
const _: () = assert!(REQUEST_BYTES_MAX + 1 + size_of::<u32>() <= MESSAGE_BYTES_MAX);

/// How the two sides come to hold the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttachMode {
    /// The owner's bytes go to the holder.
    Push,
    /// As `Push`, also where the holder has a whole copy already, which is lost.
    PushReplace,
    /// The holder's bytes go to the owner.
    Pull,
    /// Both have the same: digests prove it.
    Equal,
    /// The same owner goes on after its link was lost.
    Resume,
}

impl AttachMode {
    const ALL: [Self; 5] = [Self::Push, Self::PushReplace, Self::Pull, Self::Equal, Self::Resume];

    fn code(self) -> u8 {
        match self {
            Self::Push => 1,
            Self::PushReplace => 2,
            Self::Pull => 3,
            Self::Equal => 4,
            Self::Resume => 5,
        }
    }
}

/// Asks to attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttachRequest {
    pub(crate) mode: AttachMode,
    pub(crate) region: [u8; 16],
    pub(crate) size: u64,
    /// For `Resume`: what is resumed, and the bytes of staging memory that it needs.
    pub(crate) prior_session: [u8; 16],
    pub(crate) life: [u8; 16],
    pub(crate) generation: u32,
    pub(crate) staging: u64,
}

/// What is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) generation: u32,
    pub(crate) region: [u8; 16],
    pub(crate) life: [u8; 16],
    pub(crate) size: u64,
    pub(crate) staging: u64,
    /// `None` when the holder can sync; else why not.
    pub(crate) not_durable: Option<String>,
}

/// A message. `request` pairs a reply with what it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Owner: attach.
    Attach { request: u32, attach: AttachRequest },
    /// Owner: a token for one more data stream.
    OpenQueue { request: u32 },
    /// Owner: digests of the chunks from `first`, `count` of them.
    Digest { request: u32, first: u32, count: u32 },
    /// Owner: what was to be moved has been moved: the copy is whole.
    Complete { request: u32 },
    /// Owner: bring everything visible to stable storage.
    Sync { request: u32 },
    /// Owner: put what stands in staging, one behind the other, into these ranges; `last` makes it happen.
    Apply { request: u32, last: bool, ranges: Vec<ByteRange> },
    /// Owner, attached or not: a question of its application to the holder's.
    Ask { request: u32, body: Vec<u8> },
    /// Holder: the answer to `Attach`.
    Granted { request: u32, granted: Granted },
    /// Holder: the answer to `OpenQueue`.
    Token { request: u32, token: [u8; 32] },
    /// Holder: the answer to `Digest`.
    Digests { request: u32, digests: Vec<[u8; 32]> },
    /// Holder: what its application answered.
    Answer { request: u32, body: Vec<u8> },
    /// Holder: done.
    Done { request: u32 },
    /// Holder: not done.
    Refused { request: u32, code: RefusalCode, why: String },
    /// Holder, unasked: what was granted is void.
    Revoked { why: String },
}

/// A message that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a mirror message of kind {kind} and {len} bytes cannot be read: {why}")]
pub(crate) struct MessageError {
    kind: u8,
    len: usize,
    why: &'static str,
}

impl Message {
    /// The request that this answers, for answers.
    pub(crate) fn answers(&self) -> Option<u32> {
        match self {
            Self::Granted { request, .. }
            | Self::Token { request, .. }
            | Self::Digests { request, .. }
            | Self::Answer { request, .. }
            | Self::Done { request }
            | Self::Refused { request, .. } => Some(*request),
            Self::Attach { .. }
            | Self::OpenQueue { .. }
            | Self::Digest { .. }
            | Self::Complete { .. }
            | Self::Sync { .. }
            | Self::Apply { .. }
            | Self::Ask { .. }
            | Self::Revoked { .. } => None,
        }
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut put = |kind: u8, parts: &[&[u8]]| {
            out.push(kind);
            parts.iter().for_each(|part| out.extend_from_slice(part));
        };
        match self {
            Self::Attach { request, attach } => put(1, &[attach_body(*request, attach).as_bytes()]),
            Self::OpenQueue { request } => put(2, &[&request.to_le_bytes()]),
            Self::Digest { request, first, count } => {
                put(3, &[&request.to_le_bytes(), &first.to_le_bytes(), &count.to_le_bytes()]);
            }
            Self::Complete { request } => put(4, &[&request.to_le_bytes()]),
            Self::Sync { request } => put(5, &[&request.to_le_bytes()]),
            Self::Apply { request, last, ranges } => {
                put(6, &[&request.to_le_bytes(), &[u8::from(*last)], &encode_ranges(ranges)]);
            }
            Self::Ask { request, body } => put(7, &[&request.to_le_bytes(), body]),
            Self::Granted { request, granted } => {
                let why = granted.not_durable.as_deref().unwrap_or_default();
                put(129, &[granted_body(*request, granted).as_bytes(), why.as_bytes()]);
            }
            Self::Token { request, token } => put(130, &[&request.to_le_bytes(), token]),
            Self::Digests { request, digests } => put(131, &[&request.to_le_bytes(), digests.as_flattened()]),
            Self::Done { request } => put(132, &[&request.to_le_bytes()]),
            Self::Refused { request, code, why } => {
                put(133, &[&request.to_le_bytes(), &code.code().to_le_bytes(), why.as_bytes()]);
            }
            Self::Revoked { why } => put(134, &[why.as_bytes()]),
            Self::Answer { request, body } => put(135, &[&request.to_le_bytes(), body]),
        }
        out
    }

    /// Reads one.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let (&kind, body) =
            bytes.split_first().ok_or(MessageError { kind: 0, len: 0, why: "it is empty" })?;
        let bad = |why| MessageError { kind, len: bytes.len(), why };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if kind == 134 {
            return Ok(Self::Revoked { why: text(body) });
        }
        if kind == 1 {
            return decode_attach(body).ok_or(bad("no attach body"));
        }
        if kind == 129 {
            return decode_granted(body).ok_or(bad("no grant body"));
        }
        let (request, rest) = U32::read_from_prefix(body).map_err(|_| bad("it has no request number"))?;
        let request = request.get();
        let exact =
            |message: Self| if rest.is_empty() { Ok(message) } else { Err(bad("bytes follow its end")) };
        match kind {
            2 => exact(Self::OpenQueue { request }),
            3 => {
                let [first, count] =
                    <[U32; 2]>::read_from_bytes(rest).map_err(|_| bad("no range of chunks"))?;
                Ok(Self::Digest { request, first: first.get(), count: count.get() })
            }
            4 => exact(Self::Complete { request }),
            5 => exact(Self::Sync { request }),
            6 => {
                let (&last, list) = rest.split_first().ok_or(bad("no last flag"))?;
                decode_ranges(list)
                    .map(|ranges| Self::Apply { request, last: last != 0, ranges })
                    .ok_or(bad("no list of ranges"))
            }
            7 | 135 if rest.len() > REQUEST_BYTES_MAX => Err(bad("it is longer than a question may be")),
            7 => Ok(Self::Ask { request, body: rest.to_vec() }),
            130 => rest.try_into().map(|token| Self::Token { request, token }).map_err(|_| bad("no token")),
            131 => {
                let (digests, tail) = rest.as_chunks::<32>();
                if tail.is_empty() {
                    Ok(Self::Digests { request, digests: digests.to_vec() })
                } else {
                    Err(bad("half a digest"))
                }
            }
            132 => exact(Self::Done { request }),
            133 => {
                let (code, why) = U16::read_from_prefix(rest).map_err(|_| bad("no code"))?;
                Ok(Self::Refused { request, code: RefusalCode::from_code(code.get()), why: text(why) })
            }
            135 => Ok(Self::Answer { request, body: rest.to_vec() }),
            _ => Err(bad("the kind is unknown")),
        }
    }
}

#[cfg(test)]
mod tests;
