//! The server: listeners, the threads of connections, and their end.
//!
//! ```text
//!  mirrorbus-nbd        one: accepts
//!  mirrorbus-nbd-conn   one per client, CONNECTIONS_MAX at most: does everything for it
//! ```
//!
//! A client that has not chosen an export yet can be anybody; when there is no room, the oldest of those makes it, once it had its
//! chance. Clients that use an export are never pushed out: a newcomer is hung up on instead.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use super::config::{Endpoint, ServerConfig, ServerError};
use super::connection::{self, Common, NEGOTIATION_TIME_MAX};
use super::export::{Export, Exports};
use super::listener::Listener;
use super::negotiated::TlsMode;
use super::socket::Lifeline;
use super::tls;

/// Clients at a time.
pub const CONNECTIONS_MAX: usize = 256;
/// How long a client may negotiate before it makes room for others.
const CHANCE_TIME: Duration = Duration::from_millis(500);
/// How long nobody is accepted after that failed, or while somebody makes room.
const BREATHER: Duration = Duration::from_millis(20);
/// How long requests that have come are still worked on after [`Server::stop`].
pub const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// A client's place.
struct Place {
    number: u64,
    lifeline: Arc<Lifeline>,
    since: Instant,
    /// The export that it has chosen.
    chosen: Arc<OnceLock<Arc<dyn Export>>>,
    /// It was told to make room.
    leaving: bool,
}

#[derive(Default)]
struct Connections {
    places: Vec<Place>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    common: Common,
    stopping: AtomicBool,
    wake: OwnedFd,
    next: AtomicU64,
    connections: Mutex<Connections>,
    /// A place became free.
    freed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An NBD server that runs until it is stopped or dropped.
pub struct Server {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    endpoints: Vec<Endpoint>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens, and serves `exports` from then on.
    ///
    /// # Errors
    /// With the endpoint or the file that is wrong; nothing is listened on then.
    pub fn start(config: &ServerConfig, exports: Arc<dyn Exports>) -> Result<Self, ServerError> {
        if config.endpoints.is_empty() {
            return Err(ServerError::NoEndpoint);
        }
        let tls_config = match (config.tls, &config.tls_files) {
            (TlsMode::Off, _) => None,
            (TlsMode::Allowed | TlsMode::Required, Some(files)) => Some(tls::load(files)?),
            (mode @ (TlsMode::Allowed | TlsMode::Required), None) => {
                return Err(ServerError::NoCertificate { mode });
            }
        };
        let listeners = config
            .endpoints
            .iter()
            .map(|endpoint| Listener::bind(endpoint, config.tls))
            .collect::<Result<Vec<_>, _>>()?;
        let endpoints = listeners.iter().map(Listener::endpoint).collect();
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| ServerError::Thread(error.into()))?;
        let shared = Arc::new(Shared {
            common: Common { exports, tls: config.tls, tls_config },
            stopping: AtomicBool::new(false),
            wake,
            next: AtomicU64::new(0),
            connections: Mutex::default(),
            freed: Condvar::new(),
        });
        let runs = Arc::clone(&shared);
        let accepting = std::thread::Builder::new()
            .name("mirrorbus-nbd".into())
            .spawn(move || accept(&listeners, &runs))
            .map_err(ServerError::Thread)?;
        Ok(Self { shared, accepting: Some(accepting), endpoints })
    }

    /// Where it listens, with real ports.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Clients at the moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.lock().places.len()
    }

    /// Ends the connections of clients whose export has [moved](Export::moved): one that asks for nothing would not find out.
    pub fn end_moved(&self) {
        for place in &self.shared.lock().places {
            if place.chosen.get().is_some_and(|export| export.moved()) {
                place.lifeline.stop();
            }
        }
    }

    /// Listens no more, lets requests that have come be answered for [`STOP_TIME_MAX`] at most, and closes all connections. Returns
    /// when no thread is left.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // A counter that is full wakes all the same.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
        let _ = accepting.join();
        let until = Instant::now() + STOP_TIME_MAX;
        let mut connections = self.shared.lock();
        connections.places.iter().for_each(|place| place.lifeline.stop());
        while !connections.places.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                log::warn!("nbd: {} connections are cut off", connections.places.len());
                connections.places.iter().for_each(|place| place.lifeline.cut());
                break;
            }
            let waited = self.shared.freed.wait_timeout(connections, left);
            connections = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let threads = std::mem::take(&mut connections.threads);
        drop(connections);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Takes clients in until the server stops.
fn accept(listeners: &[Listener], shared: &Arc<Shared>) {
    let mut rests = false;
    while !shared.stopping.load(Ordering::SeqCst) {
        let mut fds = vec![PollFd::new(&shared.wake, PollFlags::IN)];
        let breather =
            Timespec { tv_sec: 0, tv_nsec: i64::try_from(BREATHER.as_nanos()).expect("less than a second") };
        if !rests {
            fds.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        }
        let _ = rustix::event::poll(&mut fds, rests.then_some(&breather));
        rests = false;
        for listener in listeners {
            let room = make_room(shared);
            if room == Room::Soon {
                rests = true;
                break;
            }
            match listener.accept() {
                Ok(Some(socket)) if room == Room::Free => start(socket, shared),
                Ok(Some(_)) => {
                    log::warn!("nbd: a client was hung up on: {CONNECTIONS_MAX} others use exports");
                }
                Ok(None) => {}
                Err(error) => {
                    log::warn!("nbd: cannot accept at {}: {error}", listener.endpoint());
                    rests = true;
                }
            }
        }
    }
}

/// Whether a further client may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Free,
    /// When one that has not chosen an export has left.
    Soon,
    /// All others use exports.
    None,
}

/// Looks for a place, and takes one away from a client that had its chance to choose an export.
fn make_room(shared: &Shared) -> Room {
    let mut connections = shared.lock();
    // The threads of those who have left.
    connections.threads.retain(|thread| !thread.is_finished());
    if connections.places.len() < CONNECTIONS_MAX {
        return Room::Free;
    }
    let mut undecided = connections.places.iter_mut().filter(|place| place.chosen.get().is_none()).peekable();
    if undecided.peek().is_none() {
        return Room::None;
    }
    // The first is the oldest. One at a time: who comes next looks again.
    if !undecided.peek().is_some_and(|place| place.leaving)
        && let Some(oldest) = undecided.next()
        && oldest.since.elapsed() >= CHANCE_TIME
    {
        oldest.leaving = true;
        oldest.lifeline.cut();
    }
    Room::Soon
}

fn start(socket: OwnedFd, shared: &Arc<Shared>) {
    let number = shared.next.fetch_add(1, Ordering::Relaxed);
    let lifeline = Arc::new(Lifeline::new(socket));
    let chosen = Arc::new(OnceLock::new());
    let place = Place {
        number,
        lifeline: Arc::clone(&lifeline),
        since: Instant::now(),
        chosen: Arc::clone(&chosen),
        leaving: false,
    };
    let mut connections = shared.lock();
    connections.places.push(place);
    let runs = Arc::clone(shared);
    let spawned = std::thread::Builder::new().name("mirrorbus-nbd-conn".into()).spawn(move || {
        // Also when an export panics: its place is free then, and the others go on.
        let _leave = Leave { shared: &runs, number };
        let end = connection::serve(lifeline, &runs.common, NEGOTIATION_TIME_MAX, |export| {
            let _ = chosen.set(Arc::clone(export));
        });
        if end.is_usual() {
            log::debug!("nbd: {end}");
        } else {
            log::info!("nbd: {end}");
        }
    });
    match spawned {
        Ok(thread) => connections.threads.push(thread),
        Err(error) => {
            log::warn!("nbd: no thread for a client: {error}");
            connections.places.retain(|place| place.number != number);
        }
    }
}

/// Frees the place of a connection when its thread ends.
struct Leave<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.shared.lock().places.retain(|place| place.number != self.number);
        self.shared.freed.notify_all();
    }
}
