//! The epochs that a holder looks for in its ring, against whatever an owner may have written there.
//!
//! The first byte chooses. *Raw*: the rest stands in the ring as it is. *Built*: the rest is read as a list of ranges, each right or wrong
//! in one field, and gets a commit record and a checksum that are right; so fuzzing goes on behind them. Whatever is found, nothing
//! but the image may change. Executions in which an epoch was applied are counted and printed at each power of two.
#![no_main]

use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::fuzz_target;
use mirrorbus::epoch::fuzzing::{Found, run};

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static DEEP: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let applied = u64::from(run(data, mode % 8 != 0) == Found::Applied);
    let executions = EXECUTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let deep = DEEP.fetch_add(applied, Ordering::Relaxed) + applied;
    if executions.is_power_of_two() {
        eprintln!("deep: {deep} of {executions} (executions that applied an epoch)");
    }
});
