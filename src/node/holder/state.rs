//! What a holder knows: its copy, and the one session that may write it.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::EventfdFlags;

use super::file_record::{self, Record};
use super::gate::Gate;
use super::streams::ReceiverThread;
use super::{FenceError, HolderConfig, HolderError, copy};
use crate::base::{Deadline, FabricUrl, Generation, LifeId, RegionId, SessionId, Unsupported};
use crate::control::{CloseReason, KeySet, Token};
use crate::fabric::ExportedWindow;
use crate::fabric::shm::{GrantPage, LifeWord, OwnerProcess, take_snapshot};
use crate::memory::Mapping;
use crate::mirror::ByteRange;
use crate::node::driver::Driver;
use crate::node::message::Message;

/// How long an owner whose connection broke off is given to be dead, which spares moving the copy.
const DYING_TIME: Duration = Duration::from_millis(200);

/// What the copy is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// No owner ever pushed.
    Empty,
    /// A push began and did not complete: worth nothing.
    Partial,
    /// A copy of the region: a prefix of each lane's stores.
    Complete,
}

impl Content {
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Empty => 0,
            Self::Partial => 1,
            Self::Complete => 2,
        }
    }

    pub(super) const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Empty),
            1 => Some(Self::Partial),
            2 => Some(Self::Complete),
            _ => None,
        }
    }
}

/// What a holder holds and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderStatus {
    /// The region, once an owner attached.
    pub region: Option<RegionId>,
    /// This life of the copy.
    pub life: LifeId,
    /// Number of the grant in force, or of the last.
    pub generation: Generation,
    /// What the copy is worth.
    pub content: Content,
    /// Whether a session has access to the copy: from its attachment until a fence, another's attachment, or the
    /// holder's end, connected or not.
    pub attached: bool,
    /// Whether an owner is connected.
    pub connected: bool,
    /// Whether the connected owner is silent.
    pub silent: bool,
    /// Queues of the owner that stand, where the medium has any at this side: none on shared memory.
    pub streams: usize,
    /// Counts every change; see [`Holder::wait_change`](super::Holder::wait_change).
    pub changes: u64,
}

/// The session that has windows.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) session: SessionId,
    pub(super) driver: Arc<Driver>,
    pub(super) windows: Vec<Arc<ExportedWindow>>,
    /// Shared memory only: the grant, and the mark of this process's life in it.
    pub(super) page: Option<(Arc<GrantPage>, LifeWord)>,
    /// Every process that the memory was offered to.
    pub(super) processes: Vec<OwnerProcess>,
    /// Handed out and not used yet.
    pub(super) tokens: Vec<Token>,
    pub(super) receivers: Vec<ReceiverThread>,
    /// RDMA only: what the devices let the owner reach.
    #[cfg(feature = "rdma")]
    pub(super) export: Option<crate::fabric::verbs::Export>,
    pub(super) connected: bool,
    pub(super) silent: bool,
    /// Of an `Apply` that comes in parts.
    pub(super) apply: Vec<ByteRange>,
    /// A push: the copy becomes whole at `Complete`.
    pub(super) pushing: bool,
    /// The session that this one resumes.
    pub(super) resumes: Option<SessionId>,
}

impl Owner {
    /// Queues that stand, as far as they are seen here.
    pub(super) fn queues(&self) -> usize {
        let streams = self.receivers.iter().filter(|receiver| receiver.runs()).count();
        #[cfg(feature = "rdma")]
        let streams = streams + self.export.as_ref().map_or(0, crate::fabric::verbs::Export::connections);
        streams
    }
}

/// Everything that changes, under one lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) memory: Arc<Mapping>,
    pub(super) life: LifeId,
    pub(super) generation: Generation,
    pub(super) content: Content,
    pub(super) region: Option<RegionId>,
    /// The sessions that may be resumed: the last that completed and, where that was a resumption itself, the one that it
    /// resumed. The owner goes on from that when it did not hear that the last was complete.
    pub(super) resumable: Vec<SessionId>,
    pub(super) owner: Option<Owner>,
    /// A sync failed: what is on stable storage is unknown from then on, and no sync succeeds any more.
    pub(super) sync_failed: Option<String>,
    /// An owner that stored on against its revoked grant left the copy as no exact prefix. Until the next push.
    pub(super) inexact: bool,
    /// Fences that were asked for.
    pub(super) fences: u64,
    /// Where a copy is moved to that an owner still reaches, if it was made before it is needed.
    pub(super) spare: Option<Mapping>,
    pub(super) changes: u64,
}

impl State {
    pub(super) fn status(&self) -> HolderStatus {
        let owner = self.owner.as_ref();
        HolderStatus {
            region: self.region,
            life: self.life,
            generation: self.generation,
            content: self.content,
            attached: owner.is_some(),
            connected: owner.is_some_and(|owner| owner.connected),
            silent: owner.is_some_and(|owner| owner.connected && owner.silent),
            streams: owner.map_or(0, Owner::queues),
            changes: self.changes,
        }
    }

    /// The next generation.
    pub(super) fn raise(&mut self) -> Generation {
        self.generation = self.generation.next();
        self.generation
    }

    /// The owner, if it is of this session.
    pub(super) fn owner_of(&mut self, session: SessionId) -> Option<&mut Owner> {
        self.owner.as_mut().filter(|owner| owner.session == session)
    }
}

/// Shared by the holder's threads.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: HolderConfig,
    pub(super) url: FabricUrl,
    pub(super) keys: KeySet,
    pub(super) gate: Gate,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
    pub(super) stopping: AtomicBool,
    pub(super) wake: OwnedFd,
    /// Wakes the thread that lets queues in over RDMA.
    #[cfg(feature = "rdma")]
    pub(super) rdma_wake: OwnedFd,
    /// Every control connection, attached or not, to be ended with the holder.
    pub(super) links: Mutex<Vec<super::links::Link>>,
    /// Keeps every other holder from the file.
    _lock: Option<copy::FileLock>,
}

impl Shared {
    pub(super) fn new(
        config: HolderConfig,
        url: FabricUrl,
        keys: KeySet,
        gate: Gate,
    ) -> Result<Arc<Self>, HolderError> {
        let copy::Opened { memory, content, region, sync_failed, lock } = copy::open(&config)?;
        memory.lock(config.lock)?;
        let event = || {
            rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(std::io::Error::from)
        };
        let state = State {
            memory: Arc::new(memory),
            life: LifeId::from_bytes(crate::node::random_bytes()?),
            generation: Generation(0),
            content,
            region,
            resumable: Vec::new(),
            owner: None,
            sync_failed: sync_failed.then(|| "in an earlier life of this holder".to_owned()),
            inexact: false,
            fences: 0,
            spare: None,
            changes: 0,
        };
        Ok(Arc::new(Self {
            config,
            url,
            keys,
            gate,
            state: Mutex::new(state),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            wake: event()?,
            #[cfg(feature = "rdma")]
            rdma_wake: event()?,
            links: Mutex::new(Vec::new()),
            _lock: lock,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever waits that something changed.
    pub(super) fn note_change(&self, state: &mut State) {
        state.changes += 1;
        self.changed.notify_all();
    }

    /// Wakes the threads that wait at the door.
    pub(super) fn wake_listeners(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        #[cfg(feature = "rdma")]
        let _ = rustix::io::write(&self.rdma_wake, &1u64.to_ne_bytes());
    }

    /// Puts what the copy is to be worth on stable storage, where it is a file.
    pub(super) fn remember(
        &self,
        state: &State,
        content: Content,
        region: Option<RegionId>,
    ) -> std::io::Result<()> {
        let Some(file) = &self.config.file else { return Ok(()) };
        let bytes = self.config.size as u64;
        file_record::write(file, Record { content, region, bytes, sync_failed: state.sync_failed.is_some() })
    }

    /// Why a sync of `memory` would promise nothing, if so.
    pub(super) fn why_not_durable(&self, memory: &Mapping) -> Option<String> {
        if self.is_device() {
            // Even a file: the owner may be on another host, and what its processor stored lies in that host's page cache.
            let why = "the owner stores through a device window of its own: a sync on the holder's side reaches only what \
                       lies in the holder's page cache. Use shm:/PATH and a holder with a file on one host, tcp:// between two";
            return Some(why.to_owned());
        }
        memory.why_volatile().map(|why| match &self.config.file {
            Some(file) => format!("the holder's file {}: {why}", file.display()),
            None => "the holder keeps its copy in memory: start it with a file".to_owned(),
        })
    }

    /// Keeps in mind, over a restart too, that a sync failed.
    pub(super) fn remember_failed_sync(&self, state: &mut State, why: String) {
        state.sync_failed = Some(why);
        if let Err(error) = self.remember(state, state.content, state.region) {
            log::error!(
                "a sync failed, and that cannot be written down ({error}): do not restart on this file"
            );
        }
    }

    /// Whether the owner reaches the copy through a device window.
    pub(super) const fn is_device(&self) -> bool {
        matches!(self.url, FabricUrl::ShmDevice { .. })
    }

    /// Whether [`revoke`](Self::revoke) is more than a word to the owner.
    pub(super) fn check_closable(&self) -> Result<(), Unsupported> {
        if !self.is_device() {
            return Ok(());
        }
        Err(Unsupported {
            what: "revocation".into(),
            why: "the owner reaches this memory through a device window, which nothing here can close: power the other \
                  side off, or detach the device"
                .into(),
        })
    }

    /// Takes the windows of the present owner away and proves that nothing writes the copy any more; notes in the state
    /// when the copy is no exact prefix for it. Over a device window it can only tell the owner: see
    /// [`Shared::check_closable`].
    pub(super) fn revoke(
        &self,
        state: &mut State,
        why: &str,
        deadline: &mut Deadline,
    ) -> Result<(), FenceError> {
        if state.owner.is_none() {
            return Ok(());
        }
        let raised = state.raise();
        let Some(owner) = state.owner.as_mut() else { return Ok(()) };
        owner.windows.iter().for_each(|window| window.revoke());
        if let Some((page, _)) = &owner.page {
            page.revoke(raised);
        }
        let _ = owner.driver.send(&Message::Revoked { why: why.into() }.encode());
        owner.driver.close(CloseReason::Revoked);
        owner.receivers.iter().for_each(ReceiverThread::stop);
        while !owner.windows.iter().all(|window| window.quiesced()) {
            deadline.remaining().ok_or(FenceError::Deadline)?;
            std::thread::yield_now();
        }
        owner.receivers.drain(..).for_each(ReceiverThread::join);
        #[cfg(feature = "rdma")]
        if let Some(export) = &mut owner.export {
            super::rdma::revoke(export, &state.memory).map_err(FenceError::Device)?;
            // The thread lets go of the devices that it watches.
            let _ = rustix::io::write(&self.rdma_wake, &1u64.to_ne_bytes());
        }
        if owner.page.is_some() && !owner_is_dead(owner) {
            let fresh = state.spare.take().map_or_else(|| copy::fresh(&self.config), Ok);
            let fresh = fresh.map_err(FenceError::Map)?;
            if let Err(error) = take_snapshot(state.memory.slice(), fresh.slice(), || false) {
                log::error!("{error}");
                state.inexact = true;
            }
            // Looked at behind the copying, which reads zeroes where there is nothing any more.
            state.memory.check_whole().map_err(FenceError::Truncated)?;
            copy::settle(&self.config, &fresh).map_err(FenceError::Map)?;
            let _ = fresh
                .lock(self.config.lock)
                .map_err(|error| log::warn!("the moved copy is not locked: {error}"));
            state.memory = Arc::new(fresh);
            if let Err(error) = copy::keep_name(&self.config) {
                // A power loss may bring the old file back.
                self.remember_failed_sync(state, format!("the copy's new name: {error}"));
            }
        }
        state.owner = None;
        self.note_change(state);
        Ok(())
    }

    /// Ends every control connection and every thread that serves one.
    pub(super) fn end_sessions(&self) {
        let mut deadline = Deadline::within(Duration::from_secs(5));
        {
            let mut state = self.lock();
            if let Some(owner) = &state.owner {
                owner.windows.iter().for_each(|window| window.revoke());
                if let Some((page, _)) = &owner.page {
                    page.revoke(state.generation.next());
                }
            }
            if let Some(mut owner) = state.owner.take() {
                owner.driver.close(CloseReason::Stopping);
                owner.receivers.iter().for_each(ReceiverThread::stop);
                owner.receivers.drain(..).for_each(ReceiverThread::join);
            }
        }
        let links = std::mem::take(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner));
        links.into_iter().for_each(|link| link.end(CloseReason::Stopping, &mut deadline));
    }
}

/// Whether the owner's process is dead for certain; one whose connection broke off is given a moment to die.
fn owner_is_dead(owner: &Owner) -> bool {
    let until = Instant::now() + if owner.connected { Duration::ZERO } else { DYING_TIME };
    while !owner.processes.iter().all(OwnerProcess::is_dead) {
        if Instant::now() >= until {
            return false;
        }
        std::thread::yield_now();
    }
    true
}
