//! `mirrorbus scrub` and `verify`: what operators have checked. On a terminal a bar shows how far it is.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mirrorbus::base::format_bytes;
use mirrorbus::serve::admin::{Outcome, RangeReport, Reply, Request, ScrubReport, Side, VerifyReport};

use super::{DAMAGED, Failure, Node, plain, print, unexpected};

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(300);

/// What `scrub` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Scrub {
    #[command(flatten)]
    node: Node,
    /// The dataset.
    dataset: String,
    /// Only look: do not write what is bad again from the peer's data.
    #[arg(long)]
    check_only: bool,
    /// Print JSON: the report as one object.
    #[arg(long)]
    json: bool,
}

/// What `verify` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    node: Node,
    /// The dataset.
    dataset: String,
    /// One volume; without, all.
    volume: Option<String>,
    /// Write what is bad on one node again from the other, where that matches its checksum.
    #[arg(long)]
    repair: bool,
    /// Print JSON: the report as one object.
    #[arg(long)]
    json: bool,
}

/// Has everything compared with its checksums; fails when damage is left.
pub(crate) fn scrub(arguments: &Scrub) -> Result<(), Box<dyn std::error::Error>> {
    let Scrub { node, dataset, check_only, json } = arguments;
    let request = Request::Scrub { dataset: dataset.clone(), repair: !check_only };
    let report = match with_progress(node, dataset, || node.ask(&request))? {
        Reply::Scrubbed(report) => report,
        other => return Err(unexpected(&other).into()),
    };
    if *json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        print(&describe_scrub(&report)?)?;
    }
    let left = report.damaged_blocks.saturating_sub(report.repaired_blocks);
    unless_left(left, dataset, "do not match their checksums")
}

/// Has both nodes' data compared; fails when they are not the same in the end.
pub(crate) fn verify(arguments: &Verify) -> Result<(), Box<dyn std::error::Error>> {
    let Verify { node, dataset, volume, repair, json } = arguments;
    let request = Request::Verify { dataset: dataset.clone(), volume: volume.clone(), repair: *repair };
    let report = match with_progress(node, dataset, || node.ask(&request))? {
        Reply::Verified(report) => report,
        other => return Err(unexpected(&other).into()),
    };
    if *json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        print(&describe_verify(&report)?)?;
    }
    let left = report.differing_blocks.saturating_sub(report.repaired_blocks);
    unless_left(left, dataset, "are not the same and good on both nodes")
}

/// The failure of a check that leaves so many blocks in a state that they should not be in.
fn unless_left(blocks: u64, dataset: &str, state: &str) -> Result<(), Box<dyn std::error::Error>> {
    if blocks == 0 {
        return Ok(());
    }
    Err(Failure { status: DAMAGED, text: format!("{blocks} blocks of {dataset} {state}") }.into())
}

fn describe_scrub(report: &ScrubReport) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        "{} segments, {} blocks, {} read in {}.{} s: {} damaged",
        report.segments,
        report.blocks,
        format_bytes(report.bytes),
        report.elapsed_ms / 1000,
        report.elapsed_ms % 1000 / 100,
        report.damaged_blocks
    );
    if report.repaired_blocks > 0 {
        write!(text, ", {} repaired", report.repaired_blocks)?;
    }
    text.push('\n');
    report.damage.iter().try_for_each(|place| writeln!(text, "  {}", plain(place)))?;
    Ok(text)
}

fn describe_verify(report: &VerifyReport) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        "{} volumes, {} read here in {}.{} s: {} blocks differ",
        report.volumes,
        format_bytes(report.bytes),
        report.elapsed_ms / 1000,
        report.elapsed_ms % 1000 / 100,
        report.differing_blocks
    );
    for (count, what) in [
        (report.repaired_blocks, "repaired"),
        (report.unrecoverable_blocks, "on neither node"),
        (report.moving_blocks, "not compared: written again each time"),
    ] {
        if count > 0 {
            write!(text, ", {count} {what}")?;
        }
    }
    text.push('\n');
    report.ranges.iter().try_for_each(|range| writeln!(text, "  {}", describe(range)))?;
    Ok(text)
}

fn describe(range: &RangeReport) -> String {
    let side = match range.side {
        Side::Here => "bad on this node",
        Side::Peer => "bad on the peer",
        Side::Both => "bad on both nodes",
        Side::Neither => "matches its checksum on both, and differs",
        Side::Maps => "at different positions of the log",
        _ => "bad",
    };
    let outcome = match range.outcome {
        Outcome::Found => "",
        Outcome::Repaired => ", repaired",
        Outcome::Unrepaired => ", NOT repaired",
        Outcome::Unrecoverable => ", unrecoverable",
        _ => ", unknown",
    };
    let RangeReport { volume, first_block, blocks, .. } = range;
    format!("volume {:?}, block {first_block}, {blocks} blocks: {side}{outcome}", plain(volume))
}

/// Shows how far the node is with a check of the dataset, while `work` waits for it.
fn with_progress<T>(node: &Node, dataset: &str, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let (working, ended) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || watch(node, dataset, &ended));
        let done = work();
        drop(working);
        done
    })
}

fn watch(node: &Node, dataset: &str, ended: &Receiver<()>) {
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}");
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        let Ok(Reply::Status(status)) = node.ask(&Request::Status {}) else { continue };
        let found = status.datasets.iter().find(|found| found.name == dataset);
        if let Some(check) = found.and_then(|found| found.check.as_ref()) {
            bar.set_message(check.kind.word());
            bar.set_length(check.total_bytes);
            bar.set_position(check.done_bytes);
        }
    }
    bar.finish_and_clear();
}
