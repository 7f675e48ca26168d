//! Whether the mediator can be relied on: looked at now and then by each node, so that its loss is known before it is needed.

use std::time::Duration;

use crate::base::clock::Instant;

/// Between two looks.
pub const LOOK_STEP: Duration = Duration::from_secs(1);

/// How long it must have answered, or not, until that counts: one look that fails is no loss, and one that succeeds no return.
pub const STEADY: Duration = Duration::from_secs(3);

/// How it was found, look by look.
#[derive(Debug, Clone, Copy)]
pub struct Sight {
    answers: bool,
    since: Instant,
}

impl Sight {
    /// Of a node that has not looked yet: taken to answer, so that nothing is agreed on before it was looked for.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { answers: true, since: now }
    }

    /// A look found that it answers, or not.
    pub fn note(&mut self, answers: bool, now: Instant) {
        if self.answers != answers {
            *self = Self { answers, since: now };
        }
    }

    /// Whether it answered when it was looked for last.
    #[must_use]
    pub const fn answers(&self) -> bool {
        self.answers
    }

    /// Whether it is lost for certain.
    #[must_use]
    pub fn is_lost(&self, now: Instant) -> bool {
        !self.answers && self.has_lasted(now)
    }

    /// Whether it can be relied on again.
    #[must_use]
    pub fn is_reliable(&self, now: Instant) -> bool {
        self.answers && self.has_lasted(now)
    }

    fn has_lasted(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= STEADY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lasts_counts() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let mut sight = Sight::new(start);
        assert!(sight.answers() && !sight.is_lost(after(9)) && sight.is_reliable(after(9)));
        sight.note(false, after(10));
        assert!(!sight.answers() && !sight.is_lost(after(12)) && !sight.is_reliable(after(12)));
        sight.note(false, after(12));
        assert!(sight.is_lost(after(13)), "since the first look that failed");
        sight.note(true, after(14));
        assert!(sight.answers() && !sight.is_lost(after(20)) && !sight.is_reliable(after(16)));
        sight.note(false, after(16));
        sight.note(true, after(17));
        assert!(!sight.is_reliable(after(19)), "it was gone in between");
        assert!(sight.is_reliable(after(20)));
    }
}
