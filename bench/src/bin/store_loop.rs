//! `store-loop`: opens a region, makes N stores of 64 bytes, waits for each until Acked, ends.
//!
//! `cargo xtask instructions` runs it under callgrind with N and 2 N stores and takes the difference. So the loop does
//! nothing but store and wait: no clock, no statistics, no output, and the first deadline is never looked at because
//! over shm a store is acknowledged by the storing processor itself.
//!
//! Stores go round a hot mebibyte, so that offsets change as in a real program.

use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use mirrorbus::mirror::{Polling, Watermarks};
use mirrorbus::{
    Attach, Deadline, FabricUrl, KeySet, Lane, LaneConfig, Level, Region, RegionConfig, SharedLane,
};

/// Bytes of a store.
const STORE_BYTES: usize = 64;

/// Bytes that the stores go round.
const HOT_BYTES: usize = 1 << 20;

/// How long a store may take to be acknowledged; the run fails when one takes longer.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes stores, for an outside counter of instructions.
#[derive(Debug, Parser)]
struct Arguments {
    /// The kind of lane
    #[arg(long)]
    lane: LaneKind,
    /// How many stores to make
    #[arg(long)]
    stores: usize,
    /// Where the holder listens
    #[arg(long)]
    url: FabricUrl,
    /// The key file shared with the holder
    #[arg(long)]
    key: PathBuf,
    /// Bytes of the region; the holder's size
    #[arg(long, default_value_t = 16 << 20)]
    size: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LaneKind {
    Exclusive,
    Shared,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("store-loop: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    if arguments.size < HOT_BYTES {
        return Err(format!("--size {} is less than the {HOT_BYTES} bytes stored to", arguments.size).into());
    }
    let keys = KeySet::load(&arguments.key)?;
    let config = RegionConfig::new(arguments.url, arguments.size, Attach::Push { replace: true });
    let region = Region::open(config, keys)?;
    let config = LaneConfig { depth: 1, polling: Polling::Spin, store_timeout: STORE_TIMEOUT };
    let mut lane = region.lane(config)?;
    match arguments.lane {
        LaneKind::Exclusive => exclusive(&mut lane, arguments.stores)?,
        LaneKind::Shared => shared(&lane.into_shared()?, arguments.stores)?,
    }
    region.close();
    Ok(())
}

fn exclusive(lane: &mut Lane, stores: usize) -> Result<(), Failure> {
    let data = [0x5A; STORE_BYTES];
    for store in 0..stores {
        let ticket = lane.store(offset(store), black_box(&data))?;
        lane.wait(ticket, Level::Acked, Deadline::within(STORE_TIMEOUT))?;
    }
    check(lane.watermarks(), stores)
}

fn shared(lane: &SharedLane, stores: usize) -> Result<(), Failure> {
    let data = [0x5A; STORE_BYTES];
    for store in 0..stores {
        let ticket = lane.store(offset(store), black_box(&data))?;
        lane.wait(ticket, Level::Acked, Deadline::within(STORE_TIMEOUT))?;
    }
    check(lane.watermarks(), stores)
}

/// What was counted has to be what was asked for.
fn check(reached: Watermarks, stores: usize) -> Result<(), Failure> {
    if usize::try_from(reached.acked.0) == Ok(stores) {
        return Ok(());
    }
    Err(format!("{stores} stores were made, but the last acknowledged is {}", reached.acked).into())
}

const fn offset(store: usize) -> usize {
    (store * STORE_BYTES) % HOT_BYTES
}
