//! The limits: bare loops that do the work the promise asks for and nothing else, as fast as we can write them.

#[allow(unsafe_code, reason = "a bare copy between mappings is what the limit is")]
mod shm;
mod tcp;
mod tcp_peer;
mod wire;

pub(crate) use tcp_peer::serve;

use std::time::Duration;

use crate::Failure;
use crate::driver::{self, Driver, Side, Slice};
use crate::pair::Contender;
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
    /// The limit of `workload`; `peer` is the other side of the tcp one when it runs elsewhere.
    ///
    /// # Errors
    /// Memory or connection could not be had.
    pub(crate) fn new(workload: &Workload, peer: Option<&str>) -> Result<Self, Failure> {
        match workload.fabric {
            Fabric::Shm => shm::limit(workload),
            Fabric::Tcp => tcp::limit(workload, peer),
        }
    }

    /// The limit, and the one without copies and checksums where it has any.
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
