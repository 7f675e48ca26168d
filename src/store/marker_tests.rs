//! The marker in real files: it follows, it survives, and the checkpoint goes back to it.

use super::super::recover::start_before;
use super::*;
use crate::base::{BlockNumber, BlockSize, LogGeneration, VolumeId};
use crate::store::OpenError;
use crate::store::volumes::{Entry, Volumes};
use crate::volume::BlockMap;

const DATASET: DatasetId = DatasetId::from_bytes([8; 16]);

/// All blocks of one volume, written just before `position`.
fn snapshot(position: u64) -> Snapshot {
    let mut map = BlockMap::new(BlockSize::Large, 10);
    map.write(BlockNumber(0), 10, Lsn(position - 10 * 4096));
    let volumes = Volumes::restore(vec![Entry { id: VolumeId(0), name: "root".to_owned(), map }], 1);
    Snapshot { position: Lsn(position), generation: LogGeneration(1), volumes }
}

fn digest(snapshot: &Snapshot) -> (Lsn, [u8; 32]) {
    (snapshot.position, snapshot.volumes.entries()[0].map.digest())
}

#[test]
fn it_moves_forward_and_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("marker.redb");
    assert_eq!(Marker::open(&path, DATASET, false).unwrap().position(), None, "a copy without one");
    let mut marker = Marker::open(&path, DATASET, true).unwrap();
    assert_eq!(marker.position(), Some(Lsn::ZERO), "both have nothing");
    for position in [1 << 20, 1 << 21, 1 << 20] {
        marker.advance(&snapshot(position)).unwrap();
    }
    assert_eq!(
        digest(marker.snapshot().unwrap()),
        digest(&snapshot(1 << 21)),
        "an older one changes nothing"
    );
    drop(marker);
    let marker = Marker::open(&path, DATASET, false).unwrap();
    assert_eq!(digest(marker.snapshot().unwrap()), digest(&snapshot(1 << 21)));
    drop(marker);
    let other = Marker::open(&path, DatasetId::from_bytes([1; 16]), false);
    assert!(matches!(other, Err(CheckpointError::Dataset { .. })));
}

#[test]
fn one_that_is_missing_or_damaged_is_made_whole_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("marker.redb");
    for damage in [false, true] {
        if damage {
            std::fs::write(&path, [7; 10_000]).unwrap();
        }
        let mut marker = Marker::open(&path, DATASET, false).unwrap();
        assert_eq!(marker.position(), None);
        marker.advance(&snapshot(1 << 22)).unwrap();
        drop(marker);
        let marker = Marker::open(&path, DATASET, false).unwrap();
        assert_eq!(digest(marker.snapshot().unwrap()), digest(&snapshot(1 << 22)), "never at 0 meanwhile");
        drop(marker);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_checkpoint_goes_back_and_goes_on_from_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint.redb");
    let mut checkpoint = Checkpoint::open(&path, DATASET, true).unwrap();
    checkpoint.write(&snapshot(1 << 23)).unwrap();
    checkpoint.go_back(&snapshot(1 << 21)).unwrap();
    assert_eq!(digest(checkpoint.snapshot()), digest(&snapshot(1 << 21)));
    // What a process that died on its way left is no hindrance.
    std::fs::write(path.with_extension("next"), "half").unwrap();
    checkpoint.go_back(&snapshot(1 << 20)).unwrap();
    checkpoint.write(&snapshot(1 << 22)).unwrap();
    drop(checkpoint);
    let checkpoint = Checkpoint::open(&path, DATASET, false).unwrap();
    assert_eq!(digest(checkpoint.snapshot()), digest(&snapshot(1 << 22)));
}

/// Going back is a rename: whoever opens the file at any moment finds the one or the other.
#[test]
fn a_refused_way_back_leaves_the_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint.redb");
    let mut checkpoint = Checkpoint::open(&path, DATASET, true).unwrap();
    checkpoint.write(&snapshot(1 << 23)).unwrap();
    // A directory where the new file is to be made.
    std::fs::create_dir(path.with_extension("next")).unwrap();
    assert!(checkpoint.go_back(&snapshot(1 << 21)).is_err());
    assert!(matches!(checkpoint.write(&snapshot(1 << 24)), Err(CheckpointError::Failed)));
    drop(checkpoint);
    let checkpoint = Checkpoint::open(&path, DATASET, false).unwrap();
    assert_eq!(digest(checkpoint.snapshot()), digest(&snapshot(1 << 23)));
}

#[test]
fn the_start_is_the_checkpoint_the_marker_or_nothing() {
    let (checkpoint, marker) = (snapshot(1 << 23), snapshot(1 << 21));
    let start = |fork: u64, marker: Option<&Snapshot>| start_before(&checkpoint, marker, Lsn(fork));
    assert_eq!(start(1 << 23, Some(&marker)).unwrap().position, Lsn(1 << 23));
    assert_eq!(start((1 << 23) - 512, Some(&marker)).unwrap().position, Lsn(1 << 21));
    assert_eq!(start(1 << 21, Some(&marker)).unwrap().position, Lsn(1 << 21));
    let error = start((1 << 21) - 512, Some(&marker)).unwrap_err();
    assert!(matches!(error, OpenError::CheckpointBehindFork { marker: Some(Lsn(0x20_0000)), .. }), "{error}");
    let error = start(1 << 21, None).unwrap_err();
    assert!(error.to_string().contains("there is no marker"), "{error}");
}
