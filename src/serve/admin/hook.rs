//! What became of the commands that a node runs when it begins to serve, and when it ceases to.

use serde::{Deserialize, Serialize};

/// The last one of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HookStatus {
    /// `promote` or `demote`.
    pub on: String,
    /// How it is with it.
    pub state: HookState,
    /// In words.
    pub text: String,
    /// Since when it is so, in milliseconds since 1970.
    pub time_ms: u64,
}

/// How it is with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HookState {
    /// It runs.
    #[default]
    Running,
    /// It succeeded.
    Done,
    /// It could not be run, or said that it failed.
    Failed,
    /// It was killed, since its time was over.
    TimedOut,
}
