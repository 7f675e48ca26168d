//! `cargo xtask compare`: the block store beside other servers, on this machine, by the bench tool.
//!
//! With `--guests`: a volume mirrored over soft-RoCE beside DRBD and MD RAID 1, in two emulated machines.
//!
//! Figures, not a test: nothing fails when they are bad, and on a busy machine they are void and say so.

use std::time::Duration;

use clap::Args;

use crate::failure::{Failure, Result};
use crate::install;
use crate::rxe;
use crate::shell::{self, cargo, program};

/// Rounds of each job on this machine.
const ROUNDS: u32 = 20;
/// And in two guests, where each turn differs more from the next.
const GUEST_ROUNDS: u32 = 40;

/// What to compare with.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// A directory on a disk for a second row; the first is on tmpfs
    #[arg(long)]
    disk: Option<String>,
    /// Bytes of each volume: about seven times as much memory is taken
    #[arg(long, default_value = "1G")]
    volume: String,
    /// Rounds of each job: 20 when nothing else is said, with --guests 40
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Beside DRBD, MD RAID 1 over NVMe and MD RAID 1 over NBD instead, in two emulated machines
    #[arg(long, conflicts_with_all = ["disk", "volume"])]
    guests: bool,
    /// With --guests: seconds of each turn
    #[arg(long, default_value_t = 0.5, requires = "guests")]
    seconds: f64,
}

/// Builds the release programs and runs the comparisons; reports as JSON stay in `target/compare`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    install::verbs()?;
    if arguments.guests {
        let seconds = arguments.seconds.clamp(0.1, 60.0);
        return rxe::compare(arguments.rounds.unwrap_or(GUEST_ROUNDS), Duration::from_secs_f64(seconds));
    }
    install::nbd_servers()?;
    let packages = [
        "build",
        "--release",
        "--package",
        "mirrorbus",
        "--bin",
        "mirrorbus",
        "--package",
        "mirrorbus-bench",
    ];
    shell::run(&mut cargo(&packages))?;
    shell::run(&mut program("mkdir", &["-p", "target/compare"]))?;
    for depth in ["1", "32"] {
        let json = format!("target/compare/store-{depth}.json");
        measure(&["store", "--seconds", "15", "--depth", depth, "--json", &json])?;
    }
    measure(&["store", "--seconds", "30", "--steady", "20000", "--json", "target/compare/steady.json"])?;
    let rounds = arguments.rounds.unwrap_or(ROUNDS).to_string();
    let nbd = ["nbd", "--volume", &arguments.volume, "--rounds", &rounds];
    measure(&[&nbd[..], &["--json", "target/compare/nbd.json"]].concat())?;
    if let Some(disk) = &arguments.disk {
        measure(&[&nbd[..], &["--directory", disk, "--json", "target/compare/nbd-disk.json"]].concat())?;
    }
    Ok(())
}

fn measure(arguments: &[&str]) -> Result<()> {
    bench("release", arguments)
}

/// Runs the bench of a build. Exit code 3 says that figures are void; the report says which, and that is no failure.
pub(crate) fn bench(profile: &str, arguments: &[&str]) -> Result<()> {
    let ended = shell::tee(&mut program(&format!("target/{profile}/mirrorbus-bench"), arguments))?;
    if ended.success || ended.output.contains("VOID") {
        return Ok(());
    }
    Err(Failure::new(format!("mirrorbus-bench {}: it failed, see above", arguments.join(" "))))
}
