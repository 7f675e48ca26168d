//! Which methods this kernel has: each is found out by using it.

use std::fmt;
use std::sync::OnceLock;

use super::runs::Runs;
use super::{TrackError, TrackedMemory};
use crate::memory::pages::base_bytes;

/// How stores are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackingMethod {
    /// Asynchronous write protection by userfaultfd, and `PAGEMAP_SCAN`: Linux 6.9. The cheapest.
    WpAsync,
    /// Soft-dirty bits. Clearing them is for the whole process: nobody else in it may go by them.
    SoftDirty,
    /// Read-only pages and a SIGSEGV handler: everywhere, at the price of a signal for each page that is stored to.
    Mprotect,
}

impl TrackingMethod {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::WpAsync, Self::SoftDirty, Self::Mprotect];

    /// The best method that works here, and why none before it: each is tried on a few pages. A process chooses once: what was found first is
    /// told from then on, and nothing is tried beside memories that are tracked already.
    ///
    /// # Errors
    /// None works, with the reasons; or [`TrackError::TooMany`].
    pub fn choose() -> Result<(Self, String), TrackError> {
        static CHOSEN: OnceLock<(TrackingMethod, String)> = OnceLock::new();
        if let Some(chosen) = CHOSEN.get() {
            return Ok(chosen.clone());
        }
        Self::find().map(|found| CHOSEN.get_or_init(|| found).clone())
    }

    fn find() -> Result<(Self, String), TrackError> {
        let mut reasons = Vec::new();
        for method in Self::ALL {
            match method.probe() {
                Ok(()) if reasons.is_empty() => {
                    return Ok((method, format!("{method}: it works here, and is the cheapest")));
                }
                Ok(()) => return Ok((method, format!("{method}: {}", reasons.join("; ")))),
                // It may work, and another memory of this process is in the way.
                Err(error @ TrackError::TooMany { .. }) => return Err(error),
                Err(error) => reasons.push(format!("no {method} ({error})")),
            }
        }
        Err(TrackError::NoMethod(reasons.join("; ")))
    }

    /// Tries it: whether a store is found, and another after it, and nothing else. (Where all memory of the process is locked, soft-dirty bits
    /// tell of every page.)
    ///
    /// # Errors
    /// What the system said, or what was found instead.
    pub fn probe(self) -> Result<(), TrackError> {
        const PAGES: usize = 5;
        let page = base_bytes();
        let memory = TrackedMemory::new(PAGES * page, self)?;
        for stored in [3, 1] {
            let mut found = Runs::new(page);
            memory.slice().write(stored * page + 7, &[1]);
            memory.collect(&mut found).map_err(|error| TrackError::System { method: self, error })?;
            let only = stored * page..(stored + 1) * page;
            if found.ranges() != std::slice::from_ref(&only) {
                let found = found.ranges().to_vec();
                return Err(TrackError::Wrong { method: self, page: stored, found });
            }
        }
        Ok(())
    }
}

impl fmt::Display for TrackingMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WpAsync => "wp-async",
            Self::SoftDirty => "soft-dirty",
            Self::Mprotect => "mprotect",
        })
    }
}

impl std::str::FromStr for TrackingMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|method| method.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is no tracking method: write wp-async, soft-dirty or mprotect"))
    }
}
