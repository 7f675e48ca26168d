//! Power cuts at every write, every sync and every change of length of a checkpoint: what is there after it is the snapshot before or
//! the new one, whole. The key-value file runs on the simulated disk.

use std::io;
use std::sync::{Arc, Mutex};

use super::tests::told;
use super::*;
use crate::base::{BlockNumber, BlockSize, VolumeId};
use crate::sim::{Disk, DiskError, Random};
use crate::store::volumes::Entry;
use crate::volume::BlockMap;

const DATASET: DatasetId = DatasetId::from_bytes([8; 16]);
const SECTOR: u64 = 512;
const FILE: u64 = 1;

#[derive(Debug, Clone)]
struct OnDisk(Arc<Mutex<Disk>>);

fn failed(error: DiskError) -> io::Error {
    io::Error::other(format!("{error:?}"))
}

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().length(FILE))
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let disk = self.0.lock().unwrap();
        if offset + len as u64 > disk.length(FILE) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; len];
        disk.read(FILE, offset, &mut bytes);
        Ok(bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().set_length(FILE, len).map_err(failed)
    }

    fn sync_data(&self, _: bool) -> io::Result<()> {
        self.0.lock().unwrap().sync(FILE).map_err(failed)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        let start = offset - offset % SECTOR;
        let end = (offset + data.len() as u64).next_multiple_of(SECTOR);
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        disk.read(FILE, start, &mut bytes);
        let at = usize::try_from(offset - start).unwrap();
        bytes[at..at + data.len()].copy_from_slice(data);
        disk.write(FILE, start, &bytes).map_err(failed)
    }
}

/// Snapshots one after the other, with all kinds of changes.
fn workload(seed: u64, count: u64) -> Vec<Snapshot> {
    let mut random = Random::new(seed);
    let mut position = Lsn(1 << 20);
    let (mut volumes, mut next) = (Vec::new(), 0);
    let mut snapshots = vec![Snapshot::default()];
    for step in 1..=count {
        if step % 3 == 1 {
            let map = BlockMap::new(BlockSize::Large, 2000);
            volumes.push(Entry { id: VolumeId(next), name: format!("volume {step}"), map });
            next += 1;
        } else if step % 5 == 0 {
            volumes.remove(0);
        }
        for volume in &mut volumes {
            for _ in 0..random.below(30) {
                let (block, lsn) = (random.below(volume.map.blocks() - 70), position);
                if random.chance(80) {
                    volume.map.write(BlockNumber(block), 1 + random.below(70), lsn);
                } else {
                    volume.map.trim(BlockNumber(block), 70, lsn);
                }
                position = lsn.plus(70 * 4096);
            }
        }
        let volumes = Volumes::restore(volumes.clone(), next);
        snapshots.push(Snapshot { position, generation: LogGeneration(step), volumes });
    }
    snapshots
}

fn open(disk: &Arc<Mutex<Disk>>, careful: bool) -> Result<Checkpoint, CheckpointError> {
    let backend = OnDisk(disk.clone());
    if careful {
        return Checkpoint::open_on(backend, Switch::default(), DATASET);
    }
    // As the library alone would do it.
    let database = guarded(|| builder().create_with_backend(backend).map_err(CheckpointError::storage))?;
    let (switch, current) = (Switch::default(), Snapshot::default());
    let mut opened =
        Checkpoint { database: Some(database), switch, dataset: DATASET, current, path: None, failed: false };
    opened.current = guarded(|| load::snapshot(&opened.reader()?, DATASET))?;
    Ok(opened)
}

/// A disk with an empty checkpoint.
fn made() -> Disk {
    let disk = Arc::new(Mutex::new(Disk::new(SECTOR, 1)));
    make_on(Careful::new(OnDisk(disk.clone()), Switch::default()), DATASET, &Snapshot::default()).unwrap();
    let mut disk = disk.lock().unwrap().clone();
    disk.sync(FILE).unwrap();
    disk.sync_directory().unwrap();
    disk
}

/// Snapshots written, the first error, and the disk.
fn run(disk: Disk, snapshots: &[Snapshot], careful: bool) -> (usize, Option<CheckpointError>, Disk) {
    let disk = Arc::new(Mutex::new(disk));
    let (mut written, mut died) = (0, None);
    let mut all = || {
        let mut checkpoint = open(&disk, careful)?;
        for snapshot in &snapshots[1..] {
            checkpoint.write(snapshot)?;
            written += 1;
        }
        // The process dies: what is written on the way out does not count.
        died = Some(disk.lock().unwrap().clone());
        checkpoint.give_up();
        Ok(())
    };
    let error = all().err();
    let disk = died.unwrap_or_else(|| disk.lock().unwrap().clone());
    (written, error, disk)
}

/// Cuts the power in each of the last `most` steps of writing the snapshots, with each seed.
fn cut(snapshots: &[Snapshot], most: u64, seeds: u64, careful: bool) -> Result<u64, String> {
    let disk = made();
    let (written, error, whole) = run(disk.clone(), snapshots, careful);
    assert!(error.is_none() && written == snapshots.len() - 1, "without a fault: {error:?}");
    let mut cuts = 0;
    for step in (disk.steps() + 1).max(whole.steps().saturating_sub(most))..=whole.steps() {
        for seed in 0..seeds {
            let why = |why: String| format!("cut at {step}, seed {seed}: {why}");
            let mut disk = disk.clone();
            disk.reseed(seed * 1000 + step);
            disk.cut_at(step);
            let (written, error, mut after) = run(disk, snapshots, careful);
            // The library does not take as many steps each time; a cut that came is never hidden.
            if error.is_none() {
                assert!(after.steps() < step, "a cut at {step} of {} was hidden", after.steps());
                continue;
            }
            after.restart();
            let after = Arc::new(Mutex::new(after));
            let mut found = open(&after, careful).map_err(|error| why(error.to_string()))?;
            let now = told(found.snapshot());
            let expected = [Some(&snapshots[written]), snapshots.get(written + 1)];
            if !expected.into_iter().flatten().any(|snapshot| told(snapshot) == now) {
                return Err(why(format!("found {:?} after {written} snapshots", found.snapshot().position)));
            }
            // And it goes on from there.
            let last = snapshots.last().expect("one at least");
            found.write(last).map_err(|error| why(format!("again: {error}")))?;
            drop(found);
            let again = open(&after, careful).map_err(|error| why(format!("again: {error}")))?;
            assert_eq!(told(again.snapshot()), told(last), "step {step}");
            cuts += 1;
        }
    }
    Ok(cuts)
}

#[test]
fn a_cut_leaves_the_snapshot_before_or_the_new_one() {
    let cuts = cut(&workload(1, 6), u64::MAX, 1, true).unwrap_or_else(|why| panic!("{why}"));
    assert!(cuts > 80, "{cuts} cuts are no test");
}

/// The file grows in the transaction. The library alone does not open it after some cuts.
#[test]
fn a_cut_while_the_file_grows_is_no_damage() {
    let mut map = BlockMap::new(BlockSize::Large, 200_000);
    map.write(BlockNumber(0), 200_000, Lsn(4096));
    let volumes = Volumes::restore(vec![Entry { id: VolumeId(0), name: "large".to_owned(), map }], 1);
    let large = Snapshot { position: Lsn(1 << 40), generation: LogGeneration(1), volumes };
    let snapshots = [Snapshot::default(), large];
    let cuts = cut(&snapshots, 4, 6, true).unwrap_or_else(|why| panic!("{why}"));
    assert!(cuts >= 12, "{cuts} cuts are no test");
    // One seed of six shows it, and the library writes in another order each time.
    let careless = cut(&snapshots, 4, 64, false);
    assert!(careless.is_err(), "what is to be guarded against was not seen");
}

#[test]
fn a_failed_sync_ends_it_and_leaves_what_was() {
    let (snapshots, disk) = (workload(1, 6), made());
    let mut failed = 0;
    for step in disk.steps() + 1..disk.steps() + 60 {
        let mut disk = disk.clone();
        disk.fail_sync_at(step);
        let (written, error, mut disk) = run(disk, &snapshots, true);
        if error.is_none() {
            continue;
        }
        failed += 1;
        disk.restart();
        let found = open(&Arc::new(Mutex::new(disk)), true).unwrap();
        let found = told(found.snapshot());
        assert!(found == told(&snapshots[written]) || found == told(&snapshots[written + 1]), "step {step}");
    }
    assert!(failed > 3, "{failed} syncs failed");
}
