//! Frames: what stands on the wire, and the pure decoder of it.
//!
//! All numbers are little-endian. Requests and answers have the same header:
//!
//! ```text
//!  0        2    3       4            8                16               24               32
//!  ├ magic ─┼kind┼─flags─┼─── len ────┼───── psn ──────┼──── wr_id ─────┼──── offset ────┤
//!  32                    36           40               44               48
//!  ├────── window ───────┼ generation ┼─ payload_crc ──┼── header_crc ──┼─ payload …
//! ```
//!
//! | kind      | flags    | len             | offset                   | payload     |
//! |-----------|----------|-----------------|--------------------------|-------------|
//! | Write     | signaled | of the payload  | in the window            | `len` bytes |
//! | Read      | 0        | bytes wanted    | in the window            | none        |
//! | Flush     | 0        | 0               | 0                        | none        |
//! | ReadReply | 0        | of the payload  | psn of the Read          | `len` bytes |
//! | Ack       | 0        | 0               | psn of the last request  | none        |
//! | Nak       | reason   | 0               | psn that was due         | none        |
//!
//! `psn` counts the frames of one direction from 0 without gaps. Answers carry the `wr_id` of what they answer; an
//! Ack or ReadReply completes its request and all before it. `header_crc` is CRC32C of the 44 bytes before it and is
//! verified before any other field is believed; `payload_crc` is CRC32C of the payload, 0 when there is none.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::base::crc32c;

/// Bytes of a header.
pub const FRAME_HEADER_BYTES: usize = 48;
/// Most bytes of a payload.
pub const FRAME_PAYLOAD_MAX: usize = 128 << 10;
/// Most bytes of a frame.
pub(super) const FRAME_BYTES_MAX: usize = FRAME_HEADER_BYTES + FRAME_PAYLOAD_MAX;
/// "mb" on the wire.
const MAGIC: u16 = u16::from_le_bytes(*b"mb");
/// Bytes that the header's checksum covers.
const HEADER_CRC_AT: usize = FRAME_HEADER_BYTES - 4;
/// Flag of a Write: a completion is wanted.
pub(super) const SIGNALED: u8 = 1;

/// The header as it stands on the wire.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireHeader {
    magic: U16,
    kind: u8,
    flags: u8,
    len: U32,
    psn: U64,
    wr_id: U64,
    offset: U64,
    window: U32,
    generation: U32,
    payload_crc: U32,
    header_crc: U32,
}
const _: () = assert!(size_of::<WireHeader>() == FRAME_HEADER_BYTES);
// A length that was checked against the bound fits the field.
const _: () = assert!(FRAME_PAYLOAD_MAX <= u32::MAX as usize);

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Payload into the window.
    Write = 1,
    /// Bytes of the window are wanted.
    Read = 2,
    /// The answer to a Read.
    ReadReply = 3,
    /// An Ack once all Writes before it are visible.
    Flush = 4,
    /// A request and all before it are done.
    Ack = 5,
    /// A request was refused; nothing follows.
    Nak = 6,
}

impl FrameKind {
    const fn from_wire(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::Write,
            2 => Self::Read,
            3 => Self::ReadReply,
            4 => Self::Flush,
            5 => Self::Ack,
            6 => Self::Nak,
            _ => return None,
        })
    }

    /// Whether `len` bytes follow the header.
    #[must_use]
    pub const fn carries_payload(self) -> bool {
        matches!(self, Self::Write | Self::ReadReply)
    }
}

/// Why a responder refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum NakReason {
    /// The window was revoked.
    #[error("the window was revoked")]
    Revoked = 1,
    /// The window exists under another generation.
    #[error("the window is granted under another generation")]
    StaleGeneration = 2,
    /// There is no such window.
    #[error("there is no such window")]
    UnknownWindow = 3,
    /// The range does not lie within the window.
    #[error("the range lies outside the window")]
    OutOfRange = 4,
    /// A Write to a window that may only be read.
    #[error("the window may only be read")]
    ReadOnly = 5,
    /// The bytes were no frame that was due: checksum, sequence, kind or length.
    #[error("the bytes that arrived were not the frame that was due")]
    Garbled = 6,
    /// The file behind the window was truncated.
    #[error("the file behind the window was truncated")]
    MappingLost = 7,
}

impl NakReason {
    /// The reason with this number on the wire.
    #[must_use]
    pub const fn from_wire(reason: u8) -> Option<Self> {
        Some(match reason {
            1 => Self::Revoked,
            2 => Self::StaleGeneration,
            3 => Self::UnknownWindow,
            4 => Self::OutOfRange,
            5 => Self::ReadOnly,
            6 => Self::Garbled,
            7 => Self::MappingLost,
            _ => return None,
        })
    }
}

/// The fields of a header that mean something above the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: FrameKind,
    /// See the table above.
    pub flags: u8,
    /// See the table above; at most [`FRAME_PAYLOAD_MAX`].
    pub len: usize,
    /// Number of the frame in its direction.
    pub psn: u64,
    /// Id of the request.
    pub wr_id: u64,
    /// See the table above.
    pub offset: u64,
    /// The window of the request.
    pub window: u32,
    /// The generation of the grant.
    pub generation: u32,
}

impl Header {
    /// Writes the header of a frame that carries `payload` to `target`.
    ///
    /// # Panics
    /// When the payload is not as long as the header says.
    #[allow(clippy::cast_possible_truncation, reason = "the length was checked against a bound that fits")]
    pub fn encode(&self, payload: &[u8], target: &mut [u8; FRAME_HEADER_BYTES]) {
        let expected = if self.kind.carries_payload() { self.len } else { 0 };
        assert!(
            payload.len() == expected && self.len <= FRAME_PAYLOAD_MAX,
            "{self:?} with {} bytes",
            payload.len()
        );
        let wire = WireHeader {
            magic: MAGIC.into(),
            kind: self.kind as u8,
            flags: self.flags,
            len: (self.len as u32).into(),
            psn: self.psn.into(),
            wr_id: self.wr_id.into(),
            offset: self.offset.into(),
            window: self.window.into(),
            generation: self.generation.into(),
            payload_crc: if payload.is_empty() { 0 } else { crc32c(payload) }.into(),
            header_crc: 0.into(),
        };
        target.copy_from_slice(wire.as_bytes());
        let crc = crc32c(&target[..HEADER_CRC_AT]);
        target[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }

    /// Whether the request wants a completion.
    #[must_use]
    pub const fn wants_answer(&self) -> bool {
        match self.kind {
            FrameKind::Write => self.flags & SIGNALED != 0,
            FrameKind::Read | FrameKind::Flush => true,
            FrameKind::ReadReply | FrameKind::Ack | FrameKind::Nak => false,
        }
    }
}

/// Why bytes are no frame. Nothing of them may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The header's checksum does not match.
    #[error("header of frame {psn}: CRC32C is {found:#010x}, the header says {stated:#010x}")]
    HeaderChecksum {
        /// The frame that was due.
        psn: u64,
        /// Computed.
        found: u32,
        /// On the wire.
        stated: u32,
    },
    /// The payload's checksum does not match.
    #[error("payload of frame {psn}: CRC32C is {found:#010x}, the header says {stated:#010x}")]
    PayloadChecksum {
        /// The frame.
        psn: u64,
        /// Computed.
        found: u32,
        /// On the wire.
        stated: u32,
    },
    /// Not a frame of this protocol.
    #[error("frame {psn} starts with {found:#06x}, not {MAGIC:#06x}")]
    Magic {
        /// The frame that was due.
        psn: u64,
        /// On the wire.
        found: u16,
    },
    /// No such kind, or one that does not go in this direction.
    #[error("frame {psn} is of kind {found}, which is not due here")]
    Kind {
        /// The frame that was due.
        psn: u64,
        /// On the wire.
        found: u8,
    },
    /// Too long.
    #[error("frame {psn} is about {found} bytes, more than {FRAME_PAYLOAD_MAX}")]
    Length {
        /// The frame that was due.
        psn: u64,
        /// On the wire.
        found: u32,
    },
    /// A frame is missing, or came twice.
    #[error("frame {found} came where {expected} was due")]
    Sequence {
        /// Due.
        expected: u64,
        /// On the wire.
        found: u64,
    },
}

/// A verified frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// What followed.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes on the wire.
    #[must_use]
    pub const fn wire_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload.len()
    }
}

/// Finds the frames of one direction. Holds the number of the next one, and no bytes.
#[derive(Debug, Clone, Default)]
pub struct FrameDecoder {
    psn: u64,
}

impl FrameDecoder {
    /// At the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { psn: 0 }
    }

    /// The number of the frame that is due.
    #[must_use]
    pub const fn next_psn(&self) -> u64 {
        self.psn
    }

    /// The frame at the start of `bytes`; `None` while it is not there in full. The caller drops
    /// [`Frame::wire_bytes`] bytes before the next call.
    ///
    /// # Errors
    /// The bytes are not the frame that is due. The stream ends there: no later call can make sense of it.
    #[inline]
    pub fn decode<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Frame<'a>>, FrameError> {
        let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let (header, payload_crc) = self.header(head)?;
        let payload = if header.kind.carries_payload() { header.len } else { 0 };
        let Some(payload) = rest.get(..payload) else { return Ok(None) };
        let found = if payload.is_empty() { 0 } else { crc32c(payload) };
        if found != payload_crc {
            return Err(FrameError::PayloadChecksum { psn: self.psn, found, stated: payload_crc });
        }
        self.psn = self.psn.wrapping_add(1);
        Ok(Some(Frame { header, payload }))
    }

    fn header(&self, bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<(Header, u32), FrameError> {
        let psn = self.psn;
        let wire: &WireHeader = zerocopy::transmute_ref!(bytes);
        let found = crc32c(&bytes[..HEADER_CRC_AT]);
        if found != wire.header_crc.get() {
            return Err(FrameError::HeaderChecksum { psn, found, stated: wire.header_crc.get() });
        }
        if wire.magic.get() != MAGIC {
            return Err(FrameError::Magic { psn, found: wire.magic.get() });
        }
        let Some(kind) = FrameKind::from_wire(wire.kind) else {
            return Err(FrameError::Kind { psn, found: wire.kind });
        };
        let len = wire.len.get() as usize;
        if len > FRAME_PAYLOAD_MAX {
            return Err(FrameError::Length { psn, found: wire.len.get() });
        }
        if wire.psn.get() != psn {
            return Err(FrameError::Sequence { expected: psn, found: wire.psn.get() });
        }
        let header = Header {
            kind,
            flags: wire.flags,
            len,
            psn,
            wr_id: wire.wr_id.get(),
            offset: wire.offset.get(),
            window: wire.window.get(),
            generation: wire.generation.get(),
        };
        Ok((header, wire.payload_crc.get()))
    }
}
