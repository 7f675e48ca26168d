//! Checkpoints in real files: what is written is read, whatever else is refused.

use std::time::Instant;

use super::*;
use crate::base::{BlockNumber, BlockSize, VolumeId};
use crate::store::volumes::Entry;
use crate::volume::BlockMap;

const DATASET: DatasetId = DatasetId::from_bytes([8; 16]);

fn entry(id: u32, name: &str, map: BlockMap) -> Entry {
    Entry { id: VolumeId(id), name: name.to_owned(), map }
}

/// A snapshot at `position`, without a generation.
fn snapshot(position: u64, volumes: Vec<Entry>) -> Snapshot {
    let next = volumes.last().map_or(0, |last| last.id.0 + 1);
    let volumes = Volumes::restore(volumes, next);
    Snapshot { position: Lsn(position), generation: LogGeneration(0), volumes }
}

fn mapped(blocks: u64, lsn: u64) -> BlockMap {
    let mut map = BlockMap::new(BlockSize::Large, blocks);
    map.write(BlockNumber(0), blocks, Lsn(lsn));
    map
}

/// All that a snapshot says.
#[allow(clippy::type_complexity, reason = "a value to compare")]
pub(super) fn told(snapshot: &Snapshot) -> (Lsn, LogGeneration, u32, Vec<(u32, String, u64, [u8; 32])>) {
    let volume = |Entry { id, name, map }: &Entry| (id.0, name.clone(), map.mapped(), map.digest());
    let volumes = snapshot.volumes.entries().iter().map(volume).collect();
    (snapshot.position, snapshot.generation, snapshot.volumes.next(), volumes)
}

#[test]
fn each_snapshot_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint.redb");
    assert!(matches!(Checkpoint::open(&path, DATASET, false), Err(CheckpointError::Missing { .. })));
    let mut checkpoint = Checkpoint::open(&path, DATASET, true).unwrap();
    assert_eq!(told(checkpoint.snapshot()), told(&Snapshot::default()));
    let volumes = vec![entry(1, "one", mapped(1000, 4096)), entry(3, "drei ü", mapped(70, 1 << 25))];
    let volumes = Volumes::restore(volumes, 4);
    let mut now = Snapshot { position: Lsn(1 << 30), generation: LogGeneration(2), volumes };
    let mut steps = vec![now.clone()];
    now.position = Lsn(1 << 31);
    let one = now.volumes.get_mut(VolumeId(1)).unwrap();
    one.map.write(BlockNumber(500), 1, Lsn(1 << 30));
    one.map.trim(BlockNumber(64), 64, Lsn((1 << 30) + 8192));
    let three = now.volumes.get_mut(VolumeId(3)).unwrap();
    three.map.resize(3, Lsn((1 << 30) + 16384));
    three.name = "three".to_owned();
    steps.push(now.clone());
    let mut three = now.volumes.get(VolumeId(3)).unwrap().clone();
    three.map.resize(1 << 20, Lsn(1 << 31));
    three.map.write(BlockNumber((1 << 20) - 1), 1, Lsn((1 << 31) + 4096));
    let volumes = Volumes::restore(vec![three], 7);
    now = Snapshot { position: Lsn(1 << 32), generation: LogGeneration(4), volumes };
    steps.push(now.clone());
    steps.push(now);
    for step in &steps {
        checkpoint.write(step).unwrap();
        assert_eq!(told(checkpoint.snapshot()), told(step));
        drop(checkpoint);
        checkpoint = Checkpoint::open(&path, DATASET, true).unwrap();
        assert_eq!(told(checkpoint.snapshot()), told(step));
    }
    drop(checkpoint);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let other = Checkpoint::open(&path, DatasetId::from_bytes([9; 16]), true);
    assert!(matches!(other, Err(CheckpointError::Dataset { .. })));
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint.redb");
    for bytes in [&b""[..], b"something else", &[0; 8192]] {
        std::fs::write(&path, bytes).unwrap();
        let refused = Checkpoint::open(&path, DATASET, true);
        assert!(refused.is_err(), "{} bytes", bytes.len());
    }
    std::fs::remove_file(&path).unwrap();
    drop(Database::create(&path).unwrap());
    let refused = Checkpoint::open(&path, DATASET, true);
    assert!(matches!(refused, Err(CheckpointError::NoTable { table: "head" })), "{refused:?}");
}

/// Bits are flipped all over the file: what is read is what was written, or an error; never something else, never a panic.
#[test]
fn damage_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint.redb");
    let mut checkpoint = Checkpoint::open(&path, DATASET, true).unwrap();
    let volumes = vec![entry(1, "one", mapped(5000, 4096)), entry(3, "three", mapped(70, 1 << 25))];
    let now = snapshot(1 << 30, volumes);
    checkpoint.write(&now).unwrap();
    drop(checkpoint);
    let whole = std::fs::read(&path).unwrap();
    let mut random = crate::sim::Random::new(1);
    // The header, and what else there is.
    let used: Vec<_> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    for round in 0..120_u64 {
        let at = if round < 60 {
            random.below(320)
        } else {
            used[usize::try_from(random.below(used.len() as u64)).unwrap()] as u64
        };
        let mut damaged = whole.clone();
        damaged[usize::try_from(at).unwrap()] ^= 1 << random.below(8);
        std::fs::write(&path, &damaged).unwrap();
        if let Ok(opened) = Checkpoint::open(&path, DATASET, false) {
            assert_eq!(told(opened.snapshot()), told(&now), "byte {at}");
        }
    }
    // Each leaf, wherever its bytes stand.
    let mut places = 0;
    for leaf in 0..79 {
        let bytes = record::encode_leaf(VolumeId(1), leaf, &now.volumes.entries()[0].map.leaf(leaf).unwrap());
        let bit = random.below(520 * 8);
        let mut damaged = whole.clone();
        for at in places_of(&whole, &bytes) {
            damaged[at + usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
            places += 1;
        }
        std::fs::write(&path, &damaged).unwrap();
        assert!(Checkpoint::open(&path, DATASET, false).is_err(), "leaf {leaf}");
    }
    assert!(places >= 79, "{places}");
    for bytes in [100, 4096, whole.len() / 2] {
        std::fs::write(&path, &whole[..bytes]).unwrap();
        assert!(Checkpoint::open(&path, DATASET, false).is_err(), "cut to {bytes}");
    }
}

/// Where `wanted` stands.
fn places_of(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    (0..bytes.len() - wanted.len()).filter(|at| bytes[*at..].starts_with(wanted)).collect()
}

#[test]
fn what_lies_behind_the_position_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::open(&directory.path().join("c"), DATASET, true).unwrap();
    let now = snapshot(8192, vec![entry(1, "one", mapped(1, 8192))]);
    assert!(matches!(checkpoint.write(&now), Err(CheckpointError::Position { .. })));
    assert!(matches!(checkpoint.write(&now), Err(CheckpointError::Failed)));
}

/// A restart and a checkpoint of a large map: printed, and bounded far above what any machine takes.
#[test]
fn a_million_blocks_are_read_at_once_and_few_changes_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint.redb");
    let mut checkpoint = Checkpoint::open(&path, DATASET, true).unwrap();
    let blocks = 1 << 20;
    let mut now = snapshot(1 << 40, vec![entry(1, "one", mapped(blocks, 4096))]);
    let took = |what: &str, begin: Instant| {
        println!("{what}: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
        assert!(begin.elapsed().as_secs() < 30, "{what}");
    };
    let begin = Instant::now();
    checkpoint.write(&now).unwrap();
    took("a million blocks written", begin);
    let mut random = crate::sim::Random::new(3);
    for at in 0..10_000_u64 {
        now.volumes.get_mut(VolumeId(1)).unwrap().map.write(
            BlockNumber(random.below(blocks)),
            1,
            Lsn((1 << 40) + at * 4096),
        );
    }
    now.position = Lsn(1 << 41);
    let begin = Instant::now();
    checkpoint.write(&now).unwrap();
    took("ten thousand changes all over written", begin);
    for at in 0..10_000_u64 {
        now.volumes.get_mut(VolumeId(1)).unwrap().map.write(
            BlockNumber(5000 + at),
            1,
            Lsn((1 << 41) + at * 4096),
        );
    }
    now.position = Lsn(1 << 42);
    let begin = Instant::now();
    checkpoint.write(&now).unwrap();
    took("ten thousand changes in one place written", begin);
    println!("{} bytes", std::fs::metadata(&path).unwrap().len());
    drop(checkpoint);
    let begin = Instant::now();
    let checkpoint = Checkpoint::open(&path, DATASET, false).unwrap();
    took("all of it read", begin);
    assert_eq!(told(checkpoint.snapshot()), told(&now));
}
