//! A node's way to the mediator of a dataset.

use std::time::Duration;

use crate::base::{DatasetId, FabricUrl};
use crate::cluster::{Asked, Configuration, NOT_KNOWN, Question, Request, Told, Verdict, decode, encode};
use crate::node::{Inquirer, KeySet};

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediatorError {
    /// It was not asked: nothing of the request is under way.
    #[error("the mediator is not reached: {0}")]
    NotSent(String),
    /// It was asked, and may have taken the request, or may yet.
    #[error("the mediator does not answer: {0}")]
    Unknown(String),
    /// It did not take this one now; it may take it later.
    #[error("the mediator refuses ({code}): {text}")]
    Refused {
        /// A word for machines.
        code: String,
        /// A sentence, with a way out.
        text: String,
    },
}

/// The way to the mediator, for one dataset of one node. Keeps its connection from one question to the next.
#[derive(Debug)]
pub struct Client {
    url: FabricUrl,
    keys: KeySet,
    dataset: DatasetId,
    node: String,
    connection: Option<Inquirer>,
}

impl Client {
    /// Connects when it is first needed.
    #[must_use]
    pub fn new(url: FabricUrl, keys: KeySet, dataset: DatasetId, node: &str) -> Self {
        Self { url, keys, dataset, node: node.to_owned(), connection: None }
    }

    /// Asks for a change. On return of `Taken` it is durable at the mediator.
    ///
    /// # Errors
    /// It is not known whether it was taken, or it was not, and may be when it is asked again.
    pub fn compare_and_set(&mut self, request: &Request, within: Duration) -> Result<Verdict, MediatorError> {
        if self.connection.is_some() {
            // Over one that has ended it would not be known whether it was asked for: a question that changes nothing finds out.
            let _ = self.ask(Asked::Read { known: request.expected }, within);
        }
        match self.ask(Asked::CompareAndSet(request.clone()), within)? {
            Told::Taken => Ok(Verdict::Taken),
            Told::Holds(found) => Ok(Verdict::Changed(found)),
            Told::Refused { code, text } => Err(MediatorError::Refused { code, text }),
        }
    }

    /// What the register holds. `known` is the id of the last configuration that this node knows: 0 for none.
    ///
    /// # Errors
    /// There is no answer; or the mediator has an older one, and has lost its state.
    pub fn read(&mut self, known: u64, within: Duration) -> Result<Option<Configuration>, MediatorError> {
        match self.ask(Asked::Read { known }, within)? {
            Told::Holds(found) => Ok(found),
            Told::Refused { code, text } => Err(MediatorError::Refused { code, text }),
            Told::Taken => Err(MediatorError::Unknown("it answers something else".into())),
        }
    }

    /// Gives the mediator the configuration, because the operator vouches for it.
    ///
    /// # Errors
    /// There is no answer; or the mediator has one of its own, which counts.
    pub fn seed(&mut self, configuration: &Configuration, within: Duration) -> Result<(), MediatorError> {
        match self.ask(Asked::Seed(configuration.clone()), within)? {
            Told::Taken => Ok(()),
            Told::Refused { code, text } => Err(MediatorError::Refused { code, text }),
            Told::Holds(_) => Err(MediatorError::Unknown("it answers something else".into())),
        }
    }

    /// Asks; what the mediator itself does not know may have been done.
    fn ask(&mut self, asked: Asked, within: Duration) -> Result<Told, MediatorError> {
        match self.ask_once(asked, within)? {
            Told::Refused { code, text } if code == NOT_KNOWN => Err(MediatorError::Unknown(text)),
            told => Ok(told),
        }
    }

    fn ask_once(&mut self, asked: Asked, within: Duration) -> Result<Told, MediatorError> {
        let question = Question { dataset: self.dataset.to_string(), node: self.node.clone(), asked };
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Inquirer::connect(&self.url, &self.keys, within)
                .map_err(|error| MediatorError::NotSent(error.to_string()))?,
        };
        let answer = connection.ask(&encode(&question), within);
        let answer = answer.map_err(|error| MediatorError::Unknown(error.to_string()))?;
        let told = decode(&answer).map_err(MediatorError::Unknown)?;
        // A connection on which something went wrong is of no use any more.
        self.connection = Some(connection);
        Ok(told)
    }
}
