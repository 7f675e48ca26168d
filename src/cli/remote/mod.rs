//! Commands that ask a running node, over its admin socket.
//!
//! The exit status says which kind of failure it was, for scripts: [`NOT_REACHED`], [`REFUSED`], [`DAMAGED`]; any other failure is 1, a
//! mistake on the command line 2.

pub(crate) mod can_stop;
pub(crate) mod check;
pub(crate) mod events;
pub(crate) mod operate;
pub(crate) mod status;
mod table;
pub(crate) mod volume;

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use mirrorbus::Deadline;
use mirrorbus::serve::admin::{AdminClient, ClientError, DEFAULT_SOCKET, Reply, Request};

/// Exit status: no node is at the socket, or it did not answer.
const NOT_REACHED: u8 = 3;

/// Exit status: the node said no; nothing was done.
const REFUSED: u8 = 4;

/// Exit status: a scrub or a comparison found damage that is still there.
const DAMAGED: u8 = 5;

/// How long a node may take to tell how it is: what it promises, and the way.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to find out whether a node may be stopped: two seconds for each dataset.
const CAN_STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How long a command may take; it syncs disks of both nodes.
const COMMAND_PATIENCE: Duration = Duration::from_secs(300);

/// How long a scrub or a comparison may take: at 100 MB/s that is 8 TB.
const CHECK_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the node is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Node {
    /// The node's admin socket.
    #[arg(long, value_name = "SOCKET", default_value = DEFAULT_SOCKET)]
    admin: PathBuf,
}

/// A failure with its own exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit status.
    pub(crate) status: u8,
    text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let status = match &error {
            ClientError::Refused(_) => REFUSED,
            _ => NOT_REACHED,
        };
        Self { status, text: error.to_string() }
    }
}

impl Node {
    fn connect(&self) -> Result<AdminClient, Failure> {
        Ok(AdminClient::connect(&self.admin, Deadline::within(STATUS_PATIENCE))?)
    }

    /// Asks one thing, with the patience that it needs.
    fn ask(&self, request: &Request) -> Result<Reply, Failure> {
        let patience = match request {
            Request::CanStop { .. } => CAN_STOP_PATIENCE,
            Request::Status {} | Request::VolumeList { .. } | Request::Events { .. } | Request::Stop {} => {
                STATUS_PATIENCE
            }
            Request::Scrub { .. } | Request::Verify { .. } => CHECK_PATIENCE,
            Request::VolumeCreate { .. }
            | Request::VolumeResize { .. }
            | Request::VolumeDelete { .. }
            | Request::Promote { .. }
            | Request::Alone { .. }
            | Request::ReplacePeer { .. }
            | Request::Seed { .. }
            | Request::Switch { .. } => COMMAND_PATIENCE,
        };
        Ok(self.connect()?.ask(request, Deadline::within(patience))?)
    }

    /// Has something done.
    fn have_done(&self, request: &Request) -> Result<(), Failure> {
        match self.ask(request)? {
            Reply::Done {} => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

/// The failure of an answer that does not belong to what was asked.
fn unexpected(reply: &Reply) -> Failure {
    let beginning: String = format!("{reply:?}").chars().take(200).collect();
    let text = format!("the node answered what was not asked: {beginning}; are both of one version?");
    Failure { status: NOT_REACHED, text }
}

/// Prints `text`. Whoever reads no further has read enough: that is no failure.
fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut output = std::io::stdout();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// What a node says, fit for a terminal: it may hold what a peer or a client made up.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests;
