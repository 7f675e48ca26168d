//! Map a region, store into it, and see each store in the memory of the peer.
//!
//! ```text
//! cargo run --example 01_map_and_mirror                      # over TCP
//! cargo run --example 01_map_and_mirror shm:/tmp/demo.sock   # over shared memory
//! ```
//!
//! Two roles: the *holder* keeps a copy, the *owner* has the region and stores into it. Here both live in one process,
//! so that the example runs by itself; in earnest the holder is another host, or at least another process:
//! `mirrorbus hold --listen tcp://0.0.0.0:7070 --size 1M --key FILE`.

use std::error::Error;
use std::time::Duration;

use mirrorbus::memory::LockPolicy;
use mirrorbus::{
    Attach, Deadline, FabricUrl, Holder, HolderConfig, KeySet, LaneConfig, Level, Region, RegionConfig,
};

/// Both sides name the size: a holder refuses a region of another.
const SIZE: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let url: FabricUrl = std::env::args().nth(1).as_deref().unwrap_or("tcp://127.0.0.1:0").parse()?;

    // Owner and holder prove to each other that they have the same key. `mirrorbus keygen FILE` makes one and
    // `KeySet::load` reads it; a key that stands in a source file is for examples only.
    let keys = KeySet::from_bytes(&[[7; 32]])?;

    // The holder. Memory is locked by default, so that no store waits for a page from swap; `Try` goes on where the
    // limit (`ulimit -l`) is too low, and logs it.
    let mut config = HolderConfig::new(url, SIZE);
    config.lock = LockPolicy::Try;
    let holder = Holder::start(config, keys.clone())?;
    println!("the holder listens on {}", holder.url());

    // The owner. `Push` says what the two sides hold at their first meeting: the local bytes, zeroes in a new region,
    // go to the holder. `Pull` would take the holder's.
    let mut config = RegionConfig::new(holder.url().clone(), SIZE, Attach::Push { replace: false });
    config.lock = LockPolicy::Try;
    let region = Region::open(config, keys)?;
    println!("region {} of {} bytes is mirrored", region.id(), region.size());

    // A lane is one ordered stream of stores. `store` puts the bytes into the local memory and queues them for the
    // peer; the ticket names the store.
    let mut lane = region.lane(LaneConfig::default())?;
    let ticket = lane.store(4096, b"first")?;
    lane.store(4101, b" and second")?;
    let last = lane.store(0, &42u64.to_le_bytes())?;

    // Nothing is promised of a store before a wait says so. Waiting for one covers all before it on the same lane.
    // Every wait has a deadline; a peer that is gone is an error, never a hang.
    lane.wait(last, Level::Visible, Deadline::within(Duration::from_secs(5)))?;
    let marks = lane.watermarks();
    println!("stores to {} are visible, among them store {}", marks.visible, ticket.sequence());

    // The local copy is read like memory, and the holder's has the same bytes.
    let read = |slice: mirrorbus::VolatileSlice<'_>| {
        let mut bytes = [0; 16];
        slice.read(4096, &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    println!("local:  {:?}", read(region.memory()));
    println!("holder: {:?}", read(holder.memory().slice()));
    assert_eq!(read(region.memory()), read(holder.memory().slice()));

    // Stable storage is another matter: this holder keeps its copy in memory, and says so instead of pretending.
    match lane.flush(Level::Durable, Deadline::within(Duration::from_secs(5))) {
        Ok(_) => println!("durable"),
        Err(error) => println!("not durable: {error}"),
    }
    Ok(())
}
