//! Two words that are read and written together, by one instruction where the processor has one.
//!
//! While a fence waits for stores to memory that is in no cache, what comes after it may begin but not end, and fills
//! the processor's queues of loads and of stores. How many stores to mirrored memory are under way at once is bound by
//! these. Two words in one vector take one entry of such a queue instead of two.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m128i, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_sub_epi64, _mm_unpackhi_epi64};

/// Two words, moved as one. Nothing is said about what another thread sees: a pair is one thread's own.
#[derive(Debug, Clone, Copy)]
pub struct Pair(#[cfg(target_arch = "x86_64")] __m128i, #[cfg(not(target_arch = "x86_64"))] [u64; 2]);

#[cfg(target_arch = "x86_64")]
impl Pair {
    /// Of its words.
    #[inline(always)]
    #[must_use]
    pub fn new(first: u64, second: u64) -> Self {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_set_epi64x(second.cast_signed(), first.cast_signed()) })
    }

    /// Both words. The compiler would make two loads of it.
    #[cfg(not(miri))]
    #[inline(always)]
    #[must_use]
    pub fn words(&self) -> (u64, u64) {
        let (first, second): (u64, u64);
        // SAFETY: reads self, which is aligned; SSE2 is part of x86-64.
        unsafe {
            std::arch::asm!(
                "movdqa {both}, [{pair}]",
                "movq {first}, {both}",
                "punpckhqdq {both}, {both}",
                "movq {second}, {both}",
                pair = in(reg) &raw const self.0,
                first = out(reg) first,
                second = lateout(reg) second,
                both = out(xmm_reg) _,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        (first, second)
    }

    /// Both words.
    #[cfg(miri)]
    #[must_use]
    pub fn words(&self) -> (u64, u64) {
        (self.first(), self.second())
    }

    /// The first word.
    #[inline(always)]
    #[must_use]
    pub fn first(self) -> u64 {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { _mm_cvtsi128_si64(self.0) }.cast_unsigned()
    }

    /// The second word.
    #[inline(always)]
    #[must_use]
    pub fn second(self) -> u64 {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_unpackhi_epi64(self.0, self.0) }).first()
    }

    /// Adds 1 to the first word and `second` to the second, each wrapping by itself.
    #[inline(always)]
    #[must_use]
    pub fn count(self, second: u64) -> Self {
        // Less −1 is more 1, and a vector of ones needs no load.
        let less = Self::new(u64::MAX, second.wrapping_neg());
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_sub_epi64(self.0, less.0) })
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Pair {
    /// Of its words.
    #[inline(always)]
    #[must_use]
    pub const fn new(first: u64, second: u64) -> Self {
        Self([first, second])
    }

    /// Both words.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> (u64, u64) {
        (self.0[0], self.0[1])
    }

    /// The first word.
    #[inline(always)]
    #[must_use]
    pub const fn first(self) -> u64 {
        self.0[0]
    }

    /// The second word.
    #[inline(always)]
    #[must_use]
    pub const fn second(self) -> u64 {
        self.0[1]
    }

    /// Adds 1 to the first word and `second` to the second, each wrapping by itself.
    #[inline(always)]
    #[must_use]
    pub const fn count(self, second: u64) -> Self {
        Self([self.0[0].wrapping_add(1), self.0[1].wrapping_add(second)])
    }
}

#[cfg(test)]
mod tests {
    use super::Pair;

    #[test]
    fn the_words_do_not_touch_each_other() {
        let sum = Pair::new(u64::MAX, 7).count(u64::MAX);
        assert_eq!((sum.first(), sum.second(), sum.words()), (0, 6, (0, 6)));
    }
}
