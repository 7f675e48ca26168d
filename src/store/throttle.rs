//! Checks give way: while clients read or write, one rests as long as it worked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::engine::Engine;
use crate::base::clock::Instant;

/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(100);

/// Of one check.
#[derive(Debug)]
pub(super) struct Throttle<'a> {
    engine: &'a Engine,
    requests: u64,
    since: Instant,
}

impl<'a> Throttle<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self { engine, requests: requests(engine), since: Instant::now() }
    }

    /// Called after a piece of work.
    pub(super) fn rest(&mut self) {
        let now = requests(self.engine);
        if now != self.requests {
            self.engine.health.resting.nap(self.since.elapsed().min(REST_MAX));
        }
        (self.requests, self.since) = (now, Instant::now());
    }
}

/// What clients asked for so far.
fn requests(engine: &Engine) -> u64 {
    let counters = &engine.shared.counters;
    [&counters.reads, &counters.writes, &counters.trims, &counters.flushes]
        .into_iter()
        .map(|counter| counter.load(Ordering::Relaxed))
        .sum()
}
