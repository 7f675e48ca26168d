//! The requests of one client, from the choice of an export to the end.
//!
//! ```text
//!  receive ─▶ execute each whole request where it lies in the buffer ─▶ commit the newest mark ─▶ send all replies
//!     ▲                                                                                              │
//!     └──────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! One thread does all of it: handing a request to another costs more than most requests. Two system calls serve as many
//! requests as a client has sent ahead; in steady state nothing is allocated and nothing is locked here.
//!
//! **A client that stalls holds up nobody.** A piece of a payload goes to the export only when all of it has come, so that no place in a
//! log is ever held while a client is waited for. A long payload goes in pieces of at most [`PIECE_BYTES_MAX`], which end where a
//! block ends: such a write is not atomic, as on any disk, and needs no memory of its size. Before more is waited for, what was
//! executed is answered.
//!
//! Reads are cut likewise, where the client takes structured replies; what is not stored is not sent.

use std::io;
use std::sync::Arc;

use super::batch::{BATCH_BYTES_MAX, Batch};
use super::channel::{Channel, receive_into};
use super::errno::Refusal;
use super::export::{Export, ExportError, Fill, Mark, Payload};
use super::input::{INPUT_BYTES, Input};
use super::negotiated::Chosen;
use super::request::{Command, Request, Terms};
use super::wire::{PAYLOAD_BYTES_MAX, REQUEST_BYTES, command_flag as flag};
use crate::memory::VolatileSlice;

/// Longest piece of a payload, or of the data of a reply.
const PIECE_BYTES_MAX: usize = 128 << 10;
/// Pieces end at multiples of it, where there are several.
const PIECE_ALIGNMENT: u64 = 4096;
/// What is missing of a piece, if it is as much, is received straight into the export's memory: the copy saved is worth the system call
/// that finds out whether all of it is there.
const FILL_BYTES_MIN: usize = 16 << 10;
/// From this length on a read asks what is stored: below, sending zeroes is cheaper than to ask.
const SPARSE_BYTES_MIN: usize = 64 << 10;
/// Runs that are asked for in one piece of a read.
const SPARSE_RUNS_MAX: usize = 64;
/// Descriptors in a block status; a client asks again for what is behind them.
const STATUS_RUNS_MAX: usize = 1024;
/// The payload of a refused request that is read and thrown away; at a longer one the connection ends.
const DISCARDED_BYTES_MAX: u32 = 2 * PAYLOAD_BYTES_MAX;

const _: () = assert!(PIECE_BYTES_MAX + REQUEST_BYTES <= INPUT_BYTES);

/// How the requests of a client ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// As it should.
    #[error("the client disconnected")]
    Disconnected,
    /// Between two requests.
    #[error("the client closed the connection without a disconnect")]
    Closed,
    /// In the middle of a request.
    #[error("the client closed the connection in the middle of a request")]
    Truncated,
    /// While a commit or a flush was waited for.
    #[error("the client went away before its requests were answered")]
    Gone,
    /// What should be a request does not begin as one.
    #[error("what should be a request begins with {found:#010x}")]
    NotARequest {
        /// Its first word.
        found: u32,
    },
    /// Nobody reads that much to throw it away.
    #[error("a refused write of {bytes} bytes: at most {DISCARDED_BYTES_MAX} are skipped")]
    TooLong {
        /// Its payload.
        bytes: u32,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
}

/// A client that has chosen an export.
pub struct Transmission<'a, C> {
    channel: &'a mut C,
    export: Arc<dyn Export>,
    structured: bool,
    allocation: bool,
    input: Input,
    batch: Batch,
}

impl<C> std::fmt::Debug for Transmission<'_, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transmission").field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl<'a, C: Channel> Transmission<'a, C> {
    /// For the client at the other end of `channel`, of whose requests some may be in `input`.
    #[must_use]
    pub fn new(channel: &'a mut C, chosen: Chosen, input: Input) -> Self {
        let Chosen { export, structured, allocation, .. } = chosen;
        Self { channel, export, structured, allocation, input, batch: Batch::new(structured) }
    }

    /// Serves it to the end.
    #[must_use]
    pub fn run(mut self) -> Ended {
        loop {
            if let Err(ended) = self.step() {
                return ended;
            }
        }
    }

    #[inline]
    fn step(&mut self) -> Result<(), Ended> {
        let Some(header) = self.input.bytes().first_chunk::<REQUEST_BYTES>() else {
            let ended = if self.input.len() == 0 { Ended::Closed } else { Ended::Truncated };
            return self.await_more(ended);
        };
        let Some(request) = Request::parse(header) else {
            let found = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
            self.settle()?;
            return Err(Ended::NotARequest { found });
        };
        self.input.consume(REQUEST_BYTES);
        self.execute(&request)?;
        if self.batch.is_full() {
            self.settle()?;
        }
        Ok(())
    }

    fn execute(&mut self, request: &Request) -> Result<(), Ended> {
        let terms = Terms {
            size: self.export.size(),
            read_only: self.export.read_only(),
            structured: self.structured,
            allocation: self.allocation,
        };
        let command = match request.check(&terms) {
            Ok(command) => command,
            Err(refusal) => {
                self.skip(request.payload_bytes())?;
                self.batch.refuse(request.cookie, &refusal, None);
                return Ok(());
            }
        };
        let (offset, len) = (request.offset, u64::from(request.len));
        let taken = match command {
            Command::Read => return self.read(request),
            Command::Write => self.write(request)?,
            Command::Disconnect => {
                self.settle()?;
                return Err(Ended::Disconnected);
            }
            Command::Flush => {
                self.batch.wants_sync(request.cookie);
                return Ok(());
            }
            Command::Trim => self.export.trim(offset, len),
            // What is read comes from memory or from the disk's cache in any case.
            Command::Cache => {
                self.batch.done(request.cookie);
                return Ok(());
            }
            Command::WriteZeroes => self.export.write_zeroes(offset, len, request.has(flag::NO_HOLE)),
            Command::BlockStatus => {
                self.block_status(request);
                return Ok(());
            }
        };
        match taken {
            Ok(mark) => {
                self.batch.raise(mark);
                if request.has(flag::FUA) {
                    self.batch.wants_sync(request.cookie);
                } else {
                    self.batch.done(request.cookie);
                }
            }
            Err(error) => self.batch.refuse(request.cookie, &error.into(), None),
        }
        Ok(())
    }

    /// Answers what was executed, then waits for more; ends as `end` when nothing more comes.
    fn await_more(&mut self, end: Ended) -> Result<(), Ended> {
        self.settle()?;
        if self.input.receive(self.channel)? { Ok(()) } else { Err(end) }
    }

    /// Commits what was executed and sends the replies; returns why they became failures, if they did.
    fn settle(&mut self) -> Result<Option<Refusal>, Ended> {
        let mut failed = None;
        if let Some(mark) = self.batch.take_mark()
            && let Err(error) = self.export.commit(mark, &|| self.channel.gone())
        {
            if self.channel.gone() {
                return Err(Ended::Gone);
            }
            let refusal = Refusal::from(error);
            self.batch.fail(&refusal);
            failed = Some(refusal);
        }
        // Who asked for no sync does not wait for one.
        self.send()?;
        if self.batch.wants_any_sync() {
            match self.export.flush(&|| self.channel.gone()) {
                Ok(()) => self.batch.succeed_sync(),
                Err(_) if self.channel.gone() => return Err(Ended::Gone),
                Err(error) => self.batch.fail_sync(&error.into()),
            }
            self.send()?;
        }
        Ok(failed)
    }

    fn send(&mut self) -> Result<(), Ended> {
        let ready = self.batch.ready();
        if !ready.is_empty() {
            self.channel.send(ready)?;
            self.batch.sent();
        }
        Ok(())
    }

    /// Reads `bytes` of a payload and throws them away.
    fn skip(&mut self, bytes: u32) -> Result<(), Ended> {
        if bytes > DISCARDED_BYTES_MAX {
            self.settle()?;
            return Err(Ended::TooLong { bytes });
        }
        let mut left = bytes as usize;
        loop {
            let count = left.min(self.input.len());
            self.input.consume(count);
            left -= count;
            if left == 0 {
                return Ok(());
            }
            self.await_more(Ended::Truncated)?;
        }
    }

    /// Gives the payload to the export, piece by piece. What the export says is within; the connection's end is without.
    fn write(&mut self, request: &Request) -> Result<Result<Mark, ExportError>, Ended> {
        let (mut at, mut left) = (request.offset, request.len as usize);
        loop {
            let piece = piece_bytes(at, left);
            let taken = self.write_piece(at, piece)?;
            at += piece as u64;
            left -= piece;
            match taken {
                Ok(mark) if left == 0 => return Ok(Ok(mark)),
                Ok(mark) => self.batch.raise(mark),
                Err(error) => {
                    self.skip(u32::try_from(left).expect("a part of a payload"))?;
                    return Ok(Err(error));
                }
            }
        }
    }

    fn write_piece(&mut self, at: u64, bytes: usize) -> Result<Result<Mark, ExportError>, Ended> {
        loop {
            if let Some(payload) = self.input.bytes().get(..bytes) {
                let taken = self.export.write(at, Payload::Bytes(payload));
                self.input.consume(bytes);
                return Ok(taken);
            }
            let missing = bytes - self.input.len();
            if missing >= FILL_BYTES_MIN && self.channel.available() >= missing {
                return self.fill_piece(at, missing);
            }
            self.await_more(Ended::Truncated)?;
        }
    }

    /// A piece of which all that has come is the front, and the rest waits in the socket.
    fn fill_piece(&mut self, at: u64, missing: usize) -> Result<Result<Mark, ExportError>, Ended> {
        let mut filler =
            Filler { front: self.input.bytes(), channel: &mut *self.channel, left: missing, broken: None };
        let taken = self.export.write(at, Payload::Fill(&mut filler));
        let Filler { front, left, broken, .. } = filler;
        if let Some(error) = broken {
            return Err(Ended::Io(error));
        }
        assert!(
            taken.is_err() || (front.is_empty() && left == 0),
            "the export left {left} bytes of a payload"
        );
        self.input.consume(self.input.len());
        self.skip(u32::try_from(left).expect("a part of a piece"))?;
        Ok(taken)
    }

    fn read(&mut self, request: &Request) -> Result<(), Ended> {
        let cookie = request.cookie;
        let (mut at, mut left) = (request.offset, request.len as usize);
        if !self.structured || request.has(flag::DF) {
            match self.read_whole(request) {
                Ok(()) => self.batch.answered(cookie),
                Err(error) => self.batch.refuse(cookie, &error.into(), None),
            }
            return Ok(());
        }
        while left > 0 {
            let piece = piece_bytes(at, left);
            if let Err((error, at)) = self.read_piece(cookie, at, piece, piece == left) {
                self.batch.refuse(cookie, &error.into(), Some(at));
                return Ok(());
            }
            at += piece as u64;
            left -= piece;
            if left > 0
                && self.batch.replies.len() >= BATCH_BYTES_MAX
                && let Some(refusal) = self.settle()?
            {
                self.batch.refuse(cookie, &refusal, None);
                return Ok(());
            }
        }
        self.batch.answered(cookie);
        Ok(())
    }

    /// All in one reply: it is not known to be one before all was read.
    fn read_whole(&mut self, request: &Request) -> Result<(), ExportError> {
        let Request { cookie, offset, len, .. } = *request;
        let replies = &mut self.batch.replies;
        let before = replies.len();
        let target = if self.structured {
            replies.data_chunk(cookie, true, offset, len as usize)
        } else {
            replies.simple(cookie, 0);
            replies.extend(len as usize)
        };
        match self.export.read(offset, target) {
            Ok(mark) => {
                self.batch.raise(mark);
                Ok(())
            }
            Err(error) => {
                self.batch.replies.truncate(before);
                Err(error)
            }
        }
    }

    /// One piece as chunks of data and, where it is long, of holes. An error comes with its offset.
    fn read_piece(
        &mut self,
        cookie: u64,
        at: u64,
        bytes: usize,
        is_last: bool,
    ) -> Result<(), (ExportError, u64)> {
        if bytes < SPARSE_BYTES_MIN {
            return self.read_chunk(cookie, at, bytes, is_last);
        }
        let extents = self.export.extents(at, bytes as u64, SPARSE_RUNS_MAX).map_err(|error| (error, at))?;
        self.batch.raise(extents.mark);
        let (mut at, mut left) = (at, bytes);
        for run in extents.runs {
            let len = usize::try_from(run.bytes).map_or(left, |len| len.min(left));
            left -= len;
            let done = is_last && left == 0;
            if run.hole && len > 0 {
                let len = u32::try_from(len).expect("a part of a piece");
                self.batch.replies.hole_chunk(cookie, done, at, len);
            } else if len > 0 {
                self.read_chunk(cookie, at, len, done)?;
            }
            at += len as u64;
        }
        if left > 0 { self.read_chunk(cookie, at, left, is_last) } else { Ok(()) }
    }

    #[inline]
    fn read_chunk(
        &mut self,
        cookie: u64,
        at: u64,
        bytes: usize,
        done: bool,
    ) -> Result<(), (ExportError, u64)> {
        let before = self.batch.replies.len();
        let target = self.batch.replies.data_chunk(cookie, done, at, bytes);
        match self.export.read(at, target) {
            Ok(mark) => {
                self.batch.raise(mark);
                Ok(())
            }
            Err(error) => {
                self.batch.replies.truncate(before);
                Err((error, at))
            }
        }
    }

    fn block_status(&mut self, request: &Request) {
        let Request { cookie, offset, len, .. } = *request;
        let most = if request.has(flag::REQ_ONE) { 1 } else { STATUS_RUNS_MAX };
        match self.export.extents(offset, u64::from(len), most) {
            Ok(extents) => {
                assert!(extents.runs.len() <= most, "{} runs, at most {most}", extents.runs.len());
                self.batch.raise(extents.mark);
                self.batch.replies.block_status(cookie, &extents.runs, len);
                self.batch.answered(cookie);
            }
            Err(error) => self.batch.refuse(cookie, &error.into(), None),
        }
    }
}

/// Bytes of the next piece of a range that begins at `at`.
const fn piece_bytes(at: u64, left: usize) -> usize {
    if left <= PIECE_BYTES_MAX {
        return left;
    }
    let beyond = (at + PIECE_BYTES_MAX as u64) % PIECE_ALIGNMENT;
    PIECE_BYTES_MAX - beyond as usize
}

/// The rest of a payload, in the socket.
struct Filler<'a, C> {
    front: &'a [u8],
    channel: &'a mut C,
    /// Bytes in the socket.
    left: usize,
    broken: Option<io::Error>,
}

impl<C: Channel> Fill for Filler<'_, C> {
    fn bytes(&self) -> usize {
        self.front.len() + self.left
    }

    fn fill(&mut self, target: VolatileSlice<'_>) -> io::Result<()> {
        assert!(target.len() <= self.bytes(), "{} bytes of {}", target.len(), self.bytes());
        let count = self.front.len().min(target.len());
        let (front, rest) = self.front.split_at(count);
        target.write(0, front);
        self.front = rest;
        let target = target.subslice(count, target.len() - count).expect("the rest of it");
        if let Err(error) = receive_into(self.channel, target) {
            self.broken = Some(io::Error::new(error.kind(), error.to_string()));
            return Err(error);
        }
        self.left -= target.len();
        Ok(())
    }
}
