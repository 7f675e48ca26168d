//! `cargo xtask demo`: the first of the README's two commands.

use crate::failure::Result;
use crate::install;
use crate::shell::{self, cargo, program};

/// Builds the program and runs its demonstration.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    install::verbs()?;
    install::disk_images()?;
    build()?;
    shell::run(program(BINARY, &["demo"]).args(arguments))
}

/// Builds the programs as the tests have them: what holds is shown, not how fast it is, and the other command of the README then finds most
/// of what it needs built.
pub(crate) fn build() -> Result<()> {
    shell::run(&mut cargo(&["build", "--workspace", "--bins"]))
}

/// The program, from the project's root.
pub(crate) const BINARY: &str = "target/debug/mirrorbus";
