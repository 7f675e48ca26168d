//! How long to wait before the next piece of a resync, so that clients hardly notice it and it comes to an end all the same.
//!
//! ```text
//!   pieces  ▇▇  ▇▇  ▇▇  ▇▇        ▇   ▇   ▇   ▇        ▇▇ ▇▇ ▇▇
//!           ─── a window ───▶│quiet│── a window ──▶│quiet│
//!                             commits without it     commits without it
//! ```
//!
//! The goal is the clients' latency, not a rate: the 99th percentile of their commits with pieces under way is to be at most twice that without.
//! What it is without is found out as it goes on, since the clients' load changes: once a second no piece is moved for 75 ms. More than
//! the limit, and the share of the idle rate is cut in proportion, at once; well below it, and it grows by a quarter at each window of
//! 100 ms. Whatever the latency, the share stays above a quarter: a node without a copy is the greater danger.
//!
//! The *idle rate* is that of the fastest piece of the last minute. Nobody configures it. Without commits nothing waits.

use std::collections::VecDeque;
use std::time::Duration;

use super::latencies::Counts;

/// Commits are looked at for so long at least before the share is changed.
const WINDOW: Duration = Duration::from_millis(100);
/// And so many, of fewer the percentile means little; but for no longer than this.
const COMMITS_MIN: u64 = 32;
const WINDOW_MAX: Duration = Duration::from_millis(1000);
/// How long no piece is moved, and how often. At first what was moved still has its effect: disks have caches.
const SETTLE: Duration = Duration::from_millis(25);
const QUIET: Duration = Duration::from_millis(50);
const QUIET_EVERY: Duration = Duration::from_millis(1000);
/// Quiet times with so many commits together say enough; with fewer, the last ones count.
const QUIET_COMMITS: u64 = 40;
const QUIET_TIMES: usize = 8;

/// Shares are in thousandths of the idle rate. With what the quiet times take, the least is a quarter of it.
const SHARE_ALL: u64 = 1000;
const SHARE_MIN: u64 = 280;

/// In hundredths of the latency without pieces: above the first the share is cut, to get to the second; below that it grows a little, below
/// the third much. Twice is what is promised.
const LATENCY_MOST: u128 = 180;
const LATENCY_AIM: u128 = 165;
const LATENCY_WELL: u128 = 140;

/// The fastest piece is forgotten after one to two of these.
const PACE_TIME: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    /// Pieces are moved.
    Moving,
    /// None is, and commits do not count yet.
    Settling { until: Duration },
    /// None is, until then.
    Quiet { until: Duration },
}

/// The state of one resync's throttle.
#[derive(Debug)]
pub struct Throttle {
    activity: Activity,
    share: u64,
    /// Commits of the last quiet times that say enough, the newest last.
    quiet: VecDeque<Counts>,
    quiet_at: Duration,
    /// Commits since the last window ended, those of quiet times left out.
    moving: Counts,
    window_at: Duration,
    /// What was looked at last.
    seen: Counts,
    next_at: Duration,
    pace: Pace,
}

/// Nanoseconds for a mebibyte of the fastest piece.
#[derive(Debug, Default)]
struct Pace {
    now: Option<u64>,
    before: Option<u64>,
    since: Duration,
}

impl Throttle {
    /// Begins at full speed. `before` are the commits of some time without pieces, if any are known; `seen` all so far.
    #[must_use]
    pub fn new(now: Duration, before: Counts, seen: Counts) -> Self {
        Self {
            activity: Activity::Moving,
            share: SHARE_ALL,
            quiet: VecDeque::from([before]),
            quiet_at: now,
            moving: Counts::default(),
            window_at: now,
            seen,
            next_at: now,
            pace: Pace { since: now, ..Pace::default() },
        }
    }

    /// The share of the idle rate at which pieces may move, in thousandths.
    #[must_use]
    pub const fn share(&self) -> u64 {
        self.share
    }

    /// How long to wait, at most, before asking again; nothing: the next piece may be moved now. `seen` are all commits so far. It is asked when no
    /// piece is under way.
    #[must_use = "a piece that does not wait is felt by clients"]
    pub fn wait(&mut self, now: Duration, seen: &Counts) -> Duration {
        match self.activity {
            Activity::Settling { until } | Activity::Quiet { until } if now < until => return until - now,
            Activity::Settling { .. } => {
                self.seen = seen.clone();
                self.activity = Activity::Quiet { until: now + QUIET };
                return QUIET;
            }
            Activity::Quiet { .. } => self.hear_quiet(now, seen),
            Activity::Moving => {
                self.moving = self.moving.with(&seen.since(&self.seen));
                self.seen = seen.clone();
                self.judge(now);
                let is_due = now.saturating_sub(self.quiet_at) >= QUIET_EVERY;
                if is_due || self.moving.total() > 0 && self.without().total() == 0 {
                    self.activity = Activity::Settling { until: now + SETTLE };
                    return SETTLE;
                }
            }
        }
        self.next_at.saturating_sub(now)
    }

    /// A piece of so many bytes was moved, from `began` until `now`.
    pub fn moved(&mut self, began: Duration, now: Duration, bytes: u64) {
        let took = u64::try_from(now.saturating_sub(began).as_nanos()).unwrap_or(u64::MAX);
        let bytes = u128::from(bytes.max(1));
        let pace = u64::try_from((u128::from(took) << 20) / bytes).unwrap_or(u64::MAX);
        let fastest = self.pace.take(pace, now);
        let spacing = ((u128::from(fastest) * bytes) >> 20) * u128::from(SHARE_ALL) / u128::from(self.share);
        self.next_at = began + Duration::from_nanos(u64::try_from(spacing).unwrap_or(u64::MAX));
    }

    fn hear_quiet(&mut self, now: Duration, seen: &Counts) {
        self.quiet.push_back(seen.since(&self.seen));
        let says_enough = |times: &VecDeque<Counts>| {
            times.iter().skip(1).map(Counts::total).sum::<u64>() >= QUIET_COMMITS || times.len() > QUIET_TIMES
        };
        while says_enough(&self.quiet) {
            self.quiet.pop_front();
        }
        self.seen = seen.clone();
        (self.activity, self.quiet_at) = (Activity::Moving, now);
        // Time in which nothing moved is no part of the window.
        self.window_at += SETTLE + QUIET;
    }

    /// Commits without pieces.
    fn without(&self) -> Counts {
        self.quiet.iter().fold(Counts::default(), |sum, counts| sum.with(counts))
    }

    /// Changes the share if there is enough to judge by.
    fn judge(&mut self, now: Duration) {
        let (age, commits) = (now.saturating_sub(self.window_at), self.moving.total());
        let is_idle = commits == 0;
        if age < WINDOW || (commits < COMMITS_MIN && !is_idle && age < WINDOW_MAX) {
            return;
        }
        let (with, without) = (self.moving.p99(), self.without().p99());
        let latency = match (with, without) {
            (Some(with), Some(without)) => with.as_nanos() * 100 / without.as_nanos().max(1),
            // Nobody is there who could notice; or it is not known yet what he is used to.
            (None, _) | (_, None) => 0,
        };
        if latency > LATENCY_MOST {
            let cut = u128::from(self.share) * LATENCY_AIM / latency;
            self.share = u64::try_from(cut).unwrap_or(SHARE_MIN).max(self.share / 2).max(SHARE_MIN);
        } else if latency < LATENCY_AIM {
            let part = if latency < LATENCY_WELL { 4 } else { 16 };
            self.share = (self.share + self.share / part).min(SHARE_ALL);
        }
        if is_idle {
            self.share = SHARE_ALL;
            self.next_at = self.next_at.min(now);
        }
        (self.moving, self.window_at) = (Counts::default(), now);
    }
}

impl Pace {
    /// Takes note of a piece; the fastest of late.
    fn take(&mut self, pace: u64, now: Duration) -> u64 {
        if now.saturating_sub(self.since) >= PACE_TIME {
            (self.before, self.now, self.since) = (self.now.take(), None, now);
        }
        let fastest = self.now.map_or(pace, |known| known.min(pace));
        self.now = Some(fastest);
        self.before.map_or(fastest, |before| before.min(fastest))
    }
}

#[cfg(test)]
#[path = "throttle_tests.rs"]
mod tests;
