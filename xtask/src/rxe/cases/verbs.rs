//! The project's own tests of verbs.

use std::time::Duration;

use crate::failure::Result;
use crate::rxe::machine::Machine;

use super::ensure;

/// The other guest's address is forgotten when the interface goes down.
const KNOW_THE_PEER: &str =
    "if [ -n \"$guest\" ]; then peer=$((3 - guest)); arp -s 10.77.0.$peer 52:54:00:77:00:0$peer; fi";

pub(super) fn contract(machine: &dyn Machine) -> Result<()> {
    run(machine, "verbs --skip alone:: --skip epoch:: --test-threads=2")
}

/// Those of the contract that are about epochs, by each way of finding stores that the kernel has.
pub(super) fn epochs(machine: &dyn Machine) -> Result<()> {
    let doctor = machine.run("mirrorbus doctor", Duration::from_secs(30))?;
    doctor.lines().filter(|line| line.contains(" epochs, ")).for_each(|line| println!("{line}"));
    run(machine, "verbs epoch:: --test-threads=2")
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
