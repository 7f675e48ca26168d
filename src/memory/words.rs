//! Aligned words of memory that two sides share: each is read and written whole.
//!
//! A copy of bytes may be torn anywhere while another writes. Eight aligned bytes that are moved as one word are not,
//! between processors that see the same memory. Words have no order among themselves, but for [`VolatileSlice::load_word`]
//! and [`VolatileSlice::store_word`]: whoever loads a word that was stored sees all that was written before it.

use std::sync::atomic::Ordering;

use super::VolatileSlice;

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
}

#[cfg(test)]
mod tests {
    use crate::memory::{MapOptions, Mapping};

    #[test]
    fn words_are_little_endian_and_go_in_and_out() {
        let memory = Mapping::anonymous(64, MapOptions::default()).expect("64 bytes");
        let slice = memory.slice();
        slice.store_word(8, 0x0807_0605_0403_0201);
        assert_eq!(slice.to_vec()[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(slice.load_word(8), 0x0807_0605_0403_0201);
        let fails =
            |access: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(access)).is_err();
        assert!(fails(&|| slice.store_word(4, 1)) && fails(&|| _ = slice.load_word(64)));
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
