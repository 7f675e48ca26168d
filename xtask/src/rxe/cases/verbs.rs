//! The project's own tests of verbs.

use std::time::Duration;

use crate::failure::Result;
use crate::rxe::machine::Machine;

use super::ensure;

/// The other guest's address is forgotten when the interface goes down.
const KNOW_THE_PEER: &str =
    "if [ -n \"$guest\" ]; then peer=$((3 - guest)); arp -s 10.77.0.$peer 52:54:00:77:00:0$peer; fi";

pub(super) fn contract(machine: &dyn Machine) -> Result<()> {
    // Epochs are found by soft-dirty bits on the guests' kernel, which tell of too many pages there: docs/epoch.md, "Limits".
    run(machine, "verbs --skip alone:: --skip epoch:: --test-threads=2")
}

/// Those that disturb the device, one after another.
pub(super) fn alone(machine: &dyn Machine) -> Result<()> {
    run(machine, &format!("verbs alone:: --test-threads=1 && {{ {KNOW_THE_PEER}; }}"))
}

fn run(machine: &dyn Machine, command: &str) -> Result<()> {
    let command = format!("export MIRRORBUS_TEST_RDMA={}; {command}", machine.address());
    let output = machine.run(&command, Duration::from_secs(170))?;
    let line = output.lines().find(|line| line.starts_with("test result: ok.")).unwrap_or_default();
    println!("{line}");
    ensure(!line.is_empty() && !line.contains(" 0 passed"), || output.clone())
}
