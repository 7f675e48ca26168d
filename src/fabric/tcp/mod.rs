//! The TCP fabric: frames over one connection per queue, applied in order by a thread of the responder.
//!
//! ```text
//!  requester                                       responder
//!  TcpQueue ─ Outbox ─ Wire ══ TCP ══ Wire ─ Staging ─ Responder ─▶ ExportedWindow
//!           ◀ Staging ─────────────────────── Outbox ──┘
//! ```
//!
//! * A frame's bytes enter memory only after the CRC32C of header and payload matched, the sequence number was the
//!   next one, and window, generation, access and range were found good. A frame that fails any of these is refused
//!   by a Nak, and the connection ends there.
//! * Requests are carried out in the order in which they were posted. An Ack is written after the bytes of all
//!   requests up to the one that it names are in the region, so a completion means `Visible`.
//! * Memory is bounded on both sides: each direction has one outbox and one staging buffer of fixed size. A responder
//!   with no room for an answer does not look at further requests; a requester always takes answers, so the two
//!   cannot wait for each other.
//! * CRC32C finds accidents. Against attackers the bytes are sealed in records by a [`RecordCipher`], below the frames.
//!
//! The connection is made and authenticated elsewhere; this room starts with a connected descriptor.

mod buffer;
mod frame;
mod queue;
mod receiver;
mod responder;
#[cfg(test)]
mod tests;
mod wire;

pub use buffer::Outbox;
pub use frame::{
    FRAME_HEADER_BYTES, FRAME_PAYLOAD_MAX, Frame, FrameDecoder, FrameError, FrameKind, Header, NakReason,
};
pub use queue::{DEPTH_MAX, TcpQueue};
pub use receiver::{Receiver, ReceiverCounts, ReceiverEnd, ReceiverEndReason};
pub use responder::{Refusal, Responder, Step};
pub use wire::{RECORD_PLAIN_MAX, RecordCipher};
