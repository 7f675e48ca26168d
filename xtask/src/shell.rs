//! Runs other programs, and says which.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Context, Failure, Result};

/// The project's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask stands in the project").to_owned()
}

/// A program to be run at the project's root.
pub(crate) fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(root());
    command
}

/// Cargo, at the project's root. `+nightly` may come first.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = program("cargo", arguments);
    without_outer_cargo(&mut command);
    command
}

/// Takes from the environment what the cargo that runs us has put there: it would pin an inner one to our
/// toolchain, and what the build scripts of some dependencies look at, such as the name of our package, would
/// be other than in a shell or in a test that runs cargo. Each change of that builds those dependencies, and
/// all that stands on them, anew.
pub(crate) fn without_outer_cargo(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_outer_cargo(&name.to_string_lossy())) {
        command.env_remove(name);
    }
}

/// Not among these is what a user sets, such as `CARGO_HOME` or `CARGO_INCREMENTAL`.
fn is_of_outer_cargo(name: &str) -> bool {
    let whole = ["CARGO", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR", "RUSTUP_TOOLCHAIN"];
    let beginnings = ["CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_PKG_"];
    whole.contains(&name) || beginnings.iter().any(|beginning| name.starts_with(beginning))
}

/// Runs to the end, output to the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = announce(command);
    let status = command.status().context(|| line.clone())?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{line}: {status}"))) }
}

/// What a program that ran to its end left.
pub(crate) struct Ended {
    /// Both its outputs, as they came.
    pub(crate) output: String,
    /// Whether it exited with 0.
    pub(crate) success: bool,
}

/// Runs to the end, output to the terminal and also returned.
pub(crate) fn tee(command: &mut Command) -> Result<Ended> {
    let ended = listen(command, |text| print!("{text}"))?;
    std::io::stdout().flush().context(|| "stdout".to_owned())?;
    Ok(ended)
}

/// The same with the output in one piece at the end, for programs of which several run at the same time.
pub(crate) fn tee_at_end(command: &mut Command) -> Result<Ended> {
    let ended = listen(command, |_| {})?;
    // One lock for all of it.
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(ended.output.as_bytes()).context(|| "stdout".to_owned())?;
    Ok(ended)
}

/// Runs to the end, and passes on each line.
fn listen(command: &mut Command, mut told: impl FnMut(&str)) -> Result<Ended> {
    let line = announce(command);
    let (reader, writer) = std::io::pipe().context(|| line.clone())?;
    let writer_too = writer.try_clone().context(|| line.clone())?;
    let spawned = command.stdin(Stdio::null()).stdout(writer).stderr(writer_too).spawn();
    // The command holds our writing ends; while they are open the reader sees no end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned.context(|| line.clone())?;
    let mut output = String::new();
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).context(|| line.clone())? > 0 {
        let text = String::from_utf8_lossy(&bytes);
        told(&text);
        output.push_str(&text);
        bytes.clear();
    }
    let status = child.wait().context(|| line.clone())?;
    Ok(Ended { output, success: status.success() })
}

/// Whether a program with these arguments can be run and exits with 0; it prints nothing.
pub(crate) fn succeeds(name: &str, arguments: &[&str]) -> bool {
    let mut command = if name == "cargo" { cargo(arguments) } else { program(name, arguments) };
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn announce(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            line += &format!("{}={:?} ", name.to_string_lossy(), value.to_string_lossy());
        }
    }
    line += &command.get_program().to_string_lossy();
    for argument in command.get_args() {
        line += &format!(" {}", argument.to_string_lossy());
    }
    println!("$ {line}");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_and_the_end_are_seen() {
        let ended = tee(&mut program("sh", &["-c", "echo out; echo err >&2; exit 3"])).unwrap();
        assert!(!ended.success);
        assert!(ended.output.contains("out\n") && ended.output.contains("err\n"));
        assert!(tee(&mut program("true", &[])).unwrap().success);
        let ended = tee_at_end(&mut program("sh", &["-c", "echo out; exit 3"])).unwrap();
        assert!(!ended.success && ended.output == "out\n");
    }

    #[test]
    fn an_inner_cargo_sees_nothing_of_the_outer_one() {
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some(), "cargo runs this");
        let mut command = program("env", &[]);
        without_outer_cargo(&mut command);
        let ended = tee(&mut command).unwrap();
        assert!(ended.success && ended.output.contains("PATH="), "{}", ended.output);
        let left: Vec<_> = ended.output.lines().filter(|line| line.starts_with("CARGO_PKG_")).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(["CARGO", "OUT_DIR", "CARGO_MANIFEST_DIR"].iter().all(|name| is_of_outer_cargo(name)));
        assert!(
            !["CARGO_HOME", "CARGO_INCREMENTAL", "CARGO_TERM_COLOR"]
                .iter()
                .any(|name| is_of_outer_cargo(name))
        );
    }

    #[test]
    fn failures_name_the_command() {
        let failure = run(&mut program("sh", &["-c", "exit 3"])).unwrap_err().to_string();
        assert!(failure.contains("sh -c exit 3") && failure.contains('3'), "{failure}");
        assert!(run(&mut program("no-such-program", &[])).is_err());
        assert!(succeeds("true", &[]) && !succeeds("false", &[]) && !succeeds("no-such-program", &[]));
    }
}
