//! Another program while it runs: what it prints, piece by piece, and its end.
//!
//! A piece ends with a line's end or, for those that show their progress, with a carriage return. Every wait has an end: a program
//! that takes longer is killed, and the demonstration fails. It is killed, too, when this is dropped.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::scratch::Scratch;

/// How long any program may take, and how long it may be silent where it is listened to.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Pieces that were printed and not looked at; a program that prints more waits.
const PIECES_MAX: usize = 1024;

/// Bytes of a piece, and of what is said as errors, that are kept.
const TEXT_BYTES_MAX: u64 = 64 << 10;

/// Where system programs are that a user's path may not name.
const SYSTEM_PATHS: &str = "/usr/sbin:/sbin";

/// The process.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    process: Child,
    scratch: Arc<Scratch>,
    pieces: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

/// How a process ended.
#[derive(Debug)]
pub(super) struct Ended {
    name: &'static str,
    pub(super) status: ExitStatus,
    /// What it printed in the end, and said as errors.
    text: String,
}

/// A program of the system, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool {
    pub(super) program: &'static str,
    pub(super) package: &'static str,
}

impl Tool {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start; if it is missing, names its package.
    pub(super) fn start(self, scratch: &Arc<Scratch>, arguments: &[&OsStr]) -> Result<Process, String> {
        let mut command = Command::new(self.program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(arguments).env("PATH", format!("{path}:{SYSTEM_PATHS}")).env("LC_ALL", "C");
        Process::start(self.program, scratch, &mut command).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let Self { program, package } = self;
                format!("there is no {program} here: install the package {package} and run this again")
            }
            _ => format!("{} does not start: {error}", self.program),
        })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It does not start, or fails.
    pub(super) fn run(self, scratch: &Arc<Scratch>, arguments: &[&OsStr]) -> Result<(), String> {
        self.start(scratch, arguments)?.end()?.in_good_order()
    }
}

impl Process {
    /// Starts `command`, whose input stays open as long as this lives.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(
        name: &'static str,
        scratch: &Arc<Scratch>,
        command: &mut Command,
    ) -> std::io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = scratch.spawn(command)?;
        let (sender, pieces) = sync_channel(PIECES_MAX);
        let (output, errors) = (process.stdout.take(), process.stderr.take());
        let mut started = Self { name, process, scratch: scratch.clone(), pieces, errors: None };
        let hear = |what: &str| std::thread::Builder::new().name(format!("{what}-{name}"));
        if let Some(output) = output {
            hear("hear").spawn(move || hear_pieces(output, &sender))?;
        }
        if let Some(errors) = errors {
            started.errors = Some(hear("errors").spawn(move || hear_errors(errors))?);
        }
        Ok(started)
    }

    /// What it prints next; `None` when it prints no more.
    ///
    /// # Errors
    /// It is silent for longer than [`PATIENCE`].
    pub(super) fn piece(&mut self) -> Result<Option<String>, String> {
        match self.pieces.recv_timeout(PATIENCE) {
            Ok(piece) => Ok(Some(piece)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(format!("{} said nothing for {PATIENCE:?}", self.name)),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It takes longer than [`PATIENCE`]; it is killed then.
    pub(super) fn end(mut self) -> Result<Ended, String> {
        let until = Instant::now() + PATIENCE;
        let mut text = String::new();
        // Its end closes its output, which ends the reader and with it the channel.
        loop {
            match self.pieces.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(piece) => text = piece,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("{} did not end within {PATIENCE:?}", self.name));
                }
            }
        }
        let status = self.scratch.clone().reap(&mut self.process, Child::wait);
        let status = status.map_err(|error| format!("{}: {error}", self.name))?;
        if let Some(Ok(errors)) = self.errors.take().map(JoinHandle::join) {
            text = format!("{text} {errors}");
        }
        Ok(Ended { name: self.name, status, text: text.trim().to_owned() })
    }

    /// Kills it, with SIGKILL, and waits for its end.
    pub(super) fn kill(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.scratch.clone().reap(&mut self.process, |process| {
            // Both fail only when it was waited for already.
            let _ = process.kill();
            let _ = process.wait();
        });
    }
}

impl Ended {
    /// That it succeeded.
    ///
    /// # Errors
    /// It did not.
    pub(super) fn in_good_order(self) -> Result<(), String> {
        let Self { name, status, text } = self;
        if status.success() { Ok(()) } else { Err(format!("{name} ended with {status}: {text}")) }
    }
}

fn hear_pieces(output: ChildStdout, sender: &SyncSender<String>) {
    let mut output = BufReader::new(output);
    let mut piece = Vec::new();
    loop {
        let Ok(bytes) = output.fill_buf() else { return };
        if bytes.is_empty() {
            return;
        }
        let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let taken = end.map_or(bytes.len(), |end| end + 1);
        if (piece.len() as u64) < TEXT_BYTES_MAX {
            piece.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
        }
        output.consume(taken);
        if end.is_some() {
            let text = String::from_utf8_lossy(&piece).into_owned();
            if sender.send(text).is_err() {
                return;
            }
            piece.clear();
        }
    }
}

fn hear_errors(mut errors: ChildStderr) -> String {
    let mut text = Vec::new();
    let _ = errors.by_ref().take(TEXT_BYTES_MAX).read_to_end(&mut text);
    // The rest is read, so that it need not wait, and thrown away.
    let _ = std::io::copy(&mut errors, &mut std::io::sink());
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELL: Tool = Tool { program: "sh", package: "dash" };

    fn shell(script: &str) -> Process {
        let scratch = Arc::new(Scratch::new("process").expect("a directory"));
        SHELL.start(&scratch, &["-c", script].map(OsStr::new)).expect("a shell")
    }

    #[test]
    fn pieces_and_the_end_are_heard() {
        let mut process = shell(r"printf '1 %%\r2 %%\rdone\n'; echo why >&2; exit 3");
        for piece in ["1 %", "2 %", "done"] {
            assert_eq!(process.piece(), Ok(Some(piece.to_owned())));
        }
        assert_eq!(process.piece(), Ok(None));
        let error = process.end().expect("it ends").in_good_order().expect_err("with 3");
        assert!(error.contains("sh ended with exit status: 3: why"), "{error}");
        shell("exec sleep 60").kill();
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let scratch = Arc::new(Scratch::new("missing").expect("a directory"));
        let tool = Tool { program: "no-such-program", package: "no-such-package" };
        let error = tool.run(&scratch, &[]).expect_err("missing");
        assert!(error.contains("no-such-program") && error.contains("no-such-package"), "{error}");
    }
}
