//! The two roles of a child that most tests need: a holder, and an owner that stores without end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use mirrorbus::mirror::{LostReason, StoreError, WaitError};
use mirrorbus::node::{CallError, OpenError, RefusalCode};
use mirrorbus::{Attach, FabricUrl, Holder, Lane, LaneConfig, Level, Region};

use rustix::process::Pid;

use super::child::{Child, PATIENCE, line_to_parent, optional, variable};
use super::ledger::{Entry, Stores};
use crate::common::{Random, holder_config, keys, region_config, soon};

/// Stores that a storing child keeps in flight at most.
const DEPTH: usize = 64;

/// What a holder in a process of its own is told.
#[derive(Debug, Clone)]
pub(crate) struct HolderChild {
    pub(crate) url: FabricUrl,
    pub(crate) size: usize,
    pub(crate) file: Option<PathBuf>,
    pub(crate) silence: Duration,
}

impl HolderChild {
    /// Starts it; returns where it listens once it does.
    pub(crate) fn start(&self) -> (Child, FabricUrl) {
        let mut variables = vec![
            ("TEST_URL", self.url.to_string()),
            ("TEST_SIZE", self.size.to_string()),
            ("TEST_SILENCE_MS", self.silence.as_millis().to_string()),
        ];
        variables.extend(self.file.iter().map(|path| ("TEST_FILE", path.to_str().unwrap().to_owned())));
        let child = Child::spawn("holder", &variables);
        let url = child.read_text().parse().unwrap();
        (child, url)
    }
}

/// Role: holds until the line to the parent ends.
pub(crate) fn hold() {
    let mut config = holder_config(variable("TEST_URL"), variable("TEST_SIZE"));
    config.file = optional("TEST_FILE");
    config.silence = Duration::from_millis(variable("TEST_SILENCE_MS"));
    config.heartbeat = config.silence / 5;
    let holder = Holder::start(config, keys()).unwrap();
    let mut line = line_to_parent();
    writeln!(line, "{}", holder.url()).unwrap();
    let mut text = String::new();
    while BufReader::new(&line).read_line(&mut text).is_ok_and(|len| len > 0) {}
}

/// What an owner that stores without end is told.
#[derive(Debug, Clone)]
pub(crate) struct StorerChild {
    pub(crate) url: FabricUrl,
    pub(crate) size: usize,
    /// Pull what the holder has; else push zeroes.
    pub(crate) pull: bool,
    pub(crate) seed: u64,
    /// Lanes; each has its part of the region.
    pub(crate) lanes: usize,
    /// Shortest and longest store.
    pub(crate) lens: (usize, usize),
    /// It waits for one store in so many.
    pub(crate) patience: usize,
    /// Its link thread comes last, on the one processor of them all: it hears late of what the holder says.
    pub(crate) hears_late: bool,
    /// Now and then it connects again, with stores in flight. For one lane.
    pub(crate) reconnects: bool,
}

impl StorerChild {
    /// Starts it. Its line is a ledger.
    pub(crate) fn start(&self) -> Child {
        let variables = [
            ("TEST_URL", self.url.to_string()),
            ("TEST_SIZE", self.size.to_string()),
            ("TEST_PULL", self.pull.to_string()),
            ("TEST_SEED", self.seed.to_string()),
            ("TEST_LANES", self.lanes.to_string()),
            ("TEST_PATIENCE", self.patience.to_string()),
            ("TEST_HEARS_LATE", self.hears_late.to_string()),
            ("TEST_RECONNECTS", self.reconnects.to_string()),
            ("TEST_LEN_MIN", self.lens.0.to_string()),
            ("TEST_LEN_MAX", self.lens.1.to_string()),
        ];
        Child::spawn("storer", &variables)
    }

    /// The part of the region that `lane` has.
    pub(crate) fn range(&self, lane: usize) -> std::ops::Range<usize> {
        let span = self.size / self.lanes;
        lane * span..(lane + 1) * span
    }

    /// What `lane` stores.
    pub(crate) fn stores(&self, lane: usize) -> Stores {
        let range = self.range(lane);
        let seed = self.seed.wrapping_add(lane as u64 * 0x9e37_79b9_7f4a_7c15);
        Stores::new(seed, range.start, range.len(), self.lens)
    }
}

/// Role: stores until it is killed or its link is lost, and keeps a ledger of it.
pub(crate) fn store() {
    let told = StorerChild {
        url: variable("TEST_URL"),
        size: variable("TEST_SIZE"),
        pull: variable("TEST_PULL"),
        seed: variable("TEST_SEED"),
        lanes: variable("TEST_LANES"),
        lens: (variable("TEST_LEN_MIN"), variable("TEST_LEN_MAX")),
        patience: variable("TEST_PATIENCE"),
        hears_late: variable("TEST_HEARS_LATE"),
        reconnects: variable("TEST_RECONNECTS"),
    };
    let attach = if told.pull { Attach::Pull } else { Attach::Push { replace: false } };
    let region = Region::open(region_config(&told.url, told.size, attach), keys()).unwrap();
    if told.hears_late {
        hear_late();
    }
    let line = line_to_parent();
    std::thread::scope(|scope| {
        for number in 0..told.lanes {
            let config = LaneConfig { depth: DEPTH, ..LaneConfig::default() };
            let lane = region.lane(config).unwrap();
            let (told, line, region) = (&told, &line, &region);
            scope.spawn(move || store_on(region, lane, number, told, line));
        }
    });
}

/// All threads on one processor, and the one that hears the holder behind all others.
fn hear_late() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set((0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap());
    let mut links = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let thread = task.file_name().to_str().unwrap().parse().ok().and_then(Pid::from_raw);
        rustix::thread::sched_setaffinity(thread, &one).unwrap();
        if std::fs::read_to_string(task.path().join("comm")).unwrap().trim() == "mirrorbus-link" {
            rustix::process::setpriority_process(thread, 19).unwrap();
            links += 1;
        }
    }
    assert_eq!(links, 1, "the link thread has another name");
}

fn store_on(region: &Region, mut lane: Lane, number: usize, told: &StorerChild, line: &UnixStream) {
    let mut random = Random(told.seed ^ 0x2545_f491_4f6c_dd1d | 1);
    for store in told.stores(number) {
        let result = lane.store(store.offset, &store.bytes).map_err(|error| match error {
            StoreError::LinkLost { reason, .. } => reason,
            other => panic!("{other}"),
        });
        let result = result.and_then(|ticket| {
            let waited = match random.below(told.patience) {
                0 => lane.wait(ticket, Level::Acked, soon()),
                1..4 => lane.poll().map(|_| ()),
                _ => Ok(()),
            };
            waited.map_err(|error| match error {
                WaitError::LinkLost { reason, .. } => reason,
                other => panic!("{other}"),
            })
        });
        if told.reconnects && random.below(300) == 0 && result.is_ok() {
            region.reconnect(&mut [&mut lane], soon()).unwrap();
        }
        let marks = lane.watermarks();
        let end = match &result {
            Ok(()) => 0,
            Err(LostReason::Revoked(_)) => Entry::REVOKED,
            Err(_) => Entry::LOST,
        };
        let entry = Entry { lane: number as u64 + end, taken: marks.last.0, acked: marks.acked.0 };
        // Without the parent there is nothing to go on for.
        if entry.write(line).is_err() || result.is_err() {
            return;
        }
    }
}

/// A new owner that takes the copy over, as soon as the holder knows that the last one is gone.
pub(crate) fn pull(url: &FabricUrl, size: usize) -> Region {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        match Region::open(region_config(url, size, Attach::Pull), keys()) {
            Ok(region) => return region,
            Err(OpenError::Call(CallError::Refused { code: RefusalCode::Busy, why })) => {
                assert!(std::time::Instant::now() < until, "{why}");
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
}
