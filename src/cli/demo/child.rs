//! A further process of this program, spoken to over its pipes; killed when dropped.
//!
//! Should the parent itself be killed, the child finds its input ended and ends too.

use std::io::{BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::lines::{Line, hear};

/// Lines read and not yet looked at; a child that says more waits.
const LINES_MAX: usize = 1024;

/// How long a child that was told to end may take.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// The process.
#[derive(Debug)]
pub(super) struct Child {
    name: &'static str,
    process: std::process::Child,
    input: Option<ChildStdin>,
    lines: Receiver<Result<Line, String>>,
}

impl Child {
    /// Starts this very program again with `arguments`.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(name: &'static str, arguments: &[&std::ffi::OsStr]) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the {name} does not start: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        Self::start_program(name, &program, arguments).map_err(failed)
    }

    /// Starts any program, which speaks as a child does.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start_program(
        name: &'static str,
        program: &Path,
        arguments: &[&std::ffi::OsStr],
    ) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        if std::env::var_os("RUST_LOG").is_none() {
            // An owner that is killed is an alarm elsewhere; here it is the point.
            command.env("RUST_LOG", "error");
        }
        let mut process = command.spawn()?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let (sender, lines) = sync_channel(LINES_MAX);
        let child = Self { name, process, input, lines };
        if let Some(output) = output {
            std::thread::Builder::new().name(format!("hear-{name}")).spawn(move || {
                let mut output = BufReader::new(output);
                loop {
                    let line = match hear(&mut output) {
                        Ok(Some(line)) => Ok(line),
                        Ok(None) => return,
                        Err(error) => Err(error.to_string()),
                    };
                    let last = line.is_err();
                    if sender.send(line).is_err() || last {
                        return;
                    }
                }
            })?;
        }
        Ok(child)
    }

    /// Says `line` to it. That it may be dead is found when it is heard.
    pub(super) fn say(&mut self, line: &Line) {
        if let Some(input) = &mut self.input {
            let _ = writeln!(input, "{line}").and_then(|()| input.flush());
        }
    }

    /// Gives it bytes that are no line. That it may be dead is found when it is heard.
    pub(super) fn give(&mut self, bytes: &[u8]) {
        if let Some(input) = &mut self.input {
            let _ = input.write_all(bytes).and_then(|()| input.flush());
        }
    }

    /// What it says next, `None` when it has ended.
    ///
    /// # Errors
    /// It said that it failed, or nothing within `patience`.
    pub(super) fn hear(&mut self, patience: Duration) -> Result<Option<Line>, String> {
        let name = self.name;
        match self.lines.recv_timeout(patience) {
            Ok(Ok(Line::Failed(why))) => Err(format!("the {name} failed: {why}")),
            Ok(Ok(line)) => Ok(Some(line)),
            Ok(Err(why)) => Err(format!("the {name} cannot be understood: {why}")),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(format!("the {name} said nothing for {patience:?}")),
        }
    }

    /// The next line, which must be there.
    ///
    /// # Errors
    /// As [`hear`](Self::hear), and when it has ended.
    pub(super) fn answer(&mut self, patience: Duration) -> Result<Line, String> {
        self.hear(patience)?.ok_or_else(|| self.ended())
    }

    /// That it ended though it should not have.
    pub(super) fn ended(&mut self) -> String {
        let how = self.wait().map_or_else(|why| why, |status| status.to_string());
        format!("the {} ended early ({how})", self.name)
    }

    /// Kills it, with SIGKILL, and waits for its end. What it had said can still be heard.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn kill(&mut self) -> Result<(), String> {
        let failed = |error| format!("the {} cannot be killed: {error}", self.name);
        self.process.kill().map_err(failed)?;
        self.process.wait().map_err(failed)?;
        Ok(())
    }

    /// Ends its input, which tells it to end, and waits for that.
    ///
    /// # Errors
    /// It does not end, or not in good order.
    pub(super) fn end(mut self) -> Result<(), String> {
        drop(self.input.take());
        self.finish()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end, or not in good order.
    pub(super) fn finish(mut self) -> Result<(), String> {
        let status = self.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the {} ended with {status}", self.name)) }
    }

    fn wait(&mut self) -> Result<ExitStatus, String> {
        let until = Instant::now() + END_TIME_MAX;
        // Its end closes its output, which ends the reader and with it the channel.
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match self.lines.recv_timeout(left) {
                Ok(Ok(Line::Failed(why))) => return Err(format!("the {} failed: {why}", self.name)),
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return self.process.wait().map_err(|error| format!("the {}: {error}", self.name));
                }
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        Err(format!("the {} did not end within {END_TIME_MAX:?}", self.name))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails only when it was waited for already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Child {
        Child::start_program("shell", Path::new("/bin/sh"), &[OsStr::new("-c"), OsStr::new(script)])
            .expect("a shell")
    }

    #[test]
    fn what_a_killed_process_had_said_is_heard_and_half_a_line_is_not() {
        // One write, so that all of it is said when the first line is heard.
        let mut child = shell(r"printf 'noted 1\nnoted 2\nnoted 3'; read line; echo done");
        assert_eq!(child.answer(SOON), Ok(Line::Noted(1)));
        child.kill().expect("killed");
        assert_eq!(child.hear(SOON), Ok(Some(Line::Noted(2))));
        assert_eq!(child.hear(SOON), Ok(None));
        assert!(child.answer(SOON).expect_err("dead").contains("signal: 9"));
    }

    #[test]
    fn failures_and_silence_are_errors() {
        let mut child = shell("read line; echo \"failed $line\"; exec sleep 60");
        assert!(child.hear(Duration::from_millis(10)).expect_err("silent").contains("said nothing"));
        child.say(&Line::Noted(5));
        assert_eq!(child.hear(SOON), Err("the shell failed: noted 5".into()));
        assert!(shell("echo hello").hear(SOON).expect_err("strange").contains("hello"));
        assert!(shell("exit 3").end().expect_err("status").contains('3'));
        shell("read line; exit 0").end().expect("in good order");
    }
}
