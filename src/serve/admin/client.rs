//! Who asks at the admin socket.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::lines::{LineError, Lines};
use super::{AdminError, REPLY_BYTES_MAX, Reply, Request, socket};
use crate::base::Deadline;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No node is reached.
    #[error("no node at {path}: {error}; is it running, as this user, and is this its admin socket?", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The connection broke.
    #[error("the node at {path} did not answer: {why}", path = path.display())]
    Lost {
        /// The socket.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// Something that is no answer to this.
    #[error("the node at {path} answered what this program does not understand: {why}; are both of one version?", path = path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The node said no.
    #[error(transparent)]
    Refused(#[from] AdminError),
}

/// A connection to a node.
#[derive(Debug)]
pub struct AdminClient {
    lines: Lines<UnixStream>,
    path: PathBuf,
}

impl AdminClient {
    /// Connects to the node whose socket is at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or not in time.
    pub fn connect(path: &Path, mut deadline: Deadline) -> Result<Self, ClientError> {
        match socket::connect(path, &mut deadline) {
            Ok(stream) => Ok(Self { lines: Lines::new(stream, REPLY_BYTES_MAX), path: path.into() }),
            Err(error) => Err(ClientError::Connect { path: path.into(), error }),
        }
    }

    /// Asks, and waits for the answer. Of events that are followed it is the first.
    ///
    /// # Errors
    /// The node says no, or nothing in time. Then a command may still be carried out.
    pub fn ask(&mut self, request: &Request, mut deadline: Deadline) -> Result<Reply, ClientError> {
        // One deadline for both ways: its clock starts here.
        let deadline = Deadline::at(deadline.instant());
        self.send(request, deadline)?;
        match self.next(deadline)? {
            Some(reply) => Ok(reply),
            None => Err(self.lost("no answer before the deadline")),
        }
    }

    /// Asks for what comes by [`next`](Self::next).
    ///
    /// # Errors
    /// The connection broke, or the node has no room for it.
    pub fn send(&mut self, request: &Request, mut deadline: Deadline) -> Result<(), ClientError> {
        let Err(error) = self.lines.write(&request.encode(), &mut deadline) else { return Ok(()) };
        // A node that has no room for this connection says so and hangs up before it reads.
        match self.next(Deadline::at(std::time::Instant::now())) {
            Err(ClientError::Refused(refused)) => Err(refused.into()),
            Ok(_) | Err(_) => Err(self.lost(&error)),
        }
    }

    /// The next answer; `None` when there is none by the deadline.
    ///
    /// # Errors
    /// The node says no, or the connection ended.
    pub fn next(&mut self, mut deadline: Deadline) -> Result<Option<Reply>, ClientError> {
        match self.lines.read(&mut deadline) {
            Ok(Some(line)) => match Reply::decode(&line) {
                Ok(Reply::Error(error)) => Err(error.into()),
                Ok(reply) => Ok(Some(reply)),
                Err(why) => Err(self.not_understood(why)),
            },
            Ok(None) => Err(self.lost("it hung up")),
            Err(LineError::TimedOut) => Ok(None),
            Err(error) => Err(self.lost(&error)),
        }
    }

    fn lost(&self, why: impl ToString) -> ClientError {
        ClientError::Lost { path: self.path.clone(), why: why.to_string() }
    }

    fn not_understood(&self, why: String) -> ClientError {
        ClientError::Answer { path: self.path.clone(), why }
    }
}
