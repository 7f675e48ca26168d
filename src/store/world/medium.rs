//! The medium of a store in tests: the real one, or this world's where the code that asks runs in it.

use std::time::Duration;

pub(in crate::store) use super::holder::Holder;
pub(in crate::store) use super::lane::Lane;
pub(in crate::store) use super::region::Region;

use super::net::{self, Connection};
use crate::base::FabricUrl;
use crate::node::{CallError, KeySet};
use crate::sim::scheduler;

/// A connection for questions, real or simulated.
#[derive(Debug)]
pub(in crate::store) enum Inquirer {
    Real(crate::node::Inquirer),
    Simulated(FabricUrl, Shared),
}

/// It stays on its thread of the system.
#[derive(Debug)]
pub(in crate::store) struct Shared(u64);

impl Inquirer {
    pub(in crate::store) fn connect(
        url: &FabricUrl,
        keys: &KeySet,
        timeout: Duration,
    ) -> Result<Self, CallError> {
        if !scheduler::is_simulated() {
            return crate::node::Inquirer::connect(url, keys, timeout).map(Self::Real);
        }
        let connection = net::connect(url, timeout)?;
        // A greeting goes and comes.
        net::call(&connection, url, timeout, |_| ())?;
        Ok(Self::Simulated(url.clone(), Shared(net::keep(connection))))
    }

    pub(in crate::store) fn ask(&self, body: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
        match self {
            Self::Real(inquirer) => inquirer.ask(body, timeout),
            Self::Simulated(url, Shared(number)) => question(&net::kept(*number), url, body, timeout),
        }
    }
}

impl crate::mediator::Line for Inquirer {
    fn connect(url: &FabricUrl, keys: &KeySet, within: Duration) -> Result<Self, CallError> {
        Self::connect(url, keys, within)
    }

    fn ask(&self, body: &[u8], within: Duration) -> Result<Vec<u8>, CallError> {
        self.ask(body, within)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        net::forget(self.0);
    }
}

fn question(
    connection: &std::rc::Rc<Connection>,
    url: &FabricUrl,
    body: &[u8],
    timeout: Duration,
) -> Result<Vec<u8>, CallError> {
    let body = body.to_vec();
    net::call(connection, url, timeout, move |holder| {
        let answer = holder.gate.answer(&body);
        if net::here() == net::MEDIATOR {
            super::oracle::told(&body, &answer);
        }
        answer
    })
}

pub(in crate::store) fn ask(
    url: &FabricUrl,
    keys: &KeySet,
    body: &[u8],
    timeout: Duration,
) -> Result<Vec<u8>, CallError> {
    if !scheduler::is_simulated() {
        return crate::node::ask(url, keys, body, timeout);
    }
    let connection = net::connect(url, timeout)?;
    question(&connection, url, body, timeout)
}

pub(in crate::store) fn is_vacant(url: &FabricUrl, within: Duration) -> bool {
    if !scheduler::is_simulated() {
        return crate::node::is_vacant(url, within);
    }
    match net::connect(url, within) {
        Ok(_) | Err(CallError::Timeout) => false,
        Err(_) => net::says_vacant(url),
    }
}
