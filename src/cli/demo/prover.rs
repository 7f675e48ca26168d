//! The proof: what a fenced copy of the region holds is a prefix of what the owner stored, no less than it was
//! acknowledged.
//!
//! Three parts of the region, from byte 0:
//!
//! ```text
//!  valid entries, each byte as the sources give it │ at most one store in part │ zeroes to the end of the region
//!                                                  └ position                  └ position + bytes of the next entry
//! ```
//!
//! The middle part is the first store after the prefix, which was never acknowledged: any of its bytes may be there,
//! but no other byte. A later store without an earlier one would stand in the last part. Digests of complete files are
//! computed from the copy and from the disk separately.

use std::fmt;

use mirrorbus::VolatileSlice;

use super::log_format::{DIGEST_BYTES, Entry, Found, HEADER_BYTES, Kind};
use super::plan::{Cursor, Plan};
use super::source::Sources;

/// Bytes looked at a time where there should be none.
const SCAN_BYTES: usize = 64 << 10;

/// What was acknowledged, from a ledger outside the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ledger {
    /// Entries from the beginning of the log.
    pub(super) entries: u64,
    /// Bytes of log.
    pub(super) position: usize,
    /// File that the last of them belongs to.
    pub(super) file: usize,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof {
    /// The log is valid up to here.
    pub(super) position: usize,
    pub(super) entries: u64,
    /// Files that are complete, and equal to their sources.
    pub(super) files: u64,
    pub(super) file_bytes: u64,
    /// Bytes of the first store beyond the prefix that are there.
    pub(super) torn_bytes: usize,
}

/// Why it is no proof.
#[derive(Debug)]
pub(super) enum Disproof {
    /// An acknowledged store is not there.
    Missing { position: usize, ledger: Ledger },
    /// A byte that the sources do not give.
    Differs { position: usize, what: &'static str },
    /// A file in the copy is not the one on disk.
    Digest { path: std::path::PathBuf },
    /// A source cannot be read.
    Source(std::io::Error),
}

impl fmt::Display for Disproof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { position, ledger } => write!(
                f,
                "an acknowledged store is missing: the log ends at byte {position}, acknowledged were {} stores to \
                 byte {}",
                ledger.entries, ledger.position
            ),
            Self::Differs { position, what } => write!(f, "byte {position} of the copy is wrong: {what}"),
            Self::Digest { path } => write!(f, "{} is not the same in the copy and on disk", path.display()),
            Self::Source(error) => write!(f, "a source cannot be compared: {error}"),
        }
    }
}

impl From<std::io::Error> for Disproof {
    fn from(error: std::io::Error) -> Self {
        Self::Source(error)
    }
}

/// The end of the log in `memory`, by checksums alone.
///
/// # Errors
/// The first byte of a valid entry that does not belong there.
pub(super) fn log_end(memory: VolatileSlice<'_>, plan: &Plan) -> Result<Cursor, usize> {
    let (mut cursor, mut payload) = (Cursor::default(), Vec::new());
    while let Some((entry, next)) = plan.next(cursor) {
        match entry.read(memory, &mut payload) {
            Found::Expected => cursor = next,
            Found::End => break,
            Found::Other => return Err(cursor.position),
        }
    }
    Ok(cursor)
}

/// Proves what `memory`, which nobody writes any more, holds of `plan`.
///
/// # Errors
/// The first thing that does not hold.
pub(super) fn prove(memory: VolatileSlice<'_>, plan: &Plan, ledger: Ledger) -> Result<Proof, Disproof> {
    let mut sources = Sources::new(plan);
    let (mut cursor, mut held, mut expected) = (Cursor::default(), Vec::new(), Vec::new());
    let (mut files, mut file_bytes) = (0, 0);
    let mut digests = Digests::default();
    while let Some((entry, next)) = plan.next(cursor) {
        match entry.read(memory, &mut held) {
            Found::Expected => {}
            Found::End => break,
            Found::Other => return Err(differs(entry.position, "a valid entry that belongs elsewhere")),
        }
        sources.payload(&entry, &mut expected)?;
        if let Some(at) = held.iter().zip(&expected).position(|(held, expected)| held != expected) {
            let position = entry.position + HEADER_BYTES + at;
            return Err(differs(position, "not what the source gives"));
        }
        digests.take(entry.kind, &held, &expected);
        if next.file > cursor.file {
            let source = &plan.files[cursor.file];
            if !digests.agree() {
                return Err(Disproof::Digest { path: source.path.clone() });
            }
            files += 1;
            file_bytes += source.bytes;
        }
        cursor = next;
    }
    if cursor.position < ledger.position || cursor.entries < ledger.entries {
        return Err(Disproof::Missing { position: cursor.position, ledger });
    }
    let (torn_bytes, rest) = match plan.next(cursor) {
        Some((entry, next)) => (torn(memory, &entry, &mut sources)?, next.position),
        None => (0, cursor.position),
    };
    nothing_from(memory, rest)?;
    Ok(Proof { position: cursor.position, entries: cursor.entries, files, file_bytes, torn_bytes })
}

const fn differs(position: usize, what: &'static str) -> Disproof {
    Disproof::Differs { position, what }
}

/// How many bytes of `entry`, the first that is not valid, are there; any other byte disproves.
fn torn(memory: VolatileSlice<'_>, entry: &Entry, sources: &mut Sources<'_>) -> Result<usize, Disproof> {
    let mut payload = Vec::new();
    sources.payload(entry, &mut payload)?;
    let mut expected = entry.header(&payload).to_vec();
    expected.extend_from_slice(&payload);
    let mut held = vec![0; expected.len()];
    memory.read(entry.position, &mut held);
    let strange = held.iter().zip(&expected).position(|(held, expected)| *held != 0 && held != expected);
    if let Some(at) = strange {
        return Err(differs(entry.position + at, "beyond the prefix, and not of the next store"));
    }
    Ok(held.iter().filter(|byte| **byte != 0).count())
}

/// Checks that there is nothing from `start` on.
fn nothing_from(memory: VolatileSlice<'_>, start: usize) -> Result<(), Disproof> {
    let mut buffer = vec![0; SCAN_BYTES];
    for at in (start..memory.len()).step_by(SCAN_BYTES) {
        let buffer = &mut buffer[..SCAN_BYTES.min(memory.len() - at)];
        memory.read(at, buffer);
        if let Some(found) = buffer.iter().position(|&byte| byte != 0) {
            return Err(differs(at + found, "a later store is there, an earlier one is not"));
        }
    }
    Ok(())
}

/// The digests of one file: as its entry says, of the bytes in the copy, of the bytes on disk.
#[derive(Debug, Default)]
struct Digests {
    said: [u8; DIGEST_BYTES],
    held: blake3::Hasher,
    on_disk: blake3::Hasher,
}

impl Digests {
    fn take(&mut self, kind: Kind, held: &[u8], expected: &[u8]) {
        match kind {
            Kind::File { .. } => {
                self.said.copy_from_slice(&held[..DIGEST_BYTES]);
                self.held.reset();
                self.on_disk.reset();
            }
            Kind::Data { .. } => {
                self.held.update(held);
                self.on_disk.update(expected);
            }
        }
    }

    fn agree(&self) -> bool {
        let held = self.held.finalize();
        held == self.on_disk.finalize() && *held.as_bytes() == self.said
    }
}

#[cfg(test)]
#[path = "prover_tests.rs"]
mod tests;
