//! The project's own tests of verbs.

use std::time::Duration;

use crate::failure::Result;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::random::Random;

use super::ensure;

/// The other guest's address is forgotten when the interface goes down.
const KNOW_THE_PEER: &str =
    "if [ -n \"$guest\" ]; then peer=$((3 - guest)); arp -s 10.77.0.$peer 52:54:00:77:00:0$peer; fi";

/// How long tests may take there, and a kill with what follows it.
const LIMIT: Duration = Duration::from_secs(170);
const KILLS: Duration = Duration::from_secs(20);

pub(super) fn contract(machine: &dyn Machine) -> Result<()> {
    run(machine, "verbs --skip alone:: --skip epoch:: --test-threads=2", LIMIT)
}

/// Those of the contract that are about epochs, by each way of finding stores that the kernel has.
pub(super) fn epochs(machine: &dyn Machine) -> Result<()> {
    let doctor = machine.run("mirrorbus doctor", Duration::from_secs(30))?;
    doctor.lines().filter(|line| line.contains(" epochs, ")).for_each(|line| println!("{line}"));
    run(machine, "verbs epoch:: --test-threads=2", LIMIT)
}

/// Owners and holders of epochs that are killed, in one machine: some hundreds in the long version.
pub(super) fn epoch_kills(guests: &Guests, random: &mut Random, rounds: u32) -> Result<()> {
    let (kills, seed) = (rounds * rounds / 2, random.number());
    let command = format!(
        "MIRRORBUS_ROUNDS={kills} MIRRORBUS_SEED={seed} epoch over_a_network --nocapture --test-threads=1 2>&1"
    );
    run(&guests.a, &command, KILLS * kills)
}

/// Those that disturb the device, one after another.
pub(super) fn alone(machine: &dyn Machine) -> Result<()> {
    run(machine, &format!("verbs alone:: --test-threads=1 && {{ {KNOW_THE_PEER}; }}"), LIMIT)
}

fn run(machine: &dyn Machine, command: &str, limit: Duration) -> Result<()> {
    let command = format!("export MIRRORBUS_TEST_RDMA={}; {command}", machine.address());
    let output = machine.run(&command, limit)?;
    output.lines().filter(|line| line.contains(" kills, ")).for_each(|line| println!("{line}"));
    let line = output.lines().find(|line| line.starts_with("test result: ok.")).unwrap_or_default();
    println!("{line}");
    ensure(!line.is_empty() && !line.contains(" 0 passed"), || output.clone())
}
