//! What runs come to, as a table with a column per fabric.

use std::fmt;
use std::time::Duration;

use mirrorbus::base::format_bytes;

use super::prover::{Ledger, Proof};

/// One fabric's run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub(super) fabric: &'static str,
    pub(super) files: usize,
    pub(super) file_bytes: u64,
    pub(super) log_bytes: usize,
    /// What the ledger said when the kill was decided.
    pub(super) killed_at: Ledger,
    /// What it said in the end.
    pub(super) acknowledged: Ledger,
    /// What the holder proved of the killed owner's stores.
    pub(super) found: Proof,
    /// From the start of the new owner to its first store.
    pub(super) recovered_in: Duration,
    /// What the holder proved in the end.
    pub(super) whole: Proof,
    pub(super) took: Duration,
}

/// Outcomes side by side, of each the same rows.
#[derive(Debug)]
pub(super) struct Table<'a, T>(pub(super) &'a [Row<T>], pub(super) &'a [T]);

/// A row: its name, and what it says of an outcome.
pub(super) type Row<T> = (&'static str, fn(&T) -> String);

/// Width of the names.
const NAME_WIDTH: usize = 26;
/// Width of a column.
const COLUMN_WIDTH: usize = 34;

/// What there is to say of the region's run.
pub(super) const ROWS: [Row<Outcome>; 10] = [
    ("fabric", |outcome| outcome.fabric.to_owned()),
    ("files", |outcome| outcome.files.to_string()),
    ("bytes", |outcome| format!("{} ({})", outcome.file_bytes, format_bytes(outcome.file_bytes))),
    ("stores", |outcome| outcome.whole.entries.to_string()),
    ("owner killed at", |outcome| {
        let percent = outcome.killed_at.position as u64 * 100 / outcome.log_bytes.max(1) as u64;
        format!("{percent} %, byte {}", outcome.killed_at.position)
    }),
    ("acknowledged at the kill", |outcome| {
        format!("{} stores, byte {}", outcome.acknowledged.entries, outcome.acknowledged.position)
    }),
    ("found on the holder", |outcome| {
        format!("{} stores, byte {}", outcome.found.entries, outcome.found.position)
    }),
    ("files proven", |outcome| {
        format!("{}, in the end {} of {}", outcome.found.files, outcome.whole.files, outcome.files)
    }),
    ("recovered in", |outcome| format!("{} ms", outcome.recovered_in.as_millis())),
    ("total", |outcome| format!("{:.2} s", outcome.took.as_secs_f64())),
];

impl<T> fmt::Display for Table<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, cell) in self.0 {
            let cells = self.1.iter().map(|outcome| format!("{:<COLUMN_WIDTH$}", cell(outcome)));
            let row = format!("  {name:<NAME_WIDTH$}{}", cells.collect::<String>());
            writeln!(f, "{}", row.trim_end())?;
        }
        Ok(())
    }
}
