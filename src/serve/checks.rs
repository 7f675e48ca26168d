//! Scrubs and comparisons, from the store's words to those of operators.

use super::admin::{
    AdminError, CheckKind, CheckStatus, Outcome, RangeReport, ScrubReport, Side, VerifyReport,
};
use crate::store::{self, CommandError, Dataset};

/// Places of damage that are told in words.
const WORDS_MAX: usize = 100;

pub(super) fn status(check: store::CheckStatus) -> CheckStatus {
    let kind = match check.kind {
        store::CheckKind::Scrub => CheckKind::Scrub,
        store::CheckKind::Verify => CheckKind::Verify,
    };
    CheckStatus { kind, done_bytes: check.done_bytes, total_bytes: check.total_bytes }
}

fn range(range: &store::BadRange) -> RangeReport {
    RangeReport {
        volume: range.volume.clone(),
        first_block: range.first_block,
        blocks: range.blocks,
        side: match range.side {
            store::Side::Here => Side::Here,
            store::Side::Peer => Side::Peer,
            store::Side::Both => Side::Both,
            store::Side::Neither => Side::Neither,
            store::Side::Maps => Side::Maps,
        },
        outcome: match range.outcome {
            store::Outcome::Found => Outcome::Found,
            store::Outcome::Repaired => Outcome::Repaired,
            store::Outcome::Unrepaired => Outcome::Unrepaired,
            store::Outcome::Unrecoverable => Outcome::Unrecoverable,
        },
    }
}

/// A range in words.
fn words(range: &store::BadRange) -> String {
    let store::BadRange { volume, first_block: first, blocks, why, .. } = range;
    let outcome = match range.outcome {
        store::Outcome::Found => "",
        store::Outcome::Repaired => "repaired: ",
        store::Outcome::Unrepaired => "NOT repaired: ",
        store::Outcome::Unrecoverable => "on neither node: ",
    };
    match blocks {
        1 => format!("volume {volume:?}, block {first}: {outcome}{why}"),
        blocks => format!("volume {volume:?}, blocks {first} to {}: {outcome}{why}", first + blocks - 1),
    }
}

fn milliseconds(took: std::time::Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn scrub(dataset: &Dataset, repair: bool) -> Result<ScrubReport, CommandError> {
    let found = dataset.scrub(repair)?;
    Ok(ScrubReport {
        segments: found.segments,
        blocks: found.blocks,
        bytes: found.bytes,
        elapsed_ms: milliseconds(found.took),
        damaged_blocks: found.damaged_blocks,
        repaired_blocks: found.repaired_blocks,
        ranges: found.ranges.iter().map(range).collect(),
        damage: found.ranges.iter().take(WORDS_MAX).map(words).collect(),
    })
}

pub(super) fn scrub_event(report: &Result<ScrubReport, AdminError>) -> String {
    match report {
        Ok(report) => format!(
            "{} of {} blocks were damaged, {} are repaired",
            report.damaged_blocks, report.blocks, report.repaired_blocks
        ),
        Err(error) => error.to_string(),
    }
}

pub(super) fn verify(
    dataset: &Dataset,
    volume: Option<&str>,
    repair: bool,
) -> Result<VerifyReport, CommandError> {
    let found = dataset.verify(volume, repair)?;
    Ok(VerifyReport {
        volumes: found.volumes,
        bytes: found.bytes,
        elapsed_ms: milliseconds(found.took),
        differing_blocks: found.differing_blocks,
        repaired_blocks: found.repaired_blocks,
        unrecoverable_blocks: found.unrecoverable_blocks,
        moving_blocks: found.moving_blocks,
        ranges: found.ranges.iter().map(range).collect(),
    })
}

/// The event of a comparison: an alarm when the two nodes are not the same in the end.
pub(super) fn verify_event(report: &Result<VerifyReport, AdminError>) -> (&'static str, String) {
    let report = match report {
        Ok(report) => report,
        Err(error) => return ("verify", error.to_string()),
    };
    let text = format!(
        "{} blocks differ, {} are repaired, {} are on neither node, {} were being written",
        report.differing_blocks, report.repaired_blocks, report.unrecoverable_blocks, report.moving_blocks
    );
    let differs = report.differing_blocks > report.repaired_blocks;
    let first = report.ranges.iter().find(|range| range.outcome != Outcome::Repaired);
    let place = first.map(|range| {
        format!("; first: volume {:?}, block {}, {} blocks", range.volume, range.first_block, range.blocks)
    });
    (if differs { "verify-alarm" } else { "verify" }, text + &place.unwrap_or_default())
}
