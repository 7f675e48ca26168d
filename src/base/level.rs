//! How far a store has come.

use std::fmt;

/// How far a store has come. Each includes the ones before it; docs/semantics.md has the meaning on each fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Handed to the fabric. Nothing is promised yet.
    Posted,
    /// The peer's side of the fabric has it: it survives the death of this process.
    Acked,
    /// The peer's processor reads it.
    Visible,
    /// It is on the peer's stable storage: it survives the loss of power there.
    Durable,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Posted => "Posted",
            Self::Acked => "Acked",
            Self::Visible => "Visible",
            Self::Durable => "Durable",
        })
    }
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "posted" => Ok(Self::Posted),
            "acked" => Ok(Self::Acked),
            "visible" => Ok(Self::Visible),
            "durable" => Ok(Self::Durable),
            _ => Err(format!("{text:?} is no level: posted, acked, visible or durable")),
        }
    }
}

/// What was asked for cannot be had from this pair, whatever is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not supported here: {why}")]
pub struct Unsupported {
    /// What was asked.
    pub what: String,
    /// Why this pair cannot give it, and what would.
    pub why: String,
}
