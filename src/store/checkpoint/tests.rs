//! Checkpoints are read back as they were written, and what cannot be is an error.

use super::*;
use crate::base::BlockSize;

fn entry(id: u32, name: &str, size: BlockSize, blocks: u64) -> Entry {
    Entry { id: VolumeId(id), name: name.into(), map: BlockMap::new(size, blocks) }
}

fn same(a: &Snapshot, b: &Snapshot) {
    assert_eq!((a.position, a.generation, a.volumes.next()), (b.position, b.generation, b.volumes.next()));
    let names = |snapshot: &Snapshot| {
        snapshot.volumes.entries().iter().map(|entry| (entry.id, entry.name.clone())).collect::<Vec<_>>()
    };
    assert_eq!(names(a), names(b));
    for (a, b) in a.volumes.entries().iter().zip(b.volumes.entries()) {
        assert_eq!((a.map.digest(), a.map.mapped()), (b.map.digest(), b.map.mapped()), "{}", a.name);
    }
}

#[test]
fn what_is_written_is_read_back_with_each_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint.redb");
    let mut checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.last().position, Lsn::ZERO);
    let mut state = 3_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut entries = vec![entry(0, "root", BlockSize::Large, 5000), entry(3, "däta", BlockSize::Small, 700)];
    let mut lsn = 1 << 20;
    for round in 1..20_u64 {
        for entry in &mut entries {
            for _ in 0..next(50) {
                let count = 1 + next(20);
                let block = BlockNumber(next(entry.map.blocks() - count));
                lsn += 1 << 20;
                if next(4) == 0 {
                    entry.map.trim(block, count, Lsn(lsn));
                } else {
                    entry.map.write(block, count, Lsn(lsn));
                }
            }
        }
        if round == 10 {
            entries.remove(0);
            entries.push(entry(7, "new", BlockSize::Large, 100));
            lsn += 1 << 20;
            entries[0].map.resize(300, Lsn(lsn));
        }
        let position = Lsn(lsn + (1 << 20));
        let volumes = Volumes::restore(entries.clone(), 8);
        let snapshot = Snapshot { position, generation: LogGeneration(round), volumes };
        checkpoint.write(&snapshot).unwrap();
        drop(checkpoint);
        checkpoint = Checkpoint::open(&path).unwrap();
        same(checkpoint.last(), &snapshot);
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn leaves_and_records_that_cannot_be_are_errors() {
    let mut map = BlockMap::new(BlockSize::Large, 100);
    let mut bytes = [0; LEAF_BYTES];
    let decode = |map: &mut BlockMap, leaf, bytes: &[u8]| leaf::decode(map, leaf, bytes, Lsn(1 << 20));
    assert!(decode(&mut map, 0, &bytes).is_ok() && map.mapped() == 0);
    assert!(decode(&mut map, 2, &bytes).is_err() && decode(&mut map, u64::MAX, &bytes).is_err());
    assert!(decode(&mut map, 0, &bytes[1..]).is_err());
    for lsn in [1_u64, 511, (1 << 20) - 512, 1 << 20, 1 << 63, u64::MAX] {
        bytes[..8].copy_from_slice(&lsn.to_le_bytes());
        assert!(decode(&mut map, 0, &bytes).is_err(), "{lsn}");
    }
    bytes[..8].copy_from_slice(&(1_u64 << 19).to_le_bytes());
    assert!(decode(&mut map, 1, &bytes).is_ok());
    bytes[8 * 40..8 * 41].copy_from_slice(&(1_u64 << 19).to_le_bytes());
    assert!(decode(&mut map, 1, &bytes).is_err(), "block 104 of 100");
    let good = record::encode(&entry(1, "name", BlockSize::Small, 5));
    assert!(record::decode(&good).is_ok());
    for at in [0, 2, 3, 15, 16] {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        assert!(record::decode(&bad).is_err(), "byte {at}");
    }
    assert!(record::decode(&good[..15]).is_err() && record::decode(&[]).is_err());
}

#[test]
fn a_file_of_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint.redb");
    std::fs::write(&path, vec![7; 100_000]).unwrap();
    assert!(matches!(Checkpoint::open(&path), Err(CheckpointError::Database(_))));
}
