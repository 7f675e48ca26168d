//! The project's own tests of verbs.

use std::time::Duration;

use crate::failure::Result;
use crate::rxe::machine::Machine;

use super::ensure;

/// Tells the tests the address of the device.
const DEVICE: &str =
    "export MIRRORBUS_TEST_RDMA=$(ip -4 -o address show dev eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/')";

/// The other guest's address is forgotten when the interface goes down.
const KNOW_THE_PEER: &str =
    "if [ -n \"$guest\" ]; then peer=$((3 - guest)); arp -s 10.77.0.$peer 52:54:00:77:00:0$peer; fi";

pub(super) fn contract(machine: &dyn Machine) -> Result<()> {
    run(machine, "verbs --skip alone:: --test-threads=2")
}

/// Those that disturb the device, one after another.
pub(super) fn alone(machine: &dyn Machine) -> Result<()> {
    run(machine, &format!("verbs alone:: --test-threads=1 && {{ {KNOW_THE_PEER}; }}"))
}

fn run(machine: &dyn Machine, command: &str) -> Result<()> {
    let output = machine.run(&format!("{DEVICE}; {command}"), Duration::from_secs(170))?;
    let line = output.lines().find(|line| line.starts_with("test result: ok.")).unwrap_or_default();
    println!("{line}");
    ensure(!line.is_empty() && !line.contains(" 0 passed"), || output.clone())
}
