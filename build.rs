//! Says what is missing where the verbs fabric cannot be built.
//!
//! The crates that bind libibverbs and librdmacm have build scripts that panic where a library, its headers, libclang
//! or cmake is absent, and name no way out. Cargo runs scripts of dependencies in no set order with this one, so their
//! panic may come first; then what follows here is in the README.

use std::process::{Command, ExitCode, Stdio};

/// What the two crates need: a name, a command that succeeds where it is there, and Debian's package.
const NEEDED: &[(&str, &[&str], &str)] = &[
    ("pkg-config", &["pkg-config", "--version"], "pkg-config"),
    ("libibverbs with its headers", &["pkg-config", "--exists", "libibverbs"], "libibverbs-dev"),
    ("librdmacm with its headers", &["pkg-config", "--exists", "librdmacm"], "librdmacm-dev"),
    ("cmake", &["cmake", "--version"], "cmake"),
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    let built_for_this_machine = variable("HOST") == variable("TARGET");
    // What another machine has cannot be asked here: pkg-config would answer for this one.
    if variable("CARGO_FEATURE_RDMA").is_none() || !built_for_this_machine {
        return ExitCode::SUCCESS;
    }
    let missing: Vec<_> = NEEDED.iter().filter(|(_, command, _)| !succeeds(command)).collect();
    if missing.is_empty() {
        return ExitCode::SUCCESS;
    }
    let names: Vec<_> = missing.iter().map(|(name, ..)| *name).collect();
    let packages: Vec<_> = missing.iter().map(|(.., package)| *package).collect();
    println!(
        "cargo::error=the feature `rdma` lacks {}: apt-get install {} libclang-dev, or build without RDMA by \
         --no-default-features --features cli",
        names.join(", "),
        packages.join(" ")
    );
    ExitCode::FAILURE
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn succeeds(command: &[&str]) -> bool {
    let quiet = |program: &str| {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    quiet(command[0]).args(&command[1..]).status().is_ok_and(|status| status.success())
}
