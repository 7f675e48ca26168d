//! The control connections: for each a thread that moves its bytes and one that serves it, and how many there may be.
//!
//! A connection that never attached costs two threads and their buffers. The owner needs one, and so does whoever asks to
//! be the next; of more than [`HolderConfig::unattached`](super::HolderConfig::unattached) the oldest makes room.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::service::Service;
use super::state::{Owner, Shared};
use crate::base::{Deadline, SessionId};
use crate::control::{CloseReason, Connection, Event};
use crate::node::driver::Driver;

/// Requests of one owner that wait.
const REQUESTS_MAX: usize = 256;

/// What is known of the peer of a connection, whether it is the owner or not.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// The connection is over: nothing may be granted to it.
    pub(super) ended: AtomicBool,
    pub(super) silent: AtomicBool,
    /// It is the owner's, or was: whoever was is told to end.
    pub(super) attached: AtomicBool,
}

/// A control connection and the thread that serves it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) driver: Arc<Driver>,
    pub(super) presence: Arc<Presence>,
    service: JoinHandle<()>,
    /// It was cut to make room.
    cut: bool,
}

impl Link {
    /// Ends both.
    pub(super) fn end(self, reason: CloseReason, deadline: &mut Deadline) {
        self.driver.close(reason);
        while !self.service.is_finished()
            && deadline.remaining().is_some_and(|left| left > Duration::from_secs(4))
        {
            std::thread::yield_now();
        }
        self.driver.abort();
        let _ = self.service.join();
    }

    /// Whether it has ended.
    pub(super) fn ended(&self) -> bool {
        self.service.is_finished()
    }

    fn unattached(&self) -> bool {
        !self.cut && !self.presence.attached.load(Ordering::SeqCst)
    }
}

/// Serves an authenticated connection.
///
/// # Errors
/// No thread or descriptor left, or too many connections that do not end.
pub(super) fn start(
    shared: &Arc<Shared>,
    connection: Connection,
    socket: OwnedFd,
    session: SessionId,
) -> std::io::Result<()> {
    make_room(shared)?;
    let (requests, inbox) = sync_channel(REQUESTS_MAX);
    let presence = Arc::new(Presence::default());
    let driver = {
        let (shared, presence) = (shared.clone(), presence.clone());
        Driver::start("mirrorbus-link", connection, socket, move |event| {
            on_event(&shared, session, &presence, event, &requests);
        })?
    };
    let driver = Arc::new(driver);
    let service = {
        let service =
            Service { shared: shared.clone(), driver: driver.clone(), session, presence: presence.clone() };
        std::thread::Builder::new().name("mirrorbus-serve".into()).spawn(move || service.run(&inbox))?
    };
    let mut links = shared.links.lock().unwrap_or_else(PoisonError::into_inner);
    links.push(Link { driver, presence, service, cut: false });
    Ok(())
}

/// Takes away what has ended, and the oldest that never attached when there are too many. Only the listener's thread
/// adds links.
fn make_room(shared: &Shared) -> std::io::Result<()> {
    let unattached_max = shared.config.unattached.max(1);
    // In all: beside those, ones that were told to end and have not yet.
    let links_max = unattached_max.saturating_mul(2);
    let mut links = shared.links.lock().unwrap_or_else(PoisonError::into_inner);
    let (ended, live): (Vec<_>, Vec<_>) = links.drain(..).partition(Link::ended);
    *links = live;
    if links.iter().filter(|link| link.unattached()).count() >= unattached_max
        && let Some(oldest) = links.iter_mut().find(|link| link.unattached())
    {
        log::warn!("{unattached_max} connections ask for nothing: the oldest is cut");
        oldest.cut = true;
        oldest.driver.cut();
    }
    let full = links.len() >= links_max;
    drop(links);
    ended.into_iter().for_each(|link| link.end(CloseReason::Finished, &mut Deadline::within(Duration::ZERO)));
    if full {
        return Err(std::io::Error::other(format!("{links_max} connections have not ended")));
    }
    Ok(())
}

fn on_event(
    shared: &Shared,
    session: SessionId,
    presence: &Presence,
    event: Event,
    requests: &SyncSender<Option<Vec<u8>>>,
) {
    let note = |action: &dyn Fn(&mut Owner)| {
        let mut state = shared.lock();
        if let Some(owner) = state.owner_of(session) {
            action(owner);
            shared.note_change(&mut state);
        }
    };
    match event {
        Event::Message { body, .. } => {
            if let Err(TrySendError::Full(_)) = requests.try_send(Some(body)) {
                // An owner waits for each answer; one that does not is of another make.
                log::warn!("more than {REQUESTS_MAX} requests of one owner wait: the newest is dropped");
            }
        }
        // The presence is marked before the lock is taken: whoever grants under the lock sees the mark, or is seen.
        Event::PeerSilent => {
            presence.silent.store(true, Ordering::SeqCst);
            note(&|owner| owner.silent = true);
        }
        Event::PeerHeard => {
            presence.silent.store(false, Ordering::SeqCst);
            note(&|owner| owner.silent = false);
        }
        Event::Closed { reason } => {
            log::info!("session {session}: {reason}");
            presence.ended.store(true, Ordering::SeqCst);
            note(&|owner| owner.connected = false);
            // The service ends behind what was asked before; when its queue is full it ends with its sender.
            let _ = requests.try_send(None);
        }
        Event::Established { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Instant;

    use super::*;
    use crate::control::{ConnectionConfig, Hello, KeySet};
    use crate::memory::LockPolicy;
    use crate::node::message::{AttachMode, AttachRequest};
    use crate::node::{Holder, HolderConfig};

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn nothing_is_granted_to_a_connection_that_has_ended() {
        let keys = KeySet::from_bytes(&[[7; 32]]).unwrap();
        let mut config = HolderConfig::new("tcp://127.0.0.1:0".parse().unwrap(), 4096);
        config.lock = LockPolicy::Off;
        let holder = Holder::start(config, keys.clone()).unwrap();
        let second = Duration::from_secs(1);
        let hello = ConnectionConfig::new(Hello::new(0, second, 60 * second, vec![]).unwrap());
        let address = holder.url().to_string();
        let socket = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
        let connection = Connection::initiate(hello, &keys, Instant::now());
        let peer = Driver::start("peer", connection, socket.into(), drop).unwrap();
        let shared = &holder.shared;
        until("it connects", || !shared.links.lock().unwrap().is_empty());
        peer.abort();
        until("its end is seen", || shared.links.lock().unwrap()[0].ended());
        let (driver, presence) = {
            let links = shared.links.lock().unwrap();
            (links[0].driver.clone(), links[0].presence.clone())
        };
        // Its request was taken before the end, and its turn comes now.
        let session = SessionId::from_bytes([1; 16]);
        let service = Service { shared: shared.clone(), driver, session, presence };
        let attach = AttachRequest {
            mode: AttachMode::Push,
            region: [1; 16],
            size: 4096,
            prior_session: [0; 16],
            life: [0; 16],
            generation: 0,
            staging: 0,
        };
        let (_, why) = service.attach(&attach).unwrap_err();
        assert!(why.contains("has ended"), "{why}");
        assert!(!holder.status().connected, "it would keep every other owner out");
    }
}
