//! Who listens at the admin socket.
//!
//! One thread accepts; each connection has one of its own, which reads a request, carries it out and answers, in turn. A connection is
//! *idle* while it waits for a request, or for events; only such a one is ever closed to make room.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::lines::{LineError, Lines, Silence};
use super::{
    AdminError, COMMANDS_MAX, CONNECTIONS_MAX, DatasetVolumes, EVENTS_PER_REPLY_MAX, ErrorCode, Event,
    IDLE_TIME_MAX, REPLY_TIME_MAX, REQUEST_BYTES_MAX, Reply, Request, StatusSource, Subject, socket,
};
use crate::base::Deadline;

/// How often is looked whether there are new events for those who follow them.
const EVENTS_LOOK: Duration = Duration::from_millis(100);

/// How long nothing is accepted after that failed: what is missing does not come back at once.
const BREATHER: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// How long the end waits for answers that are on their way.
const GRACE: Duration = Duration::from_secs(1);

/// The admin socket while it is served. Its end closes all connections and removes the socket.
#[derive(Debug)]
pub struct AdminServer {
    shared: Arc<Shared>,
    path: PathBuf,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    subject: Arc<dyn Subject>,
    status: Arc<StatusSource>,
    /// Commands under way that may take long.
    commands: AtomicUsize,
    connections: Mutex<Connections>,
    /// A connection ended.
    ended: Condvar,
    stopping: AtomicBool,
    wake: OwnedFd,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("connections", &self.connections).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    stream: Arc<UnixStream>,
    idle_since: Option<Instant>,
}

impl AdminServer {
    /// Serves `subject` at `path`; statuses come from `status`.
    ///
    /// # Errors
    /// Another listens there, the directory does not exist or does not allow it, or there is no thread left.
    pub fn start(path: &Path, subject: Arc<dyn Subject>, status: Arc<StatusSource>) -> std::io::Result<Self> {
        let listener = socket::listen(path)?;
        let shared = Arc::new(Shared {
            subject,
            status,
            commands: AtomicUsize::new(0),
            connections: Mutex::default(),
            ended: Condvar::new(),
            stopping: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let acceptor = shared.clone();
        let thread = std::thread::Builder::new().name("mirrorbus-admin".into());
        let accepting = thread.spawn(move || acceptor.accept(&listener)).inspect_err(|_| {
            // Made by us a moment ago.
            let _ = std::fs::remove_file(path);
        })?;
        Ok(Self { shared, path: path.into(), accepting: Some(accepting) })
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
        let mut connections = self.shared.lock();
        // No further requests; answers still go out. A command that does not end is left to itself.
        connections.open.iter().for_each(|open| drop(open.stream.shutdown(std::net::Shutdown::Read)));
        let waits = |connections: &mut Connections| !connections.open.is_empty();
        connections = self
            .shared
            .ended
            .wait_timeout_while(connections, GRACE, waits)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        connections.open.iter().for_each(|open| drop(open.stream.shutdown(std::net::Shutdown::Both)));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn accept(self: &Arc<Self>, listener: &UnixListener) {
        while !self.is_stopping() {
            let wake = PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN);
            let _ = poll(&mut [wake, PollFd::new(listener, PollFlags::IN)], None);
            match listener.accept() {
                Ok((stream, _)) => self.let_in(stream),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    log::warn!("admin socket: cannot accept: {error}");
                    let _ = poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], Some(&BREATHER));
                }
            }
        }
    }

    /// Gives a connection its thread; where there are as many as there may be, in the place of the one that is idle for longest.
    fn let_in(self: &Arc<Self>, stream: UnixStream) {
        let stream = Arc::new(stream);
        let mut connections = self.lock();
        if connections.open.len() >= CONNECTIONS_MAX && !connections.close_idle() {
            drop(connections);
            let text =
                format!("{CONNECTIONS_MAX} connections are busy, the most there can be: try again later");
            let reply = Reply::Error(AdminError::new(ErrorCode::Busy, text));
            // Goes into the empty buffer of the socket, or nowhere.
            let _ = Lines::new(stream.as_fd(), 0).write(&reply.encode(), &mut Deadline::at(Instant::now()));
            return;
        }
        connections.next += 1;
        let number = connections.next;
        connections.open.push(Open { number, stream: stream.clone(), idle_since: Some(Instant::now()) });
        drop(connections);
        let place = PlaceTaken { shared: self.clone(), number };
        let thread = std::thread::Builder::new().name("mirrorbus-admin".into());
        if let Err(error) = thread.spawn(move || place.shared.serve(&stream, place.number)) {
            log::warn!("admin socket: no thread for a connection: {error}");
        }
    }

    /// Answers until the other side hangs up or says nothing for too long.
    fn serve(&self, stream: &UnixStream, number: u64) {
        let mut lines = Lines::new(stream, REQUEST_BYTES_MAX);
        while !self.is_stopping() {
            self.set_idle(number, true);
            let line = match lines.read(&mut Deadline::within(IDLE_TIME_MAX)) {
                Ok(Some(line)) => line,
                Ok(None) | Err(LineError::TimedOut | LineError::Cut) => return,
                Err(error) => {
                    let text = format!("no request: {error}");
                    let reply = Reply::Error(AdminError::new(ErrorCode::BadRequest, text));
                    let _ = answer(&lines, &reply);
                    return;
                }
            };
            self.set_idle(number, false);
            let reply = match Request::decode(&line) {
                Ok(Request::Events { since, follow: true }) => return self.follow(&lines, number, since),
                Ok(request) => self.carry_out(request),
                Err(error) => Reply::Error(error),
            };
            if answer(&lines, &reply).is_err() {
                return;
            }
        }
    }

    /// Tells what happens until the other side hangs up or says something.
    fn follow(&self, lines: &Lines<&UnixStream>, number: u64, mut since: u64) {
        self.set_idle(number, true);
        while !self.is_stopping() {
            let events = self.subject.events_since(since);
            for piece in events.chunks(EVENTS_PER_REPLY_MAX) {
                since = piece.last().map_or(since, |event| event.sequence);
                if answer(lines, &Reply::Events { events: piece.to_vec(), next: since }).is_err() {
                    return;
                }
            }
            match lines.silence(&mut Deadline::within(EVENTS_LOOK)) {
                Ok(Silence::Lasted) => {}
                Ok(Silence::Broken) | Err(_) => return,
            }
        }
    }

    fn carry_out(&self, request: Request) -> Reply {
        let _under_way = if request.may_take_long() {
            match CommandUnderWay::begin(&self.commands) {
                Ok(guard) => Some(guard),
                Err(error) => return Reply::Error(error),
            }
        } else {
            None
        };
        let subject = &self.subject;
        match request {
            Request::Status {} => match self.status.get() {
                Ok(status) => Reply::Status(Box::new(status)),
                Err(error) => Reply::Error(error),
            },
            Request::VolumeList { dataset } => self.volumes(dataset.as_deref()),
            Request::VolumeCreate { dataset, name, bytes, block_bytes } => {
                subject.create_volume(&dataset, &name, bytes, block_bytes).into()
            }
            Request::VolumeResize { dataset, name, bytes } => {
                subject.resize_volume(&dataset, &name, bytes).into()
            }
            Request::VolumeDelete { dataset, name } => subject.delete_volume(&dataset, &name).into(),
            Request::Promote { dataset, flushed_only } => subject.promote(&dataset, flushed_only).into(),
            Request::Alone { dataset } => subject.alone(&dataset).into(),
            Request::ReplacePeer { dataset } => subject.replace_peer(&dataset).into(),
            Request::Seed { dataset } => subject.seed(&dataset).into(),
            Request::Switch { dataset } => {
                subject.switch(dataset.as_deref()).map_or_else(Reply::Error, Reply::Switched)
            }
            Request::CanStop { dataset } => {
                subject.can_stop(dataset.as_deref()).map_or_else(Reply::Error, Reply::CanStop)
            }
            Request::Scrub { dataset, repair } => {
                subject.scrub(&dataset, repair).map_or_else(Reply::Error, Reply::Scrubbed)
            }
            Request::Verify { dataset, volume, repair } => {
                let report = subject.verify(&dataset, volume.as_deref(), repair);
                report.map_or_else(Reply::Error, Reply::Verified)
            }
            Request::Events { since, .. } => first_events(subject.events_since(since), since),
            Request::Stop {} => {
                subject.stop();
                Reply::Done {}
            }
        }
    }

    fn volumes(&self, wanted: Option<&str>) -> Reply {
        let status = match self.status.get() {
            Ok(status) => status,
            Err(error) => return Reply::Error(error),
        };
        let names: Vec<_> = status.datasets.iter().map(|dataset| dataset.name.clone()).collect();
        let is_wanted = |name: &str| wanted.is_none_or(|wanted| wanted == name);
        let datasets: Vec<_> = status
            .datasets
            .into_iter()
            .filter(|dataset| is_wanted(&dataset.name))
            .map(|dataset| DatasetVolumes { dataset: dataset.name, volumes: dataset.volumes })
            .collect();
        match wanted {
            Some(wanted) if datasets.is_empty() => {
                let text = format!("no dataset {wanted:?} is on this node; there are: {}", names.join(", "));
                Reply::Error(AdminError::new(ErrorCode::NoSuchDataset, text))
            }
            Some(_) | None => Reply::Volumes { datasets },
        }
    }

    fn set_idle(&self, number: u64, is_idle: bool) {
        if let Some(open) = self.lock().open.iter_mut().find(|open| open.number == number) {
            open.idle_since = is_idle.then(Instant::now);
        }
    }
}

impl Connections {
    /// Closes the one that is idle for longest; false when none is.
    fn close_idle(&mut self) -> bool {
        let idle = self.open.iter().enumerate().filter_map(|(at, open)| Some((open.idle_since?, at)));
        let Some((_, at)) = idle.min() else { return false };
        let _ = self.open.swap_remove(at).stream.shutdown(std::net::Shutdown::Both);
        true
    }
}

/// As many events as a reply takes; `next` leads to the others.
fn first_events(mut events: Vec<Event>, since: u64) -> Reply {
    events.truncate(EVENTS_PER_REPLY_MAX);
    let next = events.last().map_or(since, |event| event.sequence);
    Reply::Events { events, next }
}

fn answer(lines: &Lines<&UnixStream>, reply: &Reply) -> Result<(), LineError> {
    lines.write(&reply.encode(), &mut Deadline::within(REPLY_TIME_MAX))
}

/// A connection's place among the open ones.
struct PlaceTaken {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for PlaceTaken {
    fn drop(&mut self) {
        let mut connections = self.shared.lock();
        connections.open.retain(|open| open.number != self.number);
        drop(connections);
        self.shared.ended.notify_all();
    }
}

/// One of the commands that may take long.
struct CommandUnderWay<'a>(&'a AtomicUsize);

impl<'a> CommandUnderWay<'a> {
    fn begin(commands: &'a AtomicUsize) -> Result<Self, AdminError> {
        const { assert!(COMMANDS_MAX < CONNECTIONS_MAX) };
        let guard = Self(commands);
        if commands.fetch_add(1, Ordering::SeqCst) < COMMANDS_MAX {
            return Ok(guard);
        }
        let text =
            format!("{COMMANDS_MAX} commands are under way, the most there can be: wait for one to end");
        Err(AdminError::new(ErrorCode::Busy, text))
    }
}

impl Drop for CommandUnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
