//! A holder: memory, who may write it, and the application behind it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::net;
use super::region::Session;
use crate::base::{Deadline, Generation, LifeId};
use crate::memory::{MapError, MapOptions, Mapping};
use crate::node::{
    Attaching, Content, FenceError, Fenced, HolderConfig, HolderError, HolderGate, HolderStatus, KeySet,
    RefusalCode,
};
use crate::sim::scheduler::{self, ProcessId};

/// Who may write.
#[derive(Debug, Clone)]
struct Owner {
    session: u64,
    process: ProcessId,
    machine: usize,
    has_ended: Arc<AtomicBool>,
    resumes: Option<u64>,
    pushing: bool,
    /// And it is known here.
    is_gone: bool,
}

#[derive(Debug)]
struct State {
    generation: Generation,
    content: Content,
    owner: Option<Owner>,
    resumable: Vec<u64>,
    fences: u64,
}

pub(in crate::store) struct HolderCore {
    pub(super) process: ProcessId,
    machine: usize,
    life: LifeId,
    pub(super) memory: Arc<Mapping>,
    pub(super) gate: Arc<dyn HolderGate>,
    state: Mutex<State>,
}

impl std::fmt::Debug for HolderCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HolderCore").finish_non_exhaustive()
    }
}

/// What an owner is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted {
    pub(super) life: LifeId,
}

pub(super) type Refusal = (RefusalCode, String);

impl HolderCore {
    pub(super) fn start(config: &HolderConfig, gate: Arc<dyn HolderGate>) -> Result<Arc<Self>, HolderError> {
        let process = scheduler::current_process().expect("a simulated thread");
        let state = State {
            generation: Generation::default(),
            content: Content::Empty,
            owner: None,
            resumable: Vec::new(),
            fences: 0,
        };
        let holder = Arc::new(Self {
            process,
            machine: net::machine_of(process),
            life: LifeId::from_bytes(scheduler::random_bytes().expect("a simulated thread")),
            memory: Arc::new(Mapping::anonymous(config.size, MapOptions::default())?),
            gate,
            state: Mutex::new(state),
        });
        net::listen(&config.url, process, holder.clone());
        Ok(holder)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the owner is there, as far as it is known here: heartbeats go both ways all the time.
    fn is_connected(&self, state: &mut State) -> bool {
        let Some(owner) = &mut state.owner else { return false };
        let has_ended = owner.has_ended.load(Ordering::SeqCst) || scheduler::is_dead(owner.process);
        if has_ended && net::is_heard(owner.machine, self.machine) {
            owner.is_gone = true;
        }
        !owner.is_gone
    }

    pub(super) fn status(&self) -> HolderStatus {
        let mut state = self.state();
        let connected = self.is_connected(&mut state);
        HolderStatus {
            region: None,
            life: self.life,
            generation: state.generation,
            content: state.content,
            attached: state.owner.is_some(),
            connected,
            silent: false,
            streams: 0,
            changes: 0,
        }
    }

    /// Whether somebody may write its memory, there or not.
    pub(in crate::store) fn has_owner(&self) -> bool {
        self.state().owner.is_some()
    }

    pub(super) fn is_owner(&self, session: u64) -> bool {
        self.state().owner.as_ref().is_some_and(|owner| owner.session == session)
    }

    pub(super) fn fence(&self, _: Deadline) -> Result<Fenced, FenceError> {
        scheduler::sleep(Duration::from_micros(scheduler::random(|random| 50 + random.below(300))));
        let mut state = self.state();
        state.fences += 1;
        if let Some(owner) = state.owner.take() {
            net::tell_revoked(owner.session, self.machine);
        }
        state.resumable.clear();
        state.generation = state.generation.next();
        Ok(Fenced { memory: self.memory.clone(), generation: state.generation, exact: true })
    }

    /// Lets an owner in; `prior`: the session that it resumes.
    pub(super) fn attach(&self, session: &Session, prior: Option<(u64, LifeId)>) -> Result<Granted, Refusal> {
        let attaching = if prior.is_some() { Attaching::Resume } else { Attaching::Push { replace: true } };
        let fences = self.state().fences;
        self.gate.may_attach(attaching).map_err(|why| (RefusalCode::NotNow, why))?;
        let mut state = self.state();
        if state.fences != fences {
            return Err((RefusalCode::NotNow, "the holder was fenced meanwhile".into()));
        }
        if let Some((prior, life)) = prior {
            let is_same = life == self.life && state.resumable.contains(&prior);
            if !is_same || state.content != Content::Complete {
                return Err((RefusalCode::NotResumable, "open the region anew".into()));
            }
        }
        let is_connected = self.is_connected(&mut state);
        if let Some(owner) = &state.owner {
            let is_live = is_connected
                && !scheduler::is_paused(owner.process)
                && net::silent_for(owner.process, self.machine) < net::SILENCE
                && owner.process != session.owner;
            if is_live {
                return Err((RefusalCode::Busy, "another owner is connected".into()));
            }
        }
        state.generation = state.generation.next();
        if prior.is_none() {
            state.content = Content::Partial;
            state.resumable.clear();
        }
        state.owner = Some(Owner {
            session: session.number,
            process: session.owner,
            machine: session.machines().0,
            has_ended: session.has_ended.clone(),
            resumes: prior.map(|(prior, _)| prior),
            pushing: prior.is_none(),
            is_gone: false,
        });
        Ok(Granted { life: self.life })
    }

    /// All is here.
    pub(super) fn complete(&self, session: u64) -> Result<(), Refusal> {
        let mut state = self.state();
        let owner = state.owner.clone().filter(|owner| owner.session == session);
        let owner = owner.ok_or_else(|| (RefusalCode::OutOfOrder, "it has no access".to_owned()))?;
        if owner.pushing {
            state.content = Content::Complete;
        }
        state.resumable = owner.resumes.into_iter().chain([session]).collect();
        Ok(())
    }
}

/// A holder, real or simulated.
#[derive(Debug)]
pub(in crate::store) enum Holder {
    Real(crate::node::Holder),
    Simulated(Arc<HolderCore>),
}

impl Holder {
    pub(in crate::store) fn start_with(
        config: HolderConfig,
        keys: KeySet,
        gate: Arc<dyn HolderGate>,
    ) -> Result<Self, HolderError> {
        if scheduler::is_simulated() {
            return HolderCore::start(&config, gate).map(Self::Simulated);
        }
        crate::node::Holder::start_with(config, keys, gate).map(Self::Real)
    }

    pub(in crate::store) fn status(&self) -> HolderStatus {
        match self {
            Self::Real(holder) => holder.status(),
            Self::Simulated(holder) => holder.status(),
        }
    }

    pub(in crate::store) fn publish_word(&self, offset: usize, value: u64) {
        match self {
            Self::Real(holder) => holder.publish_word(offset, value),
            Self::Simulated(holder) => holder.memory.slice().store_word(offset, value),
        }
    }

    pub(in crate::store) fn memory(&self) -> Arc<Mapping> {
        match self {
            Self::Real(holder) => holder.memory(),
            Self::Simulated(holder) => holder.memory.clone(),
        }
    }

    pub(in crate::store) fn prepare_fence(&self) -> Result<(), MapError> {
        match self {
            Self::Real(holder) => holder.prepare_fence(),
            Self::Simulated(_) => Ok(()),
        }
    }

    pub(in crate::store) fn forget_fence(&self) {
        if let Self::Real(holder) = self {
            holder.forget_fence();
        }
    }

    pub(in crate::store) fn fence(&self, deadline: Deadline) -> Result<Fenced, FenceError> {
        match self {
            Self::Real(holder) => holder.fence(deadline),
            Self::Simulated(holder) => holder.fence(deadline),
        }
    }
}
