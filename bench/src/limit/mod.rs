//! The limits: bare loops that do the work the promise asks for and nothing else, as fast as we can write them.

#[cfg(feature = "rdma")]
mod rdma;
#[allow(unsafe_code, reason = "a bare copy between mappings is what the limit is")]
mod shm;
mod tcp;
mod tcp_peer;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use crate::Failure;
use crate::driver::{self, Driver, Side, Slice};
use crate::options::{AskedLevel, LimitPeerOptions, RegionOptions};
use crate::pair::Contender;
use crate::report::Beside;
use crate::workload::{Fabric, Workload};

/// A limit, ready to run.
pub(crate) struct Limit {
    contender: Box<dyn Contender>,
    bare: Option<Box<dyn Contender>>,
    /// What it does, in a line.
    pub does: &'static str,
    /// Copies of each byte made by code of this process.
    pub copies_per_byte: f64,
}

impl Limit {
    /// The limit of `workload` at `level`; `peer` is the other side of it where it runs elsewhere.
    ///
    /// # Errors
    /// Memory or connection could not be had.
    pub(crate) fn new(workload: &Workload, level: AskedLevel, peer: Option<&str>) -> Result<Self, Failure> {
        match workload.fabric {
            Fabric::Shm => shm::limit(workload),
            Fabric::Tcp => tcp::limit(workload, peer),
            Fabric::Rdma => rdma_limit(workload, level, peer, false),
        }
    }

    /// What no log over RDMA is faster than that sends each record by itself: each store is a record, so many bytes and their checksum, and is in the peer's memory.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn of_records(workload: &Workload, peer: Option<&str>) -> Result<Self, Failure> {
        rdma_limit(workload, AskedLevel::Acked, peer, true)
    }

    /// The limit, and the loop beside it where there is one.
    pub(crate) fn contenders(&mut self) -> (&mut dyn Contender, Option<&mut dyn Contender>) {
        let bare = self.bare.as_mut().map(|bare| &mut **bare as &mut dyn Contender);
        (&mut *self.contender, bare)
    }
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Limit({})", self.does)
    }
}

/// Runs `mirrorbus-bench limit-peer`: never returns without an error.
///
/// # Errors
/// The address could not be listened on.
pub(crate) fn serve(options: &LimitPeerOptions) -> Result<(), Failure> {
    match options.fabric {
        Fabric::Tcp => tcp_peer::serve(options),
        Fabric::Rdma => rdma_peer(options),
        Fabric::Shm => Err("the limit of shm needs no peer".into()),
    }
}

#[cfg(feature = "rdma")]
use rdma::{beside as rdma_beside, limit as rdma_limit, serve as rdma_peer};

/// What other people's programs say of the same, if asked for.
///
/// # Errors
/// The peer has no address.
pub(crate) fn perftest(options: &RegionOptions) -> Result<Vec<Beside>, Failure> {
    if options.perftest { rdma_beside(options) } else { Ok(Vec::new()) }
}

/// Where a peer on this machine listens for RDMA connections; port 0.
///
/// # Errors
/// There is no device with an IP address.
#[cfg(feature = "rdma")]
pub(crate) fn own_rdma_address() -> Result<SocketAddr, Failure> {
    rdma::own_address()
}

#[cfg(not(feature = "rdma"))]
mod without_rdma {
    //! What is said where RDMA was not built.

    use super::{AskedLevel, Beside, Failure, Limit, LimitPeerOptions, RegionOptions, SocketAddr, Workload};

    const WHY: &str = "this program was built without the feature rdma";

    pub(super) fn rdma_limit(
        _: &Workload,
        _: AskedLevel,
        _: Option<&str>,
        _: bool,
    ) -> Result<Limit, Failure> {
        Err(WHY.into())
    }

    pub(super) fn rdma_peer(_: &LimitPeerOptions) -> Result<(), Failure> {
        Err(WHY.into())
    }

    pub(crate) fn own_rdma_address() -> Result<SocketAddr, Failure> {
        Err(WHY.into())
    }

    pub(super) fn rdma_beside(_: &RegionOptions) -> Result<Vec<Beside>, Failure> {
        Err(WHY.into())
    }
}
#[cfg(not(feature = "rdma"))]
pub(crate) use without_rdma::own_rdma_address;
#[cfg(not(feature = "rdma"))]
use without_rdma::{rdma_beside, rdma_limit, rdma_peer};

/// Drivers that run together; `_keep` lives as long as they do.
pub(crate) struct Team<S, K = ()> {
    drivers: Vec<Driver<S>>,
    _keep: K,
}

impl<S: Side, K> Team<S, K> {
    /// One driver for each side.
    pub(crate) fn new(sides: Vec<S>, workload: &Workload, keep: K) -> Self {
        let drivers = sides.into_iter().enumerate().map(|(index, side)| Driver::new(side, workload, index));
        Self { drivers: drivers.collect(), _keep: keep }
    }
}

impl<S: Side, K> Contender for Team<S, K> {
    fn slice(&mut self, duration: Duration) -> Result<Slice, Failure> {
        driver::slice(&mut self.drivers, duration)
    }
}
