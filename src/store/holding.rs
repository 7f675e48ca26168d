//! How long requests have been held because the link is lost and it is not decided which node goes on; and what is answered when that is too long.
//!
//! Nothing else that waits counts here: neither a slow disk nor a peer that is still heard, nor a planned switch, which is over soon. A doubt begins
//! with the loss of the link and ends with it, or with the decision; the next one is held for its own time.
//!
//! *An error* is answered to what waits and to what comes. What waited has been appended perhaps, and may be committed when the doubt is over, or be
//! void: to its client it is a write of unknown outcome. What comes is not appended at all, so that a client which tries again and again fills no ring.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::config::{AfterHold, HoldBound};
use super::counters::count;
use super::error::IoError;
use super::primary::{HandOver, Mode, Primary};
use super::state::Reason;
use crate::base::clock::Instant;
use crate::base::locks::Mutex;

/// How long requests have been held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldStatus {
    /// Since the doubt was first seen.
    pub time: Duration,
    /// Whether that is longer than was allowed.
    pub is_over: bool,
    /// What becomes of them then.
    pub after: AfterHold,
}

/// A doubt: the epoch, and how many there were in it.
type Doubt = (u64, u64);

/// Of one dataset.
#[derive(Debug)]
pub(super) struct Holding {
    bound: Option<HoldBound>,
    /// The doubt that was last seen, and since when.
    seen: Mutex<Option<(Doubt, Instant)>>,
}

impl Holding {
    pub(super) fn new(bound: Option<HoldBound>) -> Self {
        Self { bound, seen: Mutex::default() }
    }

    /// How it is, of a node that serves. Whoever looks first begins the time.
    pub(super) fn status<R, W>(&self, epoch: u64, primary: &Primary<R, W>) -> Option<HoldStatus> {
        // Whoever hands the service over knows who is to serve, though the access to the other one's memory is gone by then.
        if !matches!(primary.mode, Mode::Held { .. }) || primary.hand_over != HandOver::No {
            return None;
        }
        let doubt = (epoch, primary.doubts);
        let mut seen = self.seen.lock();
        let since = match *seen {
            Some((known, since)) if known == doubt => since,
            Some(_) | None => seen.insert((doubt, Instant::now())).1,
        };
        drop(seen);
        let time = since.elapsed();
        let is_over = self.bound.is_some_and(|bound| time >= bound.time);
        Some(HoldStatus { time, is_over, after: self.bound.map_or(AfterHold::Suspend, |bound| bound.after) })
    }

    /// Whether requests go on to be held.
    ///
    /// # Errors
    /// They are answered with this.
    pub(super) fn check<R, W>(
        &self,
        epoch: u64,
        primary: &Primary<R, W>,
        failures: &AtomicU64,
    ) -> Result<(), IoError> {
        let Some(HoldBound { time, after: AfterHold::Error }) = self.bound else { return Ok(()) };
        match self.status(epoch, primary) {
            Some(HoldStatus { is_over: true, .. }) => {
                count(failures, 1);
                Err(IoError::HeldTooLong { seconds: time.as_secs() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What operators are told when it is too long, in place of `reason`.
    pub(super) fn reason(&self, status: &HoldStatus, reason: &Reason) -> Option<Reason> {
        let bound = self.bound.filter(|_| status.is_over)?;
        let now = match bound.after {
            AfterHold::Suspend => "they wait on",
            AfterHold::Error => "they are answered with an error",
        };
        let (seconds, Reason { code, text }) = (bound.time.as_secs(), reason);
        let text = format!(
            "requests have been held for more than hold-seconds = {seconds}, and {now}: {text} ({code})"
        );
        Some(Reason::new("held-too-long", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::confirm::tests::{Told, mirrored};

    const SECOND: Duration = Duration::from_secs(1);

    fn holding(time: Duration, after: AfterHold) -> Holding {
        Holding::new(Some(HoldBound { time, after }))
    }

    fn lost() -> Primary<(), Told> {
        let (mut primary, _) = mirrored();
        primary.lose("a test".into());
        primary
    }

    #[test]
    fn only_a_lost_link_is_held_for() {
        let (primary, _) = mirrored();
        let failures = AtomicU64::new(0);
        let holding = holding(Duration::ZERO, AfterHold::Error);
        assert_eq!((holding.status(1, &primary), holding.check(1, &primary, &failures)), (None, Ok(())));
        let error = holding.check(1, &lost(), &failures).unwrap_err();
        assert_eq!(error, IoError::HeldTooLong { seconds: 0 });
        // A planned switch: its member has taken the access away, and is about to serve.
        let mut handing_over = lost();
        handing_over.hand_over = HandOver::Holds;
        assert_eq!(holding.check(1, &handing_over, &failures), Ok(()));
        assert_eq!(failures.into_inner(), 1);
    }

    #[test]
    fn without_a_bound_it_is_never_too_long() {
        let holding = Holding::new(None);
        let status = holding.status(1, &lost()).unwrap();
        assert!(!status.is_over && holding.check(1, &lost(), &AtomicU64::new(0)).is_ok());
        assert_eq!(holding.reason(&status, &Reason::new("held", "x")), None);
    }

    #[test]
    fn who_only_wants_to_know_is_told_and_held_on() {
        let holding = holding(Duration::ZERO, AfterHold::Suspend);
        assert_eq!(holding.check(1, &lost(), &AtomicU64::new(0)), Ok(()));
        let status = holding.status(1, &lost()).unwrap();
        let reason = holding.reason(&status, &Reason::new("link-lost", "why")).unwrap();
        assert_eq!(reason.code, "held-too-long");
        assert!(reason.text.contains("they wait on: why (link-lost)"), "{}", reason.text);
    }

    #[test]
    fn each_doubt_has_its_own_time() {
        let holding = holding(1000 * SECOND, AfterHold::Error);
        let mut primary = lost();
        let aged = |holding: &Holding| {
            let mut seen = holding.seen.lock();
            let (_, since) = seen.as_mut().unwrap();
            *since = *since - 2000 * SECOND;
        };
        let is_over = |primary: &Primary<(), Told>, epoch| holding.status(epoch, primary).unwrap().is_over;
        assert!(!is_over(&primary, 1));
        aged(&holding);
        assert!(is_over(&primary, 1));
        assert!(!is_over(&primary, 2), "the service began anew since");
        aged(&holding);
        assert!(is_over(&primary, 2));
        primary.mode = Mode::Mirrored;
        primary.lose("again".into());
        assert!(!is_over(&primary, 2), "the link was back since");
    }
}
