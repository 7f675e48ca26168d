//! Children of a test: the same test binary started again in a role, with a line to its parent.
//!
//! The line is a socket pair that the child has as its standard input. What a child wrote there is in the kernel and is
//! read by the parent whatever becomes of the child. A child whose parent ended sees the line's end, and is killed by
//! the kernel besides.
//!
//! Each binary that uses this has a test function named `role`, which does nothing unless [`role`] says that this
//! process is such a child.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Names the role of a child, in its environment.
const ROLE: &str = "MIRRORBUS_TEST_ROLE";

/// How long anything that must happen may take on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A child, killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    /// The parent's end of the line.
    pub(crate) line: UnixStream,
}

impl Child {
    /// Starts this binary again as `role`, with these variables set.
    pub(crate) fn spawn(role: &str, variables: &[(&str, String)]) -> Self {
        let (line, theirs) = UnixStream::pair().unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["role", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .envs(variables.iter().map(|(name, value)| (name, value.as_str())))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        line.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { process, line }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next line of text that it wrote.
    pub(crate) fn read_text(&self) -> String {
        let mut text = String::new();
        // One byte at a time: what follows the line may be of another form.
        BufReader::with_capacity(1, &self.line).read_line(&mut text).unwrap();
        assert!(text.ends_with('\n'), "the child ended in the middle of {text:?}");
        text.pop();
        text
    }

    /// Says `text` to it.
    pub(crate) fn say(&self, text: &str) {
        (&self.line).write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.wait().unwrap();
    }

    /// Stops it, and waits until it stands still with all its threads.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let until = Instant::now() + PATIENCE;
        while !self.threads_in_state().iter().all(|state| *state == 'T') {
            assert!(Instant::now() < until, "the child does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets a stopped child go on.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// The state letter of each of its threads.
    fn threads_in_state(&self) -> Vec<char> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
        // The letter follows the name, which is in parentheses.
        stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect()
    }

    /// Waits for its own end, which must be a good one.
    pub(crate) fn finish(mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                assert!(status.success(), "the child ended with {status}");
                return;
            }
            assert!(Instant::now() < until, "the child does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In a child: the role that it was started in.
pub(crate) fn role() -> Option<String> {
    let role = std::env::var(ROLE).ok()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let _ = env_logger::try_init();
    Some(role)
}

/// In a child: the line to its parent.
pub(crate) fn line_to_parent() -> UnixStream {
    UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap())
}

/// In a child: a variable that its parent set.
pub(crate) fn variable<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> T {
    optional(name).unwrap_or_else(|| panic!("{name} is not set"))
}

/// In a child: a variable that its parent may have set.
pub(crate) fn optional<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Ends the whole process, loudly, when it is not fed in time: nothing may hang.
#[derive(Debug)]
pub(crate) struct Watchdog(Sender<String>);

impl Watchdog {
    /// Starts it. It ends when dropped.
    pub(crate) fn new(test: &str) -> Self {
        let (feed, food) = channel::<String>();
        let test = test.to_owned();
        std::thread::spawn(move || {
            let mut last = "the start".to_owned();
            loop {
                match food.recv_timeout(4 * PATIENCE) {
                    Ok(step) => last = step,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        say(&format!("{test} hangs after {last}: nothing for {:?}", 4 * PATIENCE));
                        std::process::abort();
                    }
                }
            }
        });
        Self(feed)
    }

    /// Tells how far the test has come.
    pub(crate) fn feed(&self, step: impl Into<String>) {
        self.0.send(step.into()).unwrap();
    }
}

/// Prints a line that the test harness does not swallow.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The seed of this run, printed so that `MIRRORBUS_SEED` can bring it back.
pub(crate) fn seed(test: &str) -> u64 {
    let seed = optional("MIRRORBUS_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs() << 20 ^ u64::from(now.subsec_nanos()) ^ u64::from(std::process::id())
    });
    say(&format!("{test}: MIRRORBUS_SEED={seed}"));
    // Never 0, from which the generator would not move.
    seed | 1 << 63
}

/// `long` when the long version was asked for, else `short`; `MIRRORBUS_ROUNDS` is what it says.
pub(crate) fn rounds(short: usize, long: usize) -> usize {
    if let Some(rounds) = optional("MIRRORBUS_ROUNDS") {
        return rounds;
    }
    if std::env::var("MIRRORBUS_FULL").is_ok_and(|value| value == "1") { long } else { short }
}
