//! What a holder has of one session over RDMA: its windows registered with the device, and the connections that reach them.
//!
//! Revocation, in this order: each queue pair goes to ERR, and is asked whether it is there; it is destroyed; the memory is
//! deregistered. A step that the system refuses is an error, and what was not taken away stays here to be tried again. On
//! success the device knows neither the queue pairs nor the keys, so nothing can reach the memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::READS_MAX;
use super::connection_id::{ConnectionId, Terms};
use super::listener::ConnectRequest;
use super::private_data::{self, RemoteWindow, WINDOWS_MAX};
use super::{
    CompletionQueue, Device, DeviceEvent, MemoryRegion, ProtectionDomain, QueuePair, QueuePairOptions,
    QueuePairState, RegionUse, VerbsError,
};
use crate::control::Token;
use crate::fabric::ExportedWindow;

/// Connections of one session.
pub const CONNECTIONS_MAX: usize = 256;
/// How long an accepted peer may take to show up.
pub const SHOW_UP_TIME: Duration = Duration::from_secs(5);
/// Requests that a holder's queue pair sends: none, but some devices take no empty queue.
const DEPTH: usize = 1;

/// A connection that was accepted.
#[derive(Debug)]
struct Accepted {
    key: u64,
    queue_pair: QueuePair,
    id: ConnectionId,
    since: Instant,
    established: bool,
}

impl Accepted {
    /// Stops it for certain. Whoever is at the other end is told at once.
    fn revoke(&mut self) -> Result<(), VerbsError> {
        if self.queue_pair.is_destroyed() {
            return Ok(());
        }
        self.queue_pair.stop()?;
        let state = self.queue_pair.reported_state()?;
        if state != QueuePairState::Error {
            return Err(VerbsError::NotStopped { number: self.queue_pair.number(), state });
        }
        self.queue_pair.destroy()?;
        self.id.disconnect();
        Ok(())
    }
}

/// A device that connections come through, with the session's windows registered there.
#[derive(Debug)]
struct Exported {
    regions: Vec<MemoryRegion>,
    windows: Vec<RemoteWindow>,
    completions: Arc<CompletionQueue>,
    domain: Arc<ProtectionDomain>,
}

impl Exported {
    fn new(device: Arc<Device>, windows: &[Arc<ExportedWindow>]) -> Result<Self, VerbsError> {
        let completions = CompletionQueue::new(device.clone(), DEPTH)?;
        let domain = ProtectionDomain::new(device)?;
        let mut regions = Vec::with_capacity(windows.len());
        let mut remote = Vec::with_capacity(windows.len());
        for window in windows {
            let grant = window.grant();
            let purpose = RegionUse::Exported(grant.access);
            let region = MemoryRegion::new(domain.clone(), window.mapping().clone(), purpose)?;
            remote.push(RemoteWindow { grant, key: region.remote_key(), address: region.address() });
            regions.push(region);
        }
        Ok(Self { regions, windows: remote, completions, domain })
    }
}

/// What one session reaches.
#[derive(Debug)]
pub struct Export {
    accepted: Vec<Accepted>,
    devices: Vec<Exported>,
    windows: Vec<Arc<ExportedWindow>>,
}

impl Export {
    /// Nothing yet: memory is registered with a device when the first connection comes through it.
    ///
    /// # Panics
    /// When there are more windows than an answer has room for.
    #[must_use]
    pub fn new(windows: Vec<Arc<ExportedWindow>>) -> Self {
        assert!(windows.len() <= WINDOWS_MAX, "{} windows, {WINDOWS_MAX} fit in an answer", windows.len());
        Self { accepted: Vec::new(), devices: Vec::new(), windows }
    }

    /// Connections that stand or are about to.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.accepted.len()
    }

    /// The devices that connections came through, to be watched.
    pub fn devices(&self) -> impl Iterator<Item = &Arc<Device>> {
        self.devices.iter().map(|exported| exported.domain.device())
    }

    /// Lets the asker in, who proved to have `token`.
    ///
    /// # Errors
    /// Why not, which the asker was told.
    pub fn accept(&mut self, request: ConnectRequest, token: &Token) -> Result<(), String> {
        if self.accepted.len() >= CONNECTIONS_MAX {
            let why = format!("{CONNECTIONS_MAX} queues are open, the most an owner may have");
            request.reject(&why);
            return Err(why);
        }
        match self.prepare(&request) {
            Ok((queue_pair, windows)) => self.answer(request, token, queue_pair, &windows),
            Err(error) => {
                request.reject(&error.to_peer());
                Err(error.to_string())
            }
        }
    }

    fn prepare(&mut self, request: &ConnectRequest) -> Result<(QueuePair, Vec<RemoteWindow>), VerbsError> {
        let name = Device::name_of(&request.id)
            .ok_or_else(|| VerbsError::NoDevice { address: "of the peer".into() })?;
        let known = self.devices.iter().position(|exported| exported.domain.device().name() == name);
        let place = match known {
            Some(place) => place,
            None => {
                let device = Device::of(&request.id, &"of the peer")?;
                self.devices.push(Exported::new(device, &self.windows)?);
                self.devices.len() - 1
            }
        };
        let exported = &self.devices[place];
        let options = QueuePairOptions { depth: DEPTH, remote_access: true, inline: false };
        let queue_pair = QueuePair::new(exported.domain.clone(), exported.completions.clone(), options)?;
        let reads_in = exported.domain.device().limits().reads_in_max.min(READS_MAX);
        queue_pair.advance(&request.id, QueuePairState::Init, 0)?;
        queue_pair.advance(&request.id, QueuePairState::ReadyToReceive, reads_in)?;
        queue_pair.advance(&request.id, QueuePairState::ReadyToSend, 0)?;
        Ok((queue_pair, exported.windows.clone()))
    }

    fn answer(
        &mut self,
        request: ConnectRequest,
        token: &Token,
        queue_pair: QueuePair,
        windows: &[RemoteWindow],
    ) -> Result<(), String> {
        let (session, own) = (request.session(), queue_pair.number());
        let private = private_data::answer(token, session, request.queue_pair, own, windows);
        let reads_in = queue_pair.domain().device().limits().reads_in_max.min(READS_MAX);
        let terms = Terms { queue_pair: own, reads_out: 0, reads_in, private: &private };
        request.id.accept(terms).map_err(|error| error.to_string())?;
        let ConnectRequest { id, key, .. } = request;
        self.accepted.push(Accepted { key, queue_pair, id, since: Instant::now(), established: false });
        Ok(())
    }

    /// The peer of a connection showed up.
    pub fn established(&mut self, key: u64) {
        self.accepted.iter_mut().filter(|one| one.key == key).for_each(|one| one.established = true);
    }

    /// A connection ended: its queue pair is destroyed. Whether it was one of these.
    pub fn ended(&mut self, key: u64) -> bool {
        let before = self.accepted.len();
        self.accepted.retain(|one| one.key != key);
        before != self.accepted.len()
    }

    /// Drops connections whose peer did not show up in [`SHOW_UP_TIME`]; returns when to look again.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.accepted.retain(|one| one.established || one.since + SHOW_UP_TIME > now);
        self.accepted.iter().filter(|one| !one.established).map(|one| one.since + SHOW_UP_TIME).min()
    }

    /// Does what a device's event asks for. A port that is down may come up again before the owner gives up; what is broken
    /// ends.
    pub fn handle(&mut self, device: &Arc<Device>, event: DeviceEvent) {
        log::debug!("RDMA device {}: {event}", device.name());
        let of_device = |one: &Accepted| Arc::ptr_eq(one.queue_pair.domain().device(), device);
        match event {
            DeviceEvent::QueuePair { number, .. } => {
                self.accepted.retain(|one| !(of_device(one) && one.queue_pair.number() == number));
            }
            DeviceEvent::DeviceFatal | DeviceEvent::CompletionQueue { .. } => {
                self.accepted.retain(|one| !of_device(one));
            }
            DeviceEvent::PortDown { .. } | DeviceEvent::Harmless { .. } => {}
        }
    }

    /// Takes everything away: on return no device reaches the windows on behalf of this session any more.
    ///
    /// # Errors
    /// The system refused a step. What is left can be tried again; nothing more is let in.
    pub fn revoke(&mut self) -> Result<(), VerbsError> {
        for one in &mut self.accepted {
            one.revoke()?;
        }
        self.accepted.clear();
        for region in self.devices.iter_mut().flat_map(|exported| &mut exported.regions) {
            region.deregister()?;
        }
        self.devices.clear();
        Ok(())
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if let Err(error) = self.revoke() {
            log::warn!("{error}");
        }
    }
}
