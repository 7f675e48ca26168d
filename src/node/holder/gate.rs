//! The application behind a holder: it says whether somebody may attach now, and answers what a peer's application asks.
//!
//! Both are called on the thread that serves the connection which asks, and no lock is held: the application may ask the
//! holder for its status, or fence it. A permission that was given before a fence is worth nothing after it: the holder
//! looks whether it was fenced since it asked, and refuses then. So an application that takes over first decides that
//! nobody may attach, then fences, and no newcomer slips in between.

use std::fmt;
use std::sync::Arc;

use super::service::{Refusal, Service};
use crate::node::message::{AttachMode, REQUEST_BYTES_MAX, RefusalCode};

/// What somebody who asks to attach is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attaching {
    /// Bring his bytes here. The copy is worth nothing until that is complete.
    Push {
        /// Also over a copy that is complete.
        replace: bool,
    },
    /// Take the copy's bytes.
    Pull,
    /// Prove that both have the same.
    Equal,
    /// Go on after his link was lost.
    Resume,
}

/// What the application of a holder decides and answers. Its calls hold up the connection that asks, and the end of the
/// holder: they must return in bounded time. They must not drop the holder.
pub trait HolderGate: Send + Sync {
    /// Whether somebody may attach now; asked before anybody's access is taken away for it.
    ///
    /// # Errors
    /// Why not, in words: the peer is told with [`RefusalCode::NotNow`].
    fn may_attach(&self, attaching: Attaching) -> Result<(), String>;

    /// The answer to what a peer's application asked, attached or not: at most [`REQUEST_BYTES_MAX`] bytes, as the
    /// question. A peer has the key, but its bytes are to be checked like any input.
    fn answer(&self, request: &[u8]) -> Vec<u8>;
}

/// The application, if there is one.
#[derive(Clone)]
pub(super) struct Gate(pub(super) Option<Arc<dyn HolderGate>>);

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Gate(application)" } else { "Gate(open)" })
    }
}

impl Service {
    /// Whether the application lets somebody attach.
    pub(super) fn may_attach(&self, mode: AttachMode) -> Result<(), Refusal> {
        let Some(gate) = &self.shared.gate.0 else { return Ok(()) };
        let attaching = match mode {
            AttachMode::Push => Attaching::Push { replace: false },
            AttachMode::PushReplace => Attaching::Push { replace: true },
            AttachMode::Pull => Attaching::Pull,
            AttachMode::Equal => Attaching::Equal,
            AttachMode::Resume => Attaching::Resume,
        };
        gate.may_attach(attaching).map_err(|why| (RefusalCode::NotNow, why))
    }

    /// What the application answers.
    pub(super) fn answer(&self, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let Some(gate) = &self.shared.gate.0 else {
            return Err((RefusalCode::Unsupported, "no application answers at this holder".into()));
        };
        let answer = gate.answer(request);
        if answer.len() > REQUEST_BYTES_MAX {
            let why = format!("its answer has {} bytes, the limit is {REQUEST_BYTES_MAX}", answer.len());
            return Err((RefusalCode::Resources, why));
        }
        Ok(answer)
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
