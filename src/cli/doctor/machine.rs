//! Processor and clock.

use std::hint::black_box;
use std::time::{Duration, Instant};

use mirrorbus::base::crc32c;

use super::{Finding, State};

/// Bytes of the checksum's trial.
const CHECKSUM_BYTES: usize = 16 << 20;
/// Looks at the clock in its trial.
const CLOCK_LOOKS: u32 = 20_000;
/// A clock in user space takes some 20 to 60 ns; one that needs a system call or a device, far more.
const CLOCK_TIME_MAX: Duration = Duration::from_nanos(250);

/// Looks at all of it.
pub(super) fn look() -> Vec<Finding> {
    vec![processors(), checksum(), clock()]
}

fn processors() -> Finding {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Finding::judged(
        count > 1,
        State::Warn,
        "processors",
        count.to_string(),
        "with one, owner and holder on this machine take turns; do not spin (--spin-us 0)",
    )
}

#[cfg(target_arch = "x86_64")]
fn checksum_instruction() -> Option<&'static str> {
    std::arch::is_x86_feature_detected!("sse4.2").then_some("SSE 4.2")
}

#[cfg(target_arch = "aarch64")]
fn checksum_instruction() -> Option<&'static str> {
    std::arch::is_aarch64_feature_detected!("crc").then_some("the CRC extension")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn checksum_instruction() -> Option<&'static str> {
    None
}

fn checksum() -> Finding {
    let bytes = vec![0x5a; CHECKSUM_BYTES];
    let begun = Instant::now();
    black_box(crc32c(black_box(&bytes)));
    let rate = CHECKSUM_BYTES as u128 * 1000 / begun.elapsed().as_nanos().max(1);
    let instruction = checksum_instruction();
    Finding::judged(
        instruction.is_some(),
        State::Warn,
        "CRC32C instruction",
        format!("{}, {rate} MB/s", instruction.unwrap_or("none")),
        "tcp computes two checksums per frame: use shm, or a processor (or a virtual machine) that has it",
    )
}

fn clock() -> Finding {
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let begun = Instant::now();
    for _ in 0..CLOCK_LOOKS {
        black_box(Instant::now());
    }
    let each = begun.elapsed() / CLOCK_LOOKS;
    Finding::judged(
        each <= CLOCK_TIME_MAX,
        State::Warn,
        "clock",
        format!("{}, {} ns a look", source.as_deref().unwrap_or("unknown").trim(), each.as_nanos()),
        "waits look at the clock: see /sys/devices/system/clocksource/clocksource0/available_clocksource for a faster one",
    )
}
