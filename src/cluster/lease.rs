//! The read lease: while it is live, the peer serves nothing, so what is read here is the newest.
//!
//! ```text
//!  holder (serves)     sends ────────────────────────── L ──────────────────▶ may answer no more, unless renewed
//!                           ╲                          ╱
//!  granter (follows)         grants ───────────── L·(1+ρ)/(1−ρ) ────────────────▶ may serve
//! ```
//!
//! The holder's lease runs from when it *sent* what was answered, the granter's patience from when it answered: so the holder's ends first,
//! however long the two messages took, as long as no clock gains or loses more than ρ of a second in one.
//!
//! Moments are of a clock that goes on while the machine sleeps (`CLOCK_BOOTTIME`). A granter that has just started does not know what it granted
//! before: it waits as long from its start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LEASE_NANOS: u64 = 50_000_000;
/// How long a lease is live.
pub const LEASE: Duration = Duration::from_nanos(LEASE_NANOS);
/// By how much of a second a clock may be wrong in one, in parts of a million: far more than any does that is not stopped.
const DRIFT_PPM: u64 = 1000;
/// How long whoever granted a lease waits until it is over.
pub const PATIENCE: Duration = {
    let million = 1_000_000;
    // Up to the next nanosecond.
    Duration::from_nanos((LEASE_NANOS * (million + DRIFT_PPM)).div_ceil(million - DRIFT_PPM))
};

/// Time since the machine was started, sleep included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub Duration);

/// The lease of a node that serves.
#[derive(Debug, Default)]
pub struct Lease {
    /// Nanoseconds of the moment at which it ends.
    until: AtomicU64,
}

impl Lease {
    /// The peer granted what was asked for at `sent`.
    pub fn extend(&self, sent: Moment) {
        let until = sent.0.saturating_add(LEASE).as_nanos();
        self.until.fetch_max(u64::try_from(until).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Whether it is live.
    pub fn is_live(&self, now: Moment) -> bool {
        now.0.as_nanos() < u128::from(self.until.load(Ordering::SeqCst))
    }
}

/// The leases that a node grants.
#[derive(Debug)]
pub struct Grants {
    /// Nobody holds one from then on.
    over: Moment,
    refuses: bool,
}

impl Grants {
    /// Of a node that starts.
    #[must_use]
    pub const fn new(now: Moment) -> Self {
        Self { over: after(now), refuses: false }
    }

    /// Grants one, unless this node is about to take over; whether it did. `now` is read behind the question, and the answer is sent after this.
    pub fn grant(&mut self, now: Moment) -> bool {
        if !self.refuses {
            self.over = if after(now).0.as_nanos() > self.over.0.as_nanos() { after(now) } else { self.over };
        }
        !self.refuses
    }

    /// Grants none from now on; from when on nobody holds one.
    pub const fn refuse(&mut self) -> Moment {
        self.refuses = true;
        self.over
    }

    /// Grants again: this node does not take over.
    pub const fn allow(&mut self) {
        self.refuses = false;
    }
}

const fn after(now: Moment) -> Moment {
    Moment(now.0.saturating_add(PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    #[test]
    fn whoever_granted_waits_longer_than_any_clock_can_be_wrong() {
        // The granter's clock gains all the time, the holder's loses.
        let (fast, slow) = (1_000_000 + u128::from(DRIFT_PPM), 1_000_000 - u128::from(DRIFT_PPM));
        assert!(PATIENCE.as_nanos() * slow >= LEASE.as_nanos() * fast);
        assert!(PATIENCE < LEASE + Duration::from_millis(1));
    }

    #[test]
    fn a_lease_runs_from_when_it_was_asked_for() {
        let lease = Lease::default();
        assert!(!lease.is_live(at(0)));
        lease.extend(at(100));
        assert!(lease.is_live(at(149)) && !lease.is_live(at(150)));
        lease.extend(at(90));
        assert!(lease.is_live(at(149)), "a late answer takes nothing away");
    }

    #[test]
    fn nothing_is_granted_on_the_way_to_take_over() {
        let mut grants = Grants::new(at(1000));
        assert_eq!(grants.refuse(), after(at(1000)), "what was granted before the start is not known");
        assert!(!grants.grant(at(2000)));
        grants.allow();
        assert!(grants.grant(at(2000)) && grants.grant(at(1990)));
        assert_eq!(grants.refuse(), after(at(2000)));
    }
}
