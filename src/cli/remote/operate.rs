//! `mirrorbus promote`, `alone` and `scrub`: what operators decide, and what they have checked.

use std::fmt::Write;

use mirrorbus::base::format_bytes;
use mirrorbus::serve::admin::{Reply, Request, ScrubReport};

use super::{DAMAGED, Failure, Node, plain, print, unexpected};

/// What `promote` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Promote {
    #[command(flatten)]
    node: Node,
    /// The dataset.
    dataset: String,
    /// Even if what was acknowledged and not flushed may be lost: after both nodes lost their memory, and only one is back.
    #[arg(long)]
    flushed_only: bool,
}

/// What `alone` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Alone {
    #[command(flatten)]
    node: Node,
    /// The dataset.
    dataset: String,
}

/// What `scrub` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Scrub {
    #[command(flatten)]
    node: Node,
    /// The dataset.
    dataset: String,
    /// Print JSON: the report as one object.
    #[arg(long)]
    json: bool,
}

/// Makes a node the primary.
pub(crate) fn promote(arguments: &Promote) -> Result<(), Box<dyn std::error::Error>> {
    let Promote { node, dataset, flushed_only } = arguments;
    node.have_done(&Request::Promote { dataset: dataset.clone(), flushed_only: *flushed_only })?;
    Ok(print(&format!("this node is primary for {dataset}\n"))?)
}

/// Lets a primary go on alone.
pub(crate) fn alone(arguments: &Alone) -> Result<(), Box<dyn std::error::Error>> {
    let Alone { node, dataset } = arguments;
    node.have_done(&Request::Alone { dataset: dataset.clone() })?;
    Ok(print(&format!(
        "this node goes on with {dataset} alone: what it acknowledges is on its own disk only\n"
    ))?)
}

/// Has everything compared with its checksums; fails when something does not match.
pub(crate) fn scrub(arguments: &Scrub) -> Result<(), Box<dyn std::error::Error>> {
    let Scrub { node, dataset, json } = arguments;
    let report = match node.ask(&Request::Scrub { dataset: dataset.clone() })? {
        Reply::Scrubbed(report) => report,
        other => return Err(unexpected(&other).into()),
    };
    if *json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        print(&describe(&report)?)?;
    }
    if report.damaged_blocks == 0 {
        return Ok(());
    }
    let text = format!("{} blocks of {dataset} do not match their checksums", report.damaged_blocks);
    Err(Failure { status: DAMAGED, text }.into())
}

fn describe(report: &ScrubReport) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        "{} segments, {} blocks, {} read in {}.{} s: {} damaged\n",
        report.segments,
        report.blocks,
        format_bytes(report.bytes),
        report.elapsed_ms / 1000,
        report.elapsed_ms % 1000 / 100,
        report.damaged_blocks
    );
    report.damage.iter().try_for_each(|place| writeln!(text, "  {}", plain(place)))?;
    Ok(text)
}
