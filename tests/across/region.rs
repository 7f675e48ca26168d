//! What the roles have in common: the region, its stores, and how late a call may be.

use std::time::{Duration, Instant};

use mirrorbus::memory::LockPolicy;
use mirrorbus::node::OpenError;
use mirrorbus::{Attach, FabricUrl, KeySet, LaneConfig, Region, RegionConfig};

use crate::child::{PATIENCE, variable};
use crate::common::Random;
use crate::ledger::{Store, Stores};

/// Bytes of the region: the judge compares all of it many times.
pub(crate) const SIZE: usize = 256 << 10;

const STORE_LENS: (usize, usize) = (8, 4096);

/// How long one store or wait may take by what it was told, where it is looked at how late it returns.
pub(crate) const CALL: Duration = Duration::from_secs(3);

/// And where it must be done.
pub(crate) const MUST: Duration = Duration::from_secs(20);

/// How much later than told a call may return, on a machine that does much else.
const LATE_MAX: Duration = Duration::from_secs(3);

/// A line that tells how far it is comes this often.
pub(crate) const REPORT: Duration = Duration::from_millis(50);

/// Stores that a lane has in flight at most.
const DEPTH: usize = 64;

/// The usual lane: it is looked at how late its calls return.
pub(crate) fn lane_config() -> LaneConfig {
    LaneConfig { depth: DEPTH, store_timeout: CALL, ..LaneConfig::default() }
}

/// And one whose calls must be done.
pub(crate) fn patient_lane() -> LaneConfig {
    LaneConfig { store_timeout: MUST, ..lane_config() }
}

/// Attaches to the holder at `TEST_URL`.
pub(crate) fn open(attach: Attach) -> Result<Region, OpenError> {
    let mut config = RegionConfig::new(variable::<FabricUrl>("TEST_URL"), SIZE, attach);
    config.lock = LockPolicy::Try;
    Region::open(config, keys())
}

/// The key that both sides were given.
pub(crate) fn keys() -> KeySet {
    KeySet::load(&variable::<std::path::PathBuf>("TEST_KEY")).unwrap()
}

/// What is stored, the same for owner and judge.
pub(crate) fn stores() -> Stores {
    Stores::new(variable("TEST_SEED"), 0, SIZE, STORE_LENS)
}

/// Bytes of a page, and of a store in the first half of one.
const PAGE: usize = 4096;

/// Stores from page to page: none overlaps or continues one of those before it for as many as there are pages, so that a
/// medium that reads them late can have them all under way.
pub(crate) fn walk() -> impl Iterator<Item = Store> {
    let mut random = Random(variable::<u64>("TEST_SEED") | 1);
    (0..).map(move |number| {
        let words = (0..PAGE / 2 / 8).flat_map(|_| random.next().to_le_bytes());
        Store { offset: number % (SIZE / PAGE) * PAGE, bytes: words.collect() }
    })
}

/// Says how long the call took that began then; it must not have been longer than told.
pub(crate) fn in_time(began: Instant, why: &str) -> String {
    let took = began.elapsed();
    assert!(took < CALL + LATE_MAX, "the call returned after {took:?}: {why}");
    format!("{why}, {} ms into the call", took.as_millis())
}

/// Waits until whoever started this made the file `TEST_GO` with a suffix.
pub(crate) fn until_told_to_go(suffix: &str) {
    let path = format!("{}{suffix}", variable::<String>("TEST_GO"));
    let until = Instant::now() + PATIENCE;
    while !std::path::Path::new(&path).exists() {
        assert!(Instant::now() < until, "nobody made {path}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
