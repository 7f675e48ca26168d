//! The process: a holder without memory worth holding, whose application answers the questions of nodes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::registers::{Registers, RegistersError};
use crate::base::FabricUrl;
use crate::base::clock::Instant;
use crate::cluster::{Arbiter, Question, decode, encode, refused};
use crate::memory::LockPolicy;
use crate::node::{Attaching, Holder, HolderConfig, HolderError, HolderGate, KeySet};

/// Connections of nodes: one for each dataset of each node. One costs two threads and two descriptors here.
pub const CONNECTIONS_MAX: usize = 4096;
/// Bytes of the memory that a holder has to have.
const MEMORY_BYTES: usize = 4096;
/// A heartbeat goes out this often: thousands of connections wait here for a question now and then.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A node is called silent after this long; nothing comes of it.
const SILENCE: Duration = Duration::from_secs(10);

/// How a mediator is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediatorServerConfig {
    /// Where to listen; port 0 takes any.
    pub url: FabricUrl,
    /// What it knows is here; made where there is none. On a disk that keeps what was synced.
    pub directory: PathBuf,
    /// A node that serves alone asks this often. For three times as long after its start a mediator takes a change from the primary only.
    pub refresh: Duration,
}

impl MediatorServerConfig {
    /// The usual: nodes ask each second.
    #[must_use]
    pub const fn new(url: FabricUrl, directory: PathBuf) -> Self {
        Self { url, directory, refresh: Duration::from_secs(1) }
    }
}

/// Why a mediator does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediatorStartError {
    /// Its directory is not usable.
    #[error(transparent)]
    Registers(#[from] RegistersError),
    /// It cannot listen.
    #[error(transparent)]
    Holder(#[from] HolderError),
}

/// The mediator of any number of datasets. Ends when dropped.
#[derive(Debug)]
pub struct Mediator {
    holder: Holder,
    gate: Arc<Gate>,
}

impl Mediator {
    /// Opens the directory and listens. Whoever has one of `keys` is a node.
    ///
    /// # Errors
    /// Nothing is left behind but the directory. A file of a dataset that is damaged is no error: questions about it are refused.
    pub fn start(config: MediatorServerConfig, keys: KeySet) -> Result<Self, MediatorStartError> {
        let gate = Arc::new(Gate::open(&config.directory, config.refresh)?);
        let mut holder = HolderConfig::new(config.url, MEMORY_BYTES);
        holder.lock = LockPolicy::Off;
        holder.heartbeat = HEARTBEAT;
        holder.silence = SILENCE;
        holder.unattached = CONNECTIONS_MAX;
        let holder = Holder::start_with(holder, keys, gate.clone())?;
        Ok(Self { holder, gate })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub const fn url(&self) -> &FabricUrl {
        self.holder.url()
    }

    /// How many datasets it knows.
    #[must_use]
    pub fn datasets(&self) -> usize {
        self.gate.registers.count()
    }

    /// Ends it: what is being written is, and answered; nodes are told.
    pub fn stop(self) {
        drop(self);
    }
}

#[derive(Debug)]
struct Gate {
    registers: Registers,
    rules: Arbiter,
    start: Instant,
}

impl Gate {
    fn open(directory: &Path, refresh: Duration) -> Result<Self, RegistersError> {
        let registers = Registers::open(directory)?;
        Ok(Self { registers, rules: Arbiter::new(refresh), start: Instant::now() })
    }
}

/// What a mediator answers by, for those who listen for it in a simulated world.
#[cfg(test)]
pub(crate) fn gate(directory: &Path, refresh: Duration) -> Result<Arc<dyn HolderGate>, RegistersError> {
    Ok(Arc::new(Gate::open(directory, refresh)?))
}

impl HolderGate for Gate {
    fn may_attach(&self, _: Attaching) -> Result<(), String> {
        Err("this is a mediator: it has no memory to mirror".into())
    }

    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let told = match decode::<Question>(request) {
            Ok(question) => self.registers.answer(self.rules, &question, self.start.elapsed()),
            Err(why) => refused("unclear", why),
        };
        encode(&told)
    }
}
