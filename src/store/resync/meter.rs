//! How far a resync is, on either side, by the clock of this process.

use std::time::Duration;

use crate::base::clock::Instant;
use crate::replica::Progress;

/// How far a resync is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResyncStatus {
    /// Bytes of data that were lacking when it began; 0 while that is not known.
    pub total_bytes: u64,
    /// Bytes of them that are lacking now.
    pub left_bytes: u64,
    /// What is done, in hundredths of a percent.
    pub hundredths: u64,
    /// Bytes a second of late.
    pub bytes_per_second: u64,
    /// How long the rest takes at that rate; `None` while that is not known.
    pub seconds_left: Option<u64>,
}

/// Counts what is done.
#[derive(Debug)]
pub(in crate::store) struct Meter {
    began: Instant,
    /// Once it is known how much there is to do.
    progress: Option<Progress>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), progress: None }
    }

    /// Time since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// So much there is to do.
    pub(super) fn begin(&mut self, total: u64) {
        self.progress = Some(Progress::new(total, self.now()));
    }

    /// What the peer counts; the total never sinks.
    pub(super) fn told(&mut self, total: u64, left: u64) {
        if total == 0 {
            return;
        }
        let now = self.now();
        let progress = self.progress.get_or_insert_with(|| Progress::new(total, now));
        progress.grow(total.saturating_sub(progress.total()));
        progress.skipped(progress.left().saturating_sub(left));
    }

    /// So much was moved.
    pub(super) fn moved(&mut self, bytes: u64) {
        let now = self.now();
        if let Some(progress) = &mut self.progress {
            progress.moved(bytes, now);
        }
    }

    /// So much need not be moved.
    pub(super) fn skipped(&mut self, bytes: u64) {
        if let Some(progress) = &mut self.progress {
            progress.skipped(bytes);
        }
    }

    /// All there is to do, and what is left of it.
    pub(super) fn amounts(&self) -> (u64, u64) {
        self.progress.as_ref().map_or((0, 0), |progress| (progress.total(), progress.left()))
    }

    pub(in crate::store) fn status(&mut self) -> ResyncStatus {
        let now = self.now();
        let Some(progress) = &mut self.progress else {
            return ResyncStatus {
                total_bytes: 0,
                left_bytes: 0,
                hundredths: 0,
                bytes_per_second: 0,
                seconds_left: None,
            };
        };
        ResyncStatus {
            total_bytes: progress.total(),
            left_bytes: progress.left(),
            hundredths: progress.hundredths(),
            bytes_per_second: progress.rate(now),
            seconds_left: progress.time_left(now).map(|left| left.as_secs()),
        }
    }
}
