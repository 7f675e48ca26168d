//! What takes part in a comparison: a disk that is in both guests, brought up, measured in turns, and taken away.

use std::time::Duration;

use crate::failure::Result;
use crate::rxe::fio::Disk;
use crate::rxe::guests::Guests;

/// When something in a guest must have come up or gone, on a host that does much else.
pub(super) const SOON: Duration = Duration::from_secs(120);

/// What runs in a guest for as long as the comparison takes.
pub(super) const LONG: Duration = Duration::from_secs(6 * 3600);

/// Bytes that are written to, the same of everything. A disk has some more, for what its owner keeps there.
pub(super) const VOLUME: &str = "60M";

/// What is asked of each: writes of 4 KiB at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) depth: u32,
}

impl Job {
    /// One at a time, which its median latency is told of, and many, which their rate is told of.
    pub(super) const ALL: [Self; 2] = [Self { depth: 1 }, Self { depth: 16 }];
}

/// What a turn gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) iops: f64,
    pub(super) p50_us: f64,
}

/// On which side of the ratios it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Ours,
    /// Takes two turns in each round: its ratio to itself says what the guests make of equal things.
    Theirs,
}

/// A disk in both guests, of which guest `a` is the client.
pub(super) trait Contender {
    fn name(&self) -> &'static str;

    /// What it is made of, in a line.
    fn about(&self) -> &'static str;

    fn side(&self) -> Side {
        Side::Theirs
    }

    /// Makes it in both guests.
    fn bring_up(&mut self, guests: &Guests) -> Result<()>;

    /// How fio reaches it in guest `a`.
    fn engine(&self) -> String;

    /// Writes all of it once, in order, so that no turn is the first to touch anything.
    fn fill(&mut self, guests: &Guests) -> Result<()> {
        Disk { engine: &self.engine(), size: VOLUME }.fill(&guests.a)
    }

    /// Measures for about `duration`.
    fn turn(&mut self, guests: &Guests, job: Job, duration: Duration) -> Result<Sample> {
        let (engine, depth) = (self.engine(), job.depth);
        let figures = Disk { engine: &engine, size: VOLUME }.random_writes(&guests.a, depth, duration, "")?;
        Ok(Sample { iops: figures.iops, p50_us: figures.p50_us })
    }

    /// Takes it away.
    fn tear_down(&mut self, guests: &Guests) -> Result<()>;
}

/// fio's engine for a block device of the kernel's, past the page cache.
pub(super) fn block_device(path: &str) -> String {
    format!("--ioengine=libaio --direct=1 --filename={path}")
}
