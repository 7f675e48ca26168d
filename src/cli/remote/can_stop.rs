//! `mirrorbus can-stop`: whether a node may be stopped now.

use mirrorbus::serve::admin::{Reply, Request};

use super::{Failure, Node, plain, print, unexpected};

/// Exit status: it may not.
const MUST_STAY: u8 = 1;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    node: Node,
    /// The dataset; without one, all of the node's.
    dataset: Option<String>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Prints a sentence for each dataset.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let reply = arguments.node.ask(&Request::CanStop { dataset: arguments.dataset.clone() })?;
    let Reply::CanStop(report) = reply else { return Err(unexpected(&reply).into()) };
    if arguments.json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        for found in &report.datasets {
            let may = if found.can_stop { "may be stopped" } else { "must not be stopped" };
            print(&format!("{}: this node {may}: {}\n", found.dataset, plain(&found.reason.text)))?;
        }
    }
    if report.can_stop {
        return Ok(());
    }
    let names: Vec<_> =
        report.datasets.iter().filter(|found| !found.can_stop).map(|found| &*found.dataset).collect();
    let text = format!("this node must not be stopped now, because of {}", names.join(", "));
    Err(Failure { status: MUST_STAY, text }.into())
}
