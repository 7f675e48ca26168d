//! The other side of a run: this program again, as a process of its own that never outlives us.
//!
//! The child's standard input is a pipe that we alone hold and never write to. Whatever ends us, a panic or SIGKILL
//! included, closes it, and the child ends when it reads the end of it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::Failure;

/// How long a child may take to say that it is ready: it touches every page of the region first.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running child; killed when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    /// Held for its end, see above.
    _life: Option<ChildStdin>,
    ready: String,
}

impl Peer {
    /// Starts this program with `arguments` and waits for the line by which it says that it is ready.
    ///
    /// # Errors
    /// It could not be started, ended early, or said nothing in time.
    pub(crate) fn start(arguments: &[String]) -> Result<Self, Failure> {
        let program = std::env::current_exe()?;
        let mut child = Command::new(&program)
            .args(arguments)
            // Not in our process group: Ctrl-C is for us, and the child still tidies up when our end of the pipe closes.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {} {arguments:?}: {error}", program.display()))?;
        let life = child.stdin.take();
        let stdout = child.stdout.take().ok_or("the child has no standard output")?;
        let mut peer = Self { child, _life: life, ready: String::new() };
        let (say, hear) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            let result = BufReader::new(stdout).read_line(&mut line).map(|_| line);
            // Nobody hears it when the wait below gave up.
            drop(say.send(result));
        });
        let line = hear
            .recv_timeout(READY_WITHIN)
            .map_err(|_| format!("the child {arguments:?} was not ready within {READY_WITHIN:?}"))??;
        if line.is_empty() {
            let status = peer.child.wait()?;
            return Err(format!("the child {arguments:?} ended early: {status}").into());
        }
        line.trim_end().clone_into(&mut peer.ready);
        Ok(peer)
    }

    /// The line.
    pub(crate) fn ready(&self) -> &str {
        &self.ready
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// In the child: ends this process as soon as the parent is gone, after `last`.
pub(crate) fn end_with_parent(last: impl FnOnce() + Send + 'static) {
    std::thread::spawn(|| {
        let mut sink = [0; 64];
        while !matches!(std::io::stdin().read(&mut sink), Ok(0) | Err(_)) {}
        last();
        std::process::exit(0);
    });
}
