//! Memory: how much, how much may be locked, in pages of which size.

use mirrorbus::Mapping;
use mirrorbus::base::format_bytes;
use mirrorbus::memory::{LockPolicy, MapOptions, Pages};
use rustix::process::{Resource, getrlimit};

use super::{Finding, State, figure};

/// Bytes that are locked on trial: more than the usual default limit of 8 MiB.
const LOCK_TRIAL_BYTES: usize = 64 << 20;
/// Less memory than this holds no region worth the name.
const AVAILABLE_MIN: u64 = 256 << 20;

/// Looks at all of it.
pub(super) fn look() -> Vec<Finding> {
    vec![available(), locking(), pool(), transparent("enabled"), transparent("shmem_enabled"), shm_space()]
}

fn available() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match figure(&text, "MemAvailable:").map(|kilobytes| kilobytes * 1024) {
        Some(bytes) => Finding::judged(
            bytes >= AVAILABLE_MIN,
            State::Warn,
            "memory available",
            format!("{} (MemAvailable)", format_bytes(bytes)),
            "a region, and its copy, must fit in memory: free some, or make regions smaller",
        ),
        None => Finding::warn(
            "memory available",
            "/proc/meminfo does not tell",
            "mount /proc, so that a region larger than memory is refused and not killed later",
        ),
    }
}

fn locking() -> Finding {
    const WHAT: &str = "locked memory";
    const FIX: &str = "`ulimit -l unlimited`, `USER - memlock unlimited` in /etc/security/limits.d, or \
                       LimitMEMLOCK=infinity in the systemd unit; or run with --mlock try";
    let limit = getrlimit(Resource::Memlock);
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), format_bytes);
    let limits = format!("RLIMIT_MEMLOCK soft {}, hard {}", text(limit.current), text(limit.maximum));
    let trial = format_bytes(LOCK_TRIAL_BYTES as u64);
    let locked = Mapping::anonymous(LOCK_TRIAL_BYTES, MapOptions::default())
        .map_err(|error| error.to_string())
        .and_then(|mapping| mapping.lock(LockPolicy::Required).map_err(|error| error.to_string()));
    let most = match limit.current {
        None => "as much as there is memory",
        Some(_) => "by privilege more than the limit",
    };
    match locked {
        Ok(_) if limit.current.is_none_or(|bytes| bytes < LOCK_TRIAL_BYTES as u64) => {
            Finding::ok(WHAT, format!("{trial} were locked; {limits}: {most}"))
        }
        Ok(_) => Finding::ok(WHAT, format!("{trial} were locked; {limits}")),
        Err(_) => Finding::warn(WHAT, format!("{trial} cannot be locked; {limits}"), FIX),
    }
}

fn pool() -> Finding {
    const WHAT: &str = "huge pages, reserved";
    const FIX: &str = "optional: `sysctl vm.nr_hugepages=N` sets pages aside that --huge-pages uses";
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let Some(page) = figure(&text, "Hugepagesize:").map(|kilobytes| kilobytes * 1024) else {
        return Finding::warn(WHAT, "the kernel has none", "optional: a kernel with CONFIG_HUGETLBFS");
    };
    let count = |name| figure(&text, name).unwrap_or(0);
    let figures = format!(
        "{} of {} pages of {} free",
        count("HugePages_Free:"),
        count("HugePages_Total:"),
        format_bytes(page)
    );
    let options = MapOptions { huge_pages: true };
    let mapped = usize::try_from(page).ok().and_then(|bytes| Mapping::anonymous(bytes, options).ok());
    match mapped.map(|mapping| mapping.pages()) {
        Some(Pages::Huge { .. }) => Finding::ok(WHAT, format!("{figures}; one was mapped")),
        _ => Finding::warn(WHAT, format!("{figures}; none could be mapped"), FIX),
    }
}

fn transparent(switch: &'static str) -> Finding {
    let (what, good, fix): (_, &[&str], _) = if switch == "enabled" {
        (
            "huge pages, transparent, private memory",
            &["always", "madvise"],
            "optional: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )
    } else {
        (
            "huge pages, transparent, shared memory",
            &["always", "within_size", "advise", "force"],
            "optional: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled",
        )
    };
    let path = format!("/sys/kernel/mm/transparent_hugepage/{switch}");
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Finding::warn(
            what,
            format!("no {path}"),
            "optional: a kernel with CONFIG_TRANSPARENT_HUGEPAGE",
        );
    };
    let chosen = text.split(['[', ']']).nth(1).unwrap_or("unknown");
    Finding::judged(good.contains(&chosen), State::Warn, what, format!("{switch} is {chosen}"), fix)
}

fn shm_space() -> Finding {
    const WHAT: &str = "space for named shared memory";
    const FIX: &str = "mount -o remount,size=N /dev/shm (in a container: --shm-size); memfds do not need it";
    match rustix::fs::statvfs("/dev/shm") {
        Ok(figures) => {
            let bytes = figures.f_bavail.saturating_mul(figures.f_frsize);
            let found = format!("{} free in /dev/shm", format_bytes(bytes));
            Finding::judged(bytes >= AVAILABLE_MIN, State::Warn, WHAT, found, FIX)
        }
        Err(error) => Finding::warn(WHAT, format!("/dev/shm: {error}"), "mount -t tmpfs tmpfs /dev/shm"),
    }
}
