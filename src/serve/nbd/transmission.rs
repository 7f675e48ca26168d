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

use std::sync::Arc;

use super::batch::Batch;
use super::channel::Channel;
use super::ended::Ended;
use super::errno::Refusal;
use super::export::{Export, ExportErrorKind};
use super::input::{INPUT_BYTES, Input};
use super::negotiated::Chosen;
use super::request::{Command, Request, Terms};
use super::wire::{REQUEST_BYTES, command_flag as flag};

/// Longest piece of a payload, or of the data of a reply.
const PIECE_BYTES_MAX: usize = 128 << 10;
/// Pieces end at multiples of it, where there are several.
const PIECE_ALIGNMENT: u64 = 4096;

const _: () = assert!(PIECE_BYTES_MAX + REQUEST_BYTES <= INPUT_BYTES);

/// A client that has chosen an export.
pub struct Transmission<'a, C> {
    pub(super) channel: &'a mut C,
    pub(super) export: Arc<dyn Export>,
    pub(super) structured: bool,
    pub(super) allocation: bool,
    pub(super) unreplicated: bool,
    pub(super) input: Input,
    pub(super) batch: Batch,
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
        let Chosen { export, structured, allocation, unreplicated, .. } = chosen;
        let batch = Batch::new(structured);
        Self { channel, export, structured, allocation, unreplicated, input, batch }
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
            contexts: self.allocation || self.unreplicated,
        };
        let command = match request.check(&terms) {
            Ok(command) => command,
            Err(refusal) => {
                self.stay()?;
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
            Command::Trim => self.export.trim(offset, len, &|| self.channel.gone()),
            // What is read comes from memory or from the disk's cache in any case.
            Command::Cache => {
                self.batch.done(request.cookie);
                return Ok(());
            }
            Command::WriteZeroes => {
                let keep_allocated = request.has(flag::NO_HOLE);
                self.export.write_zeroes(offset, len, keep_allocated, &|| self.channel.gone())
            }
            Command::BlockStatus => return self.block_status(request),
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
            // It may have sent many more, each of which would wait in vain.
            Err(error) if error.kind == ExportErrorKind::ShuttingDown && self.channel.gone() => {
                return Err(Ended::Gone);
            }
            Err(error) => {
                self.stay()?;
                self.batch.refuse(request.cookie, &error.into(), None);
            }
        }
        Ok(())
    }

    /// Before something is told to have failed: it may have only because the export is served elsewhere now.
    pub(super) fn stay(&self) -> Result<(), Ended> {
        if self.export.moved() { Err(Ended::Moved) } else { Ok(()) }
    }

    /// Answers what was executed, then waits for more; ends as `end` when nothing more comes.
    pub(super) fn await_more(&mut self, end: Ended) -> Result<(), Ended> {
        self.settle()?;
        if self.input.receive(self.channel)? { Ok(()) } else { Err(end) }
    }

    /// Commits what was executed and sends the replies; returns why they became failures, if they did.
    pub(super) fn settle(&mut self) -> Result<Option<Refusal>, Ended> {
        let mut failed = None;
        if let Some(mark) = self.batch.take_mark()
            && let Err(error) = self.export.commit(mark, &|| self.channel.gone())
        {
            if self.channel.gone() {
                return Err(Ended::Gone);
            }
            self.stay()?;
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
                Err(error) => {
                    self.stay()?;
                    self.batch.fail_sync(&error.into());
                }
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
}

/// Bytes of the next piece of a range that begins at `at`.
pub(super) const fn piece_bytes(at: u64, left: usize) -> usize {
    if left <= PIECE_BYTES_MAX {
        return left;
    }
    let beyond = (at + PIECE_BYTES_MAX as u64) % PIECE_ALIGNMENT;
    PIECE_BYTES_MAX - beyond as usize
}
