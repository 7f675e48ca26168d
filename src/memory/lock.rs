//! Locking a mapping into memory: no store waits for a page, and no page that a NIC writes is moved to swap.

use rustix::process::{Resource, getrlimit};

use super::available::{available_memory, figure};
use super::{Mapping, MappingKind};
use crate::base::format_bytes;

/// What to do when memory cannot be locked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LockPolicy {
    /// Fail.
    #[default]
    Required,
    /// Go on without, and log why.
    Try,
    /// Do not lock.
    Off,
}

impl std::str::FromStr for LockPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "required" => Ok(Self::Required),
            "try" => Ok(Self::Try),
            "off" => Ok(Self::Off),
            _ => Err(format!("{text:?} is no lock policy: write required, try or off")),
        }
    }
}

impl std::fmt::Display for LockPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Try => "try",
            Self::Off => "off",
        })
    }
}

/// Why memory cannot be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The system refused.
    #[error("cannot lock {asked} bytes of memory: {error}; this process has locked {locked} bytes and may lock {} \
             (RLIMIT_MEMLOCK soft {}, hard {}): raise it with `ulimit -l`, in /etc/security/limits.d \
             (`USER - memlock unlimited`) or LimitMEMLOCK=infinity of the systemd unit, or go on without: mlock=try",
             limit_text(*soft), limit_text(*soft), limit_text(*hard))]
    Refused {
        /// Bytes asked for.
        asked: usize,
        /// Bytes that the process has locked already.
        locked: u64,
        /// RLIMIT_MEMLOCK in force, in bytes; `None` is unlimited.
        soft: Option<u64>,
        /// What it may be raised to without privilege.
        hard: Option<u64>,
        /// What the system said.
        error: std::io::Error,
    },
    /// Locking fills memory at once, and there is not so much.
    #[error(
        "cannot lock {asked} bytes: {needed} of them have no memory yet and {available} are available: make the \
             region smaller or free memory, or go on without: mlock=try"
    )]
    Memory {
        /// Bytes asked for.
        asked: usize,
        /// Bytes of those that have no memory yet.
        needed: u64,
        /// Bytes that can be had without swapping.
        available: u64,
    },
}

fn limit_text(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".into(), |bytes| format!("{bytes} bytes = {}", format_bytes(bytes)))
}

impl Mapping {
    /// Locks all of it into memory, which fills it; undone on drop. Says whether it is locked now.
    ///
    /// # Errors
    /// With [`LockPolicy::Required`] when it cannot be had.
    pub fn lock(&self, policy: LockPolicy) -> Result<bool, LockError> {
        if policy == LockPolicy::Off {
            return Ok(false);
        }
        match (self.lock_now(), policy) {
            (Ok(()), _) => Ok(true),
            (Err(error), LockPolicy::Try) => {
                log::warn!("memory stays unlocked and may be swapped out: {error}");
                Ok(false)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn lock_now(&self) -> Result<(), LockError> {
        let asked = self.len();
        let needed = self.unfilled_bytes();
        match available_memory() {
            Some(available) if needed > available => {
                return Err(LockError::Memory { asked, needed, available });
            }
            _ => {}
        }
        self.lock_pages().map_err(|error| {
            let limit = getrlimit(Resource::Memlock);
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let locked = figure(&status, "VmLck:").unwrap_or(0) * 1024;
            LockError::Refused {
                asked,
                locked,
                soft: limit.current,
                hard: limit.maximum,
                error: error.into(),
            }
        })
    }

    /// Bytes that locking would have to find memory for. Page cache counts as available, so a file needs all.
    fn unfilled_bytes(&self) -> u64 {
        match self.kind() {
            MappingKind::File => self.len() as u64,
            MappingKind::Anonymous if self.page_size_used() == super::pages::base_bytes() => {
                (self.len() as u64).saturating_sub(self.resident_bytes())
            }
            // Filled when made, of the reserved pool, or not this machine's memory.
            _ => 0,
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use rustix::process::{Rlimit, setrlimit};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;
    use crate::memory::MapOptions;
    use crate::memory::testing::in_child;

    #[test]
    fn policies_are_read_and_written() {
        for policy in [LockPolicy::Required, LockPolicy::Try, LockPolicy::Off] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("maybe".parse::<LockPolicy>().is_err());
    }

    /// Takes the privilege to lock without limit from this thread, and lowers the limit of the process.
    fn limit_to(bytes: u64) {
        let mut sets = capabilities(None).expect("capabilities");
        sets.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, sets).expect("dropping a capability");
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        setrlimit(Resource::Memlock, limit).expect("lowering a limit");
    }

    #[test]
    fn a_small_limit_is_an_error_with_its_fix() {
        in_child("memory::lock::tests::a_small_limit_is_an_error_with_its_fix", || {
            const LIMIT: u64 = 1 << 20;
            limit_to(LIMIT);
            let small = Mapping::anonymous(64 << 10, MapOptions::default()).expect("64 KiB");
            assert!(small.lock(LockPolicy::Required).expect("within the limit"));
            let large = Mapping::memfd("lock-test", 4 << 20, MapOptions::default()).expect("4 MiB");
            let error = large.lock(LockPolicy::Required).expect_err("above the limit");
            let LockError::Refused { asked, locked, soft, hard, .. } = &error else { panic!("{error}") };
            assert_eq!((*asked, *soft, *hard), (4 << 20, Some(LIMIT), Some(LIMIT)));
            assert!(*locked >= 64 << 10, "{locked} bytes locked");
            let text = error.to_string();
            for part in
                ["4194304", "1048576", "ulimit -l", "/etc/security/limits.d", "LimitMEMLOCK=", "mlock=try"]
            {
                assert!(text.contains(part), "{part} is not in: {text}");
            }
            assert!(!large.lock(LockPolicy::Try).expect("goes on"));
            assert!(!large.lock(LockPolicy::Off).expect("goes on"));
            drop(small);
            limit_to(0);
            assert!(large.lock(LockPolicy::Required).is_err(), "a limit of 0");
        });
    }

    #[test]
    fn locking_fills_the_memory() {
        let mapping = Mapping::anonymous(256 << 10, MapOptions::default()).expect("256 KiB");
        assert_eq!(mapping.resident_bytes(), 0);
        // The build's own limit may be lower than that; then there is nothing to see.
        if mapping.lock(LockPolicy::Try).expect("never fails") {
            assert_eq!(mapping.resident_bytes(), 256 << 10);
        } else {
            assert!(getrlimit(Resource::Memlock).current.is_some_and(|limit| limit < 16 << 20));
        }
    }
}
