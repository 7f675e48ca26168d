//! Questions of this side's application to the holder's, over the control connection.

use std::sync::{PoisonError, Weak};
use std::time::Duration;

use super::Region;
use super::call::CallError;
use super::session::Session;
use crate::base::{Deadline, FabricUrl};
use crate::control::KeySet;
use crate::node::message::{Message, REQUEST_BYTES_MAX};

/// Heartbeats of a connection that is there for one question.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Silence of such a connection. Nothing comes of it: the question has a deadline.
const SILENCE: Duration = Duration::from_secs(2);
/// How long the holder is given to agree that such a connection ends.
const CLOSE_TIME: Duration = Duration::from_millis(100);

impl Region {
    /// Asks the holder's application (its [`HolderGate`](crate::node::HolderGate)) over the region's own connection.
    /// `body` has at most [`REQUEST_BYTES_MAX`] bytes, and so has the answer.
    ///
    /// # Errors
    /// [`CallError`]. After a timeout the question may have been heard, or may be yet.
    pub fn ask(&self, body: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        session.ask(body, &mut Deadline::within(timeout))
    }
}

/// Asks the application of the holder at `url` over a connection of its own that ends with this: nothing is attached, and
/// an owner that is attached is not disturbed. `body` has at most [`REQUEST_BYTES_MAX`] bytes, and so has the answer.
///
/// # Errors
/// [`CallError`]: `Ended` where nobody listens. After a timeout the question may have been heard, or may be yet.
pub fn ask(url: &FabricUrl, keys: &KeySet, body: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
    check(body)?;
    let mut deadline = Deadline::within(timeout);
    let session = Session::connect(url, keys, HEARTBEAT, SILENCE, Weak::new(), &mut deadline)?;
    let answer = session.ask(body, &mut deadline);
    session.close(deadline.remaining().unwrap_or_default().min(CLOSE_TIME));
    answer
}

/// A connection for many questions, one at a time: what one question costs besides its answer is one round trip. Nothing is attached, and
/// an owner that is attached is not disturbed.
#[derive(Debug)]
pub struct Inquirer {
    session: Session,
}

impl Inquirer {
    /// Connects to the application of the holder at `url`.
    ///
    /// # Errors
    /// [`CallError`]: `Ended` where nobody listens.
    pub fn connect(url: &FabricUrl, keys: &KeySet, timeout: Duration) -> Result<Self, CallError> {
        let mut deadline = Deadline::within(timeout);
        let session = Session::connect(url, keys, HEARTBEAT, SILENCE, Weak::new(), &mut deadline)?;
        Ok(Self { session })
    }

    /// Asks. `body` has at most [`REQUEST_BYTES_MAX`] bytes, and so has the answer.
    ///
    /// # Errors
    /// [`CallError`]; after it this connection is of no use. After a timeout the question may have been heard, or may be yet.
    pub fn ask(&self, body: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
        self.session.ask(body, &mut Deadline::within(timeout))
    }
}

impl Drop for Inquirer {
    fn drop(&mut self) {
        self.session.close(CLOSE_TIME);
    }
}

fn check(body: &[u8]) -> Result<(), CallError> {
    let (len, max) = (body.len(), REQUEST_BYTES_MAX);
    if len > max { Err(CallError::TooLong { len, max }) } else { Ok(()) }
}

impl Session {
    fn ask(&self, body: &[u8], deadline: &mut Deadline) -> Result<Vec<u8>, CallError> {
        check(body)?;
        match self.call(deadline, |request| Message::Ask { request, body: body.to_vec() })? {
            Message::Answer { body, .. } => Ok(body),
            other => Err(CallError::Confused(format!("{other:?}"))),
        }
    }
}
