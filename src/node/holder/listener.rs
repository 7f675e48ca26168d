//! Accepts streams and drives their handshakes, all on one thread.
//!
//! A stranger costs one descriptor and about a kilobyte, for five seconds at most; when as many handshakes are under way
//! as are allowed, the oldest makes room, once it had its chance. So a crowd that connects and says nothing keeps nobody
//! out: a peer with a key needs a few milliseconds, waits behind the crowd for no longer than that takes to be let
//! through in groups, and is never pushed out by it on the way.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::state::Shared;
use super::streams::ProvenStream;
use super::{HolderConfig, HolderError, links};
use crate::base::{FabricUrl, SessionId};
use crate::control::{
    Connection, ConnectionConfig, DataHandshake, Event, Hello, HelloError, PREFACE_LEN, Preface, PrefaceKind,
    Token,
};
use crate::node::stream::{Listener, timespec};

/// Handshakes under way.
const HANDSHAKES_MAX: usize = 256;
/// How long a handshake is left alone, however many wait: what a peer with a key needs on a busy machine.
const CHANCE_TIME: Duration = Duration::from_millis(250);
/// How long nothing is accepted after that failed: what is missing does not come back at once.
const BREATHER: Duration = Duration::from_millis(20);
/// Streams accepted between two rounds of handshakes.
const ACCEPTS_MAX: usize = 64;
/// Bytes read from one stream in a round; more than a handshake has.
const READ_BYTES: usize = 2048;

/// A stream on its way to be trusted.
#[derive(Debug)]
struct Arrival {
    socket: OwnedFd,
    since: Instant,
    stage: Stage,
    output: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    /// Collecting the preface, which says what the stream is to be.
    Preface(Vec<u8>),
    Control(Box<Connection>),
    Data(Box<DataHandshake>, Option<Claim>),
}

/// The session that a data stream names, and the tokens of it that were tried.
#[derive(Debug)]
struct Claim {
    session: SessionId,
    tokens: Vec<Token>,
}

/// What one round made of an arrival.
enum Step {
    Wait(Arrival),
    Done,
}

/// Listens where `config` says.
///
/// # Errors
/// With the address.
pub(super) fn bind(config: &HolderConfig) -> Result<(Listener, FabricUrl), HolderError> {
    Listener::bind(&config.url).map_err(|error| HolderError::Listen { url: config.url.clone(), error })
}

/// Ports that the system chooses until one is free for RDMA connections too.
#[cfg(feature = "rdma")]
const PORTS_TRIED: usize = 16;

/// Listens where `config` says, for RDMA connections too where it asks for that. They have ports of their own: one that the system chose
/// for the one may be taken for the other, and then another is chosen.
///
/// # Errors
/// With the address.
#[cfg(feature = "rdma")]
pub(super) fn bind_both(
    config: &HolderConfig,
) -> Result<(Listener, FabricUrl, Option<crate::fabric::verbs::Listener>), HolderError> {
    let chooses = matches!(&config.url, FabricUrl::Rdma { address } if address.ends_with(":0"));
    let mut tried = Vec::new();
    loop {
        let (listener, url) = bind(config)?;
        match bind_rdma(&listener, &url) {
            Err(HolderError::Listen { error, .. })
                if chooses && error.kind() == std::io::ErrorKind::AddrInUse && tried.len() < PORTS_TRIED =>
            {
                // It is kept meanwhile, so that the next is another one.
                tried.push(listener);
            }
            rdma => return rdma.map(|rdma| (listener, url, rdma)),
        }
    }
}

/// Listens for RDMA connections too, at the same address and port, where `url` asks for that.
///
/// # Errors
/// With the address.
#[cfg(feature = "rdma")]
fn bind_rdma(
    listener: &Listener,
    url: &FabricUrl,
) -> Result<Option<crate::fabric::verbs::Listener>, HolderError> {
    if !matches!(url, FabricUrl::Rdma { .. }) {
        return Ok(None);
    }
    let bound = listener.address().and_then(super::rdma::bind);
    bound.map(Some).map_err(|error| HolderError::Listen { url: url.clone(), error })
}

/// What owners are greeted with.
///
/// # Errors
/// An interval is out of bounds.
pub(super) fn greeting(config: &HolderConfig) -> Result<Hello, HelloError> {
    Hello::new(0, config.heartbeat, config.silence, Vec::new())
}

/// Starts the thread.
///
/// # Errors
/// No thread left.
pub(super) fn start(listener: Listener, shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("mirrorbus-accept".into()).spawn(move || run(&listener, &shared))
}

fn run(listener: &Listener, shared: &Arc<Shared>) {
    let mut arrivals: Vec<Arrival> = Vec::new();
    let mut accept_at = None;
    while !shared.stopping.load(Ordering::SeqCst) {
        wait(listener, shared, &arrivals, accept_at);
        let now = Instant::now();
        if accept_at.is_none_or(|at| at <= now) {
            accept_at = accept(listener, &mut arrivals, now);
        }
        let now = Instant::now();
        arrivals = arrivals
            .into_iter()
            .filter_map(|arrival| match arrival.step(shared, now) {
                Step::Wait(arrival) => Some(arrival),
                Step::Done => None,
            })
            .collect();
    }
}

/// Sleeps until there is something to do; strangers at the door do not count before `accept_at`.
fn wait(listener: &Listener, shared: &Shared, arrivals: &[Arrival], accept_at: Option<Instant>) {
    let mut fds = vec![PollFd::new(&shared.wake, PollFlags::IN)];
    if accept_at.is_none() {
        fds.push(PollFd::new(listener, PollFlags::IN));
    }
    fds.extend(arrivals.iter().map(|arrival| {
        let flags = if arrival.output.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        PollFd::new(&arrival.socket, flags)
    }));
    let oldest = arrivals.iter().map(|arrival| arrival.since).min();
    let timeout = oldest
        .map(|since| since + crate::control::HANDSHAKE_TIME_MAX)
        .into_iter()
        .chain(accept_at)
        .min()
        .map(|until| timespec(until.saturating_duration_since(Instant::now())));
    let _ = rustix::event::poll(&mut fds, timeout.as_ref());
    let mut counter = [0; 8];
    let _ = rustix::io::read(&shared.wake, &mut counter);
}

/// Takes who waits at the door; returns when to look there again, unless at once.
fn accept(listener: &Listener, arrivals: &mut Vec<Arrival>, now: Instant) -> Option<Instant> {
    for _ in 0..ACCEPTS_MAX {
        // The first is the oldest.
        let chance_ends = match arrivals.first() {
            Some(oldest) if arrivals.len() >= HANDSHAKES_MAX => oldest.since + CHANCE_TIME,
            _ => now,
        };
        if chance_ends > now {
            return Some(chance_ends);
        }
        match listener.accept() {
            Ok(Some(socket)) => {
                if arrivals.len() >= HANDSHAKES_MAX {
                    arrivals.remove(0);
                }
                let stage = Stage::Preface(Vec::with_capacity(PREFACE_LEN));
                arrivals.push(Arrival { socket, since: now, stage, output: Vec::new() });
            }
            Ok(None) => return None,
            Err(error) => {
                // Out of descriptors, most likely: the oldest handshake makes room for the next attempt.
                log::warn!("cannot accept: {error}");
                if !arrivals.is_empty() {
                    arrivals.remove(0);
                }
                return Some(now + BREATHER);
            }
        }
    }
    None
}

impl Arrival {
    fn step(mut self, shared: &Arc<Shared>, now: Instant) -> Step {
        match self.advance(shared, now) {
            Ok(()) => {}
            Err(why) => {
                log::info!("a stream was turned away: {why}");
                // A refusal in words may be under way.
                let _ = self.flush();
                return Step::Done;
            }
        }
        match &mut self.stage {
            Stage::Control(connection) => match connection.poll_event() {
                Some(Event::Established { session, .. }) => self.serve(shared, session),
                Some(Event::Closed { reason }) => {
                    log::info!("a stream was turned away: {reason}");
                    Step::Done
                }
                Some(_) | None => Step::Wait(self),
            },
            Stage::Data(handshake, _) if handshake.is_done() => self.hand_over(shared),
            Stage::Preface(_) | Stage::Data(..) => Step::Wait(self),
        }
    }

    /// Reads, advances the handshake, writes.
    fn advance(&mut self, shared: &Arc<Shared>, now: Instant) -> Result<(), String> {
        let mut buffer = [0; READ_BYTES];
        match &mut self.stage {
            Stage::Preface(_) if now >= self.since + crate::control::HANDSHAKE_TIME_MAX => {
                return Err("it did not say what it is in time".into());
            }
            Stage::Preface(_) => {}
            Stage::Control(connection) => {
                connection.handle_timeout(now).map_err(|error| error.to_string())?
            }
            Stage::Data(handshake, _) => handshake.handle_timeout(now).map_err(|error| error.to_string())?,
        }
        // The preface alone is read first: what follows it belongs to the stage that it names.
        let most = match &self.stage {
            Stage::Preface(bytes) => PREFACE_LEN - bytes.len(),
            Stage::Control(_) | Stage::Data(..) => READ_BYTES,
        };
        let result = match rustix::net::recv(&self.socket, &mut buffer[..most], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err("it hung up".into()),
            Ok((_, count)) => self.take(&buffer[..count], shared, now),
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        match &mut self.stage {
            Stage::Preface(_) => {}
            Stage::Control(connection) => drop(connection.poll_transmit(&mut self.output)),
            Stage::Data(handshake, _) => drop(handshake.poll_transmit(&mut self.output)),
        }
        result?;
        self.flush()
    }

    fn take(&mut self, bytes: &[u8], shared: &Arc<Shared>, now: Instant) -> Result<(), String> {
        match &mut self.stage {
            Stage::Preface(collected) => {
                collected.extend_from_slice(bytes);
                let Ok(preface) = <&[u8; PREFACE_LEN]>::try_from(collected.as_slice()) else { return Ok(()) };
                let preface = *preface;
                let kind = Preface::parse(&preface).map_err(|error| error.to_string())?.kind();
                self.stage = match kind {
                    PrefaceKind::Control => {
                        let hello = greeting(&shared.config).map_err(|error| error.to_string())?;
                        Stage::Control(Box::new(Connection::accept(
                            ConnectionConfig::new(hello),
                            &shared.keys,
                            now,
                        )))
                    }
                    PrefaceKind::Data => Stage::Data(Box::new(DataHandshake::accept(now)), None),
                };
                self.take(&preface, shared, now)
            }
            Stage::Control(connection) => {
                connection.handle_bytes(bytes, now).map_err(|error| error.to_string())
            }
            Stage::Data(handshake, claim) => {
                handshake.handle_bytes(bytes, now).map_err(|error| error.to_string())?;
                if let Some(session) = handshake.needs_token() {
                    let tokens: Vec<Token> =
                        shared.lock().owner_of(session).map(|owner| owner.tokens.clone()).unwrap_or_default();
                    let provided = handshake.provide_tokens(&tokens);
                    *claim = Some(Claim { session, tokens });
                    provided.map_err(|error| error.to_string())?;
                }
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        while !self.output.is_empty() {
            match rustix::net::send(&self.socket, &self.output, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    fn serve(self, shared: &Arc<Shared>, session: SessionId) -> Step {
        if let Stage::Control(connection) = self.stage
            && let Err(error) = links::start(shared, *connection, self.socket, session)
        {
            log::warn!("an owner cannot be served: {error}");
        }
        Step::Done
    }

    fn hand_over(self, shared: &Arc<Shared>) -> Step {
        if !self.output.is_empty() {
            return Step::Wait(self);
        }
        let Stage::Data(handshake, Some(Claim { session, mut tokens })) = self.stage else {
            return Step::Done;
        };
        let (Some(purpose), Some(matched)) = (handshake.purpose().map(<[u8]>::to_vec), handshake.matched())
        else {
            return Step::Done;
        };
        let (cipher, leftover) = handshake.finish();
        let token = tokens.swap_remove(matched);
        let stream = ProvenStream { session, token, purpose, socket: self.socket, cipher, leftover };
        if let Err(why) = shared.take_stream(stream) {
            log::warn!("a data stream was dropped: {why}");
        }
        Step::Done
    }
}
