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
    /// One that ends no later than this was given up.
    given_up: AtomicU64,
}

impl Lease {
    /// The peer granted what was asked for at `sent`.
    pub fn extend(&self, sent: Moment) {
        self.until.fetch_max(end_of(sent), Ordering::SeqCst);
    }

    /// Gives up what was asked for until now, answered already or not.
    pub fn give_up(&self, now: Moment) {
        self.given_up.fetch_max(end_of(now), Ordering::SeqCst);
    }

    /// Whether it is live.
    pub fn is_live(&self, now: Moment) -> bool {
        let until = self.until.load(Ordering::SeqCst);
        now.0.as_nanos() < u128::from(until) && until > self.given_up.load(Ordering::SeqCst)
    }
}

/// When a lease ends that was asked for then, in nanoseconds.
fn end_of(sent: Moment) -> u64 {
    u64::try_from(sent.0.saturating_add(LEASE).as_nanos()).unwrap_or(u64::MAX)
}

/// The leases that a node grants.
#[derive(Debug)]
pub struct Grants {
    /// Nobody holds one from then on.
    over: Moment,
    refuses: bool,
    /// The last turn in which one was granted, or the holder was heard.
    turn: u64,
}

impl Grants {
    /// Of a node that starts.
    #[must_use]
    pub const fn new(now: Moment) -> Self {
        Self { over: after(now), refuses: false, turn: 0 }
    }

    /// Grants one, unless this node is about to take over; whether it did. `now` is read behind the question, and the answer is sent after this.
    pub fn grant(&mut self, now: Moment, turn: u64) -> bool {
        if !self.refuses {
            self.turn = self.turn.max(turn);
            self.over = if after(now).0.as_nanos() > self.over.0.as_nanos() { after(now) } else { self.over };
        }
        !self.refuses
    }

    /// Hears of the one that serves, which asks for no lease in this turn, unless this node is about to take over; whether it did.
    pub fn hear(&mut self, turn: u64) -> bool {
        if !self.refuses {
            self.turn = self.turn.max(turn);
        }
        !self.refuses
    }

    /// Grants none from now on; from when on nobody holds one.
    pub const fn refuse(&mut self) -> Moment {
        self.refuses = true;
        self.over
    }

    /// Grants none from now on, and nobody holds one: the holder says that it has given up what it was granted in turns before this one. False, and
    /// nothing is changed, if it was granted one in this turn already, or heard: the word is late.
    pub const fn take_over(&mut self, turn: u64) -> bool {
        if self.turn >= turn {
            return false;
        }
        (self.refuses, self.over) = (true, Moment(Duration::ZERO));
        true
    }

    /// Grants to a holder that counts its turns anew.
    pub const fn begin_anew(&mut self) {
        self.turn = 0;
        self.allow();
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
        assert!(!grants.grant(at(2000), 0));
        grants.allow();
        assert!(grants.grant(at(2000), 0) && grants.grant(at(1990), 0));
        assert_eq!(grants.refuse(), after(at(2000)));
    }

    #[test]
    fn whoever_is_heard_is_granted_nothing() {
        let mut grants = Grants::new(at(1000));
        assert!(grants.hear(1));
        assert_eq!(
            grants.refuse(),
            after(at(1000)),
            "it waits for what it granted before, and for nothing else"
        );
        assert!(!grants.hear(1), "on the way to take over");
        grants.allow();
        assert!(!grants.take_over(1), "it was heard in this turn");
        assert!(grants.take_over(2));
    }

    #[test]
    fn what_is_given_up_does_not_come_back() {
        let lease = Lease::default();
        lease.extend(at(100));
        lease.give_up(at(110));
        assert!(!lease.is_live(at(111)));
        lease.extend(at(110));
        assert!(!lease.is_live(at(111)), "asked for before, answered since");
        lease.extend(at(112));
        assert!(lease.is_live(at(113)) && !lease.is_live(at(162)));
    }

    #[test]
    fn by_the_word_of_the_holder_nobody_waits_unless_it_is_late() {
        let mut grants = Grants::new(at(1000));
        assert!(grants.grant(at(2000), 0));
        assert!(!grants.take_over(0), "it has asked in this turn");
        assert!(grants.take_over(1));
        assert_eq!(grants.refuse(), at(0));
        assert!(!grants.grant(at(2001), 0), "a question of before that comes now");
        // It did not come to that, and the holder went on.
        grants.allow();
        assert!(grants.grant(at(2010), 1));
        assert!(!grants.take_over(1), "the same word again");
        assert_eq!(grants.refuse(), after(at(2010)));
        grants.begin_anew();
        assert!(grants.grant(at(3000), 0) && grants.take_over(1));
    }
}
