//! How long to wait before the next piece of a resync, so that clients hardly notice it and it comes to an
//! end all the same.
//!
//! ```text
//!   pieces  ▇▇  ▇▇  ▇▇  ▇▇        ▇   ▇   ▇   ▇        ▇▇ ▇▇ ▇▇
//!           ─── a window ───▶│quiet│── a window ──▶│quiet│
//!                             commits without it     commits without it
//! ```
//!
//! The goal is the clients' latency, not a rate: the 99th percentile of their commits with pieces under way
//! is to be at most twice that without. What it is without is found out as it goes on, since the clients'
//! load changes: once a second no piece is moved for 75 ms. What they were used to when the peer was there
//! counts too, if it was more: until it is back the node answers alone, which is sooner. More than the limit, and
//! the share of the idle rate is cut in proportion, at once; well below it, and it grows by a quarter at
//! each window of 100 ms. Whatever the latency, the share stays above a quarter: a node without a copy is the
//! greater danger. With less of a share go smaller steps: what is moved at once is what a commit waits for.
//!
//! The *idle rate* is that of the fastest few pieces in a row, each with all that the two nodes did until
//! they had need of the next one. Nobody configures it. A single piece says little: where there are few
//! processors, one in a hundred may happen to be several times as fast as the others, and a share of its rate
//! would be more than all that can be moved. It is forgotten after a minute without clients, and only then: a
//! piece that is slow among commits tells of them, and a share of what they leave would be less and less.
//! Without commits nothing waits.

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
/// And how soon again when nobody committed in the last one.
const QUIET_SOON: Duration = Duration::from_millis(250);
/// Quiet times with so many commits together say enough; with fewer, the last ones count.
const QUIET_COMMITS: u64 = 40;
const QUIET_TIMES: usize = 8;

/// Shares are in thousandths of the idle rate. With what the quiet times take, and clients make slow, the least is a quarter of it.
const SHARE_ALL: u64 = 1000;
const SHARE_MIN: u64 = 310;

/// In hundredths of the latency without pieces: above the first the share is cut, to get to the second; below that it grows a little, below
/// the third much. Twice is what is promised.
const LATENCY_MOST: u128 = 180;
const LATENCY_AIM: u128 = 165;
const LATENCY_WELL: u128 = 140;

/// Of a piece so much is moved at once when the share is all, and less with less of it: a commit that comes meanwhile stands behind
/// that in every queue, and what is moved in small steps is moved slowly.
const STEP_MAX: u64 = 512 << 10;
const STEP_MIN: u64 = 32 << 10;

/// Bytes in a row whose rate counts.
const RUN_BYTES: u64 = 4 << 20;
/// While there are no commits, the fastest run is forgotten after one to two of these.
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
    /// The percentile of commits before the peer was away, if it is known.
    usual: Option<Duration>,
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

/// Nanoseconds for a mebibyte of the fastest run.
#[derive(Debug, Default)]
struct Pace {
    /// When the last piece began, and its bytes, until the next one is asked for.
    last: Option<(Duration, u64)>,
    /// Of the run under way: time without waits, and bytes.
    run: (Duration, u64),
    /// All commits when it began.
    commits: u64,
    now: Option<u64>,
    before: Option<u64>,
    since: Duration,
}

impl Throttle {
    /// Begins at full speed. `usual` is the percentile of commits that clients are used to from when the peer was there, if it is known; `seen` are
    /// all commits so far.
    #[must_use]
    pub fn new(now: Duration, usual: Option<Duration>, seen: Counts) -> Self {
        let commits = seen.total();
        Self {
            activity: Activity::Moving,
            share: SHARE_ALL,
            usual,
            quiet: VecDeque::new(),
            quiet_at: now,
            moving: Counts::default(),
            window_at: now,
            seen,
            next_at: now,
            pace: Pace { since: now, commits, ..Pace::default() },
        }
    }

    /// The share of the idle rate at which pieces may move, in thousandths.
    #[must_use]
    pub const fn share(&self) -> u64 {
        self.share
    }

    /// How many bytes of a piece are to be moved at once.
    #[must_use]
    pub const fn step(&self) -> u64 {
        let step = STEP_MAX * self.share / SHARE_ALL / STEP_MIN * STEP_MIN;
        if step < STEP_MIN { STEP_MIN } else { step }
    }

    /// How long to wait, at most, before asking again; nothing: the next piece may be moved now. `seen` are all commits so far. It is asked when no
    /// piece is under way.
    #[must_use = "a piece that does not wait is felt by clients"]
    pub fn wait(&mut self, now: Duration, seen: &Counts) -> Duration {
        self.pace.asked(now, seen);
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
                let since = now.saturating_sub(self.quiet_at);
                // Who has just come is listened to soon; in a short time he who comes seldom says nothing.
                let is_unknown = self.moving.total() > 0 && self.without().total() == 0;
                let is_soon = self.quiet.is_empty() || since >= QUIET_SOON;
                if since >= QUIET_EVERY || is_unknown && is_soon {
                    self.activity = Activity::Settling { until: now + SETTLE };
                    return SETTLE;
                }
            }
        }
        self.next_at.saturating_sub(now)
    }

    /// A piece of so many bytes was moved, from `began` until `now`.
    pub fn moved(&mut self, began: Duration, now: Duration, bytes: u64) {
        self.pace.last = Some((began, bytes));
        let fastest = self.pace.fastest().unwrap_or_else(|| pace(now.saturating_sub(began), bytes));
        let spacing = ((u128::from(fastest) * u128::from(bytes)) >> 20) * u128::from(SHARE_ALL)
            / u128::from(self.share);
        let spacing = Duration::from_nanos(u64::try_from(spacing).unwrap_or(u64::MAX));
        // What was late is made good by one piece, no more: clients would feel several in a row.
        self.next_at = match self.share {
            SHARE_ALL => now,
            _ => self.next_at.max(began.saturating_sub(spacing)) + spacing,
        };
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
        // A node that is alone mostly answers sooner than the pair did, and will again.
        let usual = self.usual.unwrap_or_default();
        let (with, without) = (self.moving.p99(), self.without().p99().map(|quiet| quiet.max(usual)));
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
    /// The next piece is asked for: all that the last one took is known.
    fn asked(&mut self, now: Duration, seen: &Counts) {
        let Some((began, bytes)) = self.last.take() else { return };
        let (time, all) = self.run;
        self.run = (time + now.saturating_sub(began), all.saturating_add(bytes));
        if self.run.1 >= RUN_BYTES {
            let (time, bytes) = std::mem::take(&mut self.run);
            let commits = std::mem::replace(&mut self.commits, seen.total());
            self.take(pace(time, bytes), now, self.commits == commits);
        }
    }

    fn take(&mut self, pace: u64, now: Duration, is_idle: bool) {
        if is_idle && now.saturating_sub(self.since) >= PACE_TIME {
            (self.before, self.now, self.since) = (self.now.take(), None, now);
        }
        self.now = Some(self.now.map_or(pace, |known| known.min(pace)));
    }

    /// Of the runs that count; of the first one, what is known of it.
    fn fastest(&self) -> Option<u64> {
        let first = || (self.run.1 > 0).then(|| pace(self.run.0, self.run.1));
        self.now.into_iter().chain(self.before).min().or_else(first)
    }
}

/// Nanoseconds for a mebibyte, when so many bytes took so long.
fn pace(time: Duration, bytes: u64) -> u64 {
    u64::try_from((time.as_nanos() << 20) / u128::from(bytes.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "throttle_tests.rs"]
mod tests;
