//! What a node knows of a dataset, under one lock, and how those who wait for a change of it are woken.
//!
//! ```text
//!                    found the peer, or told to            fenced, drained
//!   Undecided ─┬──────────────────────────────▶ Primary ◀──────────────── Secondary
//!              └──────────────────────────────▶ Secondary      (promote)
//!   any ─▶ Failed: a sync failed, or what is stored is damaged; only a restart leads out
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::config::CommandError;
use super::counters::Counters;
use super::error::IoError;
use super::follower::Secondary;
use super::primary::{HandOver, Primary};
use super::register::Position;
use super::ring_memory::RingMemory;
use super::volumes::Volumes;
#[cfg(test)]
use super::world::{Defect, breaks};
use crate::base::locks::{Condvar, Mutex, MutexGuard};
use crate::memory::Piece;
use crate::segment::{Destage, DestageWrite};

/// What this node is for the dataset.
#[derive(Debug)]
pub(super) enum Role {
    /// Has its log, and waits for the peer or the operator.
    Undecided,
    /// Follows a primary, or waits for it.
    Secondary(Box<Secondary>),
    /// Serves.
    Primary(Box<Primary>),
    /// Out of service.
    Failed {
        /// Why.
        why: String,
    },
}

/// All of it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) role: Role,
    pub(super) volumes: Volumes,
    /// What this node's log has; of a primary and a follower as of the last change of role.
    pub(super) position: Position,
    /// Counts changes of role and of generation: what was asked before is not answered after.
    pub(super) epoch: u64,
    /// Why it is as it is, for people: a word for machines, and a sentence.
    pub(super) reason: Reason,
    /// Everything before is in the checkpoint.
    pub(super) checkpoint: crate::base::Lsn,
    /// Where the marker lies, if there is one.
    pub(super) marker: Option<crate::base::Lsn>,
    /// The dataset ends: nothing is taken any more.
    pub(super) stopping: bool,
}

/// Why something is as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// For machines.
    pub code: &'static str,
    /// For people.
    pub text: String,
}

impl Reason {
    pub(super) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl State {
    /// The serving state of `epoch`, or why there is none.
    pub(super) fn primary(&mut self, epoch: u64) -> Result<&mut Primary, IoError> {
        if self.stopping {
            return Err(IoError::Stopping);
        }
        #[cfg(test)]
        let epoch = if breaks(Defect::AnswersAcrossRoles) { self.epoch } else { epoch };
        if epoch != self.epoch {
            return Err(IoError::RoleChanged);
        }
        match &mut self.role {
            Role::Primary(primary) => Ok(primary),
            Role::Failed { why } => Err(IoError::Failed(why.clone())),
            Role::Undecided | Role::Secondary(_) => Err(IoError::RoleChanged),
        }
    }

    /// The same for a client: nobody is served any more when the service was handed over, though the log is still written out.
    pub(super) fn serving(&mut self, epoch: u64) -> Result<&mut Primary, IoError> {
        let primary = self.primary(epoch)?;
        #[cfg(test)]
        if breaks(Defect::AnswersWhileItHandsOver) {
            return Ok(primary);
        }
        if primary.hand_over == HandOver::Done { Err(IoError::RoleChanged) } else { Ok(primary) }
    }

    /// What is being destaged.
    pub(super) fn destage(&mut self) -> Option<&mut Destage> {
        match &mut self.role {
            Role::Primary(primary) => Some(&mut primary.log.destage),
            Role::Secondary(secondary) => secondary.destage(),
            Role::Undecided | Role::Failed { .. } => None,
        }
    }

    /// The next part of the log to be written to a file, the pieces of the ring of which it consists, and that.
    pub(super) fn next_write(&mut self, bytes_max: u64) -> Option<(DestageWrite, Vec<Piece>, RingMemory)> {
        match &mut self.role {
            Role::Primary(primary) => {
                let (write, pieces) = primary.log.next_write(bytes_max)?;
                Some((write, pieces, primary.log.memory().clone()))
            }
            Role::Secondary(secondary) => secondary.next_write(bytes_max),
            Role::Undecided | Role::Failed { .. } => None,
        }
    }

    /// Bytes of the log that are not durable here.
    pub(super) fn behind(&self) -> u64 {
        match &self.role {
            Role::Primary(primary) => primary.log.end().0 - primary.log.own_durable().0,
            Role::Secondary(secondary) => secondary.applied.0.saturating_sub(secondary.durable.0),
            Role::Undecided | Role::Failed { .. } => 0,
        }
    }

    /// Takes the node out of service for this dataset.
    pub(super) fn fail(&mut self, code: &'static str, why: String) {
        if matches!(self.role, Role::Failed { .. }) {
            return;
        }
        log::error!("out of service: {why}");
        self.reason = Reason::new(code, why.clone());
        self.role = Role::Failed { why };
        self.epoch += 1;
    }

    /// An error if it was put out of service: whoever was about to give it another role does not. Only a restart leads out of that, since a
    /// thread that it serves by may have ended.
    pub(super) fn still_in_service(&self) -> Result<(), CommandError> {
        match &self.role {
            Role::Failed { why } => Err(CommandError::Refused(format!("out of service: {why}"))),
            Role::Undecided | Role::Primary(_) | Role::Secondary(_) => Ok(()),
        }
    }

    /// Says why this node is as it is, if that is something else than before; whether it is. One that is out of service says on why that is, whatever
    /// somebody comes to know who was still about to do something.
    pub(super) fn explain(&mut self, reason: Reason) -> bool {
        let is_new = self.reason != reason && !matches!(self.role, Role::Failed { .. });
        if is_new {
            self.reason = reason;
        }
        is_new
    }
}

/// The state behind its lock.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Who waits on `changed`: nobody is woken for nothing.
    waiters: AtomicU64,
    /// Wakes the tender.
    tender: Arc<Bell>,
    pub(super) counters: Counters,
    /// A checkpoint is being written, or room given back.
    pub(super) keeping: AtomicBool,
}

/// Wakes one thread that naps.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    rings: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        let mut rung = self.rung.lock();
        if !std::mem::replace(&mut *rung, true) {
            self.rings.notify_one();
        }
    }

    /// Sleeps until it is rung, or for as long.
    pub(super) fn nap(&self, most: Duration) {
        self.is_rung_within(most);
    }

    /// The same; whether it was rung.
    pub(super) fn is_rung_within(&self, most: Duration) -> bool {
        let mut rung = self.rung.lock();
        if !*rung {
            let _ = self.rings.wait_for(&mut rung, most);
        }
        std::mem::take(&mut *rung)
    }
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            waiters: AtomicU64::new(0),
            tender: Arc::default(),
            counters: Counters::default(),
            keeping: AtomicBool::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The state if nobody holds it for long.
    pub(super) fn try_lock(&self, within: Duration) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock_for(within)
    }

    /// The state if nobody holds it, for whoever waits for nobody.
    #[cfg(test)]
    pub(super) fn at_once(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock()
    }

    /// Waits for a change, at most for `most`.
    pub(super) fn wait(&self, state: &mut MutexGuard<'_, State>, most: Duration) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let _ = self.changed.wait_for(state, most);
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// Tells those who wait that something changed.
    pub(super) fn tell(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            self.changed.notify_all();
        }
    }

    pub(super) const fn bell(&self) -> &Arc<Bell> {
        &self.tender
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_node_is_out_of_service_stays_its_reason() {
        let mut state = State {
            role: Role::Undecided,
            volumes: Volumes::default(),
            position: Position::default(),
            epoch: 0,
            reason: Reason::new("undecided", "it was just opened"),
            checkpoint: crate::base::Lsn::ZERO,
            marker: None,
            stopping: false,
        };
        let held = Reason::new("held", "the node that serves is not heard");
        assert!(state.explain(held.clone()));
        assert!(!state.explain(held.clone()), "it says so already");
        state.fail("sync-failed", "its disk failed".into());
        assert!(!state.explain(held));
        assert_eq!(state.reason.code, "sync-failed");
    }
}
