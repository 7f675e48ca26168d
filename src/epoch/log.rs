//! The log as it is read: which epochs are whole behind a position, and their application to an image.
//!
//! What is read may be anything: a peer wrote it, may have died in the middle of it, or writes it now. Nothing is taken for an epoch
//! before its commit record, the checksum of its body and each of its ranges were found right, and nothing of it is applied before.
//! Applying is putting the same bytes in the same places: done twice, or once more from an earlier epoch on, it leaves the same.

use super::applied::{Applied, read_applied};
use super::layout::{EpochLayout, HEAD_RECORD_BYTES, LogId, Position, decode_any_head, decode_head};
use super::record::{COMMIT_BYTES, Commit, RANGE_BYTES, decode_range};
use crate::base::crc32c_append;
use crate::memory::VolatileSlice;

/// Bytes of a body that are looked at at a time.
const CHUNK: usize = 64 << 10;

/// What stands at the next position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// No whole epoch, or not yet.
    Nothing,
    /// One.
    Epoch(Commit),
    /// A whole one that no owner makes: its ranges are not of this image. It is not applied, nor is any behind it.
    Bad(String),
}

/// The log whose head stands in `region`.
///
/// # Errors
/// What stands there instead.
pub(super) fn read_head(region: VolatileSlice<'_>, layout: EpochLayout) -> Result<LogId, String> {
    let mut bytes = [0; HEAD_RECORD_BYTES];
    region.read(0, &mut bytes);
    decode_head(&bytes, layout)
}

/// Whether `region` has epochs of whatever layout.
pub(super) fn has_epochs(region: VolatileSlice<'_>) -> bool {
    let mut bytes = [0; HEAD_RECORD_BYTES];
    region.read(0, &mut bytes);
    decode_any_head(&bytes).is_ok()
}

/// Bytes of the log from a position on, as a wrapping ring.
#[derive(Clone, Copy)]
struct Log<'a> {
    region: VolatileSlice<'a>,
    layout: EpochLayout,
}

impl Log<'_> {
    /// Copies what stands at `position`; the ring's end may lie between.
    fn read(&self, position: Position, target: &mut [u8]) {
        let (place, left) = self.layout.place(position);
        let (first, rest) = target.split_at_mut(left.min(target.len()));
        self.region.read(place, first);
        if !rest.is_empty() {
            self.region.read(self.layout.place(Position(0)).0, rest);
        }
    }

    fn crc(&self, position: Position, len: usize) -> u32 {
        let (mut crc, mut done) = (0, 0);
        let mut buffer = vec![0; CHUNK.min(len)];
        while done < len {
            let part = &mut buffer[..CHUNK.min(len - done)];
            self.read(Position(position.0.wrapping_add(done as u64)), part);
            crc = crc32c_append(crc, part);
            done += part.len();
        }
        crc
    }
}

/// Looks for the epoch that goes on from `after`.
pub(super) fn next_epoch(region: VolatileSlice<'_>, layout: EpochLayout, log: LogId, after: Applied) -> Next {
    let reader = Log { region, layout };
    let mut bytes = [0; COMMIT_BYTES];
    reader.read(after.position, &mut bytes);
    let Some(commit) = Commit::decode(&bytes, log, after, layout) else { return Next::Nothing };
    if reader.crc(commit.body_position(), commit.body) != commit.body_crc {
        return Next::Nothing;
    }
    let mut cursor = Cursor::new(&commit);
    let mut ranges = 0;
    loop {
        match cursor.step(region, layout, usize::MAX) {
            Step::Range { .. } => ranges += 1,
            Step::End if ranges == commit.ranges => return Next::Epoch(commit),
            Step::End => {
                return Next::Bad(format!(
                    "epoch {} has {ranges} ranges, not {}",
                    commit.number, commit.ranges
                ));
            }
            Step::Bad(why) => return Next::Bad(format!("epoch {}: {why}", commit.number)),
        }
    }
}

/// How far the application of an epoch has come.
#[derive(Debug)]
pub(super) struct Cursor {
    at: Position,
    left: usize,
    /// Of a range that is applied in pieces.
    open: Option<(usize, usize)>,
}

/// A piece of a range: where its bytes stand, and where they belong.
#[derive(Debug)]
enum Step {
    Range { at: Position, offset: usize, len: usize },
    End,
    Bad(String),
}

impl Cursor {
    pub(super) const fn new(commit: &Commit) -> Self {
        Self { at: commit.body_position(), left: commit.body, open: None }
    }

    /// The next piece, of at most `most` bytes.
    fn step(&mut self, region: VolatileSlice<'_>, layout: EpochLayout, most: usize) -> Step {
        let (offset, len) = match self.open.take() {
            Some(open) => open,
            None if self.left == 0 => return Step::End,
            None if self.left < RANGE_BYTES => {
                return Step::Bad(format!("{} bytes behind the last range", self.left));
            }
            None => {
                let mut head = [0; RANGE_BYTES];
                Log { region, layout }.read(self.at, &mut head);
                self.advance(RANGE_BYTES);
                match decode_range(head, layout.image_bytes(), self.left) {
                    Some(range) => range,
                    None => {
                        return Step::Bad(format!("a range {head:?} is not within the image and the epoch"));
                    }
                }
            }
        };
        let piece = len.min(most);
        if piece < len {
            self.open = Some((offset + piece, len - piece));
        }
        let at = self.at;
        self.advance(piece);
        Step::Range { at, offset, len: piece }
    }

    fn advance(&mut self, len: usize) {
        self.at = Position(self.at.0.wrapping_add(len as u64));
        self.left -= len;
    }

    /// Applies up to about `most` bytes to the image of `region`; whether that was the last.
    ///
    /// # Errors
    /// The log is not what it was when the epoch was found: somebody writes it who must not.
    pub(super) fn apply(
        &mut self,
        region: VolatileSlice<'_>,
        layout: EpochLayout,
        most: usize,
    ) -> Result<bool, String> {
        let mut done = 0;
        while done < most {
            match self.step(region, layout, most - done) {
                Step::Range { at, offset, len } => {
                    copy(region, layout, at, layout.image_offset() + offset, len);
                    done += len + RANGE_BYTES;
                }
                Step::End => return Ok(true),
                Step::Bad(why) => return Err(why),
            }
        }
        Ok(false)
    }
}

/// Copies `len` bytes of the log at `at` to `target` in the region.
fn copy(region: VolatileSlice<'_>, layout: EpochLayout, at: Position, target: usize, len: usize) {
    let (place, left) = layout.place(at);
    let first = left.min(len);
    let part = |place, len, target| {
        if let Some(source) = region.subslice(place, len) {
            region.copy_from(target, source);
        }
    };
    part(place, first, target);
    part(layout.place(Position(0)).0, len - first, target + first);
}

/// Applies every whole epoch behind what the image of `region` has; the log, and how far it is then. For an owner, on what it pulled.
///
/// # Errors
/// It is no region of epochs of this layout, or holds an epoch that no owner makes.
pub(super) fn recover(region: VolatileSlice<'_>, layout: EpochLayout) -> Result<(LogId, Applied), String> {
    let log = read_head(region, layout)?;
    let mut applied = read_applied(region, layout, log)?;
    loop {
        match next_epoch(region, layout, log, applied) {
            Next::Nothing => return Ok((log, applied)),
            Next::Bad(why) => return Err(why),
            Next::Epoch(commit) => {
                Cursor::new(&commit).apply(region, layout, usize::MAX)?;
                applied = commit.applied();
            }
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
