//! What happened, for people, and what must not have.

use std::cell::{Cell, RefCell};
use std::sync::Once;

use crate::sim::scheduler;

thread_local! {
    static TRACED: Cell<bool> = const { Cell::new(false) };
    /// Where files are: another place in each run.
    static ROOT: RefCell<String> = const { RefCell::new(String::new()) };
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static FAILURES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Takes what nodes log into the trace of the world in which they run.
struct Logger;

static LOGGER: Logger = Logger;
static SET: Once = Once::new();

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        TRACED.get()
    }

    fn log(&self, record: &log::Record<'_>) {
        if TRACED.get() {
            let process = scheduler::current_process();
            tell(|| format!("    {process:?} {}: {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

pub(super) fn begin(is_traced: bool, root: &std::path::Path) {
    ROOT.set(root.display().to_string());
    if is_traced {
        SET.call_once(|| {
            if log::set_logger(&LOGGER).is_ok() {
                log::set_max_level(log::LevelFilter::Info);
            }
        });
    }
    TRACED.set(is_traced);
    LINES.take();
    FAILURES.take();
}

/// Takes note of an event, if somebody wants to know.
pub(super) fn tell(line: impl FnOnce() -> String) {
    if TRACED.get() {
        let line = format!("{:12.6} {}", scheduler::time().as_secs_f64(), line());
        let line = ROOT.with_borrow(|root| line.replace(root, ""));
        LINES.with_borrow_mut(|lines| lines.push(line));
    }
}

/// Something that must not be.
pub(super) fn fail(why: String) {
    tell(|| format!("WRONG: {why}"));
    FAILURES.with_borrow_mut(|failures| failures.push(why));
}

pub(super) fn failures() -> Vec<String> {
    FAILURES.with_borrow(Clone::clone)
}

pub(super) fn has_failed() -> bool {
    FAILURES.with_borrow(|failures| !failures.is_empty())
}

pub(super) fn take() -> Vec<String> {
    TRACED.set(false);
    LINES.take()
}
