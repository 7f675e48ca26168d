//! The project's own programs, over verbs.

use std::time::Duration;

use crate::failure::Result;
use crate::rxe::machine::Machine;

use super::ensure;

pub(super) fn contract(machine: &dyn Machine) -> Result<()> {
    let command = format!("MIRRORBUS_TEST_RDMA={} verbs --test-threads=2", machine.address());
    let output = machine.run(&command, Duration::from_secs(170))?;
    let line = output.lines().find(|line| line.starts_with("test result: ok.")).unwrap_or_default();
    println!("{line}");
    ensure(!line.is_empty() && !line.contains(" 0 passed"), || output.clone())
}
