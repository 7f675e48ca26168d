//! How far a resync is: bytes, percent, rate and the time that is left.
//!
//! Neither what is done nor the percentage ever goes back, though the amount may grow while it goes on. What need not be moved any more,
//! because it was overwritten or is there already, is done too, but does not count for the rate.

use std::time::Duration;

/// The rate is of the last so many seconds that are over, and of the one under way.
const SECONDS: usize = 8;

/// The state of one resync.
#[derive(Debug, Clone)]
pub struct Progress {
    total: u64,
    done: u64,
    /// The highest percentage that was shown, in hundredths.
    shown: u64,
    began: Duration,
    /// Bytes moved in each second, by its number since the beginning, modulo their count.
    moved: [u64; SECONDS],
    /// The second under way.
    second: u64,
}

impl Progress {
    /// Of `total` bytes, none of which is done.
    #[must_use]
    pub const fn new(total: u64, now: Duration) -> Self {
        Self { total, done: 0, shown: 0, began: now, moved: [0; SECONDS], second: 0 }
    }

    /// Bytes in all.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that are done; at most all of them.
    #[must_use]
    pub const fn done(&self) -> u64 {
        self.done
    }

    /// Bytes that are left.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.total - self.done
    }

    /// When it began.
    #[must_use]
    pub const fn began(&self) -> Duration {
        self.began
    }

    /// There is more to do.
    pub fn grow(&mut self, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
    }

    /// So much was moved.
    pub fn moved(&mut self, bytes: u64, now: Duration) {
        self.turn(now);
        let place = self.place();
        self.moved[place] = self.moved[place].saturating_add(bytes);
        self.skipped(bytes);
    }

    /// So much need not be moved.
    pub fn skipped(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes).min(self.total);
    }

    /// What is done of all, in hundredths of a percent: 10 000 when nothing is left, and only then.
    pub fn hundredths(&mut self) -> u64 {
        let share = u128::from(self.done) * 10_000 / u128::from(self.total.max(1));
        let share =
            if self.left() == 0 { 10_000 } else { u64::try_from(share).map_or(9_999, |s| s.min(9_999)) };
        self.shown = self.shown.max(share);
        self.shown
    }

    /// Bytes a second of late; 0 when nothing was moved.
    pub fn rate(&mut self, now: Duration) -> u64 {
        self.turn(now);
        let since = now.saturating_sub(self.began);
        let first = self.second.saturating_sub(SECONDS as u64 - 1);
        let span = since.saturating_sub(Duration::from_secs(first)).max(Duration::from_millis(1));
        let bytes: u128 = self.moved.iter().map(|bytes| u128::from(*bytes)).sum();
        u64::try_from(bytes * 1_000_000_000 / span.as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long the rest takes at that rate; `None` while nothing moves and something is left.
    pub fn time_left(&mut self, now: Duration) -> Option<Duration> {
        let (left, rate) = (self.left(), self.rate(now));
        if left == 0 {
            return Some(Duration::ZERO);
        }
        (rate > 0).then(|| Duration::from_secs(left.div_ceil(rate)))
    }

    const fn place(&self) -> usize {
        #[allow(clippy::cast_possible_truncation, reason = "below 8")]
        let place = (self.second % SECONDS as u64) as usize;
        place
    }

    /// Forgets what was moved too long ago. Time that goes back stands still.
    fn turn(&mut self, now: Duration) {
        let second = now.saturating_sub(self.began).as_secs();
        if second >= self.second + SECONDS as u64 {
            self.moved = [0; SECONDS];
            self.second = second;
        }
        while self.second < second {
            self.second += 1;
            let place = self.place();
            self.moved[place] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Random;

    #[test]
    fn a_steady_resync_says_when_it_ends() {
        let start = Duration::from_secs(500);
        let mut progress = Progress::new(100_000_000, start);
        assert_eq!((progress.hundredths(), progress.time_left(start)), (0, None));
        for tenth in 1..=400_u64 {
            progress.moved(100_000, start + Duration::from_millis(tenth * 100));
        }
        let now = start + Duration::from_secs(40);
        assert_eq!((progress.done(), progress.hundredths()), (40_000_000, 4_000));
        let (rate, left) = (progress.rate(now), progress.time_left(now).unwrap().as_secs());
        assert!((950_000..=1_050_000).contains(&rate) && (57..=63).contains(&left), "{rate} {left}");
        // It stands still, and then nobody knows.
        let later = now + Duration::from_secs(9);
        assert_eq!((progress.rate(later), progress.time_left(later)), (0, None));
        progress.skipped(60_000_000);
        assert_eq!((progress.hundredths(), progress.time_left(later)), (10_000, Some(Duration::ZERO)));
    }

    #[test]
    fn nothing_to_do_is_done() {
        let mut progress = Progress::new(0, Duration::ZERO);
        assert_eq!(progress.hundredths(), 10_000);
        assert_eq!(progress.time_left(Duration::ZERO), Some(Duration::ZERO));
    }

    #[test]
    fn neither_done_nor_percent_go_back_whatever_happens() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut progress = Progress::new(random.below(1 << 40), Duration::ZERO);
            let (mut done, mut shown, mut now) = (0, 0, Duration::ZERO);
            for _ in 0..200 {
                now += Duration::from_millis(random.below(3000));
                match random.below(5) {
                    0 => progress.grow(random.next() >> random.below(64)),
                    1 => progress.skipped(random.next() >> random.below(64)),
                    2 => progress.moved(random.below(1 << 30), now.saturating_sub(Duration::from_secs(5))),
                    _ => progress.moved(random.below(1 << 30), now),
                }
                let hundredths = progress.hundredths();
                assert!(progress.done() >= done && progress.done() <= progress.total(), "seed {seed}");
                assert!(hundredths >= shown && hundredths <= 10_000, "seed {seed}");
                (done, shown) = (progress.done(), hundredths);
                assert_eq!(progress.left() == 0, progress.time_left(now) == Some(Duration::ZERO));
            }
        }
    }
}
