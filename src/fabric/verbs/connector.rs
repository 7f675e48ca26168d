//! What an owner has of one session over RDMA: its device, its registered memory, and the way to make queues.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::connection::Route;
use super::queue::{LocalRegions, Parts};
use super::watch::Watch;
use super::{
    CompletionQueue, Device, MemoryRegion, NativeFlush, ProtectionDomain, QueuePair, QueuePairOptions,
    RegionUse, VerbsError, VerbsQueue, private_data,
};
use crate::base::{Deadline, SessionId, Unsupported};
use crate::control::Token;
use crate::fabric::Grant;
use crate::memory::{MapOptions, Mapping};

/// Bytes to which flushes read: a page, which is the least that can be registered.
const SCRATCH_BYTES: usize = 4096;
/// Requests in a send queue, at least.
const DEPTH_MIN: usize = 16;

/// The device of a session, with what is registered there.
#[derive(Debug)]
struct Opened {
    domain: Arc<ProtectionDomain>,
    regions: Arc<LocalRegions>,
}

/// Makes the queues of one session to one holder.
#[derive(Debug)]
pub struct Connector {
    target: SocketAddr,
    local: Arc<Mapping>,
    reads: bool,
    watch: Arc<Watch>,
    /// Known at the first connection, which finds the device.
    opened: Mutex<Option<Opened>>,
}

/// What a queue is to be.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// Requests outstanding, at most.
    pub depth: usize,
    /// What the peer granted, as it said over the control connection.
    pub grants: Vec<Grant>,
    /// Why the peer cannot sync, if it cannot.
    pub durable: Result<(), Unsupported>,
}

impl Connector {
    /// Queues from `local` to the holder at `target`. `reads` says whether any is to read into `local`, which is
    /// registered for that only then.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new(target: SocketAddr, local: Arc<Mapping>, reads: bool) -> Result<Self, VerbsError> {
        Ok(Self { target, local, reads, watch: Watch::new()?, opened: Mutex::new(None) })
    }

    /// The watch of all its queues; its failures are seen only while somebody calls [`Watch::next`].
    #[must_use]
    pub const fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// The device, once a queue was made.
    #[must_use]
    pub fn device(&self) -> Option<Arc<Device>> {
        let slot = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().map(|opened| opened.domain.device().clone())
    }

    /// One more queue, admitted by `token`.
    ///
    /// # Errors
    /// See [`VerbsError`]; nothing is left of the attempt.
    pub fn connect(
        &self,
        session: SessionId,
        token: &Token,
        options: &QueueOptions,
        deadline: &mut Deadline,
    ) -> Result<VerbsQueue, VerbsError> {
        let route = Route::to(self.target, deadline)?;
        let (domain, regions) = self.open(&route)?;
        let device = domain.device().clone();
        let limits = device.limits();
        let most = limits.queue_depth_max.min(limits.completions_max);
        let depth = options.depth.clamp(DEPTH_MIN, most.max(DEPTH_MIN));
        let completions = CompletionQueue::new(device.clone(), depth)?;
        let pair = QueuePairOptions { depth, remote_access: false, inline: true };
        let queue_pair = QueuePair::new(domain, completions.clone(), pair)?;
        let own = queue_pair.number();
        let private = private_data::request(token, session, own);
        let (connection, windows) = route.connect(queue_pair, &private, deadline, |theirs, said| {
            let windows = private_data::read_answer(said, token, session, own, theirs)?;
            check_windows(&windows, &options.grants)?;
            Ok(windows)
        })?;
        let message_bytes_max = device.message_bytes_max(connection.port())?;
        let connection = Arc::new(connection);
        self.watch.remember(&connection)?;
        let (watch, durable) = (self.watch.clone(), options.durable.clone());
        VerbsQueue::new(Parts {
            connection,
            completions,
            regions,
            windows,
            watch,
            depth,
            message_bytes_max,
            durable,
        })
    }

    /// The device that the route leads through, with the memory registered; once per session.
    fn open(&self, route: &Route) -> Result<(Arc<ProtectionDomain>, Arc<LocalRegions>), VerbsError> {
        let mut slot = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*slot {
            let known = opened.domain.device().name();
            return match Device::name_of(&route.id) {
                Some(name) if name == known => Ok((opened.domain.clone(), opened.regions.clone())),
                other => {
                    let now = other.unwrap_or_else(|| "no device".into());
                    Err(VerbsError::Peer {
                        why: format!("the way to {} led through {known}, now through {now}", self.target),
                    })
                }
            };
        }
        let device = Device::of(&route.id, &self.target)?;
        match device.native_flush() {
            Ok(NativeFlush::None) => {}
            Ok(flush) => {
                log::info!("{} has a flush of its own ({flush:?}), which is not used", device.name())
            }
            Err(error) => log::debug!("{error}"),
        }
        self.watch.watch_device(&device)?;
        let domain = ProtectionDomain::new(device)?;
        let purpose = if self.reads { RegionUse::SourceAndTarget } else { RegionUse::Source };
        let local = MemoryRegion::new(domain.clone(), self.local.clone(), purpose)?;
        let scratch = Mapping::anonymous(SCRATCH_BYTES, MapOptions::default())
            .map_err(|_| VerbsError::Call { call: "mmap", errno: libc::ENOMEM })?;
        let scratch = MemoryRegion::new(domain.clone(), Arc::new(scratch), RegionUse::SourceAndTarget)?;
        let regions = Arc::new(LocalRegions { local, target: self.reads, scratch });
        *slot = Some(Opened { domain: domain.clone(), regions: regions.clone() });
        Ok((domain, regions))
    }
}

/// What was said while connecting has to be what was granted.
fn check_windows(windows: &[super::RemoteWindow], grants: &[Grant]) -> Result<(), String> {
    let offered: Vec<_> = windows.iter().map(|window| window.grant).collect();
    if offered.is_empty() || offered != grants {
        return Err(format!("{offered:?} was offered, {grants:?} granted"));
    }
    Ok(())
}
