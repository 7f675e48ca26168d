//! A node's way to the arbiter of a dataset, whichever kind that is.

use std::fmt::Debug;
use std::time::Duration;

use super::{Asked, Configuration, Request, Told, Verdict};

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArbiterError {
    /// It was not asked: nothing of the request is under way.
    #[error("the arbiter is not reached: {0}")]
    NotSent(String),
    /// It was asked, and may have taken the request, or may yet.
    #[error("the arbiter does not answer: {0}")]
    Unknown(String),
    /// It did not take this one now; it may take it later.
    #[error("the arbiter refuses ({code}): {text}")]
    Refused {
        /// A word for machines.
        code: String,
        /// A sentence, with a way out.
        text: String,
    },
}

/// Asks the arbiter of one dataset, for one node. An error says of this one asking what it says: of a request that was asked before, and of
/// which nothing is known, it says nothing.
pub trait ArbiterClient: Debug + Send {
    /// Asks. What an answer says is durable at the arbiter.
    ///
    /// # Errors
    /// There is no answer. What the arbiter refuses is none either: it is an answer.
    fn ask(&mut self, asked: Asked, within: Duration) -> Result<Told, ArbiterError>;

    /// Asks for a change. On return of `Taken` it is durable at the arbiter.
    ///
    /// # Errors
    /// It is not known whether it was taken, or it was not, and may be when it is asked again.
    fn compare_and_set(&mut self, request: &Request, within: Duration) -> Result<Verdict, ArbiterError> {
        match self.ask(Asked::CompareAndSet(request.clone()), within)? {
            Told::Taken => Ok(Verdict::Taken),
            Told::Holds(found) => Ok(Verdict::Changed(found)),
            Told::Refused { code, text } => Err(ArbiterError::Refused { code, text }),
        }
    }

    /// What the register holds. `known` is the id of the last configuration that this node knows: 0 for none.
    ///
    /// # Errors
    /// There is no answer; or the arbiter has an older one, and has lost its state.
    fn read(&mut self, known: u64, within: Duration) -> Result<Option<Configuration>, ArbiterError> {
        match self.ask(Asked::Read { known }, within)? {
            Told::Holds(found) => Ok(found),
            Told::Refused { code, text } => Err(ArbiterError::Refused { code, text }),
            Told::Taken => Err(something_else()),
        }
    }

    /// Gives the arbiter the configuration, because the operator vouches for it. On return it is durable there.
    ///
    /// # Errors
    /// There is no answer; or the arbiter has one of its own, which counts.
    fn seed(&mut self, configuration: &Configuration, within: Duration) -> Result<(), ArbiterError> {
        match self.ask(Asked::Seed(configuration.clone()), within)? {
            Told::Taken => Ok(()),
            Told::Refused { code, text } => Err(ArbiterError::Refused { code, text }),
            Told::Holds(_) => Err(something_else()),
        }
    }
}

fn something_else() -> ArbiterError {
    ArbiterError::Unknown("it answers something else".into())
}
