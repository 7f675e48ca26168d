//! When the marker is to move: the position from which a node that was away is brought up to date.
//!
//! ```text
//!   log  ──────────┬───────────────────┬──────────── ▶ end
//!                marker   a phase     due: bytes, time, or the pair is whole again
//! ```
//!
//! What lies behind the marker may be missing at the peer when it comes back. So the shorter a phase, the less is compared then; and the
//! longer, the less is written to keep it. The marker moves only while the pair is mirrored: what one node has alone is no position of
//! both. Writes never wait for it.

use std::time::Duration;

use crate::base::Lsn;

/// What ends a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhaseLimits {
    /// So much log.
    pub bytes: u64,
    /// So much time, if anything was written.
    pub time: Duration,
    /// But not sooner than so long after the last, however much is written: moving the marker is a few syncs.
    pub rest: Duration,
}

impl PhaseLimits {
    /// 64 MiB, 10 s, and two seconds of rest.
    pub const DEFAULT: Self =
        Self { bytes: 64 << 20, time: Duration::from_secs(10), rest: Duration::from_secs(2) };
}

/// Why the marker is to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Much was written.
    Bytes,
    /// The last time is long ago.
    Time,
    /// The pair is mirrored, and was not.
    State,
}

/// The phases of one log, as one node sees them.
#[derive(Debug, Clone)]
pub struct Phases {
    limits: PhaseLimits,
    marker: Lsn,
    moved_at: Duration,
    is_mirrored: bool,
    /// The pair came to be mirrored, and the marker did not move since.
    is_owed: bool,
}

impl Phases {
    /// With the marker where it is, on a node whose pair is not mirrored yet.
    #[must_use]
    pub const fn new(limits: PhaseLimits, marker: Lsn, now: Duration) -> Self {
        Self { limits, marker, moved_at: now, is_mirrored: false, is_owed: false }
    }

    /// Where the marker is.
    #[must_use]
    pub const fn marker(&self) -> Lsn {
        self.marker
    }

    /// Whether the marker is to move, and why: the log ends at `end`, and both nodes have every write, or not. It stays due until
    /// [`moved`](Self::moved), or the pair is not mirrored any more.
    pub fn look(&mut self, now: Duration, end: Lsn, is_mirrored: bool) -> Option<Trigger> {
        self.is_owed = is_mirrored && (self.is_owed || !self.is_mirrored);
        self.is_mirrored = is_mirrored;
        if !is_mirrored || end <= self.marker {
            return None;
        }
        if self.is_owed {
            return Some(Trigger::State);
        }
        let since = now.saturating_sub(self.moved_at);
        if end.since(self.marker) >= self.limits.bytes && since >= self.limits.rest {
            return Some(Trigger::Bytes);
        }
        (since >= self.limits.time).then_some(Trigger::Time)
    }

    /// The marker lies at `position` now, durably.
    ///
    /// # Panics
    /// When that is before where it was.
    pub fn moved(&mut self, position: Lsn, now: Duration) {
        assert!(position >= self.marker, "a marker at {position} after {}", self.marker);
        (self.marker, self.moved_at, self.is_owed) = (position, now, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Random;

    const LIMITS: PhaseLimits =
        PhaseLimits { bytes: 1000, time: Duration::from_secs(10), rest: Duration::from_millis(500) };

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn bytes_time_and_the_state_each_end_a_phase() {
        let mut phases = Phases::new(LIMITS, Lsn(5000), at(0));
        assert_eq!(phases.look(at(20_000), Lsn(9000), false), None, "alone it stays");
        assert_eq!(phases.look(at(20_001), Lsn(5000), true), None, "nothing was written");
        assert_eq!(phases.look(at(20_002), Lsn(5001), true), Some(Trigger::State));
        assert_eq!(phases.look(at(20_003), Lsn(5001), true), Some(Trigger::State), "until it moved");
        phases.moved(Lsn(5001), at(20_004));
        assert_eq!(phases.look(at(20_100), Lsn(9999), true), None, "it rests");
        assert_eq!(phases.look(at(20_504), Lsn(6000), true), None);
        assert_eq!(phases.look(at(20_504), Lsn(6001), true), Some(Trigger::Bytes));
        phases.moved(Lsn(6001), at(20_600));
        assert_eq!(phases.look(at(30_599), Lsn(6002), true), None);
        assert_eq!(phases.look(at(30_600), Lsn(6002), true), Some(Trigger::Time));
        assert_eq!(phases.look(at(99_999), Lsn(6001), true), None, "time alone moves nothing");
        assert_eq!(phases.marker(), Lsn(6001));
    }

    #[test]
    fn an_outage_ends_a_phase_when_it_is_over() {
        let mut phases = Phases::new(LIMITS, Lsn(1), at(0));
        assert_eq!(phases.look(at(1), Lsn(2), true), Some(Trigger::State));
        assert_eq!(phases.look(at(2), Lsn(2), false), None, "it was over before it moved");
        assert_eq!(phases.look(at(3), Lsn(2), true), Some(Trigger::State));
        phases.moved(Lsn(2), at(4));
        assert_eq!(phases.look(at(5), Lsn(3), false), None);
        assert_eq!(phases.look(at(6), Lsn(3), true), Some(Trigger::State));
    }

    /// Whoever does what it says never has more behind the marker than a phase and what comes while it is moved or rests.
    #[test]
    fn what_lies_behind_the_marker_is_bounded_while_mirrored() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let (mut phases, mut end, mut now) = (Phases::new(LIMITS, Lsn(1), at(0)), Lsn(1), 0);
            let (mut is_mirrored, mut since) = (false, 0);
            for _ in 0..500 {
                now += random.below(50);
                if random.chance(3) {
                    is_mirrored = !is_mirrored;
                    since = now;
                }
                end = end.plus(random.below(40));
                let before = phases.marker();
                if phases.look(at(now), end, is_mirrored).is_some() {
                    assert!(is_mirrored && end > before, "seed {seed}");
                    phases.moved(end, at(now));
                }
                let behind = end.since(phases.marker());
                // Within 50 ms at most 40 bytes come: while it rests, 500 of them.
                assert!(!is_mirrored || now == since || behind < 1000 + 20 * 40, "seed {seed}: {behind}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "a marker at 0x4 after 0x5")]
    fn it_never_goes_back() {
        Phases::new(LIMITS, Lsn(5), at(0)).moved(Lsn(4), at(1));
    }
}
