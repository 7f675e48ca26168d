//! `cargo xtask test`: the second of the README's two commands.
//!
//! Ends with `N passed, N failed, N skipped` on a line of its own, which counts tests, and one for each step that is
//! no test run. A missing tool is installed; where that cannot be done, the step fails.

use std::num::NonZero;
use std::process::Command;
use std::thread;

use crate::compare::bench;
use crate::failure::{Failure, Result};
use crate::shell::{Ended, cargo, program, tee, tee_at_end, without_outer_cargo};
use crate::steps::{Chain, Counts, Steps};
use crate::{install, instructions};

/// Tests that run without RDMA too. The others, the library's own among them, run the same code in both builds, and run once, but for
/// `--full`.
const QUICK: [&str; 3] = ["contract", "cli", "durable"];

/// Two nodes and their mediator in one simulation, which runs beside the other tests: its time is its own.
const SIMULATION: &str = "store::world::";

/// Runs every test; `full` asks those that have a long version for it.
pub(crate) fn run(full: bool) -> Result<()> {
    install::verbs()?;
    install::nbd_clients()?;
    install::disk_images()?;
    install::node_tests()?;
    install::etcd()?;
    install::c_programs()?;
    install::nightly()?;
    let mut steps = Steps::new();
    let builds = Chain::default()
        .then("build of the tests", || built(with_rdma()))
        .then("build of what is installed", installed)
        .then("build of the tests without RDMA", move || built(without_rdma(full)))
        .then("documentation tests", documentation);
    let others = Chain::default()
        .then("loom", loom)
        .then("the model of failover", move || model(full))
        .then("build for miri", || built(miri_of(cargo(&["+nightly"]))));
    steps.run_together([builds, others]);
    let tests = Chain::default()
        .then("unit and integration tests", move || {
            let mut command = with_rdma();
            command.env("RUST_TEST_THREADS", threads().to_string());
            if full {
                command.env("MIRRORBUS_FULL", "1");
            }
            counted(command.args(["--", "--skip", SIMULATION]))
        })
        .then("tests without RDMA", move || counted(without_rdma(full).args(["--", "--skip", SIMULATION])));
    let others =
        Chain::default().then("the simulation of failover", move || simulation(full)).then("miri", miri);
    steps.run_together([tests, others]);
    steps.run("tests over RDMA", || {
        let reason = "the tests of rdma:// (they need a device: `cargo xtask rxe` runs them)".to_owned();
        Ok(Counts { skipped: vec![reason], ..Counts::default() })
    });
    steps.run("the bench, briefly", bench_briefly);
    steps.run("instructions per store", || instructions::run().map(|()| Counts::one()));
    steps.finish()
}

/// Tests that run at the same time. Most of them wait: for a silence to be noticed, for a node to come up, for a sync.
fn threads() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    processors + processors.div_ceil(2)
}

/// The examples have no tests of their own: `tests/examples.rs` builds and runs them.
fn with_rdma() -> Command {
    cargo(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"])
}

/// In the same directory: most dependencies are the same, and cargo keeps apart what is not.
fn without_rdma(full: bool) -> Command {
    let mut command = cargo(&["test", "--package", "mirrorbus", "--no-fail-fast", "--no-default-features"]);
    command.args(["--features", "cli"]);
    // Where there are no libraries of verbs, as far as a build can see.
    command.env("PKG_CONFIG_LIBDIR", "/nonexistent");
    if full {
        command.args(["--lib", "--bins", "--tests"]);
    } else {
        command.args(QUICK.iter().flat_map(|test| ["--test", *test]));
    }
    command
}

fn built(mut tests: Command) -> Result<Counts> {
    crate::shell::run(tests.arg("--no-run")).map(|()| Counts::one())
}

/// What the tests of the C library install, so that they need not wait for it.
fn installed() -> Result<Counts> {
    let build = ["build", "--lib", "--bins", "--profile", "dev"];
    crate::shell::run(cargo(&build).args(crate::installation::PACKAGES)).map(|()| Counts::one())
}

fn documentation() -> Result<Counts> {
    let ended = tee_at_end(&mut cargo(&["test", "--workspace", "--no-fail-fast", "--doc"]))?;
    counts(&ended.output, ended.success)
}

/// Optimised no more than tests are: it is built for seconds of work.
fn loom() -> Result<Counts> {
    let arguments = ["test", "--package", "mirrorbus", "--lib", "--target-dir", "target/loom"];
    let arguments = [&arguments[..], &["--no-default-features", "loom_"]].concat();
    counted_at_end(cargo(&arguments).env("RUSTFLAGS", "--cfg loom"))
}

/// Cargo with what the tests leave of the processors: they wait much, and must not be kept waiting.
fn cargo_beside() -> Command {
    let mut command = program("nice", &["-n", "19", "cargo"]);
    without_outer_cargo(&mut command);
    command
}

fn simulation(full: bool) -> Result<Counts> {
    let mut command = cargo_beside();
    command.args(["test", "--workspace", "--no-fail-fast", "--lib", SIMULATION, "--", "--nocapture"]);
    if full {
        command.env("MIRRORBUS_FULL", "1");
    }
    counted_at_end(&mut command)
}

fn miri() -> Result<Counts> {
    let mut command = cargo_beside();
    command.arg("+nightly");
    let mut command = miri_of(command);
    command.args(["--", "memory::", "mirror::window", "fabric::shm::queue", "fabric::shm::snapshot"]);
    counted_at_end(&mut command)
}

fn miri_of(mut cargo: Command) -> Command {
    cargo.args(["miri", "test", "--package", "mirrorbus", "--lib", "--target-dir", "target/miri"]);
    // Isolated from the machine, a program has neither files nor a clock.
    cargo.arg("--no-default-features").env("MIRIFLAGS", "-Zmiri-disable-isolation");
    cargo
}

/// A workspace of its own.
pub(crate) const MODEL: [&str; 4] =
    ["--manifest-path", "tests/model/Cargo.toml", "--target-dir", "target/model"];

fn model(full: bool) -> Result<Counts> {
    let mut command = cargo(&["test", "--no-fail-fast"]);
    if full {
        command.env("MIRRORBUS_FULL", "1");
    }
    counted_at_end(command.args(MODEL))
}

/// Whether it measures at all: figures of a debug build on a busy machine mean nothing, and may be void.
fn bench_briefly() -> Result<Counts> {
    install::nbd_servers()?;
    crate::shell::run(&mut cargo(&["build", "--workspace", "--bins"]))?;
    let small = ["--volume", "128M", "--ring", "32M"];
    bench("debug", &[&["store", "--seconds", "0.5"], &small[..]].concat())?;
    bench("debug", &[&["store", "--seconds", "4", "--steady", "5000"], &small[..]].concat())?;
    bench("debug", &[&["nbd", "--rounds", "1", "--seconds", "0.2", "--wear", "0.5"], &small[..]].concat())?;
    Ok(Counts { passed: 3, ..Counts::default() })
}

/// Runs tests and counts them. None at all is a failure: a filter that matches nothing proves nothing.
fn counted(command: &mut Command) -> Result<Counts> {
    some(&tee(command)?)
}

/// The same beside another step, with the output in one piece.
fn counted_at_end(command: &mut Command) -> Result<Counts> {
    some(&tee_at_end(command)?)
}

fn some(ended: &Ended) -> Result<Counts> {
    let counts = counts(&ended.output, ended.success)?;
    if counts.passed + counts.failed == 0 {
        return Err(Failure::new("no test ran: the filter matches none".to_owned()));
    }
    Ok(counts)
}

/// Adds up the `test result:` lines of a cargo test. A test that cannot do its work on this machine says `skipped: ` and why in a line of
/// its own; the harness takes it for one that passed.
fn counts(output: &str, success: bool) -> Result<Counts> {
    let mut counts = Counts::default();
    let skipped = output.lines().filter_map(|line| line.strip_prefix("skipped: "));
    counts.skipped.extend(skipped.map(str::to_owned));
    let said = counts.skipped.len();
    for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        let number = |what: &str| {
            let field = line.split([';', '.']).find(|field| field.trim_end().ends_with(what))?;
            field.trim().split(' ').next()?.parse::<usize>().ok()
        };
        let (Some(passed), Some(failed), Some(ignored)) =
            (number(" passed"), number(" failed"), number(" ignored"))
        else {
            return Err(Failure::new(format!("cannot read {line:?}")));
        };
        counts.passed += passed;
        counts.failed += failed;
        counts.skipped.extend((0..ignored).map(|_| "an ignored test".to_owned()));
    }
    counts.passed = counts.passed.saturating_sub(said);
    if !success && counts.failed == 0 {
        return Err(Failure::new("a test program did not build or died".to_owned()));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str =
        "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s\n";
    const FAILED: &str = "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";

    #[test]
    fn every_program_of_a_run_is_counted() {
        let both = format!("running\n{PASSED}\n{FAILED}");
        let counted = counts(&both, false).unwrap();
        assert_eq!((counted.passed, counted.failed, counted.skipped.len()), (16, 2, 1));
    }

    #[test]
    fn what_a_test_could_not_do_here_is_no_pass() {
        let said = format!("test x ... \nskipped: ext4, mounted (no /dev/fuse)\nok\n{PASSED}");
        let counted = counts(&said, true).unwrap();
        assert_eq!((counted.passed, counted.failed), (11, 0));
        assert_eq!(counted.skipped, ["ext4, mounted (no /dev/fuse)", "an ignored test"]);
    }

    #[test]
    fn a_run_that_died_is_a_failure() {
        assert!(counts(PASSED, false).is_err());
        assert!(counts("error[E0308]", false).is_err());
        assert!(counts("test result: ok. many passed", true).is_err());
    }

    #[test]
    fn a_run_without_a_test_is_a_failure() {
        let print = |text: &str| counted(&mut program("printf", &["%s", text]));
        assert!(print("test result: ok. 0 passed; 0 failed; 0 ignored;").is_err());
        assert_eq!(print(PASSED).unwrap().passed, 12);
    }
}
