//! The body of an epoch in the making: each page is copied once to staging, compared with the twin there, and what differs stays.
//!
//! ```text
//!  staging   … │ head │ changed words │ head │ changed words │   ◀─ the next page is copied here, and shrinks to what differs
//! ```
//!
//! The page itself may be stored to meanwhile; nothing is read from it but once, so what is shipped is what was compared. Changes of
//! whole words count, and a gap of two words or fewer between two of them goes along: a head of its own would take as much.

use super::layout::WORD;
use super::record::{COMMIT_BYTES, RANGE_BYTES, encode_range};
use crate::base::crc32c_append;
use crate::memory::VolatileSlice;

/// Unchanged bytes that are cheaper shipped than left out.
const GAP_MAX: usize = RANGE_BYTES;

/// Bytes that are compared at once where nothing differs.
const BLOCK: usize = 8 * WORD;

/// What changed, as it will stand in the log.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// Staging; the body is the first `len` bytes.
    bytes: Vec<u8>,
    len: usize,
    /// Where the head of the newest range stands, its offset and its bytes.
    newest: Option<(usize, usize, usize)>,
    ranges: u32,
    /// Bytes of words that differ.
    changed: usize,
    /// Runs of such words.
    runs: u32,
    /// A copy of the twin's page.
    twin: Vec<u8>,
}

impl Body {
    /// Nothing changed yet. The room of an earlier one is used again.
    pub(super) fn clear(&mut self) {
        (self.len, self.newest, self.ranges, self.changed, self.runs) = (0, None, 0, 0, 0);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn ranges(&self) -> u32 {
        self.ranges
    }

    pub(super) const fn changed(&self) -> usize {
        self.changed
    }

    pub(super) const fn runs(&self) -> u32 {
        self.runs
    }

    pub(super) fn crc(&self) -> u32 {
        crc32c_append(0, self.bytes())
    }

    /// Adds what differs in the page of `len` bytes at `offset`, whole words. Pages come by rising offset.
    pub(super) fn add_page(
        &mut self,
        offset: usize,
        len: usize,
        memory: VolatileSlice<'_>,
        twin: VolatileSlice<'_>,
    ) {
        // Where a range ends that may go on, its content goes on; else there is room for a head.
        let continues = self.newest.is_some_and(|(_, begin, bytes)| begin + bytes == offset);
        let staged = self.len + if continues { 0 } else { RANGE_BYTES };
        if self.bytes.len() < staged + len + RANGE_BYTES {
            self.bytes.resize((2 * self.bytes.len()).max(staged + len + RANGE_BYTES).max(1 << 16), 0);
        }
        self.twin.resize(len, 0);
        memory.read(offset, &mut self.bytes[staged..staged + len]);
        twin.read(offset, &mut self.twin);
        let mut at = 0;
        while let Some((mut start, end)) = self.next_range(staged, at, len) {
            if at == 0 && continues && start <= GAP_MAX {
                start = 0;
            }
            self.keep(offset + start, staged + start, end - start);
            at = end;
        }
    }

    /// The next words from `at` on that differ, with the small gaps between them; counts them.
    fn next_range(&mut self, staged: usize, at: usize, len: usize) -> Option<(usize, usize)> {
        let differs =
            |word: usize| self.bytes[staged + word..staged + word + WORD] != self.twin[word..word + WORD];
        let mut word = at;
        while word < len && !differs(word) {
            word += WORD;
            while word + BLOCK <= len
                && self.bytes[staged + word..staged + word + BLOCK] == self.twin[word..word + BLOCK]
            {
                word += BLOCK;
            }
        }
        let start = word;
        let (mut end, mut changed, mut runs) = (start, 0, 0);
        while word < len && word - end <= GAP_MAX {
            if differs(word) {
                runs += u32::from(word > end || changed == 0);
                changed += WORD;
                end = word + WORD;
            }
            word += WORD;
        }
        self.changed += changed;
        self.runs += runs;
        (end > start).then_some((start, end))
    }

    /// Keeps `len` bytes that stand at `from` in staging, at or behind their place, as the content at `offset`.
    fn keep(&mut self, offset: usize, from: usize, len: usize) {
        match &mut self.newest {
            Some((head, begin, bytes)) if *begin + *bytes == offset => {
                *bytes += len;
                let (head, begin, bytes) = (*head, *begin, *bytes);
                self.bytes[head..head + RANGE_BYTES].copy_from_slice(&encode_range(begin, bytes));
            }
            _ => {
                let head = self.len;
                self.bytes[head..head + RANGE_BYTES].copy_from_slice(&encode_range(offset, len));
                self.newest = Some((head, offset, len));
                self.ranges += 1;
                self.len += RANGE_BYTES;
            }
        }
        self.bytes.copy_within(from..from + len, self.len);
        self.len += len;
    }

    /// Writes it into the twin.
    pub(super) fn apply(&self, twin: VolatileSlice<'_>) {
        let mut rest = self.bytes();
        while let Some((head, content)) = rest.split_first_chunk::<RANGE_BYTES>() {
            let range = super::record::decode_range(*head, twin.len(), content.len());
            let (offset, len) = range.expect("it was made of whole words of the twin");
            twin.write(offset, &content[..len]);
            rest = &content[len..];
        }
    }

    /// Whether an epoch of it fits into a ring of so many bytes.
    pub(super) const fn fits(&self, ring: usize) -> bool {
        self.len <= ring - COMMIT_BYTES
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
