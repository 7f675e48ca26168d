//! `cargo xtask sim`: the simulation of a pair with its mediator, for more seeds than a test run has, or one again with all that happened.

use clap::Args;

use crate::failure::Result;
use crate::shell::{cargo, run as run_program};

/// Where it is, among the tests of the library.
const TEST: &str = "store::world::tests::what_clients_are_told_is_what_one_copy_would_have_told";
/// No bound that is ever reached.
const LONG: &str = "1000000";

/// Which runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 300, conflicts_with = "seed")]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    from: u64,
    /// One seed, and the trace of it
    #[arg(long)]
    seed: Option<u64>,
    /// Stop after so many seconds, at the next seed
    #[arg(long, conflicts_with = "seed")]
    seconds: Option<u64>,
}

/// Runs them: the same seed is the same run on every machine.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut command = cargo(&[
        "test",
        "--profile",
        "sim",
        "--package",
        "mirrorbus",
        // It takes nothing else, and the rest is most of the time of a build.
        "--no-default-features",
        "--features",
        "store",
        "--lib",
        TEST,
        "--",
        "--exact",
        "--nocapture",
    ]);
    match arguments.seed {
        Some(seed) => command.env("MIRRORBUS_SEED", seed.to_string()),
        None => {
            let seconds = arguments.seconds.map_or_else(|| LONG.to_owned(), |seconds| seconds.to_string());
            command
                .env("MIRRORBUS_FROM", arguments.from.to_string())
                .env("MIRRORBUS_SEEDS", arguments.seeds.to_string())
                .env("MIRRORBUS_SECONDS", seconds)
        }
    };
    run_program(&mut command)
}
