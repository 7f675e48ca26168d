//! An owner's region: its session with a holder, and how it comes to have one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::holder::{Granted, HolderCore, Refusal};
use super::lane::{Lane, Way};
use super::net;
use super::rules::{self, Defect};
use crate::base::{Deadline, FabricUrl, LifeId};
use crate::memory::Mapping;
use crate::mirror::{LaneConfig, LostReason};
use crate::node::{CallError, KeySet, LinkStatus, OpenError, ReconnectError, Reconnected, RegionConfig};
use crate::sim::scheduler::{self, ProcessId};
use crate::store::ring_memory::WINDOW_BYTES;

/// Bytes of a ring that are pushed at once, and how long that takes.
const PUSH_BYTES: usize = 256 << 10;
const PUSH_TIME: Duration = Duration::from_micros(60);

/// An owner's access to a holder.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) owner: ProcessId,
    pub(super) server: ProcessId,
    from: usize,
    to: usize,
    pub(super) holder: Arc<HolderCore>,
    lost: Mutex<Option<LostReason>>,
    /// The connection has, whoever knows it.
    pub(super) has_ended: Arc<AtomicBool>,
    life: Mutex<LifeId>,
    pub(super) is_up: AtomicBool,
}

impl Session {
    fn new(holder: Arc<HolderCore>, to: usize) -> Arc<Self> {
        let owner = scheduler::current_process().expect("a simulated thread");
        let session = Arc::new(Self {
            number: scheduler::random(crate::sim::Random::next),
            owner,
            server: holder.process,
            from: net::here(),
            to,
            holder,
            lost: Mutex::new(None),
            has_ended: Arc::default(),
            life: Mutex::new(LifeId::from_bytes([0; 16])),
            is_up: AtomicBool::new(false),
        });
        net::add_session(&session);
        session
    }

    pub(super) const fn machines(&self) -> (usize, usize) {
        (self.from, self.to)
    }

    pub(super) fn lost(&self) -> Option<LostReason> {
        // A heartbeat was answered by another process than this one's.
        if scheduler::is_dead(self.server)
            && net::is_open(self.from, self.to)
            && net::is_open(self.to, self.from)
        {
            self.lose("the holder has ended");
        }
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn check(&self) -> Result<(), CallError> {
        self.lost().map_or(Ok(()), |why| Err(CallError::Ended(why.to_string())))
    }

    /// It is over, by whatever; the other side hears of it when it can.
    pub(super) fn lose(&self, why: &str) {
        self.has_ended.store(true, Ordering::SeqCst);
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.is_none() {
            *lost = Some(LostReason::Control(why.to_owned()));
        }
    }
}

/// What a region has, whoever of its lanes or itself is there.
#[derive(Debug)]
pub(in crate::store) struct RegionCore {
    pub(super) memory: Arc<Mapping>,
    url: FabricUrl,
    timeout: Duration,
    session: Mutex<Arc<Session>>,
    pub(super) lanes: AtomicUsize,
    /// What lanes that are gone had under way.
    pub(super) orphans: Mutex<Vec<(usize, usize)>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RegionCore {
    pub(super) fn session(&self) -> Arc<Session> {
        lock(&self.session).clone()
    }
}

fn refused((code, why): Refusal) -> CallError {
    CallError::Refused { code, why }
}

/// Connects, attaches, has `bring` bring what is lacking there, and says that all is there.
fn attach(
    url: &FabricUrl,
    deadline: &mut Deadline,
    prior: Option<(u64, LifeId)>,
    bring: impl FnOnce(&Arc<Session>, &mut Deadline) -> Result<(), CallError>,
) -> Result<Arc<Session>, CallError> {
    let left = |deadline: &mut Deadline| deadline.remaining().ok_or(CallError::Timeout);
    let connection = net::connect(url, left(deadline)?)?;
    let holder = net::call(&connection, url, left(deadline)?, Arc::clone)?;
    let session = Session::new(holder, net::machine_at(url));
    let attaching = session.clone();
    let granted =
        net::call(&connection, url, left(deadline)?, move |holder| holder.attach(&attaching, prior));
    let Granted { life } = granted?.map_err(refused)?;
    *lock(&session.life) = life;
    bring(&session, deadline)?;
    let number = session.number;
    let done = net::call(&connection, url, left(deadline)?, move |holder| holder.complete(number));
    done?.map_err(refused)?;
    session.check()?;
    session.is_up.store(true, Ordering::SeqCst);
    Ok(session)
}

/// Waits until something can go to the holder and back; an error when it does not by the deadline.
fn reach(session: &Session, deadline: &mut Deadline) -> Result<(), CallError> {
    let (from, to) = session.machines();
    let began = scheduler::time();
    loop {
        session.check()?;
        if !session.holder.is_owner(session.number) {
            return Err(CallError::Ended("access was revoked".into()));
        }
        let dead = scheduler::is_dead(session.server);
        if let (Ok(way), Ok(back), false) = (net::delay(from, to), net::delay(to, from), dead) {
            scheduler::sleep(way + back);
            return session.check();
        }
        if scheduler::time() - began >= net::SILENCE {
            return Err(CallError::Ended("it is silent".into()));
        }
        deadline.remaining().ok_or(CallError::Timeout)?;
        scheduler::sleep(Duration::from_millis(5));
    }
}

/// A region, real or simulated.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there are a few in a test")]
pub(in crate::store) enum Region {
    Real(crate::node::Region),
    Simulated(Arc<RegionCore>),
}

impl Region {
    pub(in crate::store) fn open_over(
        config: RegionConfig,
        keys: KeySet,
        memory: Arc<Mapping>,
    ) -> Result<Self, OpenError> {
        if !scheduler::is_simulated() {
            return crate::node::Region::open_over(config, keys, memory).map(Self::Real);
        }
        let mut deadline = Deadline::within(config.timeout);
        let source = memory.clone();
        let session = attach(&config.url, &mut deadline, None, move |session, deadline| {
            let mut piece = vec![0; PUSH_BYTES];
            for at in (0..source.len()).step_by(PUSH_BYTES) {
                reach(session, deadline)?;
                scheduler::sleep(PUSH_TIME);
                // The window behind the ring has nothing that anybody reads before he is told what it has.
                let len = PUSH_BYTES.min((source.len() - WINDOW_BYTES).saturating_sub(at));
                source.slice().read(at, &mut piece[..len]);
                if session.holder.is_owner(session.number) {
                    session.holder.memory.slice().write(at, &piece[..len]);
                }
            }
            Ok(())
        })?;
        Ok(Self::Simulated(Arc::new(RegionCore {
            memory,
            url: config.url,
            timeout: config.timeout,
            session: Mutex::new(session),
            lanes: AtomicUsize::new(0),
            orphans: Mutex::default(),
        })))
    }

    pub(in crate::store) fn link(&self) -> LinkStatus {
        match self {
            Self::Real(region) => region.link(),
            Self::Simulated(core) => core.session().lost().map_or(LinkStatus::Up, LinkStatus::Lost),
        }
    }

    pub(in crate::store) fn lane(&self, config: LaneConfig) -> Result<Lane, CallError> {
        match self {
            Self::Real(region) => region.lane(config).map(Lane::Real),
            Self::Simulated(core) => {
                let session = core.session();
                reach(&session, &mut Deadline::within(core.timeout))?;
                core.lanes.fetch_add(1, Ordering::SeqCst);
                Ok(Lane::Simulated(super::lane::Simulated::new(core.clone(), session, config.depth)))
            }
        }
    }

    pub(in crate::store) fn reconnect(
        &self,
        lanes: &mut [&mut Lane],
        deadline: Deadline,
    ) -> Result<Reconnected, ReconnectError> {
        match self {
            Self::Real(region) => {
                let real = lanes.iter_mut().map(|lane| match lane {
                    Lane::Real(lane) => lane,
                    Lane::Simulated(_) => unreachable!("a lane of this region"),
                });
                region.reconnect(&mut real.collect::<Vec<_>>(), deadline)
            }
            Self::Simulated(core) => {
                let lanes = lanes.iter_mut().map(|lane| match lane {
                    Lane::Simulated(lane) => lane,
                    Lane::Real(_) => unreachable!("a lane of this region"),
                });
                reconnect(core, &mut lanes.collect::<Vec<_>>(), deadline)
            }
        }
    }
}

fn reconnect(
    core: &Arc<RegionCore>,
    lanes: &mut [&mut super::lane::Simulated],
    mut deadline: Deadline,
) -> Result<Reconnected, ReconnectError> {
    let exist = core.lanes.load(Ordering::SeqCst);
    if lanes.len() != exist {
        return Err(ReconnectError::LanesMissing { passed: lanes.len(), exist });
    }
    let before = core.session();
    before.lose("reconnecting");
    let mut ranges = lock(&core.orphans).clone();
    lanes.iter().for_each(|lane| ranges.extend(lane.unknown()));
    if rules::breaks(Defect::ResendsNothing) {
        ranges.clear();
    }
    let prior = (before.number, *lock(&before.life));
    let (memory, url) = (core.memory.clone(), core.url.clone());
    let count = ranges.len();
    let session = attach(&core.url, &mut deadline, Some(prior), move |session, deadline| {
        // Into staging memory, then into place, all of it under the holder's lock.
        let mut staged = Vec::new();
        for (at, len) in ranges {
            let mut bytes = vec![0; len];
            memory.slice().read(at, &mut bytes);
            staged.push((at, bytes));
        }
        reach(session, deadline)?;
        let left = deadline.remaining().ok_or(CallError::Timeout)?;
        let connection = net::connect(&url, left)?;
        let number = session.number;
        net::call(&connection, &url, left, move |holder| {
            if !holder.is_owner(number) {
                return Err(CallError::Ended("access was revoked".into()));
            }
            staged.iter().for_each(|(at, bytes)| holder.memory.slice().write(*at, bytes));
            Ok(())
        })?
    })?;
    lock(&core.orphans).clear();
    *lock(&core.session) = session.clone();
    lanes.iter_mut().for_each(|lane| lane.resume(session.clone()));
    Ok(Reconnected { ranges: count, bytes: 0 })
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Self::Simulated(core) = self {
            core.session().lose("closed by this side");
        }
    }
}

impl Way {
    pub(super) fn session(&self) -> &Session {
        &self.session
    }
}
