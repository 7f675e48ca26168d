//! Collects what the library logs, so that a test can look for the words that an operator would.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static COLLECTOR: Collector = Collector;

struct Collector;

impl log::Log for Collector {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LINES.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// From now on lines are kept.
pub fn collect() {
    // It is ours already when another test of this program asked first.
    let _ = log::set_logger(&COLLECTOR);
    log::set_max_level(log::LevelFilter::Info);
}

/// Waits until a line with `words` was logged.
pub fn until_logged(words: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    while !LINES.lock().unwrap().iter().any(|line| line.contains(words)) {
        assert!(Instant::now() < until, "{words:?} is not in {:#?}", LINES.lock().unwrap());
        std::thread::sleep(Duration::from_millis(10));
    }
}
