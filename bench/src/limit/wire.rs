//! A TCP stream read and written with a stated way to wait, and the messages of the tcp limit.
//!
//! ```text
//! hello   64 bytes   magic, mode, size, batch, reach, pattern, seed, polling: each a u64
//! ack     16 bytes   stores received so far, fold of their checksums: each a u64
//! ```
//! All little-endian. What follows the hello is the bytes of stores and nothing else: both sides know where each
//! store goes, since both compute the same offsets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::workload::{DEPTH_MAX, Pattern, Polling, SPIN};

/// A side that stores gives up when nothing moves for this long.
pub(crate) const STALL: Duration = Duration::from_secs(10);
/// Looks in vain between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 64;
/// First word of a hello.
const MAGIC: u64 = u64::from_le_bytes(*b"mbLimit1");
/// Bytes of a hello.
pub(crate) const HELLO_BYTES: usize = 64;
/// Bytes of an ack.
pub(crate) const ACK_BYTES: usize = 16;
/// Bytes that go with a store at depth 1, and bytes of the answer: what a real protocol's header takes.
pub(crate) const HEADER_BYTES: usize = 48;

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A header and a store out, a header back.
    PingPong,
    /// Batches of stores, cumulative acks.
    Window,
    /// As `Window`, with a CRC32C of each store at both ends.
    Checked,
}

/// What the storing side says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    /// What follows.
    pub mode: Mode,
    /// Bytes of a store.
    pub size: usize,
    /// Stores of a batch.
    pub batch: usize,
    /// Bytes of memory that stores go to.
    pub reach: usize,
    /// Where they go.
    pub pattern: Pattern,
    /// Seed of the offsets.
    pub seed: u64,
    /// How the peer waits.
    pub polling: Polling,
}

impl Hello {
    /// As it goes over the wire.
    pub(crate) fn encode(&self) -> [u8; HELLO_BYTES] {
        let mode = match self.mode {
            Mode::PingPong => 0,
            Mode::Window => 1,
            Mode::Checked => 2,
        };
        let pattern = match self.pattern {
            Pattern::Append => 0,
            Pattern::Random => 1,
            Pattern::Hot => 2,
        };
        let polling = u64::from(self.polling == Polling::Spin);
        let words = [
            MAGIC,
            mode,
            self.size as u64,
            self.batch as u64,
            self.reach as u64,
            pattern,
            self.seed,
            polling,
        ];
        let mut bytes = [0; HELLO_BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, String> {
        let mut words = [0; 8];
        for (word, place) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(place.try_into().unwrap_or_default());
        }
        let [magic, mode, size, batch, reach, pattern, seed, polling] = words;
        if magic != MAGIC {
            return Err(format!("{magic:#018x} is not how a limit's connection begins"));
        }
        let mode = match mode {
            0 => Mode::PingPong,
            1 => Mode::Window,
            2 => Mode::Checked,
            other => return Err(format!("no mode {other}")),
        };
        let pattern = match pattern {
            0 => Pattern::Append,
            1 => Pattern::Random,
            2 => Pattern::Hot,
            other => return Err(format!("no pattern {other}")),
        };
        let number = |word: u64| usize::try_from(word).map_err(|_| format!("{word} is too large"));
        let polling = if polling == 1 { Polling::Spin } else { Polling::Block };
        let hello = Self {
            mode,
            size: number(size)?,
            batch: number(batch)?,
            reach: number(reach)?,
            pattern,
            seed,
            polling,
        };
        if hello.size == 0 || hello.size > hello.reach || hello.batch == 0 || hello.batch > DEPTH_MAX {
            return Err(format!("batches of {batch} stores of {size} bytes within {reach} make no sense"));
        }
        Ok(hello)
    }
}

/// What a side does when there is nothing to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Gives up after [`STALL`].
    Storing,
    /// Sleeps until something comes.
    Serving,
}

/// A stream, and how to wait on it.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    polling: Polling,
    patience: Patience,
    calls: u64,
}

impl Wire {
    /// Takes `stream` over.
    ///
    /// # Errors
    /// Its options could not be set.
    pub(crate) fn new(stream: TcpStream, polling: Polling, patience: Patience) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(polling == Polling::Spin)?;
        stream.set_write_timeout(Some(STALL))?;
        if patience == Patience::Storing {
            stream.set_read_timeout(Some(STALL))?;
        }
        Ok(Self { stream, polling, patience, calls: 0 })
    }

    /// System calls so far.
    pub(crate) const fn calls(&self) -> u64 {
        self.calls
    }

    /// Reads what there is, waiting for the first byte; 0 at the end of the stream.
    ///
    /// # Errors
    /// The connection failed, or nothing came in time.
    #[inline]
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut waiting = Waiting::new();
        loop {
            self.calls += 1;
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.polling == Polling::Spin => {
                    match (self.patience, waiting.look()) {
                        (Patience::Storing, Some(waited)) if waited > STALL => return Err(stalled()),
                        (Patience::Serving, Some(waited)) if waited > SPIN => {
                            self.sleep()?;
                            waiting = Waiting::new();
                        }
                        _ => std::hint::spin_loop(),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(stalled()),
                other => return other,
            }
        }
    }

    fn sleep(&mut self) -> io::Result<()> {
        self.calls += 1;
        let mut interest = [PollFd::new(&self.stream, PollFlags::IN)];
        match poll(&mut interest, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Fills `buffer`; `false` when the stream ended before its first byte.
    ///
    /// # Errors
    /// The connection failed, ended in the middle, or nothing came in time.
    #[inline]
    pub(crate) fn read_all(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_some(&mut buffer[done..])? {
                0 if done == 0 => return Ok(false),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(true)
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The connection failed, or took nothing in time.
    #[inline]
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        let mut waiting = Waiting::new();
        while done < bytes.len() {
            self.calls += 1;
            match self.stream.write(&bytes[done..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    done += count;
                    waiting = Waiting::new();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.polling == Polling::Spin => {
                    if waiting.look().is_some_and(|waited| waited > STALL) {
                        return Err(stalled());
                    }
                    std::hint::spin_loop();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(stalled()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn stalled() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, format!("the other side of the limit did not move for {STALL:?}"))
}

/// Looks in vain, and now and then how long they have taken together.
pub(super) struct Waiting {
    looks: u32,
    since: Option<Instant>,
}

impl Waiting {
    pub(super) const fn new() -> Self {
        Self { looks: 0, since: None }
    }

    pub(super) fn look(&mut self) -> Option<Duration> {
        self.looks = self.looks.wrapping_add(1);
        if !self.looks.is_multiple_of(LOOKS_PER_CLOCK) {
            return None;
        }
        Some(self.since.get_or_insert_with(Instant::now).elapsed())
    }
}

/// What the checksum of the next store makes of the fold of those before it.
#[inline]
pub(crate) const fn fold(before: u64, checksum: u32) -> u64 {
    before.rotate_left(7) ^ checksum as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello {
        mode: Mode::Checked,
        size: 65536,
        batch: 8,
        reach: 1 << 30,
        pattern: Pattern::Hot,
        seed: 3,
        polling: Polling::Spin,
    };

    #[test]
    fn a_hello_survives_the_wire() {
        assert_eq!(Hello::decode(&HELLO.encode()), Ok(HELLO));
    }

    #[test]
    fn a_wrong_hello_is_refused() {
        let damaged = |place: usize, byte: u8| {
            let mut bytes = HELLO.encode();
            bytes[place] = byte;
            Hello::decode(&bytes)
        };
        for (place, byte) in [(0, 0), (8, 3), (18, 0), (24, 0), (26, 1), (35, 0), (40, 9)] {
            assert!(damaged(place, byte).is_err(), "byte {place} = {byte}: {:?}", damaged(place, byte));
        }
    }

    #[test]
    fn a_fold_depends_on_order() {
        assert_ne!(fold(fold(0, 1), 2), fold(fold(0, 2), 1));
    }
}
