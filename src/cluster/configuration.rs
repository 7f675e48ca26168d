//! The configuration of a pair.

use serde::{Deserialize, Serialize};

/// Who is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// New at each change.
    pub id: u64,
    /// The nodes that have every acknowledged write.
    pub members: Vec<String>,
    /// The one that serves.
    pub primary: String,
    /// A node whose log ends before this position never serves by itself.
    pub floor: u64,
}

impl Configuration {
    /// Whether this node is the only member: what it acknowledged under this the other one need not have.
    #[must_use]
    pub fn is_alone(&self, node: &str) -> bool {
        self.primary == node && matches!(self.members.as_slice(), [only] if only == node)
    }
}
