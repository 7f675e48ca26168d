//! Two mappings that are written at once, at equal offsets.

use std::fmt;
use std::sync::Arc;

use super::copy::{copy_racy_twice, has_wide};
use super::sigbus::any_mapping_lost;
use super::{FEW_WORDS_BYTES_MAX, Mapping, Pair};

/// Two mappings, with their places found once: what a store through shared memory needs on every call.
pub struct Twin {
    /// Addresses of the first bytes.
    starts: Pair,
    /// Bytes that both have; in the lowest bit, whether the processor has wide registers.
    len_and_wide: usize,
    /// What the addresses are in.
    mappings: Option<[Arc<Mapping>; 2]>,
}

impl Twin {
    /// Of both mappings' first bytes, as far as both go. Both must be writable.
    #[must_use]
    pub fn new(first: Arc<Mapping>, second: Arc<Mapping>) -> Self {
        let address = |mapping: &Mapping| mapping.slice().start().expose_provenance() as u64;
        Self {
            starts: Pair::new(address(&first), address(&second)),
            len_and_wide: first.len().min(second.len()) << 1 | usize::from(has_wide()),
            mappings: Some([first, second]),
        }
    }

    /// Of nothing: not one byte lies within.
    #[must_use]
    pub fn empty() -> Self {
        Self { starts: Pair::new(0, 0), len_and_wide: 0, mappings: None }
    }

    /// Whether `len` bytes at `offset` lie within both.
    #[inline(always)]
    #[must_use]
    pub const fn contains(&self, offset: usize, len: usize) -> bool {
        let all = self.len_and_wide >> 1;
        offset <= all && len <= all - offset
    }

    /// Copies `source` to the bytes at `offset` of both.
    ///
    /// # Panics
    /// When they do not lie within.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "the addresses were made of pointers")]
    pub fn write(&self, offset: usize, source: &[u8]) {
        assert!(self.contains(offset, source.len()), "write of {} bytes at {offset}", source.len());
        let (first, second) = self.starts.words();
        let place =
            |start: u64| std::ptr::with_exposed_provenance_mut::<u8>(start as usize).wrapping_add(offset);
        let wide = self.len_and_wide & 1 != 0;
        // SAFETY: both ranges were checked against the mappings, which self keeps; `source` cannot overlap a mapping.
        unsafe { copy_racy_twice(source.as_ptr(), place(first), place(second), source.len(), wide) };
    }

    /// Copies few whole words at `offset` of the second to the first, if `still` says so when they were read; whether
    /// it did.
    ///
    /// # Panics
    /// When they do not lie within both, or are no few whole words.
    pub(crate) fn fetch(&self, offset: usize, len: usize, still: impl FnOnce() -> bool) -> bool {
        assert!(self.contains(offset, len), "fetch of {len} bytes at {offset}");
        let Some([first, second]) = &self.mappings else { return false };
        let mut words = [0; FEW_WORDS_BYTES_MAX];
        let words = &mut words[..len];
        second.slice().read_words(offset, words);
        if !still() {
            return false;
        }
        first.slice().write_words(offset, words);
        !self.lost()
    }

    /// Whether one of the mappings was lost (see [`Mapping::lost`]).
    #[inline(always)]
    #[must_use]
    pub fn lost(&self) -> bool {
        any_mapping_lost() && self.mappings.iter().flatten().any(|mapping| mapping.lost())
    }
}

impl fmt::Debug for Twin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Twin({} bytes)", self.len_and_wide >> 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MapOptions;

    fn mapping(len: usize) -> Arc<Mapping> {
        Arc::new(Mapping::anonymous(len, MapOptions::default()).expect("a few pages"))
    }

    #[test]
    fn both_have_the_bytes_and_nothing_beyond_the_shorter_is_reached() {
        let (long, short) = (mapping(5000), mapping(4200));
        let twin = Twin::new(long.clone(), short.clone());
        for (offset, len) in [(0, 64), (4199, 1), (64, 31), (200, 3000), (4200, 0)] {
            let bytes: Vec<u8> = (1..=u8::MAX).cycle().take(len).collect();
            assert!(twin.contains(offset, len));
            twin.write(offset, &bytes);
            for memory in [&long, &short] {
                assert_eq!(memory.slice().subslice(offset, len).expect("within").to_vec(), bytes);
            }
        }
        short.slice().write(64, &[7; 24]);
        assert!(!twin.fetch(64, 16, || false) && long.slice().to_vec()[64] != 7);
        assert!(twin.fetch(64, 16, || true));
        assert_eq!((long.slice().to_vec()[79], long.slice().load_word(72)), (7, short.slice().load_word(72)));
        assert_ne!(long.slice().load_word(80), short.slice().load_word(80), "only what was asked for");
        assert!(!twin.contains(4200, 1) && !twin.contains(4201, 0) && !twin.contains(1, usize::MAX));
        assert!(std::panic::catch_unwind(|| twin.write(4200, &[0])).is_err());
        assert!(Twin::empty().contains(0, 0) && !Twin::empty().contains(0, 1) && !Twin::empty().lost());
    }
}
