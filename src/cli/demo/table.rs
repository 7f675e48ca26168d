//! What a run comes to, as a table with a column per fabric.

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

/// Outcomes side by side.
#[derive(Debug)]
pub(super) struct Table<'a>(pub(super) &'a [Outcome]);

/// Width of the names.
const NAME_WIDTH: usize = 26;
/// Width of a column.
const COLUMN_WIDTH: usize = 34;

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        type Cell = fn(&Outcome) -> String;
        let rows: [(&str, Cell); 10] = [
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
        for (name, cell) in rows {
            let cells = self.0.iter().map(|outcome| format!("{:<COLUMN_WIDTH$}", cell(outcome)));
            let row = format!("  {name:<NAME_WIDTH$}{}", cells.collect::<String>());
            writeln!(f, "{}", row.trim_end())?;
        }
        Ok(())
    }
}
