//! The control connection and the handshake of data streams: who the peer is, what it can do, whether it lives.
//!
//! Pure cores. Nothing here does I/O, reads a clock or starts a thread: bytes go in by `handle_bytes`, come out by
//! `poll_transmit`, time is an argument. Whatever owns the socket drains `poll_transmit` and `poll_event` after each
//! call and calls `handle_timeout` when `poll_timeout` says so.
//!
//! ```text
//!   initiator                                                responder
//!   preface 32 bytes             ───────────────────────▶    kind, version range, session (data streams)
//!                                ◀───────────────────────    preface 32 bytes: its range, or a refusal
//!   Noise message 1 (psk, e)     ───────────────────────▶    tries each key (control) or token (data)
//!                                ◀───────────────────────    Noise message 2 (e, ee), or a refusal
//!   record: Hello, or purpose    ───────────────────────▶    only now is the initiator authenticated
//!                                ◀───────────────────────    record: Hello (control streams only)
//!   records                      ◀──────────────────────▶    records
//! ```
//!
//! * **Preface** ([`Preface`]): frozen for all versions, so that any two builds can tell each other what they speak.
//!   Both prefaces are the Noise prologue: one altered bit of either and message 1 fails its tag. The version in use is
//!   the highest that both ranges hold; each side computes it for itself.
//! * **Handshake**: `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s`. A frame is a little-endian `u16` length and that many
//!   bytes. A frame of one byte in place of message 2 is a refusal. Refusals are not authenticated: they help people
//!   to find a mistake, and an attacker who can forge one could as well cut the line.
//! * **Replay**: message 1 can be replayed by whoever recorded it. It earns message 2 and nothing else: the initiator
//!   counts as authenticated when its first record decrypts, which takes the private half of its ephemeral key.
//! * **Bounds before authentication**: [`HANDSHAKE_BYTES_MAX`] bytes taken, [`HANDSHAKE_MESSAGE_MAX`] a message,
//!   [`HANDSHAKE_TIME_MAX`] from start to end.
//! * **Records** ([`RecordSealer`], [`RecordOpener`]): `u16` length, ciphertext and tag; the nonce is the record's number, so what
//!   is dropped, repeated or reordered fails. On the control connection a record is one message: channel `u8`, body.
//!
//! Rotation of keys is described at [`KeySet`].

mod config;
mod connection;
#[cfg(test)]
mod connection_tests;
mod data;
mod error;
mod event;
mod frame;
mod key;
mod link;
mod message;
mod noise;
mod opening;
mod preface;
mod queue_proof;
#[cfg(test)]
mod robustness_tests;

pub use config::{ConnectionConfig, Hello, HelloError, INTERVAL_MAX, INTERVAL_MIN, OPAQUE_BYTES_MAX};
pub use connection::Connection;
pub use data::{DataCipher, DataHandshake, LEFTOVER_BYTES_MAX, PURPOSE_BYTES_MAX, TOKENS_MAX};
pub use error::{CloseReason, ControlError, Ended, SendError};
pub use event::{Event, State};
pub use key::{KEYS_MAX, KeySet, KeyTextError, Token};
pub use message::Channel;
pub use noise::{RECORD_OVERHEAD, RECORD_PLAIN_MAX, RecordError, RecordOpener, RecordSealer};
pub use preface::{PREFACE_LEN, Preface, PrefaceKind, RefusalCode, VERSIONS, VersionRange};
pub use queue_proof::{QUEUE_PROOF_BYTES, check_answer, find_request, prove_answer, prove_request};

use std::time::Duration;

/// Bytes that are taken from a peer, in all, before it is authenticated.
pub const HANDSHAKE_BYTES_MAX: usize = 1024;
/// Length of one message of the handshake.
pub const HANDSHAKE_MESSAGE_MAX: usize = 512;
/// Time from the first byte's chance to come to the end of the handshake.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Body of one message on the control connection.
pub const MESSAGE_BYTES_MAX: usize = 60 * 1024;
/// Sealed bytes that wait for `poll_transmit`; [`Connection::send`] refuses what would go beyond.
pub const SEND_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Events that wait for `poll_event`: what 64 KiB of the shortest messages make, rounded up.
pub const EVENTS_MAX: usize = 4096;
/// How long an orderly close waits for the peer's answer.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// A shell may move each of them to the thread that owns the socket.
const fn moves_between_threads<T: Send>() {}
const _: () = {
    moves_between_threads::<Connection>();
    moves_between_threads::<DataHandshake>();
    moves_between_threads::<RecordSealer>();
    moves_between_threads::<RecordOpener>();
};
