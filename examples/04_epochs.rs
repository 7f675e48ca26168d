//! Store through a plain pointer, and have it mirrored by epochs.
//!
//! ```text
//! cargo run --example 04_epochs
//! ```
//!
//! No lane, no `store`: the program writes into its memory as into any other. A commit finds the pages that were written,
//! compares them with what the peer has, and ships what differs as one epoch: the peer has all of it or none. Between commits
//! nothing is mirrored, so what a program may not lose it commits before it tells anybody.

use std::error::Error;
use std::time::Duration;

use mirrorbus::epoch::{EpochConfig, EpochHolder, EpochLayout, EpochRegion};
use mirrorbus::memory::LockPolicy;
use mirrorbus::{Attach, Deadline, HolderConfig, KeySet, Level, RegionConfig};

/// Bytes of the program's memory.
const SIZE: usize = 16 << 20;

fn soon() -> Deadline {
    Deadline::within(Duration::from_secs(5))
}

fn main() -> Result<(), Box<dyn Error>> {
    let keys = KeySet::from_bytes(&[[7; 32]])?;

    // The layout says how large the memory is, and how large the ring of epochs in front of its copy: both sides have the same.
    let layout = EpochLayout::new(SIZE)?;

    // The holder; in earnest `mirrorbus hold --epochs --size 16M …` on another host.
    let mut config = HolderConfig::new("tcp://127.0.0.1:0".parse()?, layout.region_bytes());
    config.lock = LockPolicy::Try;
    let holder = EpochHolder::start(config, layout, keys.clone())?;

    // The owner.
    let url = holder.holder().url().clone();
    let mut config = RegionConfig::new(url, layout.region_bytes(), Attach::Push { replace: false });
    config.lock = LockPolicy::Try;
    let mut region = EpochRegion::open(EpochConfig::new(config, layout), keys)?;
    println!("stores are found by {}", region.method().1);

    // An array of counters, somewhere in the memory. Only this thread stores there, so plain stores will do.
    let counters = region.pointer().cast::<u64>();
    for index in 0..1000 {
        // SAFETY: one of 1000 words at the beginning of the memory, which lives as long as the region.
        let counter = unsafe { counters.add(index * 100 % 1000 + index / 10) };
        // SAFETY: within the memory, which is aligned to pages; nobody else stores there.
        unsafe { counter.write(index as u64) };
    }
    let cut = region.commit(Level::Visible, soon())?;
    println!(
        "epoch {}: {} pages looked at, {} bytes changed, {} shipped in {} ranges",
        cut.epoch, cut.pages, cut.changed_bytes, cut.shipped_bytes, cut.ranges
    );

    // What is not committed does not survive.
    // SAFETY: as above.
    unsafe { counters.write(u64::MAX) };
    region.cut()?;
    drop(region);

    // Whoever takes over has the last whole epoch.
    let copy = holder.take_over(soon())?;
    println!("taken over: epoch {}, the first counter is {}", copy.epoch, copy.slice().load_word(0));
    Ok(())
}
