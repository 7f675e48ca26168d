//! The machine, as far as it bears on the figures: no names, no dates.

use std::fs;

/// What a reader needs to place the figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// What the clock is made of.
    pub clock_source: String,
    /// When the kernel gives huge pages.
    pub huge_pages: String,
    /// Runnable processes over the last minute when the run began: what else was going on.
    pub load: String,
}

impl Machine {
    /// This one. What cannot be read is `unknown`.
    pub(crate) fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let first_word = |text: String| text.split_whitespace().next().unwrap_or("unknown").to_owned();
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            memory_bytes: field(&meminfo, "MemTotal").map_or(0, |text| kibibytes(&text)),
            clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            huge_pages: chosen(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
            load: first_word(read("/proc/loadavg")),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

fn kibibytes(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The word in brackets of `always [madvise] never`.
fn chosen(text: &str) -> String {
    let inner = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
    inner.unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_understood() {
        assert_eq!(field("a : b\nmodel name\t: Some CPU\n", "model name").as_deref(), Some("Some CPU"));
        assert_eq!(kibibytes("24 kB"), 24 * 1024);
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("unknown"), "unknown");
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.memory_bytes > 0, "{machine:?}");
    }
}
