//! The first store to a protected page, by each method, beside one to a page that nobody protects.

use std::time::Instant;

use mirrorbus::memory::{MapOptions, Runs, TrackedMemory, TrackingMethod};
use mirrorbus::{Mapping, VolatileSlice};
use serde_json::{Map, Value};

use super::options::{EpochOptions, Random};
use crate::Failure;
use crate::ratio::median;

/// Bytes of the memory, and pages that are stored to in a round.
const BYTES: usize = 64 << 20;
const STORES: usize = 2000;
const ROUNDS: usize = 20;

/// Measures and prints.
pub(super) fn run(_: &EpochOptions) -> Result<Value, Failure> {
    let page = rustix::param::page_size();
    println!(
        "the first store to a page, ns (median of {ROUNDS} rounds of {STORES} pages of {} MiB)",
        BYTES >> 20
    );
    let mut figures = Map::new();
    let plain = Mapping::anonymous(BYTES, MapOptions::default())?;
    plain.populate();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let unprotected = (0..ROUNDS).map(|_| round(plain.slice(), page, &mut random)).collect();
    report("unprotected", median(unprotected).median, &mut figures);
    for method in TrackingMethod::ALL {
        if let Err(error) = method.probe() {
            println!("  {method:<12} skipped: {error}");
            continue;
        }
        let memory = TrackedMemory::new(BYTES, method)?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            memory.collect(&mut Runs::new(page))?;
            times.push(round(memory.slice(), page, &mut random));
        }
        report(&method.to_string(), median(times).median, &mut figures);
    }
    println!();
    Ok(figures.into())
}

/// Nanoseconds of a store to each of some pages, no page twice.
#[allow(clippy::cast_precision_loss, reason = "nanoseconds of a round")]
fn round(memory: VolatileSlice<'_>, page: usize, random: &mut Random) -> f64 {
    let pages = BYTES / page;
    // Odd steps through a power of two meet each page once.
    let (first, step) = (random.below(pages), 2 * random.below(pages / 2) + 1);
    let begun = Instant::now();
    for index in 0..STORES.min(pages) {
        memory.write((first + index * step) % pages * page, &[1]);
    }
    begun.elapsed().as_nanos() as f64 / STORES.min(pages) as f64
}

fn report(name: &str, ns: f64, figures: &mut Map<String, Value>) {
    println!("  {name:<12} {ns:>8.0}");
    figures.insert(name.to_owned(), ns.into());
}
