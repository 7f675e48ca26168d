//! Checkpoints in real files: what is written is read, whatever else is refused.

use std::time::Instant;

use super::*;
use crate::base::{BlockNumber, BlockSize};

const DATASET: DatasetId = DatasetId::from_bytes([8; 16]);

fn entry(id: u32, name: &str, map: BlockMap) -> VolumeEntry {
    VolumeEntry { id: VolumeId(id), name: name.to_owned(), created: Lsn(512), map }
}

fn mapped(blocks: u64, lsn: u64) -> BlockMap {
    let mut map = BlockMap::new(BlockSize::Large, blocks);
    map.write(BlockNumber(0), blocks, Lsn(lsn));
    map
}

fn fork(generation: u64, fork: u64) -> Fork {
    let (generation, predecessor) = (LogGeneration(generation), LogGeneration(generation - 1));
    Fork { generation, predecessor, fork: Lsn(fork) }
}

/// All that a snapshot says.
#[allow(clippy::type_complexity, reason = "a value to compare")]
pub(super) fn told(
    snapshot: &Snapshot,
) -> (Lsn, Phase, u32, Vec<(u32, String, Lsn, u64, [u8; 32])>, Vec<Fork>) {
    let volume = |volume: &VolumeEntry| {
        let VolumeEntry { id, name, created, map } = volume;
        (id.0, name.clone(), *created, map.mapped(), map.digest())
    };
    let volumes = snapshot.volumes.iter().map(volume).collect();
    (snapshot.position, snapshot.phase, snapshot.volume_next, volumes, snapshot.history.clone())
}

#[test]
fn each_snapshot_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint.redb");
    assert!(matches!(Checkpoint::open(&path, DATASET, false), Err(CheckpointError::Missing { .. })));
    let mut checkpoint = Checkpoint::open(&path, DATASET, true).unwrap();
    assert_eq!(told(checkpoint.snapshot()), told(&Snapshot::default()));
    let mut now = Snapshot { position: Lsn(1 << 30), phase: Phase(2), volume_next: 4, ..Snapshot::default() };
    now.volumes = vec![entry(1, "one", mapped(1000, 4096)), entry(3, "drei ü", mapped(70, 1 << 25))];
    now.history = vec![fork(1, 0), fork(2, 4096)];
    let mut steps = vec![now.clone()];
    now.position = Lsn(1 << 31);
    now.volumes[0].map.write(BlockNumber(500), 1, Lsn(1 << 30));
    now.volumes[0].map.trim(BlockNumber(64), 64, Lsn((1 << 30) + 8192));
    now.volumes[1].map.resize(3, Lsn((1 << 30) + 16384));
    now.volumes[1].name = "three".to_owned();
    steps.push(now.clone());
    now.position = Lsn(1 << 32);
    now.volumes[1].map.resize(1 << 20, Lsn(1 << 31));
    now.volumes[1].map.write(BlockNumber((1 << 20) - 1), 1, Lsn((1 << 31) + 4096));
    now.volumes.remove(0);
    now.history = vec![fork(2, 4096), fork(4, 1 << 30)];
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
    let other = Checkpoint::open(&path, DatasetId::from_bytes([9; 16]), true);
    assert!(matches!(other, Err(CheckpointError::Dataset { .. })));
}

#[test]
fn the_register_changes_only_from_what_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint.redb");
    let mut checkpoint = Checkpoint::open(&path, DATASET, true).unwrap();
    assert_eq!(checkpoint.register().unwrap(), None);
    assert!(!checkpoint.replace_register(Some(b"a"), b"b").unwrap());
    assert!(checkpoint.replace_register(None, b"a").unwrap());
    assert!(!checkpoint.replace_register(None, b"b").unwrap());
    assert!(checkpoint.replace_register(Some(b"a"), b"").unwrap());
    drop(checkpoint);
    let checkpoint = Checkpoint::open(&path, DATASET, false).unwrap();
    assert_eq!(checkpoint.register().unwrap().as_deref(), Some(&b""[..]));
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
    let mut now = Snapshot { position: Lsn(1 << 30), volume_next: 4, ..Snapshot::default() };
    now.volumes = vec![entry(1, "one", mapped(5000, 4096)), entry(3, "three", mapped(70, 1 << 25))];
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
        let bytes = record::encode_leaf(VolumeId(1), leaf, &now.volumes[0].map.leaf(leaf).unwrap());
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
    let mut now = Snapshot { position: Lsn(8192), volume_next: 2, ..Snapshot::default() };
    now.volumes = vec![entry(1, "one", mapped(1, 8192))];
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
    let mut now = Snapshot { position: Lsn(1 << 40), volume_next: 2, ..Snapshot::default() };
    now.volumes = vec![entry(1, "one", mapped(blocks, 4096))];
    let took = |what: &str, begin: Instant| {
        println!("{what}: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
        assert!(begin.elapsed().as_secs() < 30, "{what}");
    };
    let begin = Instant::now();
    checkpoint.write(&now).unwrap();
    took("a million blocks written", begin);
    let mut random = crate::sim::Random::new(3);
    for at in 0..10_000_u64 {
        now.volumes[0].map.write(BlockNumber(random.below(blocks)), 1, Lsn((1 << 40) + at * 4096));
    }
    now.position = Lsn(1 << 41);
    let begin = Instant::now();
    checkpoint.write(&now).unwrap();
    took("ten thousand changes all over written", begin);
    for at in 0..10_000_u64 {
        now.volumes[0].map.write(BlockNumber(5000 + at), 1, Lsn((1 << 41) + at * 4096));
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
