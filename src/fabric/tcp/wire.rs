//! The byte stream below the frames: the socket as it is, or sealed in records.
//!
//! ```text
//!  0        2
//!  ├─ size ─┼─ size bytes of ciphertext …        size: u16, little-endian
//! ```
//!
//! A record holds at most [`RECORD_PLAIN_MAX`] bytes of the stream; frames and records do not line up. What a record
//! says is used only after the cipher opened it. Nothing is allocated once the buffers exist.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// Most bytes of the stream in one record: what a Noise message holds, with 16 bytes for its tag.
pub const RECORD_PLAIN_MAX: usize = 65_519;
/// Bytes that hold the size of a record.
const RECORD_PREFIX_BYTES: usize = 2;
/// Most bytes of a record on the wire.
const RECORD_WIRE_MAX: usize = RECORD_PREFIX_BYTES + u16::MAX as usize;
/// Sealed bytes kept at most, on their way out and on their way in.
const SEALED_BYTES_MAX: usize = 4 * RECORD_WIRE_MAX;
// A record with its tag of 16 bytes fits its size field; an incomplete record leaves room for the rest of it.
const _: () = assert!(RECORD_PLAIN_MAX + 16 == u16::MAX as usize && SEALED_BYTES_MAX >= 2 * RECORD_WIRE_MAX);
/// Data that stays unacknowledged by the peer's kernel for so long ends the connection. Liveness proper is watched on
/// the control connection; this bound is for a path that swallows one connection only.
const USER_TIMEOUT_MS: u32 = 20_000;

/// Seals and opens records: keys, nonces and their order are its business.
pub trait RecordCipher: Send {
    /// Appends the record of `plain`, at most [`RECORD_PLAIN_MAX`] bytes, to `out`: its size and at most 65535 bytes of
    /// ciphertext.
    ///
    /// # Errors
    /// Says why nothing can be sealed any more.
    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), String>;

    /// Appends what the ciphertext `record` holds, at most [`RECORD_PLAIN_MAX`] bytes, to `out`.
    ///
    /// # Errors
    /// The record is not the next one that the peer sealed.
    fn open(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), String>;
}

/// Why the byte stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WireError {
    /// The connection is gone; says how.
    Gone(String),
    /// A record did not open or could not be sealed.
    Cipher(String),
}

/// What a look at the socket gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// Bytes, of which some may wait for the rest of their record.
    Some,
    /// Nothing now.
    None,
}

/// What [`Wire::send`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// Bytes taken.
    pub(super) taken: usize,
    /// The socket takes no more now.
    pub(super) full: bool,
}

/// One connection.
pub(super) struct Wire {
    stream: OwnedFd,
    sealing: Option<Sealing>,
    calls: u64,
}

struct Sealing {
    cipher: Box<dyn RecordCipher>,
    outgoing: Vec<u8>,
    sent: usize,
    incoming: Vec<u8>,
    opened: usize,
}

impl Wire {
    /// Takes over a connected socket. `leftover` is what was received after the last byte of whatever went before;
    /// what is left of it for the stream is returned.
    pub(super) fn new(
        stream: OwnedFd,
        cipher: Option<Box<dyn RecordCipher>>,
        mut leftover: Vec<u8>,
    ) -> (Self, Vec<u8>) {
        // Sockets that are not TCP have neither option nor the delays these are against.
        if let Err(error) = rustix::net::sockopt::set_tcp_nodelay(&stream, true) {
            log::debug!("TCP_NODELAY: {error}");
        }
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT_MS) {
            log::debug!("TCP_USER_TIMEOUT: {error}");
        }
        let sealing = cipher.map(|cipher| {
            let mut incoming = Vec::with_capacity(SEALED_BYTES_MAX.max(leftover.len()));
            incoming.append(&mut leftover);
            let outgoing = Vec::with_capacity(SEALED_BYTES_MAX);
            Sealing { cipher, outgoing, sent: 0, incoming, opened: 0 }
        });
        (Self { stream, sealing, calls: 0 }, leftover)
    }

    /// The socket, to sleep on.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Calls of send and recv so far, those that moved nothing included.
    pub(super) const fn calls(&self) -> u64 {
        self.calls
    }

    /// Whether bytes that were taken have not left yet.
    pub(super) fn backlog(&self) -> bool {
        self.sealing.as_ref().is_some_and(|sealing| sealing.sent < sealing.outgoing.len())
    }

    /// Takes bytes off the front of `plain`, as many as go now.
    #[inline]
    pub(super) fn send(&mut self, plain: &[u8]) -> Result<Sent, WireError> {
        let Some(sealing) = &mut self.sealing else {
            let taken = if plain.is_empty() { 0 } else { send(&self.stream, plain, &mut self.calls)? };
            return Ok(Sent { taken, full: taken < plain.len() });
        };
        let taken = sealing.seal(plain)?;
        if sealing.sent < sealing.outgoing.len() {
            sealing.sent += send(&self.stream, &sealing.outgoing[sealing.sent..], &mut self.calls)?;
        }
        Ok(Sent { taken, full: self.backlog() })
    }

    /// Appends bytes of the stream to `plain`, within its capacity. Blocks, when asked, up to the time set by
    /// [`set_patience`](Self::set_patience).
    #[inline]
    pub(super) fn receive(&mut self, plain: &mut Vec<u8>, blocking: bool) -> Result<Input, WireError> {
        let Some(sealing) = &mut self.sealing else {
            assert!(plain.len() < plain.capacity(), "no room to receive: complete frames were left in place");
            return receive(&self.stream, plain, blocking, &mut self.calls);
        };
        if sealing.open(plain)? {
            return Ok(Input::Some);
        }
        if plain.capacity() - plain.len() < RECORD_PLAIN_MAX {
            return Ok(Input::None);
        }
        let input = receive(&self.stream, &mut sealing.incoming, blocking, &mut self.calls)?;
        sealing.open(plain)?;
        Ok(input)
    }

    /// How long a blocking receive lasts at most.
    pub(super) fn set_patience(&self, patience: Duration) -> Result<(), WireError> {
        rustix::io::ioctl_fionbio(&self.stream, false).map_err(|error| gone("ioctl(FIONBIO)", error))?;
        rustix::net::sockopt::set_socket_timeout(
            &self.stream,
            rustix::net::sockopt::Timeout::Recv,
            Some(patience),
        )
        .map_err(|error| gone("setsockopt(SO_RCVTIMEO)", error))
    }

    /// No more bytes will be sent.
    pub(super) fn finish_sending(&self) {
        // Fails when the peer is gone already, and then there is nobody to tell.
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write);
    }

    /// Receives and drops bytes as they are; `false` once the peer has closed.
    pub(super) fn discard(&mut self, scratch: &mut Vec<u8>) -> bool {
        scratch.clear();
        receive(&self.stream, scratch, true, &mut self.calls).is_ok()
    }
}

impl Sealing {
    /// Seals as much of `plain` as there is room for; returns how much.
    fn seal(&mut self, plain: &[u8]) -> Result<usize, WireError> {
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        }
        let mut taken = 0;
        while taken < plain.len() && SEALED_BYTES_MAX - self.outgoing.len() >= RECORD_WIRE_MAX {
            let end = plain.len().min(taken + RECORD_PLAIN_MAX);
            let start = self.outgoing.len();
            self.cipher.seal(&plain[taken..end], &mut self.outgoing).map_err(WireError::Cipher)?;
            let made = self.outgoing.len() - start;
            assert!(made <= RECORD_WIRE_MAX, "the cipher made a record of {made} bytes");
            taken = end;
        }
        Ok(taken)
    }

    /// Opens the complete records that `plain` has room for; whether there was one.
    fn open(&mut self, plain: &mut Vec<u8>) -> Result<bool, WireError> {
        let mut any = false;
        while plain.capacity() - plain.len() >= RECORD_PLAIN_MAX {
            let rest = &self.incoming[self.opened..];
            let Some((prefix, rest)) = rest.split_first_chunk::<RECORD_PREFIX_BYTES>() else { break };
            let size = usize::from(u16::from_le_bytes(*prefix));
            let Some(record) = rest.get(..size) else { break };
            let before = plain.len();
            self.cipher.open(record, plain).map_err(WireError::Cipher)?;
            let opened = plain.len() - before;
            assert!(opened <= RECORD_PLAIN_MAX, "the cipher opened {opened} bytes of one record");
            self.opened += RECORD_PREFIX_BYTES + size;
            any = true;
        }
        if self.opened > 0 {
            self.incoming.copy_within(self.opened.., 0);
            self.incoming.truncate(self.incoming.len() - self.opened);
            self.opened = 0;
        }
        Ok(any)
    }
}

fn send(stream: &OwnedFd, bytes: &[u8], calls: &mut u64) -> Result<usize, WireError> {
    loop {
        *calls += 1;
        match rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => return Ok(count),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(gone("send", error)),
        }
    }
}

fn receive(
    stream: &OwnedFd,
    bytes: &mut Vec<u8>,
    blocking: bool,
    calls: &mut u64,
) -> Result<Input, WireError> {
    let flags = if blocking { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    loop {
        *calls += 1;
        match rustix::net::recv(stream, spare_capacity(bytes), flags) {
            Ok((_, 0)) => return Err(WireError::Gone("it closed the connection".into())),
            Ok(_) => return Ok(Input::Some),
            Err(Errno::AGAIN) => return Ok(Input::None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(gone("recv", error)),
        }
    }
}

fn gone(call: &str, error: Errno) -> WireError {
    WireError::Gone(format!("{call}: {error}"))
}
