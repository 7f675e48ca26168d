//! What is done to the region, by the mirrored region and by its limit alike.
//!
//! Each thread has a part of the region of its own, so that no two lanes ever store to the same place: between lanes
//! nothing is ordered. Offsets come from a generator that costs one multiplication and a few shifts.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use mirrorbus::FabricUrl;
use mirrorbus::base::Medium;

/// Most stores in flight on one lane.
pub(crate) const DEPTH_MAX: usize = 4096;
/// Most threads.
pub(crate) const THREADS_MAX: usize = 64;
/// The part of the region that `hot` stores go to.
pub(crate) const HOT_BYTES: usize = 1 << 20;
/// From this size on, tcp is compared with a stream that copies and checksums.
pub(crate) const LARGE_BYTES: usize = 16 << 10;
/// For how long a side that spins does so without hearing anything before it sleeps: short enough that a side whose
/// slice is over leaves the processor to the others.
pub(crate) const SPIN: Duration = Duration::from_millis(1);

/// The medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fabric {
    /// Memory mapped by both sides.
    Shm,
    /// A TCP stream.
    Tcp,
    /// RDMA: a card or soft-RoCE.
    Rdma,
}

impl Fabric {
    /// The medium of `url`.
    pub(crate) const fn of(url: &FabricUrl) -> Self {
        match url.medium() {
            Medium::Shm => Self::Shm,
            Medium::Tcp => Self::Tcp,
            Medium::Rdma => Self::Rdma,
        }
    }
}

impl fmt::Display for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Rdma => "rdma",
        })
    }
}

/// Where stores go within a thread's part of the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// One after the other; wraps at the end.
    Append,
    /// To any slot of the store's size, uniformly.
    Random,
    /// As random, over the first 1 MiB only.
    Hot,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Append => "append",
            Self::Random => "random",
            Self::Hot => "hot",
        })
    }
}

/// How a side waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polling {
    /// It looks again and again.
    Spin,
    /// It sleeps in the kernel.
    Block,
}

impl fmt::Display for Polling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spin => "spin",
            Self::Block => "block",
        })
    }
}

/// One measurement, as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Workload {
    /// The medium.
    pub fabric: Fabric,
    /// Bytes of one store.
    pub size: usize,
    /// Stores in flight on each thread.
    pub depth: usize,
    /// Lanes.
    pub lanes: usize,
    /// Threads that store; at least as many as lanes.
    pub threads: usize,
    /// Where stores go.
    pub pattern: Pattern,
    /// Bytes of the region.
    pub region: usize,
    /// How both sides wait.
    pub polling: Polling,
}

impl Workload {
    /// Bytes of the region that one thread stores to.
    pub(crate) const fn share(&self) -> usize {
        self.region / self.threads
    }

    /// Where thread `index` stores, relative to the region's start.
    pub(crate) fn offsets(&self, index: usize) -> Offsets {
        Offsets::new(self.pattern, self.share() * index, self.reach(), self.size, index as u64)
    }

    /// Bytes of its share that a thread really stores to.
    pub(crate) fn reach(&self) -> usize {
        match self.pattern {
            Pattern::Append | Pattern::Random => self.share(),
            Pattern::Hot => self.share().min((HOT_BYTES / self.threads).max(self.size)),
        }
    }

    /// Batches are posted while the one before is still in flight: over a network, with a lane for each thread.
    pub(crate) const fn pipelined(&self) -> bool {
        matches!(self.fabric, Fabric::Tcp | Fabric::Rdma) && self.depth > 1 && self.lanes == self.threads
    }

    /// Stores that are posted together: all of a window, or half of it when two batches are in flight.
    pub(crate) const fn batch(&self) -> usize {
        if self.pipelined() { self.depth / 2 } else { self.depth }
    }
}

/// An endless sequence of offsets.
#[derive(Debug, Clone)]
pub(crate) struct Offsets {
    pattern: Pattern,
    start: usize,
    size: usize,
    slots: u64,
    state: u64,
}

impl Offsets {
    /// Slots of `size` bytes within `reach` bytes at `start`.
    ///
    /// # Panics
    /// When not one fits.
    pub(crate) fn new(pattern: Pattern, start: usize, reach: usize, size: usize, seed: u64) -> Self {
        assert!(size > 0 && reach >= size, "no slot of {size} bytes within {reach}");
        let state = match pattern {
            Pattern::Append => 0,
            // Any value but 0, far apart for neighbouring seeds.
            Pattern::Random | Pattern::Hot => (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        Self { pattern, start, size, slots: (reach / size) as u64, state }
    }

    /// The next one.
    #[inline]
    pub(crate) fn next(&mut self) -> usize {
        let slot = match self.pattern {
            Pattern::Append => {
                let slot = self.state;
                self.state = if slot + 1 == self.slots { 0 } else { slot + 1 };
                slot
            }
            Pattern::Random | Pattern::Hot => {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                below(self.state, self.slots)
            }
        };
        #[allow(clippy::cast_possible_truncation, reason = "a slot lies within a mapping")]
        let slot = slot as usize;
        self.start + slot * self.size
    }
}

/// `random` scaled to a number below `bound`.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the upper half of a product of two 64-bit numbers fits")]
fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(pattern: Pattern) -> Workload {
        Workload {
            fabric: Fabric::Tcp,
            size: 64,
            depth: 8,
            lanes: 2,
            threads: 2,
            pattern,
            region: 4 << 20,
            polling: Polling::Spin,
        }
    }

    #[test]
    fn append_is_contiguous_and_wraps() {
        let mut offsets = Offsets::new(Pattern::Append, 1000, 200, 64, 0);
        let seen: Vec<usize> = (0..5).map(|_| offsets.next()).collect();
        assert_eq!(seen, [1000, 1064, 1128, 1000, 1064]);
    }

    #[test]
    fn random_covers_its_part_evenly_and_nothing_else() {
        let mut offsets = workload(Pattern::Random).offsets(1);
        let share = 2 << 20;
        let mut quarters = [0u32; 4];
        for _ in 0..100_000 {
            let offset = offsets.next();
            assert!(offset.is_multiple_of(64) && (share..2 * share).contains(&offset), "{offset}");
            quarters[(offset - share) / (share / 4)] += 1;
        }
        assert!(quarters.iter().all(|count| (24_000..26_000).contains(count)), "{quarters:?}");
    }

    #[test]
    fn hot_stays_within_a_mebibyte_shared_by_the_threads() {
        let mut offsets = workload(Pattern::Hot).offsets(0);
        let highest = (0..100_000).map(|_| offsets.next()).max();
        assert!((HOT_BYTES / 2 - 4096..HOT_BYTES / 2).contains(&highest.unwrap()), "{highest:?}");
    }

    #[test]
    fn equal_seeds_give_equal_sequences_and_others_differ() {
        let take = |index| {
            let mut offsets = Offsets::new(Pattern::Random, 0, 1 << 20, 64, index);
            (0..64).map(|_| offsets.next()).collect::<Vec<_>>()
        };
        assert_eq!(take(3), take(3));
        assert_ne!(take(3), take(4));
    }

    #[test]
    fn a_window_is_never_exceeded() {
        for (depth, lanes) in [(1, 2), (2, 2), (3, 2), (256, 2), (256, 1)] {
            let workload = Workload { depth, lanes, ..workload(Pattern::Append) };
            let in_flight = workload.batch() * if workload.pipelined() { 2 } else { 1 };
            assert!(workload.batch() >= 1 && in_flight <= depth, "{workload:?}");
        }
    }
}
