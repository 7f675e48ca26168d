//! The loop that stores: one for the mirrored region and for every limit, so that nothing but the store differs.
//!
//! ```text
//! slice  = warm-up (4 %) | latencies (24 %) | rate (72 %)
//! ```
//!
//! In the middle part one store of each batch is timed, from the call to its acknowledgment, at a position that moves
//! through the batch; at depth 1 that is every store. The last part reads the clock only every [`CHECK_STORES`]
//! stores or [`CHECK_BYTES`] where a store takes nanoseconds, so the rate is not diluted by the clock. Every part has a fixed duration, so threads that
//! start together stay together.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::Failure;
use crate::histogram::Latencies;
use crate::workload::{Fabric, Offsets, Workload};

/// Stores between two looks at the clock while the rate is measured.
const CHECK_STORES: usize = 1024;
/// Bytes stored between two looks at the clock while the rate is measured.
const CHECK_BYTES: usize = 1 << 20;

/// One thread's way to store.
pub(crate) trait Side: Send {
    /// Names a store, and with it all before it.
    type Mark: Copy + Send;

    /// Stores the side's payload at `offset` of the region.
    fn store(&mut self, offset: usize) -> Result<Self::Mark, Failure>;

    /// Makes all stores so far go, of which `last` is the last; returns what to wait for. `more` follow before the wait.
    fn post(&mut self, last: Self::Mark, more: bool) -> Result<Self::Mark, Failure>;

    /// Waits until what was posted up to `mark` is acknowledged.
    fn wait(&mut self, mark: Self::Mark) -> Result<(), Failure>;

    /// System calls made so far, when the side knows; over RDMA doorbells, which are system calls on some devices only.
    fn calls(&self) -> Option<u64> {
        None
    }
}

/// What one slice gave.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    /// Stores acknowledged while the rate was measured.
    pub stores: u64,
    /// Seconds that took.
    pub seconds: f64,
    /// Processor time of this process meanwhile, user and system, in nanoseconds.
    pub cpu_ns: u64,
    /// System calls or doorbells of the storing threads meanwhile, when known.
    pub calls: Option<u64>,
    /// From store to acknowledgment.
    pub latencies: Latencies,
}

impl Slice {
    /// Stores a second.
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    pub(crate) fn rate(&self) -> f64 {
        self.stores as f64 / self.seconds
    }
}

/// A side, and where it stores next.
#[derive(Debug)]
pub(crate) struct Driver<S> {
    side: S,
    offsets: Offsets,
    batch: usize,
    pipelined: bool,
    batches_per_check: usize,
}

/// What one thread did while the rate was measured.
struct Run {
    stores: u64,
    seconds: f64,
    cpu_ns: u64,
    calls: Option<u64>,
    latencies: Latencies,
}

impl<S: Side> Driver<S> {
    /// Drives `side` as thread `index` of `workload`.
    pub(crate) fn new(side: S, workload: &Workload, index: usize) -> Self {
        let stores = match workload.fabric {
            Fabric::Shm => CHECK_STORES.min(CHECK_BYTES / workload.size).max(1),
            // The clock is nothing beside a round trip, and a slow one must not make the slice long.
            Fabric::Tcp | Fabric::Rdma => 1,
        };
        let batch = workload.batch();
        Self {
            side,
            offsets: workload.offsets(index),
            batch,
            pipelined: workload.pipelined(),
            batches_per_check: (stores / batch).max(1),
        }
    }

    fn run(&mut self, duration: Duration) -> Result<Run, Failure> {
        self.rate_of(duration.mul_f64(0.04))?;
        let mut latencies = Latencies::new();
        self.time(duration.mul_f64(0.24), &mut latencies)?;
        let calls_before = self.side.calls();
        let cpu_before = process_time();
        let (stores, seconds) = self.rate_of(duration.mul_f64(0.72))?;
        let cpu_ns = process_time() - cpu_before;
        let calls = self.side.calls().zip(calls_before).map(|(after, before)| after - before);
        Ok(Run { stores, seconds, cpu_ns, calls, latencies })
    }

    /// Stores for `duration` and times one store of each batch.
    fn time(&mut self, duration: Duration, latencies: &mut Latencies) -> Result<(), Failure> {
        let start = Instant::now();
        let mut previous: Option<(S::Mark, Instant)> = None;
        let mut position = 0;
        loop {
            let mut stored = start;
            let mut index = 0;
            let last = loop {
                let offset = self.offsets.next();
                if index == position {
                    stored = Instant::now();
                }
                let mark = self.side.store(offset)?;
                index += 1;
                if index >= self.batch {
                    break mark;
                }
            };
            let posted = (self.side.post(last, self.pipelined)?, stored);
            let oldest = if self.pipelined { previous.replace(posted) } else { Some(posted) };
            let mut now = stored;
            if let Some((mark, stored)) = oldest {
                self.side.wait(mark)?;
                now = Instant::now();
                latencies.record(now - stored);
            }
            position = if position + 1 >= self.batch { 0 } else { position + 1 };
            if now - start >= duration {
                break;
            }
        }
        previous.map_or(Ok(()), |(mark, _)| self.side.wait(mark))
    }

    /// Stores for `duration`; how many, in how many seconds.
    fn rate_of(&mut self, duration: Duration) -> Result<(u64, f64), Failure> {
        if self.pipelined { self.rate::<true>(duration) } else { self.rate::<false>(duration) }
    }

    /// As [`rate_of`](Self::rate_of); waits for a batch when the next is posted if `PIPELINED`, else at once.
    fn rate<const PIPELINED: bool>(&mut self, duration: Duration) -> Result<(u64, f64), Failure> {
        let start = Instant::now();
        let mut batches = 0u64;
        let mut previous: Option<S::Mark> = None;
        loop {
            for _ in 0..self.batches_per_check {
                for _ in 1..self.batch {
                    self.side.store(self.offsets.next())?;
                }
                let last = self.side.store(self.offsets.next())?;
                let mark = self.side.post(last, PIPELINED)?;
                let oldest = if PIPELINED { previous.replace(mark) } else { Some(mark) };
                if let Some(mark) = oldest {
                    self.side.wait(mark)?;
                }
            }
            batches += self.batches_per_check as u64;
            if start.elapsed() >= duration {
                break;
            }
        }
        if let Some(mark) = previous {
            self.side.wait(mark)?;
        }
        Ok((batches * self.batch as u64, start.elapsed().as_secs_f64()))
    }
}

/// Runs all drivers for `duration`, each on a thread of its own; a single one on this thread.
///
/// # Errors
/// The first that failed.
pub(crate) fn slice<S: Side>(drivers: &mut [Driver<S>], duration: Duration) -> Result<Slice, Failure> {
    if let [driver] = drivers {
        return join(vec![driver.run(duration)]);
    }
    let start = Barrier::new(drivers.len());
    let runs = std::thread::scope(|scope| {
        let start = &start;
        let threads: Vec<_> = drivers
            .iter_mut()
            .map(|driver| {
                scope.spawn(move || {
                    start.wait();
                    driver.run(duration)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a storing thread panicked".into())))
            .collect()
    });
    join(runs)
}

/// One slice out of what the threads did. The processor time is the process's, so one thread's view of it will do.
fn join(runs: Vec<Result<Run, Failure>>) -> Result<Slice, Failure> {
    let mut slice = Slice { stores: 0, seconds: 0.0, cpu_ns: 0, calls: Some(0), latencies: Latencies::new() };
    for run in runs {
        let run = run?;
        slice.stores += run.stores;
        slice.seconds = slice.seconds.max(run.seconds);
        slice.cpu_ns = slice.cpu_ns.max(run.cpu_ns);
        slice.calls = slice.calls.zip(run.calls).map(|(sum, calls)| sum + calls);
        slice.latencies.add(&run.latencies);
    }
    Ok(slice)
}

/// Processor time of this process so far, in nanoseconds.
pub(crate) fn process_time() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Pattern, Polling};

    /// Counts, and checks that no more than `depth` stores are ever unacknowledged.
    struct Counting {
        depth: u64,
        stored: u64,
        acked: u64,
        fail_at: u64,
    }

    impl Side for Counting {
        type Mark = u64;

        fn store(&mut self, offset: usize) -> Result<u64, Failure> {
            assert!(offset + 64 <= 1 << 20);
            self.stored += 1;
            assert!(self.stored - self.acked <= self.depth, "{} in flight", self.stored - self.acked);
            if self.stored == self.fail_at { Err("asked to fail".into()) } else { Ok(self.stored) }
        }

        fn post(&mut self, last: u64, _more: bool) -> Result<u64, Failure> {
            assert_eq!(last, self.stored);
            Ok(last)
        }

        fn wait(&mut self, mark: u64) -> Result<(), Failure> {
            self.acked = self.acked.max(mark);
            Ok(())
        }

        fn calls(&self) -> Option<u64> {
            Some(self.stored)
        }
    }

    fn drivers(depth: usize, threads: usize, fabric: Fabric, fail_at: u64) -> Vec<Driver<Counting>> {
        let workload = Workload {
            fabric,
            size: 64,
            depth,
            lanes: threads,
            threads,
            pattern: Pattern::Random,
            region: 1 << 20,
            polling: Polling::Spin,
        };
        let side = || Counting { depth: depth as u64, stored: 0, acked: 0, fail_at };
        (0..threads).map(|index| Driver::new(side(), &workload, index)).collect()
    }

    #[test]
    fn every_store_of_a_slice_is_acknowledged_and_the_window_kept() {
        for (depth, threads, fabric) in
            [(1, 1, Fabric::Shm), (64, 2, Fabric::Shm), (7, 2, Fabric::Tcp), (256, 1, Fabric::Tcp)]
        {
            let mut drivers = drivers(depth, threads, fabric, u64::MAX);
            let slice = slice(&mut drivers, Duration::from_millis(20)).unwrap();
            assert!(slice.stores > 0 && slice.seconds >= 0.0144 && slice.latencies.count() > 0);
            assert_eq!(slice.calls, Some(slice.stores), "calls of the measured part only");
            let stored: u64 = drivers.iter().map(|driver| driver.side.stored).sum();
            let acked: u64 = drivers.iter().map(|driver| driver.side.acked).sum();
            assert_eq!(stored, acked);
            assert!(slice.stores < stored, "the warm-up does not count");
        }
    }

    #[test]
    fn a_failure_ends_the_slice() {
        let error = slice(&mut drivers(8, 2, Fabric::Shm, 5000), Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.to_string(), "asked to fail");
    }
}
