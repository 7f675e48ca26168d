//! Many threads store into one region: each through a lane of its own, or all through one that they share.
//!
//! ```text
//! cargo run --example 02_many_threads
//! ```
//!
//! * A lane of one's own takes no lock. Nothing is ordered between two lanes: give each its own part of the region.
//! * A shared lane gives the stores of all threads one order, and one waiter works for all: when many wait, one of them
//!   rings the doorbell and reaps the completions, the others sleep until they are served.

use std::error::Error;
use std::time::Duration;

use mirrorbus::memory::LockPolicy;
use mirrorbus::{
    Attach, Deadline, Holder, HolderConfig, KeySet, LaneConfig, Level, Region, RegionConfig, SharedLane,
};

const SIZE: usize = 4 << 20;
const THREADS: usize = 4;
const STORES: usize = 2_000;
const STORE_BYTES: usize = 64;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Box<dyn Error>> {
    let keys = KeySet::from_bytes(&[[7; 32]])?;
    let mut config = HolderConfig::new("tcp://127.0.0.1:0".parse()?, SIZE);
    config.lock = LockPolicy::Try;
    let holder = Holder::start(config, keys.clone())?;
    let mut config = RegionConfig::new(holder.url().clone(), SIZE, Attach::Push { replace: false });
    config.lock = LockPolicy::Try;
    let region = Region::open(config, keys)?;

    // First half of the region: a lane for each thread, each with its own quarter.
    std::thread::scope(|scope| {
        let region = &region;
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || with_own_lane(region, thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })
    .map_err(|error| error.to_string())?;
    println!("{THREADS} threads made {STORES} stores each through lanes of their own");

    // Second half: one lane for all. Handles are cheap to clone.
    let shared = region.lane(LaneConfig::default())?.into_shared()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let lane = shared.clone();
                scope.spawn(move || with_shared_lane(&lane, thread))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })
    .map_err(|error| error.to_string())?;
    let stats = shared.stats();
    println!("{THREADS} threads made {} stores through one shared lane", stats.stores);
    println!("  in {} requests and {} doorbells", stats.requests, stats.doorbells);

    // Both copies are equal: every thread waited for its own stores.
    let equal = region.memory().equals(holder.memory().slice());
    println!("both copies are equal: {equal}");
    assert!(equal);
    Ok(())
}

/// Stores through a lane of this thread, a window of stores under way at a time.
fn with_own_lane(region: &Region, thread: usize) -> Result<(), Failure> {
    let mut lane = region.lane(LaneConfig { depth: 64, ..LaneConfig::default() })?;
    let base = thread * SIZE / 2 / THREADS;
    for store in 0..STORES {
        // `store` waits for room when 64 are under way; `try_store` would say `WouldBlock`.
        lane.store(base + store * STORE_BYTES, &content(thread, store))?;
    }
    lane.flush(Level::Visible, Deadline::within(Duration::from_secs(10)))?;
    Ok(())
}

/// Stores through the lane of all, and waits for every eighth.
fn with_shared_lane(lane: &SharedLane, thread: usize) -> Result<(), Failure> {
    let base = SIZE / 2 + thread * SIZE / 2 / THREADS;
    for store in 0..STORES {
        let ticket = lane.store(base + store * STORE_BYTES, &content(thread, store))?;
        if store % 8 == 7 {
            lane.wait(ticket, Level::Visible, Deadline::within(Duration::from_secs(10)))?;
        }
    }
    Ok(())
}

fn content(thread: usize, store: usize) -> [u8; STORE_BYTES] {
    let mut bytes = [0; STORE_BYTES];
    bytes[..8].copy_from_slice(&(thread as u64).to_le_bytes());
    bytes[8..16].copy_from_slice(&(store as u64 + 1).to_le_bytes());
    bytes
}
