//! The holder's side: a copy of one region, kept for one owner at a time.
//!
//! ```text
//! listener thread   accepts, drives handshakes, hands finished streams on      (bounded: strangers cost little)
//! link thread       one per control connection: heartbeats, messages in and out
//! service thread    one per control connection: carries out what the messages ask
//! receiver threads  one per tcp queue: the only ones that write into the copy; none for shared memory
//! ```
//!
//! Invariant: at most one session has windows, and the copy's memory is swapped, or handed to the application as
//! stable, only after every window was revoked and found quiesced.

mod apply;
mod config;
mod copy;
mod file_record;
mod gate;
mod links;
mod listener;
#[cfg(feature = "rdma")]
mod rdma;
mod service;
mod state;
mod streams;
mod whole;

pub use config::{FenceError, HolderConfig, HolderError};
pub use gate::{Attaching, HolderGate};
pub use state::{Content, HolderStatus};

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::base::{Deadline, FabricUrl, Generation, Medium};
use crate::control::KeySet;
use crate::memory::{MapError, Mapping};
use gate::Gate;
use state::Shared;

/// What is left when the owner's access was revoked.
#[derive(Debug, Clone)]
pub struct Fenced {
    /// The copy: no byte of it changes any more unless this process changes it.
    pub memory: Arc<Mapping>,
    /// The generation from now on.
    pub generation: Generation,
    /// Whether the copy is exactly a prefix of each lane's stores. `false` only when an owner went on storing through
    /// shared memory although its grant was void, when this fence or another owner's attachment revoked it; every
    /// acknowledged store is in the copy all the same. A push makes it exact again.
    pub exact: bool,
}

/// Keeps a copy of a region for an owner. Ends when dropped.
#[derive(Debug)]
pub struct Holder {
    shared: Arc<Shared>,
    url: FabricUrl,
    /// Those that wait at the door.
    listeners: Mutex<Vec<JoinHandle<()>>>,
}

impl Holder {
    /// Maps the memory, locks it and starts to listen.
    ///
    /// # Errors
    /// Nothing is left behind.
    pub fn start(config: HolderConfig, keys: KeySet) -> Result<Self, HolderError> {
        Self::begin(config, keys, Gate(None))
    }

    /// [`start`](Self::start) with an application behind it, which says who may attach and answers questions.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(
        config: HolderConfig,
        keys: KeySet,
        gate: Arc<dyn HolderGate>,
    ) -> Result<Self, HolderError> {
        Self::begin(config, keys, Gate(Some(gate)))
    }

    fn begin(config: HolderConfig, keys: KeySet, gate: Gate) -> Result<Self, HolderError> {
        listener::greeting(&config)?;
        #[cfg(feature = "rdma")]
        let (listener, url, rdma) = listener::bind_both(&config)?;
        #[cfg(not(feature = "rdma"))]
        let (listener, url) = listener::bind(&config)?;
        let shared = Shared::new(config, url.clone(), keys, gate)?;
        let thread = listener::start(listener, shared.clone())?;
        let holder = Self { shared, url, listeners: Mutex::new(vec![thread]) };
        #[cfg(feature = "rdma")]
        if let Some(rdma) = rdma {
            let thread = rdma::start(rdma, holder.shared.clone())?;
            holder.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(holder)
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub const fn url(&self) -> &FabricUrl {
        &self.url
    }

    /// What it holds and for whom.
    #[must_use]
    pub fn status(&self) -> HolderStatus {
        self.shared.lock().status()
    }

    /// Writes `value`, as eight little-endian bytes, at the aligned `offset` of the copy: a word that the owner fetches
    /// ([`Lane::fetch`](crate::Lane::fetch)) and never stores to. It is never seen half written by this machine's
    /// processors, and whoever sees it sees what this thread wrote before.
    ///
    /// Write such words in no other way while an owner may come: the copy moves to other memory when a new session over
    /// shared memory takes the place of one whose process lives, and must hold still meanwhile. This waits for that.
    ///
    /// # Panics
    /// When the word does not lie within the copy or is not aligned.
    pub fn publish_word(&self, offset: usize, value: u64) {
        self.shared.lock().memory.slice().store_word(offset, value);
    }

    /// The copy as it is now; an owner may be writing it. After [`fence`](Self::fence) it is stable. Ask again after each
    /// change of [`HolderStatus::generation`]: the copy may have moved to other memory.
    #[must_use]
    pub fn memory(&self) -> Arc<Mapping> {
        self.shared.lock().memory.clone()
    }

    /// Takes the owner's access away: on return no byte of the copy changes any more by anybody else's doing, and every
    /// store that was acknowledged, at any time, is in it. The owner is told. It cannot resume; a new attachment by
    /// `Pull` is possible, where the [`HolderGate`] does not say otherwise: what it allowed before counts no more.
    ///
    /// # Errors
    /// [`FenceError::Unsupported`] where nothing can take access away (a device window): the owner goes on;
    /// [`FenceError::Deadline`] when a request that was being carried out did not end in time: nothing more is let in,
    /// try again; [`FenceError::Truncated`] when somebody cut the file behind the copy.
    pub fn fence(&self, mut deadline: Deadline) -> Result<Fenced, FenceError> {
        self.shared.check_closable()?;
        let mut state = self.shared.lock();
        state.fences += 1;
        self.shared.revoke(&mut state, "the holder was fenced", &mut deadline)?;
        state.memory.check_whole().map_err(FenceError::Truncated)?;
        state.resumable.clear();
        state.raise();
        let exact = !state.inexact;
        Ok(Fenced { memory: state.memory.clone(), generation: state.generation, exact })
    }

    /// Makes ready what a [`fence`](Self::fence) may need, so that it takes less long: over shared memory the copy of an owner that lives moves to
    /// memory of its own, as large as the copy. It is kept until then, or until [`forget_fence`](Self::forget_fence).
    ///
    /// # Errors
    /// There is no such memory. A fence tries again.
    pub fn prepare_fence(&self) -> Result<(), MapError> {
        let config = &self.shared.config;
        let moves = config.url.medium() == Medium::Shm && config.file.is_none() && !self.shared.is_device();
        if !moves || self.shared.lock().spare.is_some() {
            return Ok(());
        }
        let spare = copy::fresh(config)?;
        spare.populate();
        self.shared.lock().spare = Some(spare);
        Ok(())
    }

    /// Gives back what [`prepare_fence`](Self::prepare_fence) made and no fence has used.
    pub fn forget_fence(&self) {
        let unused = self.shared.lock().spare.take();
        drop(unused); // behind the lock: it takes its time
    }

    /// Waits until something changed since `seen`, a count that [`HolderStatus::changes`] gives, or the deadline passed.
    #[must_use]
    pub fn wait_change(&self, seen: u64, mut deadline: Deadline) -> HolderStatus {
        let mut state = self.shared.lock();
        while state.changes == seen {
            let Some(left) = deadline.remaining() else { break };
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.status()
    }

    /// Ends it: the owner is told, threads are joined, memory that is no file is gone with the last reference to it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.wake_listeners();
        for thread in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
        self.shared.end_sessions();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::memory::LockPolicy;
    use crate::node::{Attach, Region, RegionConfig};

    #[test]
    fn a_copy_that_is_no_prefix_is_told_by_every_fence_until_a_push() {
        let keys = KeySet::from_bytes(&[[7; 32]]).unwrap();
        let mut config = HolderConfig::new("tcp://127.0.0.1:0".parse().unwrap(), 4096);
        config.lock = LockPolicy::Off;
        let holder = Holder::start(config, keys.clone()).unwrap();
        let soon = || Deadline::within(Duration::from_secs(10));
        let attach = |attach| {
            let mut config = RegionConfig::new(holder.url().clone(), 4096, attach);
            config.lock = LockPolicy::Off;
            Region::open(config, keys.clone()).unwrap()
        };
        let _first = attach(Attach::Push { replace: false });
        assert!(holder.fence(soon()).unwrap().exact);
        // As an attachment leaves it that met an owner which stored on.
        holder.shared.lock().inexact = true;
        let _second = attach(Attach::Pull);
        assert!(!holder.fence(soon()).unwrap().exact);
        assert!(!holder.fence(soon()).unwrap().exact);
        let _third = attach(Attach::Push { replace: true });
        assert!(holder.fence(soon()).unwrap().exact);
    }

    #[test]
    fn a_holder_that_could_greet_nobody_does_not_start() {
        let keys = KeySet::from_bytes(&[[7; 32]]).unwrap();
        let usual = HolderConfig::new("tcp://127.0.0.1:0".parse().unwrap(), 4096);
        for (heartbeat, silence) in [
            (Duration::ZERO, usual.silence),
            (usual.heartbeat, Duration::ZERO),
            (usual.heartbeat, Duration::MAX),
        ] {
            let config = HolderConfig { heartbeat, silence, ..usual.clone() };
            let error = Holder::start(config, keys.clone()).unwrap_err();
            assert!(matches!(error, HolderError::Interval(_)), "{error}");
        }
    }
}
