//! Requests over a control connection, with deadlines, and what the holder says unasked.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::base::{Deadline, Medium, SessionId};
use crate::control::Event;
use crate::mirror::{LostReason, PendingSync, RegionCore};
use crate::node::message::{Message, RefusalCode};

/// A request that did not get what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No answer in time.
    #[error("the holder did not answer within the deadline")]
    Timeout,
    /// The control connection ended.
    #[error("the control connection ended: {0}")]
    Ended(String),
    /// The holder said no.
    #[error("the holder refused: {why}")]
    Refused {
        /// Why, as a code.
        code: RefusalCode,
        /// Why, in words, with numbers.
        why: String,
    },
    /// More was asked than fits in a question.
    #[error("a question of {len} bytes, the limit is {max}: ask in parts")]
    TooLong {
        /// Bytes asked.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The holder's answer makes no sense.
    #[error("the holder answered out of turn: {0}")]
    Confused(String),
}

/// The requests of one connection, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Calls {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) next: u32,
    /// `None` until the answer came.
    pub(super) waiting: HashMap<u32, Option<Message>>,
    pub(super) established: Option<SessionId>,
    pub(super) ended: Option<String>,
    pub(super) revoked: Option<String>,
    pub(super) silent_since: Option<Instant>,
}

impl Calls {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds something in the state.
    pub(super) fn wait<T>(
        &self,
        deadline: &mut Deadline,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, CallError> {
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Ok(found);
            }
            if let Some(why) = &state.ended {
                return Err(CallError::Ended(why.clone()));
            }
            let left = deadline.remaining().ok_or(CallError::Timeout)?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn handle(&self, event: Event, core: &Weak<RegionCore>, medium: Medium) {
        let lose = |reason| {
            if let Some(core) = core.upgrade() {
                core.lose(reason);
            }
        };
        let mut state = self.lock();
        match event {
            Event::Established { session, .. } => state.established = Some(session),
            Event::Message { body, .. } => match Message::decode(&body) {
                Ok(Message::Revoked { why }) => {
                    state.revoked = Some(why.clone());
                    lose(LostReason::Revoked(why));
                }
                Ok(message) => {
                    if let Some(slot) = message.answers().and_then(|request| state.waiting.get_mut(&request))
                    {
                        *slot = Some(message);
                    }
                }
                Err(error) => log::warn!("{error}"),
            },
            Event::PeerSilent => {
                state.silent_since = Some(Instant::now());
                // Where stores need the peer's processor, silence is loss. Memory takes stores all the same.
                if medium == Medium::Tcp {
                    lose(silence());
                }
            }
            Event::PeerHeard => state.silent_since = None,
            Event::Closed { reason } => {
                state.ended = Some(reason.to_string());
                lose(LostReason::Control(format!("the control connection: {reason}")));
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

pub(super) fn silence() -> LostReason {
    LostReason::Control("nothing was heard of the holder for the silence time".into())
}

/// A request that was sent. Its answer is waited for as often as need be; dropped, nobody takes it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) calls: Arc<Calls>,
    pub(super) request: u32,
}

impl Call {
    /// Waits for the answer.
    pub(super) fn wait(&mut self, deadline: &mut Deadline) -> Result<Message, CallError> {
        let request = self.request;
        let answer =
            self.calls.wait(deadline, |state| state.waiting.get_mut(&request).and_then(Option::take))?;
        match answer {
            Message::Refused { code, why, .. } => Err(CallError::Refused { code, why }),
            other => Ok(other),
        }
    }

    /// [`wait`](Self::wait) for requests that are just done.
    pub(super) fn done(&mut self, deadline: &mut Deadline) -> Result<(), CallError> {
        match self.wait(deadline)? {
            Message::Done { .. } => Ok(()),
            other => Err(CallError::Confused(format!("{other:?}"))),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.lock().waiting.remove(&self.request);
    }
}

impl PendingSync for Call {
    fn wait(&mut self, deadline: &mut Deadline) -> Result<bool, String> {
        match self.done(deadline) {
            Ok(()) => Ok(true),
            Err(CallError::Timeout) => Ok(false),
            Err(error) => Err(self.calls.told(error, deadline)),
        }
    }
}

impl Calls {
    /// What `error` says. A connection refuses messages a moment before its end is told: the caller is to find the link
    /// lost.
    pub(super) fn told(&self, error: CallError, deadline: &mut Deadline) -> String {
        if matches!(error, CallError::Ended(_)) {
            let _ = self.wait(deadline, |_| None::<()>);
        }
        error.to_string()
    }
}
