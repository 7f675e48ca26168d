//! The lease under which a primary answers while it has a member beside it: without one the other may serve already.

#[cfg(test)]
use super::world::{Defect, breaks};
use crate::base::clock::boottime;
use crate::cluster::{Lease, Moment};

/// The moment, on a clock that does not stop while the machine sleeps.
pub(super) fn now() -> Moment {
    Moment(boottime())
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
        #[cfg(test)]
        if breaks(Defect::AnswersWithoutLease) {
            return true;
        }
        self.lease.as_ref().is_none_or(|lease| lease.is_live(now()))
    }

    /// Whatever was or will be granted that was asked for until now counts no more. Under the lock of the state, which ends the turn.
    pub(super) fn give_up(&self) {
        #[cfg(test)]
        if breaks(Defect::AnswersWhileItHandsOver) {
            return;
        }
        if let Some(lease) = &self.lease {
            lease.give_up(now());
        }
    }

    /// The peer granted what it was asked for at `sent`.
    pub(super) fn extend(&self, sent: Moment) {
        #[cfg(test)]
        let sent = if breaks(Defect::LeaseFromItsAnswer) { now() } else { sent };
        if let Some(lease) = &self.lease {
            lease.extend(sent);
        }
    }
}
