//! What can be said of a whole slice: is it equal to another, what is its checksum.
//!
//! Nothing is computed on the memory itself, which may change in between: chunks are copied out first, so each answer
//! is right for bytes that were there some time during the call. All of it at one moment needs a writer that is fenced.

use super::VolatileSlice;
use crate::base::crc32c_append;

/// Bytes copied out at a time where two slices are looked at, on the stack. Miri takes seconds for some thousand.
const CHUNK: usize = if cfg!(miri) { 512 } else { 4 << 10 };
/// Bytes copied out at a time where a checksum is computed, which is faster on more.
const DIGEST_CHUNK: usize = 64 << 10;

impl VolatileSlice<'_> {
    /// Sets `len` bytes at `offset` to `byte`.
    ///
    /// # Panics
    /// When they do not lie within.
    pub fn fill(&self, offset: usize, len: usize, byte: u8) {
        assert!(self.contains(offset, len), "fill of {len} bytes at {offset} of {}", self.len());
        let pattern = [byte; CHUNK];
        for (at, len) in chunks(len, CHUNK) {
            self.write(offset + at, &pattern[..len]);
        }
    }

    /// Whether `other` has the same length and bytes.
    #[must_use]
    pub fn equals(&self, other: VolatileSlice<'_>) -> bool {
        self.len() == other.len() && self.first_difference(other).is_none()
    }

    /// The first place where the two differ. Where one is the beginning of the other, that is the end of the shorter.
    #[must_use]
    pub fn first_difference(&self, other: VolatileSlice<'_>) -> Option<usize> {
        let common = self.len().min(other.len());
        let (mut ours, mut theirs) = ([0; CHUNK], [0; CHUNK]);
        for (at, len) in chunks(common, CHUNK) {
            let (ours, theirs) = (&mut ours[..len], &mut theirs[..len]);
            self.read(at, ours);
            other.read(at, theirs);
            if ours != theirs {
                let within = ours.iter().zip(theirs.iter()).position(|(a, b)| a != b);
                return Some(at + within.expect("unequal slices differ somewhere"));
            }
        }
        (self.len() != other.len()).then_some(common)
    }

    /// CRC32C of the bytes.
    #[must_use]
    pub fn crc32c(&self) -> u32 {
        let mut crc = 0;
        self.for_each_chunk(|chunk| crc = crc32c_append(crc, chunk));
        crc
    }

    /// BLAKE3 of the bytes.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        self.for_each_chunk(|chunk| {
            hasher.update(chunk);
        });
        *hasher.finalize().as_bytes()
    }

    fn for_each_chunk(&self, mut each: impl FnMut(&[u8])) {
        let mut buffer = vec![0; self.len().min(DIGEST_CHUNK)];
        for (at, len) in chunks(self.len(), DIGEST_CHUNK) {
            self.read(at, &mut buffer[..len]);
            each(&buffer[..len]);
        }
    }
}

/// Offsets and lengths of the pieces of `len` bytes, `chunk` each but for the last.
fn chunks(len: usize, chunk: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).step_by(chunk).map(move |at| (at, chunk.min(len - at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::crc32c;
    use crate::memory::{MapOptions, Mapping};

    const LEN: usize = if cfg!(miri) { CHUNK + 100 } else { 2 * DIGEST_CHUNK + 100 };

    fn patterned() -> Mapping {
        let mapping = Mapping::anonymous(LEN, MapOptions::default()).expect("a mapping");
        let bytes: Vec<u8> = (0..LEN).map(|at| u8::try_from(at * 13 % 251).expect("below 251")).collect();
        mapping.slice().write(0, &bytes);
        mapping
    }

    #[test]
    fn differences_are_found_where_they_are() {
        let (a, b) = (patterned(), patterned());
        let (a, b) = (a.slice(), b.slice());
        assert!(a.equals(b) && a.first_difference(b).is_none());
        for at in [0, 1, CHUNK - 1, CHUNK, LEN - 1] {
            let mut byte = [0];
            a.read(at, &mut byte);
            b.write(at, &[!byte[0]]);
            assert_eq!((a.equals(b), a.first_difference(b)), (false, Some(at)));
            b.write(at, &byte);
        }
        let shorter = a.subslice(0, LEN - 3).expect("within");
        assert_eq!((shorter.equals(b), shorter.first_difference(b)), (false, Some(LEN - 3)));
        assert!(shorter.subslice(5, 0).expect("within").equals(b.subslice(9, 0).expect("within")));
    }

    #[test]
    fn fill_stays_within() {
        let mapping = patterned();
        let mut model = mapping.slice().to_vec();
        for (offset, len) in [(0, 0), (3, 1), (5, CHUNK + 7), (LEN - 20, 20), (LEN, 0)] {
            mapping.slice().fill(offset, len, 0xA5);
            model[offset..offset + len].fill(0xA5);
            assert!(mapping.slice().to_vec() == model, "{len} bytes at {offset}");
        }
    }

    #[test]
    fn checksums_are_those_of_the_bytes() {
        let mapping = patterned();
        for len in [0, 1, LEN.min(DIGEST_CHUNK), LEN] {
            let slice = mapping.slice().subslice(0, len).expect("within");
            let bytes = slice.to_vec();
            assert_eq!(slice.crc32c(), crc32c(&bytes));
            assert_eq!(slice.digest(), *blake3::hash(&bytes).as_bytes());
        }
    }
}
