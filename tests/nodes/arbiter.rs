//! Whoever decides which node of a pair serves.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path;

use crate::etcd::Etcd;
use crate::mediator::Mediator;

/// Who that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decider {
    Operator,
    Mediator,
    Etcd,
}

/// The process, where there is one.
#[derive(Debug)]
pub(crate) enum Arbiter {
    Mediator(Mediator),
    Etcd(Etcd),
}

impl Arbiter {
    /// One that does not run yet, with its files in `scratch`. A mediator listens at `url`.
    pub(crate) fn new(decider: Decider, url: String, scratch: &Path) -> Option<Self> {
        match decider {
            Decider::Operator => None,
            Decider::Mediator => Some(Self::Mediator(Mediator::new(url, scratch))),
            Decider::Etcd => Some(Self::Etcd(Etcd::new(scratch))),
        }
    }

    /// What its files are called.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Mediator(_) => "mediator",
            Self::Etcd(_) => "etcd",
        }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Mediator(mediator) => mediator.url.clone(),
            Self::Etcd(etcd) => format!("tcp://{}", etcd.address),
        }
    }

    /// What the configuration of a node says, which reaches it at `url`.
    pub(crate) fn table(&self, url: &str) -> String {
        match self {
            Self::Mediator(mediator) => {
                format!("[dataset.mediator]\naddress = \"{url}\"\nkey = \"{}\"\n", mediator.key.display())
            }
            Self::Etcd(_) => format!("[dataset.etcd]\nendpoints = [\"{}\"]\n", url.replace("tcp:", "http:")),
        }
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn start(&mut self) {
        match self {
            Self::Mediator(mediator) => mediator.start(),
            Self::Etcd(etcd) => etcd.start(),
        }
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Mediator(mediator) => mediator.kill(),
            Self::Etcd(etcd) => etcd.kill(),
        }
    }

    /// It has lost all that it knew. It must not run.
    pub(crate) fn forget(&self) {
        match self {
            Self::Mediator(mediator) => mediator.forget(),
            Self::Etcd(etcd) => etcd.forget(),
        }
    }
}
