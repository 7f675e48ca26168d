//! Programs of other packages, run by a test.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::process::{Command, Stdio};

/// A program of a Debian package.
pub(crate) fn tool(name: &str, package: &str) -> Command {
    let there = Command::new("sh").args(["-c", &format!("command -v {name}")]).stdout(Stdio::null()).status();
    assert!(there.unwrap().success(), "{name} is missing: apt-get install {package}, or `cargo xtask test`");
    let mut command = Command::new(name);
    command.stdin(Stdio::null());
    command
}

/// Runs it to its good end; what it says.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{errors}", output.status);
    said + &errors
}

/// Runs it to its bad end; what it says.
pub(crate) fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
