//! The commands.

mod hold;
mod keygen;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Memory mirroring: every store into a region reaches a peer's memory.
#[derive(Debug, Parser)]
#[command(name = "mirrorbus", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be the peer: keep a copy of a region for an owner.
    Hold(hold::Arguments),
    /// Make a key file.
    Keygen(keygen::Arguments),
}

/// Runs what the command line asks for.
pub(crate) fn run() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let result = match Arguments::parse().command {
        Command::Hold(arguments) => hold::run(&arguments),
        Command::Keygen(arguments) => keygen::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mirrorbus: {error}");
            ExitCode::FAILURE
        }
    }
}
