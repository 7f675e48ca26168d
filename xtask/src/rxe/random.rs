//! Choices at random that can be made again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A small generator (xorshift).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Begins with `seed`, or with the time; says with which.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            now.as_secs() << 20 ^ u64::from(now.subsec_nanos())
        });
        println!("choices at random: --seed {seed}");
        // Never 0, from which it would not move.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub(crate) const fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Some time up to `most`.
    pub(crate) fn duration(&mut self, most: Duration) -> Duration {
        most.mul_f64((self.number() >> 32) as f64 / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_again_and_durations_keep_their_limit() {
        let (mut one, mut two) = (Random::new(Some(5)), Random::new(Some(5)));
        for _ in 0..100 {
            let most = Duration::from_secs(2);
            let time = one.duration(most);
            assert_eq!(time, two.duration(most));
            assert!(time <= most);
        }
        assert_ne!(Random::new(Some(0)).number(), Random::new(Some(1)).number());
    }
}
