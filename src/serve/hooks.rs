//! Commands that a node runs when it begins to serve a dataset, and when it ceases to: to move an address, say.
//!
//! ```text
//!  start ─▶ on-demote ─▶ looks who serves ─┬─ begins to serve ─▶ on-promote ─┐
//!                              ▲           └─ ceases to serve ─▶ on-demote ──┤
//!                              └──────────────────────────────────────────────┘      end ─▶ on-demote, if it served
//! ```
//!
//! One thread for each dataset that has any, which runs one at a time, with nothing locked; clients and the pair never wait for it. What
//! changes back while a command runs is found when that has ended. A command that fails or takes too long is told, and that is all: service goes on.
//!
//! Of two nodes each runs its own: that the one has run `on-demote` before the other runs `on-promote` cannot be had, since the one may be dead.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, kill_process_group};

use super::admin::{EventLog, HookState, HookStatus};
use super::config::HooksConfig;
use crate::store::{Dataset, RoleStatus};

/// How often one looks who serves.
const LOOK_TIME: Duration = Duration::from_millis(20);
/// And what a command says, and whether it has ended.
const COMMAND_LOOK_TIME: Duration = Duration::from_millis(10);
/// Bytes that a command says which are logged; the rest is read and thrown away.
const OUTPUT_BYTES_MAX: usize = 16 << 10;

/// Pieces of that which are taken at a time.
const PIECES_MAX: usize = 64;

/// What became of the hooks of a dataset.
#[derive(Debug, Clone, Default)]
pub(super) struct HookLog {
    pub(super) runs: u64,
    pub(super) failures: u64,
    pub(super) last: Option<HookStatus>,
}

/// What the thread and those who look share.
#[derive(Debug, Default)]
pub(super) struct HookDesk {
    state: Mutex<Desk>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Desk {
    log: HookLog,
    is_ending: bool,
}

impl HookDesk {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of them so far.
    pub(super) fn log(&self) -> HookLog {
        self.lock().log.clone()
    }

    /// Waits for so long, or until the end; whether it has come.
    fn rest(&self, most: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, most, |state| !state.is_ending);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_ending
    }
}

/// The hooks of a dataset, and their thread.
#[derive(Debug)]
pub(super) struct Hooks {
    desk: Arc<HookDesk>,
    thread: Option<JoinHandle<()>>,
}

impl Hooks {
    /// Runs `on-demote` once, since a process before this may have been killed while it served, and then whatever is called for.
    ///
    /// # Errors
    /// No thread left.
    pub(super) fn start(
        config: HooksConfig,
        dataset: &Arc<Dataset>,
        desk: Arc<HookDesk>,
        events: Arc<EventLog>,
    ) -> std::io::Result<Self> {
        let (name, node) = (dataset.config().name.clone(), dataset.config().node.clone());
        let dataset = Arc::downgrade(dataset);
        let runner = Runner { config, dataset, name, node, desk: desk.clone(), events };
        let thread = std::thread::Builder::new().name("mirrorbus-hooks".into());
        Ok(Self { desk, thread: Some(thread.spawn(move || runner.run())?) })
    }
}

impl Hooks {
    /// The node serves nobody any more. Does not wait.
    pub(super) fn begin_to_end(&self) {
        self.desk.lock().is_ending = true;
        self.desk.changed.notify_all();
    }
}

impl Drop for Hooks {
    /// The node serves nobody any more: `on-demote`, if it did, has run when this returns, or its time is over.
    fn drop(&mut self) {
        self.begin_to_end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Runner {
    config: HooksConfig,
    /// Not one that keeps it: a command that takes its time must not keep a node alive that is to end.
    dataset: Weak<Dataset>,
    name: String,
    node: String,
    desk: Arc<HookDesk>,
    events: Arc<EventLog>,
}

impl Runner {
    fn run(&self) {
        let mut serves = None;
        self.call(false, "start");
        loop {
            let is_ending = self.desk.rest(LOOK_TIME);
            let found = if is_ending { Some((None, "stop")) } else { self.served() };
            if let Some((now, reason)) = found.filter(|(now, _)| *now != serves) {
                // Of two times that it served, with a look between at neither end, both are told.
                if serves.is_some() {
                    self.call(false, reason);
                }
                if now.is_some() {
                    self.call(true, reason);
                }
                serves = now;
            }
            if is_ending {
                return;
            }
        }
    }

    /// The generation in which this node serves, if it does, and why it is so; `None` while that cannot be told.
    fn served(&self) -> Option<(Option<u64>, &'static str)> {
        let status = self.dataset.upgrade()?.status();
        let serves = status.role == RoleStatus::Primary;
        (!status.busy).then(|| (serves.then_some(status.generation.0), status.reason.code))
    }

    /// Runs the one for what has become so, if there is one.
    fn call(&self, serves: bool, reason: &str) {
        let (on, words) = match serves {
            true => ("promote", &self.config.on_promote),
            false => ("demote", &self.config.on_demote),
        };
        let Some((program, arguments)) = words.split_first() else { return };
        let began = Instant::now();
        self.note(on, HookState::Running, format!("{program} runs"), false);
        let mut command = Command::new(program);
        command.args(arguments).env("MIRRORBUS_DATASET", &self.name);
        command.env("MIRRORBUS_NODE", &self.node).env("MIRRORBUS_REASON", reason);
        let (state, text) = match self.carry_out(command, on) {
            Ok(()) => (HookState::Done, format!("{program} took {} ms", began.elapsed().as_millis())),
            Err((state, why)) => (state, format!("{program}: {why}")),
        };
        let has_failed = state != HookState::Done;
        if has_failed {
            log::warn!("{}: on-{on}: {text}", self.name);
        }
        self.events.add(Some(&self.name), &format!("on-{on}"), text.clone());
        self.note(on, state, text, has_failed);
    }

    fn note(&self, on: &str, state: HookState, text: String, has_failed: bool) {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut desk = self.desk.lock();
        desk.log.runs += u64::from(state == HookState::Running);
        desk.log.failures += u64::from(has_failed);
        desk.log.last = Some(HookStatus { on: on.to_owned(), state, text, time_ms });
    }

    /// Runs it in a group of processes of its own, which is killed when its time is over.
    fn carry_out(&self, mut command: Command, on: &str) -> Result<(), (HookState, String)> {
        let failed = |error: std::io::Error| (HookState::Failed, error.to_string());
        let (output, input) = std::io::pipe().map_err(failed)?;
        let mut said = Said::new(output).map_err(failed)?;
        command.stdin(Stdio::null()).stderr(input.try_clone().map_err(failed)?).stdout(input);
        let mut child = command.process_group(0).spawn().map_err(failed)?;
        // Its ends of the pipe are the child's alone from here on.
        drop(command);
        let deadline = Instant::now() + self.config.time_max;
        let status = loop {
            said.take(COMMAND_LOOK_TIME);
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if Instant::now() < deadline => {}
                Ok(None) => {
                    break Err((HookState::TimedOut, format!("killed after {:?}", self.config.time_max)));
                }
                Err(error) => break Err(failed(error)),
            }
        };
        if status.is_err() {
            end(&mut child);
        }
        said.take(Duration::ZERO);
        for line in String::from_utf8_lossy(&said.bytes).lines() {
            log::info!("{}: on-{on}: {line}", self.name);
        }
        match status? {
            status if status.success() => Ok(()),
            status => Err((HookState::Failed, status.to_string())),
        }
    }
}

/// Kills it with all that it started, and waits for it.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

/// What a command says: taken as it comes, so that it never waits for that.
struct Said {
    output: PipeReader,
    bytes: Vec<u8>,
    is_over: bool,
}

impl Said {
    fn new(output: PipeReader) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&output, true)?;
        Ok(Self { output, bytes: Vec::new(), is_over: false })
    }

    /// Takes what has come, or comes within this time.
    fn take(&mut self, within: Duration) {
        let nanos = i64::from(within.subsec_nanos());
        let mut ends = [PollFd::new(&self.output, PollFlags::IN)];
        // At the end of its output it is always ready.
        let ends = if self.is_over { &mut [][..] } else { &mut ends[..] };
        let _ = rustix::event::poll(ends, Some(&Timespec { tv_sec: 0, tv_nsec: nanos }));
        let mut piece = [0; 4096];
        for _ in 0..PIECES_MAX {
            match self.output.read(&mut piece) {
                Ok(0) => self.is_over = true,
                Ok(count) => {
                    let room = OUTPUT_BYTES_MAX - self.bytes.len();
                    self.bytes.extend_from_slice(&piece[..count.min(room)]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => {}
            }
            return;
        }
    }
}
