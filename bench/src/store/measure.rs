//! The loop of a slice, one for the store and for its limit, and the bytes that both write.

use std::time::{Duration, Instant};

use crate::Failure;
use crate::driver::{Slice, process_time};
use crate::histogram::Latencies;

/// Batches between two looks at the clock while the rate is measured, where a batch takes little.
pub(super) const CHECK: u32 = 64;

/// A third of the time with a clock around every batch, the rest without.
pub(super) fn measure(
    duration: Duration,
    depth: u64,
    check: u32,
    mut batch: impl FnMut() -> Result<(), Failure>,
) -> Result<Slice, Failure> {
    let mut latencies = Latencies::new();
    let began = Instant::now();
    while began.elapsed() < duration / 3 {
        let start = Instant::now();
        batch()?;
        latencies.record(start.elapsed());
    }
    let (began, cpu, mut batches) = (Instant::now(), process_time(), 0_u64);
    while began.elapsed() < duration * 2 / 3 {
        for _ in 0..check {
            batch()?;
        }
        batches += u64::from(check);
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Slice { stores: batches * depth, seconds, cpu_ns: process_time() - cpu, calls: None, latencies })
}

/// Bytes that no compression or zero detection makes less of.
pub(super) fn payload(size: u64) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at * 7 % 251 + 1).expect("below 252")).collect()
}
