//! `cargo xtask ci`: everything a change has to pass, each step even when an earlier one failed.
//!
//! The stated `rust-version` is not checked: that would need that toolchain, and this runs on one stable.

use std::process::Command;

use crate::failure::{Failure, Result};
use crate::shell::{cargo, program, root, run as run_program, tee, without_outer_cargo};
use crate::steps::{Chain, Counts, Steps};
use crate::{commands, fuzz, install, rxe, test, tidy};

/// Another processor that the project is meant for: weaker memory order, so worth at least a type check.
const OTHER_TARGET: &str = "aarch64-unknown-linux-gnu";

/// How long the advisory database may take to fetch.
const ADVISORIES_SECONDS_MAX: &str = "120";

/// Of those tests between two machines that choose at random.
const ROUNDS: u32 = 3;
const ROUNDS_FULL: u32 = rxe::ROUNDS_MANY;

/// Runs everything; `full` takes the long version of what has one.
pub(crate) fn run(full: bool) -> Result<()> {
    let mut steps = Steps::new();
    // Before what runs at the same time: two that install would be in each other's way.
    steps.run("what the checks need", installed);
    steps.run("fmt", format);
    steps.run("tidy", || tidy::run(&root(), &commands()).map(|()| Counts::one()));
    let seconds = if full { fuzz::SECONDS_FULL } else { fuzz::SECONDS };
    let others = Chain::default()
        .then("deny: bans, licenses, sources", deny)
        .then("deny: advisories", advisories)
        .then("build of the fuzz targets", move || fuzz::build(seconds).map(|()| Counts::one()));
    steps.run_together([checked_builds(full), others]);
    // By itself: how many inputs come past a checksum goes by how many there are.
    steps.run("fuzz", || fuzz::run(seconds).map(|()| Counts::one()));
    // The README's two commands, as a reader would type them.
    steps.run("cargo xtask demo", || one(&mut cargo(&["xtask", "demo"])));
    let test = if full { vec!["xtask", "test", "--full"] } else { vec!["xtask", "test"] };
    steps.run(&format!("cargo {}", test.join(" ")), || one(&mut cargo(&test)));
    let rounds = if full { ROUNDS_FULL } else { ROUNDS };
    steps.run(&format!("cargo xtask rxe --rounds {rounds}"), || rxe::test(&rxe::Arguments::all(rounds)));
    steps.finish()
}

fn installed() -> Result<Counts> {
    install::verbs()?;
    install::cpp_compiler()?;
    install::c_programs()?;
    install::nightly()?;
    install::target(OTHER_TARGET)?;
    install::arm_compiler()?;
    Ok(Counts::one())
}

/// Every build that has to be free of warnings.
fn checked_builds(full: bool) -> Chain<'static> {
    let builds = Chain::default()
        .then("clippy", || one(cargo(&["clippy", "--workspace", "--all-targets"]).args(DENY_WARNINGS)))
        // Not among all targets: it is built where it is asked for by name only.
        .then("clippy, tests of verbs", || {
            one(cargo(&["clippy", "--workspace", "--test", "verbs"]).args(DENY_WARNINGS))
        })
        .then("clippy, no default features", || {
            let library = ["--package", "mirrorbus", "--no-default-features", "--lib", "--examples"];
            one(cargo(&["clippy"]).args(library).args(DENY_WARNINGS))
        })
        .then("clippy, bench and C library without RDMA", || {
            let both = ["--package", "mirrorbus-bench", "--package", "mirrorbus-ffi"];
            let without = ["--no-default-features", "--features", "mirrorbus-bench/program", "--all-targets"];
            one(cargo(&["clippy"]).args(both).args(without).args(DENY_WARNINGS))
        })
        .then("clippy, the model", || {
            one(cargo(&["clippy", "--all-targets"]).args(test::MODEL).args(DENY_WARNINGS))
        })
        .then("check for aarch64", other_target)
        .then("documentation", || {
            one(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
        });
    if !full {
        // Of the same sources as what the tests run, and minutes: what counts instructions builds the library so.
        return builds;
    }
    builds.then("release build", || one(&mut cargo(&["build", "--release", "--workspace"])))
}

const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];

fn one(command: &mut Command) -> Result<Counts> {
    run_program(command).map(|()| Counts::one())
}

fn format() -> Result<Counts> {
    let mut counts = one(&mut cargo(&["fmt", "--all", "--check"]))?;
    for other in ["fuzz/Cargo.toml", "tests/model/Cargo.toml"] {
        run_program(&mut cargo(&["fmt", "--manifest-path", other, "--check"]))?;
        counts.passed += 1;
    }
    Ok(counts)
}

fn deny() -> Result<Counts> {
    install::cargo_tool("deny", "it checks licences, sources and advisories of the dependencies")?;
    let check = ["check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
    let mut counts = Counts::default();
    for workspace in ["Cargo.toml", "tests/model/Cargo.toml"] {
        one(cargo(&["deny", "--all-features", "--config", "deny.toml", "--manifest-path", workspace])
            .args(check))?;
        counts.passed += 1;
    }
    Ok(counts)
}

/// The advisory database is a git repository elsewhere; a machine that reaches only a package registry cannot fetch it.
fn advisories() -> Result<Counts> {
    let check = ["cargo", "deny", "--all-features", "check", "advisories"];
    let mut command = program("timeout", &[ADVISORIES_SECONDS_MAX]);
    without_outer_cargo(&mut command);
    let ended = tee(command.args(check))?;
    verdict(&ended.output, ended.success)
}

fn verdict(output: &str, success: bool) -> Result<Counts> {
    if success {
        return Ok(Counts::one());
    }
    if output.contains("failed to fetch advisory database") {
        let reason = "advisories (the advisory database could not be fetched from this machine)";
        println!("skipped: {reason}");
        return Ok(Counts { skipped: vec![reason.to_owned()], ..Counts::default() });
    }
    Err(Failure::new("cargo deny check advisories failed".to_owned()))
}

fn other_target() -> Result<Counts> {
    // The bindings of the verbs libraries are made from headers of the machine that builds; it has its own only.
    let features = ["--no-default-features", "--features", "cli"];
    one(cargo(&["check", "--package", "mirrorbus", "--target", OTHER_TARGET]).args(features))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_out_of_reach_skips_the_advisories() {
        assert_eq!(verdict("advisories ok", true).unwrap(), Counts::one());
        let out_of_reach = verdict("[ERROR] failed to fetch advisory database https://x", false).unwrap();
        assert_eq!((out_of_reach.passed, out_of_reach.skipped.len()), (0, 1));
        assert!(verdict("error[vulnerability]: a crate has a flaw", false).is_err());
    }
}
