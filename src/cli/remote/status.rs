//! `mirrorbus status`: how a node is, once or each second.

use std::io::IsTerminal;
use std::time::Duration;

use mirrorbus::Deadline;
use mirrorbus::serve::admin::{AdminClient, NodeStatus, Reply, Request};

use super::{Failure, Node, STATUS_PATIENCE, print, table, unexpected};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Moves to the upper left corner and clears from there.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    node: Node,
    /// Print JSON instead of text: one object, or one a line with --watch.
    #[arg(long)]
    json: bool,
    /// Look again each second, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// Prints it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut client = arguments.node.connect()?;
    if !arguments.watch {
        let status = ask(&mut client)?;
        let text = if arguments.json {
            serde_json::to_string_pretty(&status)? + "\n"
        } else {
            table::render(&status)
        };
        return Ok(print(&text)?);
    }
    let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
    loop {
        let status = ask(&mut client)?;
        let text = if arguments.json {
            serde_json::to_string(&status)? + "\n"
        } else {
            format!("{clear}{}", table::render(&status))
        };
        print(&text)?;
        // A node says nothing unasked, so this waits; it ends when the node does.
        if let Some(reply) = client.next(Deadline::within(LOOK)).map_err(Failure::from)? {
            return Err(unexpected(&reply).into());
        }
    }
}

fn ask(client: &mut AdminClient) -> Result<NodeStatus, Failure> {
    match client.ask(&Request::Status {}, Deadline::within(STATUS_PATIENCE))? {
        Reply::Status(status) => Ok(*status),
        other => Err(unexpected(&other)),
    }
}
