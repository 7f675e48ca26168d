//! `cargo xtask`: what a developer of Mirrorbus runs.
//!
//! One file per command. Every command works from a bare checkout: it installs what it lacks and says why, or fails
//! with the way out. Nothing is skipped silently: what could not be checked is printed and counted.

mod ci;
mod compare;
mod demo;
mod failure;
mod fuzz;
mod install;
mod installation;
mod instructions;
mod rxe;
mod shell;
mod sim;
mod steps;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use failure::Result;

/// Developer commands of Mirrorbus.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the house rules: layers, unsafe, sizes, headers, words, links of the documentation
    Tidy,
    /// Run every test: units, contracts, kills, documentation, loom, Miri, instructions per store
    Test {
        /// The long version of those tests that have one
        #[arg(long)]
        full: bool,
    },
    /// Build the program and show what mirroring does: `mirrorbus demo`
    Demo {
        /// Passed on to `mirrorbus demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the libraries for C and the programs, and put them where a system has them, with header, manual pages, completions and units
    Install(installation::Arguments),
    /// Count the instructions of a store with callgrind and hold them to their limits
    Instructions,
    /// Fuzz each decoder that reads what a peer sends
    Fuzz {
        /// How long each target runs
        #[arg(long, default_value_t = fuzz::SECONDS)]
        seconds: u32,
    },
    /// Simulate a pair with its mediator from seeds: faults of every kind, and what clients are told is what one copy would have told
    Sim(sim::Arguments),
    /// Measure the block store beside other servers of NBD, and in process; with --guests beside DRBD and MD RAID 1; needs an idle machine
    Compare(compare::Arguments),
    /// Test on soft-RoCE: two emulated machines and the link between them, which is cut; nothing is needed of this one
    Rxe(rxe::Arguments),
    /// Everything a change has to pass
    Ci {
        /// The long version of everything
        #[arg(long)]
        full: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Tidy => tidy::run(&shell::root(), &commands()),
        Command::Test { full } => test::run(full),
        Command::Demo { arguments } => demo::run(&arguments),
        Command::Install(arguments) => installation::run(&arguments),
        Command::Instructions => instructions::run(),
        Command::Fuzz { seconds } => fuzz::run(seconds),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Rxe(arguments) => rxe::run(&arguments),
        Command::Ci { full } => ci::run(full),
    }
}

/// The names of the commands, which the documentation may mention.
fn commands() -> Vec<String> {
    let mut names: Vec<_> =
        Arguments::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.push("help".to_owned());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        assert!(commands().contains(&"tidy".to_owned()));
        let parsed = Arguments::try_parse_from(["xtask", "demo", "--fabric", "tcp"]).unwrap();
        assert!(matches!(parsed.command, Command::Demo { arguments } if arguments == ["--fabric", "tcp"]));
    }
}
