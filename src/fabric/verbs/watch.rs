//! Watches what the queues of one session cannot see by themselves: the peer ended a connection, a port went down, the
//! device broke. Whoever runs it has a thread for it; see [`Watch::next`].

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rustix::buffer::spare_capacity;
use rustix::event::EventfdFlags;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::connection::Connection;
use super::{Device, DeviceEvent, VerbsError};
use crate::fabric::QueueError;

/// The key of the descriptor that ends it.
const STOP: u64 = 0;
/// The key of the device's events.
const DEVICE: u64 = 1;
/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 16;

/// What [`Watch::next`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// A queue failed, and all that was in flight on it; this is the cause.
    Failed(QueueError),
    /// The watch was stopped: nothing more comes.
    Stopped,
}

/// The watch of one session.
#[derive(Debug)]
pub struct Watch {
    poll: OwnedFd,
    stop: OwnedFd,
    stopped: AtomicBool,
    next_key: AtomicU64,
    device: OnceLock<Arc<Device>>,
    connections: Mutex<HashMap<u64, Weak<Connection>>>,
    first: OnceLock<QueueError>,
}

impl Watch {
    pub(super) fn new() -> Result<Arc<Self>, VerbsError> {
        let poll =
            epoll::create(CreateFlags::CLOEXEC).map_err(|error| VerbsError::system("epoll_create", error))?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| VerbsError::system("eventfd", error))?;
        epoll::add(&poll, &stop, EventData::new_u64(STOP), EventFlags::IN)
            .map_err(|error| VerbsError::system("epoll_ctl", error))?;
        Ok(Arc::new(Self {
            poll,
            stop,
            stopped: AtomicBool::new(false),
            next_key: AtomicU64::new(DEVICE + 1),
            device: OnceLock::new(),
            connections: Mutex::new(HashMap::new()),
            first: OnceLock::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the device of the session; only the first counts.
    pub(super) fn watch_device(&self, device: &Arc<Device>) -> Result<(), VerbsError> {
        if self.device.set(device.clone()).is_ok() {
            epoll::add(&self.poll, device.events_fd(), EventData::new_u64(DEVICE), EventFlags::IN)
                .map_err(|error| VerbsError::system("epoll_ctl", error))?;
        }
        Ok(())
    }

    /// Watches a connection until it is forgotten.
    pub(super) fn remember(&self, connection: &Arc<Connection>) -> Result<(), VerbsError> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(key, Arc::downgrade(connection));
        epoll::add(&self.poll, connection.as_fd(), EventData::new_u64(key), EventFlags::IN).map_err(|error| {
            self.lock().remove(&key);
            VerbsError::system("epoll_ctl", error)
        })
    }

    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        let _ = epoll::delete(&self.poll, connection.as_fd());
        self.lock().retain(|_, known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(connection)));
    }

    /// Ends it: [`next`](Self::next) returns [`Watched::Stopped`] from now on.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }

    /// Sleeps until a queue fails or the watch is stopped. Everything in flight on the queues concerned has failed by
    /// the time it returns. The sleep has no deadline: ending it is what [`stop`](Self::stop) is for.
    #[must_use]
    pub fn next(&self) -> Watched {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            events.clear();
            // An interrupted sleep is a short one.
            let _ = epoll::wait(&self.poll, spare_capacity(&mut events), None);
            if self.stopped.load(Ordering::SeqCst) {
                return Watched::Stopped;
            }
            let mut found = None;
            for event in &events {
                let cause = match event.data.u64() {
                    STOP => None,
                    DEVICE => self.look_at_device(),
                    key => self.look_at_connection(key),
                };
                found = found.or(cause);
            }
            if let Some(cause) = found {
                let _ = self.first.set(cause.clone());
                return Watched::Failed(cause);
            }
        }
    }

    /// The first cause that [`next`](Self::next) found, if any.
    #[must_use]
    pub fn first_failure(&self) -> Option<QueueError> {
        self.first.get().cloned()
    }

    fn look_at_connection(&self, key: u64) -> Option<QueueError> {
        // Held through the look, so that it does not end on the way; let go of outside the lock.
        let connection = self.lock().get(&key).and_then(Weak::upgrade)?;
        let cause = connection.look();
        if cause.is_some() {
            self.forget(&connection);
        }
        cause
    }

    fn look_at_device(&self) -> Option<QueueError> {
        let device = self.device.get()?;
        match device.next_event() {
            Ok(None) => None,
            Ok(Some(event)) => self.handle(event),
            Err(error) => {
                log::error!("{error}: the device's events are not watched any more");
                let _ = epoll::delete(&self.poll, device.events_fd());
                self.handle(DeviceEvent::DeviceFatal)
            }
        }
    }

    /// Does what a device's event asks for: fails everything in flight on the queues that it is about, and returns the
    /// cause if there were any. [`next`](Self::next) calls it; a test may, too.
    pub fn handle(&self, event: DeviceEvent) -> Option<QueueError> {
        let connections: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        let concerned: Vec<_> = connections.iter().filter(|one| one.concerns(event)).collect();
        if concerned.is_empty() {
            log::debug!("RDMA device: {event}");
            return None;
        }
        log::warn!("RDMA device: {event}; {} queues fail", concerned.len());
        let cause = QueueError::System { call: "the RDMA device", error: event.to_string() };
        concerned.into_iter().fold(None, |first, one| first.or(Some(one.fail(cause.clone()))))
    }
}
