//! The lease under which a primary answers while it has a member beside it: without one the other may serve already.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::cluster::{Lease, Moment};

/// The moment, on a clock that does not stop while the machine sleeps.
pub(super) fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Moment(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()))
}

/// The lease, where one is needed: where the operator decides who serves, his word is that the other one does not.
#[derive(Debug)]
pub(super) struct ReadLease {
    lease: Option<Lease>,
}

impl ReadLease {
    pub(super) fn new(is_needed: bool) -> Self {
        Self { lease: is_needed.then(Lease::default) }
    }

    /// Whether the other one serves nothing just now. The clock is read here: nothing that a pause makes untrue is kept.
    pub(super) fn is_live(&self) -> bool {
        self.lease.as_ref().is_none_or(|lease| lease.is_live(now()))
    }

    /// Whatever was or will be granted that was asked for until now counts no more. Under the lock of the state, which ends the turn.
    pub(super) fn give_up(&self) {
        if let Some(lease) = &self.lease {
            lease.give_up(now());
        }
    }

    /// The peer granted what it was asked for at `sent`.
    pub(super) fn extend(&self, sent: Moment) {
        if let Some(lease) = &self.lease {
            lease.extend(sent);
        }
    }
}
