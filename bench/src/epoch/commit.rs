//! A commit, beside its parts.

use std::time::{Duration, Instant};

use mirrorbus::epoch::{EpochConfig, EpochHolder, EpochLayout, EpochRegion};
use mirrorbus::memory::{LockPolicy, Runs, TrackedMemory, TrackingMethod};
use mirrorbus::{
    Attach, Deadline, FabricUrl, Holder, HolderConfig, KeySet, Lane, LaneConfig, Level, Region, RegionConfig,
    VolatileSlice,
};
use serde_json::{Value, json};

use super::options::{EpochOptions, Random};
use crate::Failure;
use crate::ratio::median;
use crate::store::StoreFabric;

/// A commit is to cost at most so many times its parts.
const TARGET: f64 = 1.5;
const LEVEL: Level = Level::Visible;
/// Unchanged bytes between two changes that the parts ship too, as epochs do.
const GAP_MAX: usize = 16;

fn soon() -> Deadline {
    Deadline::within(Duration::from_secs(30))
}

fn keys() -> Result<KeySet, Failure> {
    Ok(KeySet::from_bytes(&[[7; 32]])?)
}

fn url(fabric: StoreFabric, name: &str) -> Result<FabricUrl, Failure> {
    let socket = std::env::temp_dir().join(format!("mirrorbus-bench-{}-{name}.sock", std::process::id()));
    Ok(match fabric {
        StoreFabric::Shm => FabricUrl::Shm { socket },
        StoreFabric::Tcp => "tcp://127.0.0.1:0".parse()?,
    })
}

fn holder_config(url: FabricUrl, size: usize) -> HolderConfig {
    let mut config = HolderConfig::new(url, size);
    config.lock = LockPolicy::Try;
    config
}

fn region_config(url: &FabricUrl, size: usize) -> RegionConfig {
    let mut config = RegionConfig::new(url.clone(), size, Attach::Push { replace: false });
    config.lock = LockPolicy::Try;
    config
}

/// The changes of one round.
fn change(memory: VolatileSlice<'_>, options: &EpochOptions, random: &mut Random) {
    let page = rustix::param::page_size();
    for _ in 0..options.pages() {
        let place = random.below(options.region / page) * page + random.below(page - options.changed + 1);
        memory.fill(place, options.changed, u8::try_from(random.below(256)).unwrap_or(0));
    }
}

/// The mirrored region by epochs.
struct Ours {
    region: EpochRegion,
    holder: EpochHolder,
}

impl Ours {
    fn open(options: &EpochOptions) -> Result<Self, Failure> {
        let layout = EpochLayout::new(options.region)?;
        let holder = EpochHolder::start(holder_config(url(options.fabric, "epochs")?, 1), layout, keys()?)?;
        let mut config = EpochConfig::new(region_config(holder.holder().url(), 1), layout);
        config.method = options.method;
        Ok(Self { region: EpochRegion::open(config, keys()?)?, holder })
    }

    /// Waits until the holder has applied it, so that it does not work while the other side is measured.
    fn settle(&self, epoch: u64) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_secs(30);
        while self.holder.status().epoch != Some(epoch) {
            if Instant::now() > until {
                return Err(format!("epoch {epoch} is not applied: {:?}", self.holder.status()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// The parts: a tracked memory, and a mirrored region whose local copy is the twin.
struct Parts {
    memory: TrackedMemory,
    lane: Lane,
    region: Region,
    _holder: Holder,
    found: Runs,
    page: Vec<u8>,
    twin: Vec<u8>,
}

impl Parts {
    fn open(options: &EpochOptions, method: TrackingMethod) -> Result<Self, Failure> {
        let holder = Holder::start(holder_config(url(options.fabric, "parts")?, options.region), keys()?)?;
        let memory = TrackedMemory::new(options.region, method)?;
        let _ = memory.mapping().lock(LockPolicy::Try)?;
        let region = Region::open(region_config(holder.url(), options.region), keys()?)?;
        let lane = region.lane(LaneConfig::default())?;
        let bytes = memory.page_bytes();
        let (page, twin) = (vec![0; bytes], vec![0; bytes]);
        Ok(Self { memory, lane, region, _holder: holder, found: Runs::new(bytes), page, twin })
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.found.clear();
        self.memory.collect(&mut self.found)?;
        for run in self.found.ranges() {
            for offset in run.clone().step_by(self.page.len()) {
                self.memory.slice().read(offset, &mut self.page);
                self.region.memory().read(offset, &mut self.twin);
                let mut at = 0;
                while let Some((start, end)) = next_range(&self.page, &self.twin, at) {
                    self.lane.store(offset + start, &self.page[start..end])?;
                    at = end;
                }
            }
        }
        self.lane.flush(LEVEL, soon())?;
        Ok(())
    }
}

/// The next bytes from `at` on that differ, in words, with the gaps that go along.
fn next_range(page: &[u8], twin: &[u8], at: usize) -> Option<(usize, usize)> {
    let differs = |word: usize| page[word..word + 8] != twin[word..word + 8];
    let start = (at..page.len()).step_by(8).find(|&word| differs(word))?;
    let mut end = start + 8;
    for word in (end..page.len()).step_by(8) {
        if word - end > GAP_MAX {
            break;
        }
        if differs(word) {
            end = word + 8;
        }
    }
    Some((start, end))
}

/// Sums over the commits.
#[derive(Debug, Default)]
struct Sums {
    pages: usize,
    changed: usize,
    shipped: usize,
    ranges: usize,
    runs: usize,
    /// Commits that shipped more than they may.
    over: usize,
}

/// Measures and prints.
pub(super) fn run(options: &EpochOptions) -> Result<Value, Failure> {
    let mut ours = Ours::open(options)?;
    let (method, why) = ours.region.method();
    let why = why.to_owned();
    let mut parts = Parts::open(options, method)?;
    let (mut random, mut sums) = (Random(0x2545_f491_4f6c_dd1d), Sums::default());
    let (mut commits, mut cuts, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds + 2 {
        let mut same = random.clone();
        change(ours.region.memory().slice(), options, &mut random);
        change(parts.memory.slice(), options, &mut same);
        // Who goes second finds a warmer processor: they take turns in that too.
        let other_first = round % 2 == 1;
        let mut other = 0.0;
        if other_first {
            other = timed(|| parts.commit())?;
        }
        let (mut cut, mut cutting) = (None, 0.0);
        let own = timed(|| {
            let begun = Instant::now();
            cut = Some(ours.region.cut()?);
            cutting = begun.elapsed().as_secs_f64();
            Ok(ours.region.ship(LEVEL, soon())?)
        })?;
        let cut = cut.ok_or("no cut was made")?;
        ours.settle(cut.epoch)?;
        if !other_first {
            other = timed(|| parts.commit())?;
        }
        // The first of each fills caches and grows buffers.
        if round >= 2 {
            commits.push(own);
            cuts.push(cutting);
            bare.push(other);
            ratios.push(own / other);
            sums.pages += cut.pages;
            sums.changed += cut.changed_bytes;
            sums.shipped += cut.shipped_bytes;
            sums.ranges += cut.ranges;
            sums.runs += cut.runs;
            // In tenths, so that no fraction is lost.
            sums.over += usize::from(10 * cut.shipped_bytes > 11 * cut.changed_bytes + 640 * cut.ranges);
        }
    }
    if !ours.region.memory().slice().equals(parts.memory.slice()) {
        return Err("the two sides did not change alike".into());
    }
    Ok(report(options, &why, &sums, [commits, cuts, bare, ratios]))
}

fn timed(action: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let begun = Instant::now();
    action()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn report(options: &EpochOptions, why: &str, sums: &Sums, times: [Vec<f64>; 4]) -> Value {
    let rounds = options.rounds;
    let [commit, cut, bare, ratio] = times.map(median);
    let fabric = format!("{:?}", options.fabric);
    println!(
        "{fabric} · commit of {} MiB, {} % of pages stored to, {} bytes each · level {LEVEL} · {rounds} rounds",
        options.region >> 20,
        options.dirty_percent,
        options.changed
    );
    println!("  found by {why}");
    println!("  commit {:>9.0} µs, of which the cut {:.0} µs", commit.median * 1e6, cut.median * 1e6);
    println!("  parts  {:>9.0} µs: collect, compare with the twin, bare stores", bare.median * 1e6);
    let verdict = if ratio.median <= TARGET { "within" } else { "above" };
    println!("  ratio  {:>9.2} [{:.2}, {:.2}], {verdict} {TARGET}", ratio.median, ratio.low, ratio.high);
    println!(
        "  shipped {} bytes for {} changed in {} ranges ({} runs, {} pages) a commit; {} of {rounds} above 1.1 × changed + 64 a range",
        sums.shipped / rounds,
        sums.changed / rounds,
        sums.ranges / rounds,
        sums.runs / rounds,
        sums.pages / rounds,
        sums.over
    );
    json!({
        "fabric": fabric, "method": why, "region_bytes": options.region, "dirty_percent": options.dirty_percent,
        "changed_bytes_per_page": options.changed, "rounds": rounds, "commit_us": commit.median * 1e6,
        "cut_us": cut.median * 1e6, "parts_us": bare.median * 1e6,
        "ratio": { "median": ratio.median, "low": ratio.low, "high": ratio.high, "target": TARGET },
        "shipped_bytes": sums.shipped, "changed_bytes": sums.changed, "ranges": sums.ranges, "runs": sums.runs,
        "pages": sums.pages, "commits_above_the_bound": sums.over,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_of_words_and_small_gaps_go_along() {
        let twin = [0; 256];
        let mut page = twin;
        page[3] = 1;
        page[30] = 1;
        page[80] = 1;
        assert_eq!(next_range(&page, &twin, 0), Some((0, 32)));
        assert_eq!(next_range(&page, &twin, 32), Some((80, 88)));
        assert_eq!(next_range(&page, &twin, 88), None);
    }
}
