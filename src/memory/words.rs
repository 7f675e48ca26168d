//! Aligned words of memory that two sides share: each is read and written whole.
//!
//! A copy of bytes may be torn anywhere while another writes. Eight aligned bytes that are moved as one word are not,
//! between processors that see the same memory. Words have no order among themselves, but for [`VolatileSlice::load_word`]
//! and [`VolatileSlice::store_word`]: whoever loads a word that was stored sees all that was written before it.

use std::sync::atomic::Ordering;

use super::VolatileSlice;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

impl VolatileSlice<'_> {
    /// Stores `value`, as eight little-endian bytes, at the aligned `offset`: whole, and after all that this thread
    /// wrote before.
    ///
    /// # Panics
    /// When it does not lie within or is not aligned.
    pub fn store_word(&self, offset: usize, value: u64) {
        self.word_u64(offset).store(value.to_le(), Ordering::Release);
    }

    /// Loads eight little-endian bytes at the aligned `offset`: whole, and before all that this thread reads after.
    ///
    /// # Panics
    /// When it does not lie within or is not aligned.
    #[must_use]
    pub fn load_word(&self, offset: usize) -> u64 {
        u64::from_le(self.word_u64(offset).load(Ordering::Acquire))
    }

    /// Whether `len` bytes at `offset` are whole words, of which there are few enough to be moved one by one.
    #[inline]
    pub(crate) const fn are_few_words(offset: usize, len: usize) -> bool {
        len <= super::FEW_WORDS_BYTES_MAX && len.is_multiple_of(WORD) && offset.is_multiple_of(WORD)
    }

    /// [`read`](Self::read) of whole words.
    ///
    /// # Panics
    /// When they do not lie within, or are no whole words.
    pub(crate) fn read_words(&self, offset: usize, target: &mut [u8]) {
        let (words, rest) = target.as_chunks_mut::<WORD>();
        assert!(rest.is_empty(), "{} bytes are no whole words", words.len() * WORD + rest.len());
        for (at, word) in words.iter_mut().enumerate() {
            *word = self.word_u64(offset + at * WORD).load(Ordering::Acquire).to_ne_bytes();
        }
    }

    /// [`write`](Self::write) of whole words.
    ///
    /// # Panics
    /// When they do not lie within, or are no whole words.
    pub(crate) fn write_words(&self, offset: usize, source: &[u8]) {
        let (words, rest) = source.as_chunks::<WORD>();
        assert!(rest.is_empty(), "{} bytes are no whole words", source.len());
        for (at, word) in words.iter().enumerate() {
            self.word_u64(offset + at * WORD).store(u64::from_ne_bytes(*word), Ordering::Release);
        }
    }

    /// [`copy_from`](Self::copy_from) of few whole words, to the start.
    ///
    /// # Panics
    /// When they do not lie within, are no whole words, or are more than few.
    pub(crate) fn copy_words_from(&self, source: VolatileSlice<'_>) {
        let mut words = [0; super::FEW_WORDS_BYTES_MAX];
        let words = &mut words[..source.len()];
        source.read_words(0, words);
        self.write_words(0, words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MapOptions, Mapping};

    #[test]
    fn words_are_little_endian_and_go_in_and_out() {
        let memory = Mapping::anonymous(64, MapOptions::default()).expect("64 bytes");
        let slice = memory.slice();
        slice.store_word(8, 0x0807_0605_0403_0201);
        assert_eq!(slice.to_vec()[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(slice.load_word(8), 0x0807_0605_0403_0201);
        slice.write_words(40, &slice.to_vec()[8..24]);
        slice.subslice(0, 8).expect("within").copy_words_from(slice.subslice(8, 8).expect("within"));
        assert_eq!(slice.load_word(0), slice.load_word(8));
        let mut words = [0xff; 16];
        slice.read_words(40, &mut words);
        assert_eq!(words, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(VolatileSlice::are_few_words(8, 16) && !VolatileSlice::are_few_words(4, 8));
        assert!(!VolatileSlice::are_few_words(8, 4) && !VolatileSlice::are_few_words(0, 72));
        let fails =
            |access: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(access)).is_err();
        assert!(fails(&|| slice.store_word(4, 1)) && fails(&|| _ = slice.load_word(64)));
        assert!(fails(&|| slice.write_words(0, &[0; 9])) && fails(&|| slice.read_words(56, &mut [0; 16])));
    }

    #[test]
    fn a_word_is_never_half_of_one_and_half_of_another() {
        let memory = Mapping::anonymous(64, MapOptions::default()).expect("64 bytes");
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..rounds).for_each(|number: u64| memory.slice().store_word(16, number | number << 32));
            });
            for _ in 0..rounds {
                let seen = memory.slice().load_word(16);
                assert_eq!(seen >> 32, seen & 0xffff_ffff);
            }
        });
    }
}
