//! The clock. A release reads the system's; in tests, code that runs in a simulated world reads that world's.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

#[cfg(not(test))]
pub use std::time::Instant;
#[cfg(test)]
pub use tests_only::Instant;

/// Time since the machine was started, on a clock that does not stop while it sleeps.
#[must_use]
pub fn boottime() -> Duration {
    #[cfg(test)]
    if let Some(now) = crate::sim::scheduler::local_now() {
        return now;
    }
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The moment.
#[cfg(not(test))]
#[inline]
#[must_use]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The moment, of the machine or of the simulated world.
#[cfg(test)]
pub(crate) use tests_only::now;

#[cfg(test)]
mod tests_only {
    use std::ops::{Add, Sub};
    use std::sync::OnceLock;
    use std::time::{self, Duration};

    /// As that of `std`, read where the code runs.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Instant(time::Instant);

    /// The simulated clocks begin here, all of them.
    static BEGIN: OnceLock<time::Instant> = OnceLock::new();

    pub(crate) fn now() -> time::Instant {
        match crate::sim::scheduler::local_now() {
            Some(now) => *BEGIN.get_or_init(time::Instant::now) + now,
            None => time::Instant::now(),
        }
    }

    impl Instant {
        /// The moment.
        #[must_use]
        pub fn now() -> Self {
            Self(now())
        }

        /// Since then.
        #[must_use]
        pub fn elapsed(&self) -> Duration {
            now().saturating_duration_since(self.0)
        }

        /// As that of `std`, 0 where it would be less.
        #[must_use]
        pub fn duration_since(&self, earlier: Self) -> Duration {
            self.0.saturating_duration_since(earlier.0)
        }

        /// The same.
        #[must_use]
        pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
            self.0.saturating_duration_since(earlier.0)
        }

        /// As that of `std`.
        #[must_use]
        pub fn checked_add(&self, duration: Duration) -> Option<Self> {
            self.0.checked_add(duration).map(Self)
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;

        fn add(self, duration: Duration) -> Self {
            Self(self.0 + duration)
        }
    }

    impl Sub<Duration> for Instant {
        type Output = Self;

        fn sub(self, duration: Duration) -> Self {
            Self(self.0 - duration)
        }
    }

    impl Sub for Instant {
        type Output = Duration;

        fn sub(self, earlier: Self) -> Duration {
            self.duration_since(earlier)
        }
    }
}
