//! What a guest and this host have in common: commands can be run there.

use std::time::Duration;

use crate::failure::Result;

/// Something with soft-RoCE that has the project's programs on its path.
pub(crate) trait Machine {
    /// The address of its soft-RoCE device.
    fn address(&self) -> String;

    /// Runs a command of the shell: what it printed on both outputs. An error unless it exits with 0 within `limit`.
    fn run(&self, command: &str, limit: Duration) -> Result<String>;
}
