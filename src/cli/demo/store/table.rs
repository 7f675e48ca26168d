//! What a run of the block store comes to.

use std::time::Duration;

use mirrorbus::base::format_bytes;

use super::super::table::Row;
use super::writer::Found;

/// One fabric's run.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) fabric: &'static str,
    pub(super) image_bytes: u64,
    pub(super) files: usize,
    pub(super) file_bytes: u64,
    /// How much of the image was copied, in percent, when the kill was decided.
    pub(super) killed_at: f64,
    /// Writes of the second writer that were acknowledged.
    pub(super) acknowledged: usize,
    /// What was found of them, and of those that were under way.
    pub(super) found: Found,
    /// From the kill until the other node served.
    pub(super) promoted_in: Duration,
    /// The whole copy to the node that serves alone.
    pub(super) copied_in: Duration,
    /// From the start of the node that was killed until the two were mirrored.
    pub(super) returned_in: Duration,
    pub(super) took: Duration,
}

/// What there is to say of it.
pub(super) const ROWS: [Row<Outcome>; 10] = [
    ("fabric", |outcome| outcome.fabric.to_owned()),
    ("image", |outcome| {
        let (image, files) = (format_bytes(outcome.image_bytes), format_bytes(outcome.file_bytes));
        format!("{image}, {} files, {files}", outcome.files)
    }),
    ("primary killed at", |outcome| format!("{:.0} % of the copy", outcome.killed_at)),
    ("acknowledged at the kill", |outcome| format!("{} writes", outcome.acknowledged)),
    ("found on the other node", |outcome| {
        format!("{} writes, and {} under way", outcome.found.acknowledged, outcome.found.in_doubt)
    }),
    ("promoted in", |outcome| format!("{} ms", outcome.promoted_in.as_millis())),
    ("copied again in", |outcome| format!("{:.2} s", outcome.copied_in.as_secs_f64())),
    ("compare, e2fsck", |_| "identical, clean".to_owned()),
    ("mirrored again in", |outcome| format!("{} ms", outcome.returned_in.as_millis())),
    ("total", |outcome| format!("{:.2} s", outcome.took.as_secs_f64())),
];
