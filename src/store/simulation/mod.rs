//! Two nodes of a dataset in one thread, from a seed: clients, a network that tears, disks that lose what was not synced, and whoever decides who
//! serves. What runs is the shipped log, primary, follower, destage, recovery, plan and maps' difference; only threads, sockets and files are
//! simulated.
//!
//! ```text
//!  world ─┬─ node 0 ─ files ─ Disk        one action at a time, by luck: write, trim, flush, push, deliver, destage,
//!         ├─ node 1 ─ files ─ Disk        sync, checkpoint, marker, reclaim, lose the link, crash, restart, go alone,
//!         ├─ Network                      promote, attach, set in, resync
//!         └─ model: what was written, acknowledged, flushed
//! ```
//!
//! Checked all the time: the one who serves has every write that the model has, whoever takes over lacks nothing that was promised, and at the end both
//! nodes are equal and right. `MIRRORBUS_SEED` replays one seed, `MIRRORBUS_SEEDS` says how many.

mod counts;
mod files;
mod moves;
mod node;
mod resync;
mod wire;
mod world;

use std::time::{Duration, Instant};

use crate::base::DatasetId;
use crate::segment::SegmentLayout;
use world::World;

const DATASET: DatasetId = DatasetId::from_bytes([0xda; 16]);
/// Segments in the ring.
const PLACES: u64 = 4;
/// Steps of a run.
const STEPS: u64 = 600;
/// Seeds that are tried unless told otherwise.
const SEEDS: u64 = 3000;

fn layout() -> SegmentLayout {
    SegmentLayout::new(1 << 15, 4096).expect("the smallest")
}

/// How the nodes are built wrong on purpose, to see that the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    /// Says that it synced.
    SkipsSync,
    /// Does not sync the directory.
    SkipsDirectory,
    /// Takes what was handed over for what is in the peer's memory.
    AcksBeforePlaced,
    /// What lies behind the fork stays.
    KeepsVoid,
    /// Leaves the mark where it is when the log becomes shorter.
    KeepsMark,
    /// Marks what is synced later.
    MarksEarly,
    /// Writes no mark.
    MarksNothing,
    /// Serves without making durable what is in the memory only.
    SkipsDrain,
    /// Takes what is lacking from too late a position on.
    PlansLate,
}

fn run(seed: u64, steps: u64, defect: Defect) -> Result<World, String> {
    let ran = std::panic::catch_unwind(|| {
        let mut world = World::new(seed, defect);
        for _ in 0..steps {
            world.step();
        }
        world.converge();
        world
    });
    ran.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    })
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

#[test]
fn nothing_that_was_promised_is_lost() {
    if let Some(seed) = number("MIRRORBUS_SEED") {
        let ran = run(seed, STEPS, Defect::None);
        ran.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        return;
    }
    let (began, most) = (Instant::now(), number("MIRRORBUS_SEEDS").unwrap_or(SEEDS));
    let (mut seed, mut sums) = (0, counts::Counts::default());
    while seed < most {
        match run(seed, STEPS, Defect::None) {
            Ok(world) => sums.add(&world.counts),
            Err(why) => panic!("MIRRORBUS_SEED={seed}: {why}"),
        }
        seed += 1;
    }
    println!(
        "{seed} seeds, {:.1} a second: {sums:?}",
        Duration::from_secs(seed).div_duration_f64(began.elapsed())
    );
    sums.check(seed);
}

#[test]
fn a_seed_is_a_run() {
    let told = |seed| run(seed, 300, Defect::None).map(|world| world.counts).map_err(|why| panic!("{why}"));
    assert_eq!(told(3), told(3));
}

/// Each is found within some seeds, by whatever it makes wrong first.
fn is_found(defect: Defect, seeds: u64) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let found = (0..seeds).find_map(|seed| {
        let why = run(seed, STEPS, defect).err()?;
        // It is the defect that is found, nothing else.
        run(seed, STEPS, Defect::None).is_ok().then_some((seed, why))
    });
    std::panic::set_hook(hook);
    let (seed, why) = found.unwrap_or_else(|| panic!("{defect:?} is not found in {seeds} seeds"));
    println!("{defect:?}: seed {seed}: {why}");
}

#[test]
fn each_defect_is_found() {
    for defect in [
        Defect::SkipsSync,
        Defect::SkipsDirectory,
        Defect::AcksBeforePlaced,
        Defect::KeepsVoid,
        Defect::KeepsMark,
        Defect::MarksEarly,
        Defect::MarksNothing,
        Defect::SkipsDrain,
        Defect::PlansLate,
    ] {
        is_found(defect, 600);
    }
}
