//! `mirrorbus promote`, `alone`, `replace-peer`, `seed` and `switch`: what operators decide.

use mirrorbus::serve::admin::{Reply, Request};

use super::{Node, plain, print, unexpected};

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

/// What `replace-peer` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplacePeer {
    #[command(flatten)]
    node: Node,
    /// The dataset.
    dataset: String,
}

/// What `seed` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Seed {
    #[command(flatten)]
    node: Node,
    /// The dataset.
    dataset: String,
}

/// What `switch` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Switch {
    #[command(flatten)]
    node: Node,
    /// The dataset; may be left out where the node has one only.
    dataset: Option<String>,
    /// Print JSON instead of text.
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

/// Lets a new and empty node take the peer's place.
pub(crate) fn replace_peer(arguments: &ReplacePeer) -> Result<(), Box<dyn std::error::Error>> {
    let ReplacePeer { node, dataset } = arguments;
    node.have_done(&Request::ReplacePeer { dataset: dataset.clone() })?;
    Ok(print(&format!("a peer without any log of {dataset} is let in, once\n"))?)
}

/// Gives the mediator what this node has for the configuration.
pub(crate) fn seed(arguments: &Seed) -> Result<(), Box<dyn std::error::Error>> {
    let Seed { node, dataset } = arguments;
    node.have_done(&Request::Seed { dataset: dataset.clone() })?;
    Ok(print(&format!("the mediator has this node's configuration of {dataset}\n"))?)
}

/// Hands the service over.
pub(crate) fn switch(arguments: &Switch) -> Result<(), Box<dyn std::error::Error>> {
    let reply = arguments.node.ask(&Request::Switch { dataset: arguments.dataset.clone() })?;
    let Reply::Switched(report) = reply else { return Err(unexpected(&reply).into()) };
    if arguments.json {
        return Ok(print(&(serde_json::to_string_pretty(&report)? + "\n"))?);
    }
    let (ms, tenths) = (report.held_us / 1000, report.held_us / 100 % 10);
    let (dataset, to) = (plain(&report.dataset), plain(&report.to));
    Ok(print(&format!("{to} serves {dataset} now: requests were held for {ms}.{tenths} ms\n"))?)
}
