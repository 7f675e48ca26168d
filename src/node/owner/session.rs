//! The owner's end of a control connection: made, used, and ended.

#[cfg(feature = "rdma")]
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::call::{Call, CallError, Calls, silence};
use crate::base::{Deadline, FabricUrl, Medium, SessionId};
use crate::control::{CloseReason, Connection, ConnectionConfig, Hello, KeySet};
use crate::mirror::{LostReason, PeerSync, PendingSync, RegionCore};
use crate::node::driver::Driver;
use crate::node::message::Message;
use crate::node::stream::dial;

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
        self.begin_call(message)?.wait(deadline)
    }

    /// Sends what `message` makes of a request number; its answer is waited for later.
    fn begin_call(&self, message: impl FnOnce(u32) -> Message) -> Result<Call, CallError> {
        let request = {
            let mut state = self.calls.lock();
            state.next = state.next.wrapping_add(1);
            let request = state.next;
            state.waiting.insert(request, None);
            request
        };
        let call = Call { calls: self.calls.clone(), request };
        let sent = self.driver.send(&message(request).encode());
        sent.map_err(|error| CallError::Ended(error.to_string()))?;
        Ok(call)
    }

    /// [`call`](Self::call) for requests that are just done.
    pub(super) fn done(
        &self,
        deadline: &mut Deadline,
        message: impl FnOnce(u32) -> Message,
    ) -> Result<(), CallError> {
        self.begin_call(message)?.done(deadline)
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
    fn begin(&self, deadline: &mut Deadline) -> Result<Box<dyn PendingSync>, String> {
        match self.begin_call(|request| Message::Sync { request }) {
            Ok(call) => Ok(Box::new(call)),
            Err(error) => Err(self.calls.told(error, deadline)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Event;
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
