//! The holder is killed under waiting owners.
//!
//! The owner is this process, which lives: what its threads were told is the ledger. A holder with a file leaves its
//! copy there and is started again on it; one without leaves nothing but the owner's own copy.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mirrorbus::memory::{MapOptions, Mapping};
use mirrorbus::mirror::{StoreError, Unknown, WaitError};
use mirrorbus::{Attach, Deadline, FabricUrl, LaneConfig, Level, Region, SharedLane};

use crate::child::{PATIENCE, Watchdog, rounds, seed};
use crate::common::{Fabric, Random, Scratch, keys, region_config};
use crate::ledger::{Histogram, Store, Stores, find_prefix};
use crate::roles::HolderChild;

const SIZE: usize = 1 << 20;
const HALF: usize = SIZE / 2;
const LENS: (usize, usize) = (8, 9000);
/// Threads that store on one lane and wait; another has a lane of its own.
const SHARERS: usize = 4;

#[test]
fn killed_holders_leave_a_prefix_in_their_file_over_shm() {
    kill_holders(Fabric::Shm, true, rounds(40, 200));
}

#[test]
fn killed_holders_leave_a_prefix_in_their_file_over_tcp() {
    kill_holders(Fabric::Tcp, true, rounds(40, 200));
}

#[test]
fn killed_holders_leave_a_prefix_in_their_file_over_sealed_tcp() {
    kill_holders(Fabric::TcpSealed, true, rounds(10, 50));
}

#[test]
fn killed_holders_without_a_file_release_all_waiters_over_shm() {
    kill_holders(Fabric::Shm, false, rounds(10, 50));
}

#[test]
fn killed_holders_without_a_file_release_all_waiters_over_tcp() {
    kill_holders(Fabric::Tcp, false, rounds(10, 50));
}

#[test]
fn killed_holders_leave_a_prefix_in_the_device() {
    kill_holders(Fabric::Device, false, rounds(20, 100));
}

/// A file on a real disk, removed in the end.
struct DiskFile(PathBuf);

impl DiskFile {
    fn new(name: &str) -> Self {
        let directory =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kills-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory.join(name))
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        let directory = self.0.parent().unwrap();
        let name = self.0.file_name().unwrap().to_str().unwrap();
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            if entry.file_name().to_str().is_some_and(|other| other.starts_with(name)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        // Another test's files may still be there.
        let _ = std::fs::remove_dir(directory);
    }
}

/// What a storing thread knows in the end.
#[derive(Default)]
struct Told {
    /// Each store with its place on its lane.
    stores: Vec<(u64, Store)>,
    /// The last store of which a wait returned.
    proven: u64,
    /// When it found the link lost.
    ended: Option<Instant>,
}

fn kill_holders(fabric: Fabric, with_file: bool, count: usize) {
    let kind = if with_file { "with a file" } else { "without a file" };
    let title = format!("holder killed, {fabric:?}, {kind}");
    let watchdog = Watchdog::new(&title);
    let mut random = Random(seed(&title));
    let scratch = Scratch::new();
    let file = with_file.then(|| DiskFile::new(&format!("{fabric:?}.copy")));
    let told = HolderChild {
        url: fabric.url(&scratch),
        size: SIZE,
        file: file.as_ref().map(|file| file.0.clone()),
        silence: Duration::from_secs(30),
    };
    let (mut in_flight, mut micros) = (Histogram::default(), Histogram::default());
    let mut content = vec![0; SIZE];
    for round in 0..count {
        let (mut holder, url) = told.start();
        watchdog.feed(format!("{round} rounds"));
        let region = attach(&url, &content, if with_file { round } else { 0 });
        let context = format!("{title}, round {round}");
        assert!(region.memory().to_vec() == content, "{context}: the new region has other bytes");
        let shared = region.lane(LaneConfig::default()).unwrap().into_shared().unwrap();
        let alone = region.lane(LaneConfig::default()).unwrap().into_shared().unwrap();
        let delay = Duration::from_micros(1000 + random.below(39_000) as u64);
        let (killed, told) = store_until_killed(&shared, &alone, &mut random, || {
            let began = Instant::now();
            while [&shared, &alone].iter().any(|lane| lane.watermarks().last.0 == 0) {
                assert!(began.elapsed() < PATIENCE, "{context}: nothing is stored");
                std::thread::yield_now();
            }
            std::thread::sleep(delay);
            let now = Instant::now();
            holder.kill();
            now
        });
        let first = told.iter().filter_map(|told| told.ended).min().unwrap();
        micros.add(u64::try_from(first.saturating_duration_since(killed).as_micros()).unwrap());
        let device = (fabric == Fabric::Device).then(|| scratch.path("device"));
        let kept = file.as_ref().map(|file| file.0.clone()).or(device);
        let left = kept.map(|path| std::fs::read(path).unwrap()[..SIZE].to_vec());
        let mut model = content;
        let (sharers, loner) = told.split_at(SHARERS);
        for (lane, told, range) in [(&shared, sharers, 0..HALF), (&alone, loner, HALF..SIZE)] {
            let unknown = lane.exclusively(|lane| lane.unknown()).unwrap();
            in_flight.add(unknown.last.0 - unknown.acked.0);
            let stores = in_order(told, &unknown, &context);
            if let Some(left) = &left {
                find_prefix(left, &mut model.clone(), range, stores.iter().cloned(), unknown.acked.0)
                    .unwrap_or_else(|why| panic!("{context}: {why}"));
            }
            stores.iter().for_each(|store| store.apply(&mut model));
        }
        assert!(region.memory().to_vec() == model, "{context}: the local copy is not what was stored");
        content = left.unwrap_or(model);
    }
    micros.print(&format!("{title}: microseconds from the kill to the first thread that knows:"));
    in_flight.print(&format!("{title}: {count} kills, every waiter back, stores in flight:"));
    let (non_zero, all) = in_flight.non_zero();
    assert!(2 * non_zero > all, "{non_zero} of {all} kills found stores in flight");
}

/// The first push, then each way in turn to meet a holder that came back with its file.
fn attach(url: &FabricUrl, content: &[u8], round: usize) -> Region {
    let attach = match round {
        0 => Attach::Push { replace: false },
        round => [Attach::Equal, Attach::Pull, Attach::Push { replace: true }][round % 3],
    };
    let memory = Mapping::anonymous(SIZE, MapOptions::default()).unwrap();
    if attach != Attach::Pull {
        memory.slice().write(0, content);
    }
    Region::open_over(region_config(url, SIZE, attach), keys(), Arc::new(memory)).unwrap()
}

/// Runs the storing threads until each has found the link lost.
fn store_until_killed(
    shared: &SharedLane,
    alone: &SharedLane,
    random: &mut Random,
    kill: impl FnOnce() -> Instant,
) -> (Instant, Vec<Told>) {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for number in 0..=SHARERS {
            let (lane, start) = if number < SHARERS { (shared, 0) } else { (alone, HALF) };
            let stores = Stores::new(random.next(), start, HALF, LENS);
            let mut random = random.clone();
            threads.push(scope.spawn(move || store_and_wait(lane, stores, &mut random)));
        }
        let killed = kill();
        (killed, threads.into_iter().map(|thread| thread.join().unwrap()).collect())
    })
}

fn store_and_wait(lane: &SharedLane, stores: Stores, random: &mut Random) -> Told {
    let mut told = Told::default();
    for store in stores {
        let ticket = match lane.store(store.offset, &store.bytes) {
            Ok(ticket) => ticket,
            Err(StoreError::LinkLost { .. }) => break,
            Err(error) => panic!("{error}"),
        };
        told.stores.push((ticket.sequence().0, store));
        if random.below(16) == 0 {
            let level = if random.below(2) == 0 { Level::Acked } else { Level::Visible };
            match lane.wait(ticket, level, Deadline::within(PATIENCE)) {
                Ok(()) => told.proven = ticket.sequence().0,
                Err(WaitError::LinkLost { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    told.ended = Some(Instant::now());
    told
}

/// All stores of a lane in the order that it gave them, after a look at what it says of the unknown ones.
fn in_order(told: &[Told], unknown: &Unknown, context: &str) -> Vec<Store> {
    let proven = told.iter().map(|told| told.proven).max().unwrap();
    assert!(unknown.acked.0 >= proven, "{context}: {proven} was waited for, {unknown:?}");
    let mut stores: Vec<_> = told.iter().flat_map(|told| &told.stores).collect();
    stores.sort_unstable_by_key(|(sequence, _)| *sequence);
    assert_eq!(stores.len() as u64, unknown.last.0, "{context}");
    for (place, (sequence, store)) in stores.iter().enumerate() {
        assert_eq!(*sequence, place as u64 + 1, "{context}");
        let covers = |range: &mirrorbus::mirror::ByteRange| {
            range.offset <= store.offset && store.offset + store.bytes.len() <= range.offset + range.len
        };
        let covered = *sequence <= unknown.acked.0 || unknown.ranges.iter().any(covers);
        assert!(covered, "{context}: store {sequence} is in no range of {unknown:?}");
    }
    stores.into_iter().map(|(_, store)| store.clone()).collect()
}
