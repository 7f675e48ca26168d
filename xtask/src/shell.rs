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
    // Set by the cargo that runs us: they would pin the inner one to our toolchain.
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    command
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
        print!("{text}");
        output.push_str(&text);
        bytes.clear();
    }
    std::io::stdout().flush().context(|| line.clone())?;
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
    }

    #[test]
    fn failures_name_the_command() {
        let failure = run(&mut program("sh", &["-c", "exit 3"])).unwrap_err().to_string();
        assert!(failure.contains("sh -c exit 3") && failure.contains('3'), "{failure}");
        assert!(run(&mut program("no-such-program", &[])).is_err());
        assert!(succeeds("true", &[]) && !succeeds("false", &[]) && !succeeds("no-such-program", &[]));
    }
}
