//! An owner's RDMA of one session: the queues' maker, and the thread that watches them.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use super::call::CallError;
use super::session::Session;
use crate::base::Deadline;
use crate::control::Token;
use crate::fabric::verbs::{Connector, QueueOptions, VerbsError, VerbsQueue, Watched};
use crate::memory::Mapping;
use crate::mirror::{LostReason, RegionCore};

/// Makes queues over RDMA; ends its thread when dropped.
#[derive(Debug)]
pub(super) struct RdmaLink {
    connector: Connector,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl RdmaLink {
    /// For queues to where the control connection of `session` leads. What ends one of them ends the link of `core`.
    pub(super) fn new(
        session: &Session,
        local: Arc<Mapping>,
        core: Weak<RegionCore>,
    ) -> Result<Self, CallError> {
        let target =
            session.peer().ok_or_else(|| CallError::Ended("the control connection has no address".into()))?;
        let connector = Connector::new(target, local, true).map_err(|error| failed(&error))?;
        let watch = connector.watch().clone();
        let thread = std::thread::Builder::new().name("mirrorbus-rdma".into()).spawn(move || {
            while let Watched::Failed(cause) = watch.next() {
                if let Some(core) = core.upgrade() {
                    core.lose(LostReason::Queue(cause));
                }
            }
        });
        match thread {
            Ok(thread) => Ok(Self { connector, thread: Mutex::new(Some(thread)) }),
            Err(error) => Err(CallError::Ended(format!("no thread for RDMA: {error}"))),
        }
    }

    /// One more queue, admitted by `token`.
    pub(super) fn queue(
        &self,
        session: &Session,
        token: &Token,
        options: &QueueOptions,
        deadline: &mut Deadline,
    ) -> Result<VerbsQueue, CallError> {
        self.connector.connect(session.id(), token, options, deadline).map_err(|error| failed(&error))
    }

    /// What ended a queue, if anything did: also before the link was put up.
    pub(super) fn failure(&self) -> Option<LostReason> {
        self.connector.watch().first_failure().map(LostReason::Queue)
    }

    /// Ends the watching: nothing of these queues reaches the region afterwards.
    pub(super) fn stop(&self) {
        self.connector.watch().stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

fn failed(error: &VerbsError) -> CallError {
    match error {
        VerbsError::Deadline { .. } => CallError::Timeout,
        error => CallError::Ended(format!("RDMA: {error}")),
    }
}

impl Drop for RdmaLink {
    fn drop(&mut self) {
        self.stop();
    }
}
