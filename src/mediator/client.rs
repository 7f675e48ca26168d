//! A node's way to the mediator of a dataset.

use std::time::Duration;

use crate::base::{DatasetId, FabricUrl};
use crate::cluster::{ArbiterClient, ArbiterError, Asked, NOT_KNOWN, Question, Told, decode, encode};
use crate::node::{CallError, Inquirer, KeySet};

/// A connection to a mediator.
pub trait Line: std::fmt::Debug + Send + Sized {
    /// Connects to whoever answers at `url`.
    ///
    /// # Errors
    /// Nobody does, in time.
    fn connect(url: &FabricUrl, keys: &KeySet, within: Duration) -> Result<Self, CallError>;

    /// Asks.
    ///
    /// # Errors
    /// After one this connection is of no use. The question may have been heard, or may be yet.
    fn ask(&self, body: &[u8], within: Duration) -> Result<Vec<u8>, CallError>;
}

impl Line for Inquirer {
    fn connect(url: &FabricUrl, keys: &KeySet, within: Duration) -> Result<Self, CallError> {
        Self::connect(url, keys, within)
    }

    fn ask(&self, body: &[u8], within: Duration) -> Result<Vec<u8>, CallError> {
        self.ask(body, within)
    }
}

/// The way to the mediator, for one dataset of one node. Keeps its connection from one question to the next.
#[derive(Debug)]
pub struct Client<L = Inquirer> {
    url: FabricUrl,
    keys: KeySet,
    dataset: DatasetId,
    node: String,
    connection: Option<L>,
}

impl Client {
    /// Connects when it is first needed.
    #[must_use]
    pub fn new(url: FabricUrl, keys: KeySet, dataset: DatasetId, node: &str) -> Self {
        Self::over(url, keys, dataset, node)
    }
}

impl<L: Line> Client<L> {
    /// The same over connections of this kind.
    #[must_use]
    pub(crate) fn over(url: FabricUrl, keys: KeySet, dataset: DatasetId, node: &str) -> Self {
        Self { url, keys, dataset, node: node.to_owned(), connection: None }
    }

    fn ask_once(&mut self, asked: Asked, within: Duration) -> Result<Told, ArbiterError> {
        let question = Question { dataset: self.dataset.to_string(), node: self.node.clone(), asked };
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => L::connect(&self.url, &self.keys, within)
                .map_err(|error| ArbiterError::NotSent(error.to_string()))?,
        };
        let answer = connection.ask(&encode(&question), within);
        let answer = answer.map_err(|error| ArbiterError::Unknown(error.to_string()))?;
        let told = decode(&answer).map_err(ArbiterError::Unknown)?;
        // A connection on which something went wrong is of no use any more.
        self.connection = Some(connection);
        Ok(told)
    }
}

impl<L: Line> ArbiterClient for Client<L> {
    /// What the mediator itself does not know may have been done.
    fn ask(&mut self, asked: Asked, within: Duration) -> Result<Told, ArbiterError> {
        if let (Asked::CompareAndSet(request), true) = (&asked, self.connection.is_some()) {
            // Over one that has ended it would not be known whether it was asked for: a question that changes nothing finds out.
            let _ = self.ask_once(Asked::Read { known: request.expected }, within);
        }
        match self.ask_once(asked, within)? {
            Told::Refused { code, text } if code == NOT_KNOWN => Err(ArbiterError::Unknown(text)),
            told => Ok(told),
        }
    }
}
