//! `cargo xtask demo`: the first of the README's two commands.

use crate::failure::Result;
use crate::install;
use crate::shell::{self, cargo, program};

/// Builds the release program and runs its demonstration.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    install::verbs()?;
    install::disk_images()?;
    build()?;
    shell::run(program(BINARY, &["demo"]).args(arguments))
}

/// Builds the release program.
pub(crate) fn build() -> Result<()> {
    shell::run(&mut cargo(&["build", "--release", "--package", "mirrorbus", "--bin", "mirrorbus"]))
}

/// The release program, from the project's root.
pub(crate) const BINARY: &str = "target/release/mirrorbus";
