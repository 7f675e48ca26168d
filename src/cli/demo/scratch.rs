//! A directory of its own for one run: key file, list of files, socket. Gone when the run ends, however it ends but by
//! SIGKILL.
//!
//! Processes that make files in it are enlisted: when a signal ends the run, they are ended before the directory goes, and nobody
//! else starts or waits for one from then on.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Names tried until one is free.
const TRIES_MAX: u32 = 16;

/// The directory, readable by this user only.
#[derive(Debug)]
pub(super) struct Scratch {
    directory: PathBuf,
    processes: Mutex<Vec<Pid>>,
}

/// Nothing is started and no process is waited for while this lives.
pub(super) type Cleared<'a> = MutexGuard<'a, Vec<Pid>>;

impl Scratch {
    /// A new directory among the temporary ones.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let mut last = io::Error::other("no try was made");
        for attempt in 0..TRIES_MAX {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
            let name = format!("mirrorbus-{name}-{}-{now:08x}-{attempt}", std::process::id());
            let path = std::env::temp_dir().join(name);
            // Fails where the name is taken: nobody else's directory is used.
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { directory: path, processes: Mutex::default() }),
                Err(error) => last = io::Error::new(error.kind(), format!("{}: {error}", path.display())),
            }
        }
        Err(last)
    }

    /// A file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Starts a process that may make files in it.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut processes = self.processes();
        let process = command.spawn()?;
        processes.extend(pid(&process));
        Ok(process)
    }

    /// Has `end` wait for the end of a process that was started by [`spawn`](Self::spawn).
    pub(super) fn reap<T>(&self, process: &mut Child, end: impl FnOnce(&mut Child) -> T) -> T {
        let mut processes = self.processes();
        let pid = pid(process);
        let ended = end(process);
        processes.retain(|known| Some(*known) != pid);
        ended
    }

    /// Ends the processes, and then removes the directory. For a program that exits before it lets go of what this returns.
    pub(super) fn clear_away(&self) -> Cleared<'_> {
        let mut processes = self.processes();
        for process in &*processes {
            // Fails only when it has ended, and was not waited for yet.
            let _ = kill_process(*process, Signal::KILL);
        }
        for process in processes.drain(..) {
            let _ = waitpid(Some(process), WaitOptions::empty());
        }
        let _ = std::fs::remove_dir_all(&self.directory);
        processes
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pid(process: &Child) -> Option<Pid> {
    i32::try_from(process.id()).ok().and_then(Pid::from_raw)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_started_ends_before_the_directory_goes() {
        let scratch = Scratch::new("scratch").expect("a directory");
        let script = "while touch \"$0/$i\"; do i=x$i; done; exec sleep 60";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(scratch.path("")).stderr(std::process::Stdio::null());
        let mut process = scratch.spawn(&mut command).expect("a shell");
        while !scratch.path("x").exists() {
            std::thread::yield_now();
        }
        drop(scratch.clear_away());
        assert!(!scratch.path("").exists());
        assert!(process.wait().is_err(), "it was waited for");
        let mut process = scratch.spawn(&mut Command::new("true")).expect("it is there");
        assert!(scratch.reap(&mut process, Child::wait).expect("its end").success());
        assert!(scratch.processes().is_empty(), "{scratch:?}");
    }
}
