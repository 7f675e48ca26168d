//! What happened, for those who were not looking: the latest events, in memory.
//!
//! Events are numbered from 1 at each start. When there are more than are remembered, the oldest goes; a reader sees that by the
//! gap in the numbers. Whoever adds one waits for nobody but others that add or read.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Bytes of an event's text that are kept.
const TEXT_BYTES_MAX: usize = 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: one more than that of the event before.
    pub sequence: u64,
    /// When, by the wall clock: milliseconds since 1970 in UTC. The clock may have been set back since the event before.
    pub time_ms: u64,
    /// Of which dataset; `None` for the node.
    pub dataset: Option<String>,
    /// What, for programs.
    pub kind: String,
    /// What, for people.
    pub text: String,
}

/// The latest events.
#[derive(Debug)]
pub struct EventLog {
    capacity: usize,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    last: u64,
    events: VecDeque<Event>,
}

impl EventLog {
    /// Remembers the latest `capacity` events.
    ///
    /// # Panics
    /// With a capacity of 0.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a log of no events");
        Self { capacity, log: Mutex::new(Log::default()) }
    }

    /// Adds an event that happens now; its number. A text of more than a kilobyte is cut.
    pub fn add(&self, dataset: Option<&str>, kind: &str, text: impl Into<String>) -> u64 {
        let mut text = text.into();
        if text.len() > TEXT_BYTES_MAX {
            let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let mut log = self.lock();
        log.last += 1;
        let sequence = log.last;
        if log.events.len() == self.capacity {
            log.events.pop_front();
        }
        let (dataset, kind) = (dataset.map(str::to_owned), kind.to_owned());
        log.events.push_back(Event { sequence, time_ms, dataset, kind, text });
        sequence
    }

    /// The events after number `sequence`, oldest first.
    #[must_use]
    pub fn since(&self, sequence: u64) -> Vec<Event> {
        let log = self.lock();
        let skipped = log.events.partition_point(|event| event.sequence <= sequence);
        log.events.range(skipped..).cloned().collect()
    }

    /// The number of the latest event; 0 when there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_in_order() {
        let log = EventLog::new(3);
        assert!(log.since(0).is_empty() && log.last() == 0);
        for number in 1..=5 {
            assert_eq!(log.add(Some("vm1"), "role", format!("the {number}th")), number);
        }
        let numbers = |since| log.since(since).iter().map(|event| event.sequence).collect::<Vec<_>>();
        assert_eq!(numbers(0), [3, 4, 5], "the gap shows what is lost");
        assert_eq!(numbers(4), [5]);
        assert!(numbers(5).is_empty() && numbers(u64::MAX).is_empty() && log.last() == 5);
        assert_eq!(log.since(4)[0].text, "the 5th");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let log = EventLog::new(1);
        log.add(None, "x", format!("a{}", "é".repeat(TEXT_BYTES_MAX)));
        let text = &log.since(0)[0].text;
        assert!(text.len() == TEXT_BYTES_MAX - 1 && text.ends_with('é'));
    }

    #[test]
    fn threads_share_the_numbers() {
        let log = EventLog::new(10_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        log.add(None, "x", "y");
                    }
                });
            }
        });
        assert!(log.since(0).iter().map(|event| event.sequence).eq(1..=2000));
    }
}
