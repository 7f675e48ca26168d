//! What a process uses, as the kernel counts it.

use std::fmt;

/// Memory, threads and descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    rss_kib: u64,
    threads: usize,
    descriptors: usize,
}

impl Usage {
    /// Resident memory may waver by this much.
    const RSS_KIB_MARGIN: u64 = 8 << 10;

    /// Of the process `id`.
    pub(crate) fn of(id: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let count = |what: &str| std::fs::read_dir(format!("/proc/{id}/{what}")).unwrap().count();
        Self {
            rss_kib: rss.trim().trim_end_matches(" kB").parse().unwrap(),
            threads: count("task"),
            descriptors: count("fd"),
        }
    }

    /// The lesser of each.
    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            rss_kib: self.rss_kib.min(other.rss_kib),
            threads: self.threads.min(other.threads),
            descriptors: self.descriptors.min(other.descriptors),
        }
    }

    /// Whether it is no more than `before`.
    pub(crate) fn within(&self, before: &Self) -> bool {
        self.rss_kib <= before.rss_kib + Self::RSS_KIB_MARGIN
            && self.threads <= before.threads
            && self.descriptors <= before.descriptors
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rss_kib, threads, descriptors } = self;
        write!(f, "{rss_kib} KiB, {threads} threads, {descriptors} descriptors")
    }
}
