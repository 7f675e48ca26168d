//! What a node says to the mediator, and what it is told: one question, one answer.
//!
//! ```text
//!  question, answer:  "MBMEDI01"  JSON
//! ```
//!
//! Input is a stranger's who has the key: nothing of it is asserted.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Configuration;

/// What both begin with.
const MAGIC: &[u8; 8] = b"MBMEDI01";
/// The word of a refusal after which the request may have been taken all the same: what the mediator's disk has is not known.
pub const NOT_KNOWN: &str = "not-known";

/// A change of the configuration. Asked again, word by word, it is the same request: it is taken once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The id that the register has to have; 0 for none yet.
    pub expected: u64,
    /// What it is to hold then; its id is higher.
    pub next: Configuration,
    /// Tells this request from every other, of this node and of the peer.
    pub nonce: u64,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The dataset's id.
    pub dataset: String,
    /// Who asks.
    pub node: String,
    /// What.
    pub asked: Asked,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// What the register holds. `known` is the id that whoever asks knows of: a mediator that has an older one lost its state.
    Read {
        /// 0: none.
        known: u64,
    },
    /// Change it.
    CompareAndSet(Request),
    /// The operator vouches that this is the configuration: of a dataset that the mediator does not know, or has locked.
    Seed(Configuration),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// To a change: it was taken, now or when it was asked before.
    Taken,
    /// To a change: it will never be taken. To a reader: what is there; `None`: nothing yet.
    Holds(Option<Configuration>),
    /// Not now.
    Refused {
        /// A word for machines.
        code: String,
        /// A sentence, with a way out.
        text: String,
    },
}

/// What became of a request, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken: now, or when it was asked before.
    Taken,
    /// It was not, or was and has been followed by another: it will never be taken from now on. What the register holds; `None`: nothing yet.
    Changed(Option<Configuration>),
}

/// As it goes over the wire.
///
/// # Panics
/// Never: questions and answers are names and numbers.
#[must_use]
pub fn encode<T: Serialize>(said: &T) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    serde_json::to_writer(&mut bytes, said).expect("names and numbers");
    bytes
}

/// What came over the wire.
///
/// # Errors
/// Why it is none.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let json = bytes.strip_prefix(MAGIC).ok_or("it is not of a mediator's language")?;
    serde_json::from_slice(json).map_err(|error| error.to_string())
}
