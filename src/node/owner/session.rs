//! The owner's end of a control connection: requests with deadlines, and what the holder says unasked.

use std::collections::HashMap;
#[cfg(feature = "rdma")]
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::base::{Deadline, FabricUrl, Medium, SessionId};
use crate::control::{CloseReason, Connection, ConnectionConfig, Event, Hello, KeySet};
use crate::mirror::{LostReason, PeerSync, RegionCore};
use crate::node::driver::Driver;
use crate::node::message::{Message, RefusalCode};
use crate::node::stream::dial;

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

/// One control connection of an owner.
#[derive(Debug)]
pub(super) struct Session {
    driver: Driver,
    calls: Arc<Calls>,
    id: SessionId,
    medium: Medium,
    /// The other end, where it has an address.
    #[cfg(feature = "rdma")]
    peer: Option<SocketAddr>,
}

#[derive(Debug, Default)]
struct Calls {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    /// `None` until the answer came.
    waiting: HashMap<u32, Option<Message>>,
    established: Option<SessionId>,
    ended: Option<String>,
    revoked: Option<String>,
    silent_since: Option<Instant>,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds something in the state.
    fn wait<T>(
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

    fn handle(&self, event: Event, core: &Weak<RegionCore>, medium: Medium) {
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

fn silence() -> LostReason {
    LostReason::Control("nothing was heard of the holder for the silence time".into())
}

impl Session {
    /// Connects and authenticates. What ends the link of `core`, if there is one, takes it down.
    pub(super) fn connect(
        url: &FabricUrl,
        keys: &KeySet,
        heartbeat: Duration,
        silence: Duration,
        core: Weak<RegionCore>,
        deadline: &mut Deadline,
    ) -> Result<Self, CallError> {
        let ended = |why: String| CallError::Ended(why);
        let socket: OwnedFd =
            dial(url, deadline).map_err(|error| ended(format!("cannot reach {url}: {error}")))?;
        #[cfg(feature = "rdma")]
        let peer = rustix::net::getpeername(&socket).ok().flatten();
        let hello =
            Hello::new(0, heartbeat, silence, Vec::new()).map_err(|error| ended(error.to_string()))?;
        let connection = Connection::initiate(ConnectionConfig::new(hello), keys, Instant::now());
        let calls = Arc::new(Calls::default());
        let driver = {
            let (calls, medium) = (calls.clone(), url.medium());
            Driver::start("mirrorbus-link", connection, socket, move |event| {
                calls.handle(event, &core, medium)
            })
            .map_err(|error| ended(error.to_string()))?
        };
        let id = calls.wait(deadline, |state| state.established)?;
        Ok(Self {
            driver,
            calls,
            id,
            medium: url.medium(),
            #[cfg(feature = "rdma")]
            peer: peer.and_then(|peer| SocketAddr::try_from(peer).ok()),
        })
    }

    /// Its name, equal on both sides.
    pub(super) const fn id(&self) -> SessionId {
        self.id
    }

    /// For how long the holder has been silent, if it is.
    pub(super) fn silent_for(&self) -> Option<Duration> {
        self.calls.lock().silent_since.map(|since| since.elapsed())
    }

    /// Sends what `message` makes of a request number and waits for the answer.
    pub(super) fn call(
        &self,
        deadline: &mut Deadline,
        message: impl FnOnce(u32) -> Message,
    ) -> Result<Message, CallError> {
        let request = {
            let mut state = self.calls.lock();
            state.next = state.next.wrapping_add(1);
            let request = state.next;
            state.waiting.insert(request, None);
            request
        };
        let answer = self
            .driver
            .send(&message(request).encode())
            .map_err(|error| CallError::Ended(error.to_string()))
            .and_then(|()| {
                self.calls.wait(deadline, |state| state.waiting.get_mut(&request).and_then(Option::take))
            });
        self.calls.lock().waiting.remove(&request);
        match answer? {
            Message::Refused { code, why, .. } => Err(CallError::Refused { code, why }),
            other => Ok(other),
        }
    }

    /// [`call`](Self::call) for requests that are just done.
    pub(super) fn done(
        &self,
        deadline: &mut Deadline,
        message: impl FnOnce(u32) -> Message,
    ) -> Result<(), CallError> {
        match self.call(deadline, message)? {
            Message::Done { .. } => Ok(()),
            other => Err(CallError::Confused(format!("{other:?}"))),
        }
    }

    /// Where it leads, over a network.
    #[cfg(feature = "rdma")]
    pub(super) const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Closes in good order, waiting briefly for the holder to agree.
    pub(super) fn close(&self, within: Duration) {
        self.driver.close(CloseReason::Finished);
        let mut deadline = Deadline::within(within);
        let _ = self.calls.wait(&mut deadline, |state| state.ended.clone());
        self.driver.abort();
    }

    /// Puts `core` up over this session; what takes a link down and came before takes it down again.
    pub(super) fn put_up(self: &Arc<Self>, core: &RegionCore) {
        core.restore(self.clone());
        let state = self.calls.lock();
        if let Some(why) = &state.revoked {
            core.lose(LostReason::Revoked(why.clone()));
        }
        if let Some(why) = &state.ended {
            core.lose(LostReason::Control(format!("the control connection: {why}")));
        }
        if state.silent_since.is_some() && self.medium == Medium::Tcp {
            core.lose(silence());
        }
    }

    /// Cuts the connection; nothing of it reaches the region afterwards.
    pub(super) fn abort(&self) {
        self.driver.abort();
    }
}

impl PeerSync for Session {
    fn sync(&self, deadline: &mut Deadline) -> Result<bool, String> {
        match self.done(deadline, |request| Message::Sync { request }) {
            Ok(()) => Ok(true),
            Err(CallError::Timeout) => Ok(false),
            Err(error @ CallError::Ended(_)) => {
                // A connection refuses messages a moment before its end is told; the caller is to find the link lost.
                let _ = self.calls.wait(deadline, |_| None::<()>);
                Err(error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MapOptions, Mapping};
    use crate::node::{Holder, HolderConfig};

    #[test]
    fn what_came_before_the_link_was_put_up_takes_it_down() {
        let keys = KeySet::from_bytes(&[[7; 32]]).unwrap();
        let mut config = HolderConfig::new("tcp://127.0.0.1:0".parse().unwrap(), 4096);
        config.lock = crate::memory::LockPolicy::Off;
        let holder = Holder::start(config, keys.clone()).unwrap();
        let second = Duration::from_secs(1);
        let memory = Arc::new(Mapping::anonymous(4096, MapOptions::default()).unwrap());
        let revoked = Message::Revoked { why: "fenced".into() }.encode();
        let channel = crate::control::Channel::MIRROR;
        for (event, word) in
            [(Event::Message { channel, body: revoked }, "fenced"), (Event::PeerSilent, "nothing was heard")]
        {
            let core = RegionCore::new(memory.clone()).unwrap();
            let mut deadline = Deadline::within(10 * second);
            let session = Session::connect(
                holder.url(),
                &keys,
                second,
                60 * second,
                Arc::downgrade(&core),
                &mut deadline,
            )
            .unwrap();
            let session = Arc::new(session);
            session.calls.handle(event, &Arc::downgrade(&core), Medium::Tcp);
            session.put_up(&core);
            let reason = core.lost_reason().map(|reason| reason.to_string()).unwrap_or_default();
            assert!(reason.contains(word), "{word}: {reason:?}");
        }
    }
}
