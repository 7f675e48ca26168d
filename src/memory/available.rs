//! How much memory and disk space there is, before the kernel promises what it does not have.
//!
//! The kernel overcommits: a mapping larger than memory succeeds, and a process is killed when it is filled. So a
//! mapping is compared first with what can be had without swapping: the machine's `MemAvailable`, and what the control
//! group leaves. Where a figure cannot be read nothing is refused. The figures are a moment's: two processes that map
//! at once can both pass.

use std::os::fd::AsFd;

use super::{MapError, MappingKind};

/// Bytes that can be had without swapping, as far as the kernel tells.
pub(super) fn available_memory() -> Option<u64> {
    let machine =
        std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| figure(&text, "MemAvailable:"));
    let machine = machine.map(|kilobytes| kilobytes.saturating_mul(1024));
    match (machine, group_memory()) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

/// Bytes that the control groups (version 2) around this process leave, caches that can be given up included.
fn group_memory() -> Option<u64> {
    /// More levels than any hierarchy has.
    const LEVELS_MAX: usize = 64;
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = std::path::Path::new("/sys/fs/cgroup");
    let levels = std::path::Path::new(own).ancestors().take(LEVELS_MAX).map(|group| root.join(group));
    levels.filter_map(|group| left_in(&group)).min()
}

fn left_in(group: &std::path::Path) -> Option<u64> {
    let read = |name| std::fs::read_to_string(group.join(name)).ok();
    // "max" is no number, and means no limit.
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let statistics = read("memory.stat")?;
    let cache = figure(&statistics, "file ")?.saturating_sub(figure(&statistics, "shmem ")?);
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

/// The number behind `name` at the start of a line.
pub(super) fn figure(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Refuses `asked` bytes of which `present` have their memory already.
pub(super) fn check_memory(kind: MappingKind, asked: usize, present: u64) -> Result<(), MapError> {
    let needed = (asked as u64).saturating_sub(present);
    match available_memory() {
        Some(available) if needed > available => Err(MapError::Memory { kind, asked, needed, available }),
        _ => Ok(()),
    }
}

/// Refuses `asked` bytes of which `present` are allocated already, when the file system of `fd` lacks the rest.
pub(super) fn check_space(
    kind: MappingKind,
    fd: impl AsFd,
    asked: usize,
    present: u64,
) -> Result<(), MapError> {
    let needed = (asked as u64).saturating_sub(present);
    match rustix::fs::fstatvfs(fd) {
        // A file system without a size, such as an unlimited tmpfs, counts no blocks at all.
        Ok(figures) if figures.f_blocks > 0 => {
            let available = figures.f_bavail.saturating_mul(figures.f_frsize);
            if needed > available {
                return Err(MapError::Space { kind, asked, needed, available });
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_at_the_start_of_lines() {
        let text = "MemTotal: 5 kB\nMemAvailable:   1234 kB\nfile 7\nfile_mapped 9\n";
        assert_eq!(figure(text, "MemAvailable:"), Some(1234));
        assert_eq!(figure(text, "file "), Some(7));
        assert_eq!(figure(text, "Available:"), None);
        assert_eq!(figure("Hugepagesize: many", "Hugepagesize:"), None);
    }

    #[cfg(not(miri))]
    #[test]
    fn more_than_there_is_is_refused_with_the_figures() {
        let available = available_memory().expect("Linux tells");
        assert!(available > 1 << 20, "{available} bytes cannot run this test");
        check_memory(MappingKind::Anonymous, 4096, 0).expect("a page is there");
        check_memory(MappingKind::Shm, 1 << 50, 1 << 50).expect("all is present");
        let error = check_memory(MappingKind::Anonymous, 1 << 50, 0).expect_err("a PiB is not there");
        assert!(matches!(error, MapError::Memory { needed, .. } if needed == 1 << 50), "{error}");
        assert!(error.to_string().contains("1024 TiB"), "{error}");
    }
}
