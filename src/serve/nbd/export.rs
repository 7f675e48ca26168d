//! What an NBD server serves: the contract between it and whatever keeps the blocks.
//!
//! **Taken, committed, durable.** A write is *taken* when [`Export::write`] returns: the export has the bytes and has given them a
//! place, named by a [`Mark`]. It is *committed* when [`Export::commit`] of that mark, or a later one, returns; only then
//! does the client hear of it. It is *durable* when a [`Export::flush`] that began later returns.
//!
//! **One gate for all replies.** Reads and extents return a mark too: what they saw may have been taken and not
//! committed, and a reply that shows it must not go out before. The server executes as many requests as
//! have come, and calls `commit` once, with the newest mark of them all.
//!
//! **Who waits.** `commit` and `flush` may wait for a peer or a disk for long, and what takes a write, a trim or zeroes may wait as
//! long for a place to put it; they ask `gone` at least every [`GONE_POLL_MAX`] and give up when it says so. All other calls are
//! short. Each runs on the thread of the connection, and any number of connections call at once.
//!
//! Ranges are in bytes, at any offset and of any length within [`Export::size`]; the server has checked them against the size
//! that the export had a moment ago. An export that shrinks meanwhile answers
//! [`OutOfRange`](ExportErrorKind::OutOfRange).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::memory::VolatileSlice;

/// How often, at least, a call that waits asks whether the client is gone.
pub const GONE_POLL_MAX: Duration = Duration::from_millis(100);

/// A point in the order of what an export took; later is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mark(pub u64);

/// What kind of failure it is, which decides the number that the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExportErrorKind {
    /// No room for what was to be written.
    NoSpace,
    /// The medium failed, or the bytes on it are damaged.
    Io,
    /// It may be read only.
    ReadOnly,
    /// Beyond the end.
    OutOfRange,
    /// It is being closed; another server may take it over.
    ShuttingDown,
    /// It cannot do that.
    Unsupported,
}

/// Why an export did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ExportError {
    /// Its kind.
    pub kind: ExportErrorKind,
    /// For people, with numbers; clients with structured replies are shown it.
    pub text: String,
}

impl ExportError {
    /// Of `kind`, explained by `text`.
    #[must_use]
    pub fn new(kind: ExportErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// An export as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportName {
    /// What a client asks for.
    pub name: String,
    /// For people.
    pub description: String,
}

/// A stretch of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentRun {
    /// Its length; not 0.
    pub bytes: u64,
    /// Nothing is stored there, and it reads as zeroes.
    pub hole: bool,
}

/// Consecutive stretches from the offset that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extents {
    /// At least one, neighbours differing, and no further than the range that was asked for; they may end before it does.
    pub runs: Vec<ExtentRun>,
    /// Must be committed before anybody is told.
    pub mark: Mark,
}

/// A stretch of an export, as far as the peer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerRun {
    /// Its length; not 0.
    pub bytes: u64,
    /// The peer lacks what is stored there.
    pub lacks: bool,
}

/// Consecutive stretches from the offset that was asked for, as [`Extents`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerExtents {
    /// At least one.
    pub runs: Vec<PeerRun>,
    /// Must be committed before anybody is told.
    pub mark: Mark,
}

/// Bytes that are still at the client's end of the socket, complete there: taking them waits for nobody.
pub trait Fill {
    /// Bytes that were not taken yet.
    fn bytes(&self) -> usize;

    /// Fills all of `target` with the next bytes. May be called several times, for a payload that is split.
    ///
    /// # Errors
    /// The connection broke; what is in `target` is worth nothing, and the write has to fail with
    /// [`Io`](ExportErrorKind::Io).
    ///
    /// # Panics
    /// When `target` is longer than what is left.
    fn fill(&mut self, target: VolatileSlice<'_>) -> io::Result<()>;
}

/// What is to be written.
pub enum Payload<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// Bytes that are received straight into the export's own memory, which saves a copy of a large payload. All of them have
    /// to be taken, or the write has to fail.
    Fill(&'a mut dyn Fill),
}

impl Payload<'_> {
    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Fill(fill) => fill.bytes(),
        }
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Bytes(_) => "Bytes",
            Self::Fill(_) => "Fill",
        };
        write!(f, "{kind}({} bytes)", self.bytes())
    }
}

/// Everything that a server offers.
pub trait Exports: Send + Sync {
    /// The export of that name. The empty name stands for the default: the only export, when there is exactly one.
    fn open(&self, name: &str) -> Option<Arc<dyn Export>>;

    /// All that clients are told of.
    fn list(&self) -> Vec<ExportName>;
}

/// One disk.
pub trait Export: Send + Sync {
    /// Whether it is not served here any more as it was when it was opened. Then nothing more is answered, not even that something failed: the
    /// connection ends, and the client asks again where it is served now.
    fn moved(&self) -> bool {
        false
    }

    /// Bytes, now. Clients learn of a change when they connect anew.
    fn size(&self) -> u64;

    /// The block that suits it best, a power of two from 512 on. Clients are told that they may use any other.
    fn block_bytes(&self) -> u32;

    /// Whether it takes no writes.
    fn read_only(&self) -> bool;

    /// Fills `target`, which is not empty, with the bytes from `offset` on. The reply must not go before the mark is committed.
    ///
    /// # Errors
    /// Nothing in `target` is shown to the client.
    fn read(&self, offset: u64, target: &mut [u8]) -> Result<Mark, ExportError>;

    /// Takes a write, which is not acknowledged before its mark is committed. Waits while there is no place for it; `gone` tells whether the
    /// client still waits.
    ///
    /// # Errors
    /// The client is told that it failed; as on any disk, old bytes, new bytes or a mix may be there.
    fn write(&self, offset: u64, payload: Payload<'_>, gone: &dyn Fn() -> bool) -> Result<Mark, ExportError>;

    /// Gives back what is stored in a range, as far as whole blocks lie in it. What it reads as afterwards is not defined.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    fn trim(&self, offset: u64, len: u64, gone: &dyn Fn() -> bool) -> Result<Mark, ExportError>;

    /// Makes a range read as zeroes. It is as quick for a long range as for a short one, but for parts of blocks at both ends.
    /// `keep_allocated`: later writes there must not fail for lack of room.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        keep_allocated: bool,
        gone: &dyn Fn() -> bool,
    ) -> Result<Mark, ExportError>;

    /// Waits until everything up to `mark` is committed, as long as that may take; `gone` tells whether the client still waits.
    ///
    /// # Errors
    /// The replies become failures; whether what was taken stays is not known. Nobody is asked when the client is gone.
    fn commit(&self, mark: Mark, gone: &dyn Fn() -> bool) -> Result<(), ExportError>;

    /// Waits until everything that was committed before is durable, whichever connection it came by.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    fn flush(&self, gone: &dyn Fn() -> bool) -> Result<(), ExportError>;

    /// What is stored and what is not in a range, at most `most` runs.
    ///
    /// # Errors
    /// The client is told.
    fn extents(&self, offset: u64, len: u64, most: usize) -> Result<Extents, ExportError>;

    /// Whether there is a peer that [`unreplicated`](Self::unreplicated) can tell of.
    fn has_peer(&self) -> bool {
        false
    }

    /// What of a range the peer has and what it lacks, at most `most` runs.
    ///
    /// # Errors
    /// The client is told.
    fn unreplicated(&self, offset: u64, len: u64, most: usize) -> Result<PeerExtents, ExportError> {
        let text = format!("{len} bytes at {offset}, {most} runs: there is no peer");
        Err(ExportError::new(ExportErrorKind::Unsupported, text))
    }
}
