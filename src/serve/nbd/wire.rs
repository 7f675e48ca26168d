//! Numbers of the protocol, and reading of fields. Everything on the wire is big-endian.
//!
//! Source: "The NBD protocol", `doc/proto.md` of the reference implementation.

/// First word of a server's greeting: "NBDMAGIC".
pub(super) const GREETING: u64 = 0x4e42_444d_4147_4943;
/// Second word of the greeting, and first of each option: "IHAVEOPT".
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// First word of the reply to an option.
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First word of a request.
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First word of a simple reply.
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First word of a chunk of a structured reply.
pub(super) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Bytes of an option before its data.
pub(super) const OPTION_HEADER_BYTES: usize = 16;
/// Bytes of a request before its payload.
pub(super) const REQUEST_BYTES: usize = 28;
/// Bytes of a simple reply before its data.
pub(super) const SIMPLE_REPLY_BYTES: usize = 16;
/// Bytes of a chunk before its data.
pub(super) const CHUNK_HEADER_BYTES: usize = 20;

/// Longest string of the protocol.
pub(super) const STRING_BYTES_MAX: usize = 4096;
/// Longest payload of a request or of the data in a reply; every client assumes it unless told otherwise.
pub const PAYLOAD_BYTES_MAX: u32 = 32 << 20;

/// Flags of the handshake, both ways: fixed newstyle.
pub(super) const FIXED_NEWSTYLE: u16 = 1;
/// Flags of the handshake, both ways: no zeroes after EXPORT_NAME.
pub(super) const NO_ZEROES: u16 = 2;

/// The metadata context of every export.
pub(super) const ALLOCATION: &str = "base:allocation";
/// The number that it has in this server.
pub(super) const ALLOCATION_ID: u32 = 1;
/// The metadata context of exports that have a peer.
pub(super) const UNREPLICATED: &str = "mirrorbus:unreplicated";
/// The number that it has in this server.
pub(super) const UNREPLICATED_ID: u32 = 2;
/// Its status: the peer lacks what is stored there.
pub(super) const STATE_UNREPLICATED: u32 = 1;
/// Block status: nothing stored, reads as zeroes.
pub(super) const STATE_HOLE_AND_ZERO: u32 = 1 | 2;

/// What an export can do, as the client is told.
pub(super) mod transmission_flag {
    pub(in super::super) const HAS_FLAGS: u16 = 1;
    pub(in super::super) const READ_ONLY: u16 = 1 << 1;
    pub(in super::super) const SEND_FLUSH: u16 = 1 << 2;
    pub(in super::super) const SEND_FUA: u16 = 1 << 3;
    pub(in super::super) const SEND_TRIM: u16 = 1 << 5;
    pub(in super::super) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(in super::super) const SEND_DF: u16 = 1 << 7;
    pub(in super::super) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(in super::super) const SEND_CACHE: u16 = 1 << 10;
    pub(in super::super) const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Replies to options.
pub(super) mod option_reply {
    pub(in super::super) const ACK: u32 = 1;
    pub(in super::super) const SERVER: u32 = 2;
    pub(in super::super) const INFO: u32 = 3;
    pub(in super::super) const META_CONTEXT: u32 = 4;
    pub(in super::super) const ERR_UNSUP: u32 = 1 << 31 | 1;
    pub(in super::super) const ERR_INVALID: u32 = 1 << 31 | 3;
    pub(in super::super) const ERR_TLS_REQD: u32 = 1 << 31 | 5;
    pub(in super::super) const ERR_UNKNOWN: u32 = 1 << 31 | 6;
    pub(in super::super) const ERR_TOO_BIG: u32 = 1 << 31 | 9;
}

/// What INFO and GO tell of an export.
pub(super) mod info {
    pub(in super::super) const EXPORT: u16 = 0;
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DESCRIPTION: u16 = 2;
    pub(in super::super) const BLOCK_SIZE: u16 = 3;
}

/// Flags of a request.
pub(super) mod command_flag {
    pub(in super::super) const FUA: u16 = 1;
    pub(in super::super) const NO_HOLE: u16 = 1 << 1;
    pub(in super::super) const DF: u16 = 1 << 2;
    pub(in super::super) const REQ_ONE: u16 = 1 << 3;
    pub(in super::super) const FAST_ZERO: u16 = 1 << 4;
}

/// Kinds of chunks.
pub(super) mod chunk {
    pub(in super::super) const OFFSET_DATA: u16 = 1;
    pub(in super::super) const OFFSET_HOLE: u16 = 2;
    pub(in super::super) const BLOCK_STATUS: u16 = 5;
    pub(in super::super) const ERROR: u16 = 1 << 15 | 1;
    pub(in super::super) const ERROR_OFFSET: u16 = 1 << 15 | 2;
    /// Flag: the last of its reply.
    pub(in super::super) const DONE: u16 = 1;
}

/// Takes fields from the front of some bytes; `None` when there are not enough.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
