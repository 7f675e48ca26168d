//! Huge pages: fewer entries in the tables that processors and NICs walk.
//!
//! Two sorts. *Reserved* ones come from the pool that the administrator set aside (`vm.nr_hugepages`): certain once
//! had. *Transparent* ones are given by the kernel where it can: asking for them is advice. What was got is logged and
//! can be asked for; the switch from one to the other is never silent.

use super::available::figure;

/// The pages of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pages {
    /// The system's own page size.
    Base {
        /// Bytes in a page.
        bytes: usize,
    },
    /// Base pages that the kernel has been advised to join to huge ones, and is set to do so where it can.
    Advised {
        /// Bytes in a base page.
        bytes: usize,
        /// Bytes in the huge pages that may come.
        huge_bytes: usize,
    },
    /// Huge pages of the reserved pool, or of a device that has no smaller ones.
    Huge {
        /// Bytes in a page.
        bytes: usize,
    },
}

impl Pages {
    /// Bytes in a page that is certain.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::Base { bytes } | Self::Advised { bytes, .. } | Self::Huge { bytes } => bytes,
        }
    }
}

impl std::fmt::Display for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Base { bytes } => write!(f, "base pages of {bytes} bytes"),
            Self::Advised { bytes, huge_bytes } => {
                write!(f, "base pages of {bytes} bytes, transparent huge pages of {huge_bytes} bytes advised")
            }
            Self::Huge { bytes } => write!(f, "huge pages of {bytes} bytes"),
        }
    }
}

/// Which switch of the kernel rules transparent huge pages for a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transparent {
    Anonymous,
    Shmem,
}

impl Transparent {
    /// Whether the kernel is set to follow the advice.
    pub(super) fn heeded(self) -> bool {
        let (switch, settings): (_, &[&str]) = match self {
            Self::Anonymous => ("enabled", &["[always]", "[madvise]"]),
            Self::Shmem => ("shmem_enabled", &["[always]", "[within_size]", "[advise]", "[force]"]),
        };
        std::fs::read_to_string(format!("/sys/kernel/mm/transparent_hugepage/{switch}"))
            .is_ok_and(|text| text.split_whitespace().any(|word| settings.contains(&word)))
    }
}

/// Bytes in a page.
pub(super) fn base_bytes() -> usize {
    rustix::param::page_size()
}

/// Bytes in a huge page of the kernel's default size, if it has any.
pub(super) fn huge_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = usize::try_from(figure(&text, "Hugepagesize:")?).ok()?.checked_mul(1024)?;
    bytes.is_power_of_two().then_some(bytes)
}

/// The size of the pages when the pool holds enough free, unpromised ones for `len` bytes; with what is there.
pub(super) fn reserved_for(len: usize) -> Option<usize> {
    let bytes = huge_bytes()?;
    let pool = format!("/sys/kernel/mm/hugepages/hugepages-{}kB", bytes / 1024);
    let read = |name| std::fs::read_to_string(format!("{pool}/{name}")).ok()?.trim().parse::<usize>().ok();
    let free = read("free_hugepages")?.saturating_sub(read("resv_hugepages")?);
    (len.div_ceil(bytes) <= free).then_some(bytes)
}
