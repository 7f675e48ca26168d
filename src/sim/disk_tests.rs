//! What a power cut leaves of a disk, over many seeds.

use super::*;

fn byte(disk: &Disk, file: u64, offset: u64) -> u8 {
    let mut byte = [0];
    disk.read(file, offset, &mut byte);
    byte[0]
}

#[test]
fn what_was_synced_stays_and_the_rest_may_be_torn() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut disk = Disk::new(512, seed);
        disk.write(1, 0, &[1; 512]).unwrap();
        disk.sync(1).unwrap();
        disk.sync_directory().unwrap();
        disk.cut_at(4);
        assert_eq!(disk.write(1, 0, &[2; 1536]), Err(DiskError::PowerCut));
        assert_eq!((byte(&disk, 1, 0), disk.sync(1)), (2, Err(DiskError::PowerCut)));
        assert_eq!(disk.most_written(), 2);
        disk.restart();
        let found = [0, 512, 1024].map(|offset| byte(&disk, 1, offset));
        assert!([1, 2].contains(&found[0]) && [0, 2].contains(&found[1]), "{found:?}");
        outcomes.insert(found);
    }
    assert_eq!(outcomes.len(), 8, "each sector by itself");
}

#[test]
fn a_length_is_torn_from_what_was_written_with_it() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut disk = Disk::new(512, seed);
        disk.set_length(1, 512).unwrap();
        disk.write(1, 0, &[1; 512]).unwrap();
        disk.sync(1).unwrap();
        disk.sync_directory().unwrap();
        disk.set_length(1, 0).unwrap();
        disk.set_length(1, 1024).unwrap();
        disk.write(1, 512, &[2; 512]).unwrap();
        assert_eq!((disk.length(1), byte(&disk, 1, 0), byte(&disk, 1, 512)), (1024, 0, 2));
        disk.restart();
        outcomes.insert((disk.length(1), byte(&disk, 1, 0), byte(&disk, 1, 512)));
    }
    // The old length with or without the new sector, cut off with or without what was behind, and all of it.
    assert!(outcomes.contains(&(512, 1, 0)) && outcomes.contains(&(1024, 0, 2)), "{outcomes:?}");
    assert!(outcomes.contains(&(512, 1, 2)) && outcomes.contains(&(1024, 1, 0)), "{outcomes:?}");
}

#[test]
fn a_file_whose_directory_was_not_synced_may_be_gone() {
    let survives = |seed| {
        let mut disk = Disk::new(512, seed);
        disk.write(1, 0, &[1; 512]).unwrap();
        disk.sync(1).unwrap();
        disk.restart();
        disk.files() == [1]
    };
    assert!((0..50).any(survives) && !(0..50).all(survives));
}

#[test]
fn names_change_back_until_the_directory_is_synced() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let mut disk = Disk::new(512, seed);
        for file in 1..=3 {
            disk.write(file, 0, &[u8::try_from(file).unwrap(); 512]).unwrap();
            disk.sync(file).unwrap();
        }
        disk.sync_directory().unwrap();
        disk.remove(1).unwrap();
        disk.rename(3, 2).unwrap();
        assert_eq!((disk.files(), byte(&disk, 2, 0)), (vec![2], 3));
        let mut synced = disk.clone();
        synced.sync_directory().unwrap();
        synced.restart();
        assert_eq!((synced.files(), byte(&synced, 2, 0)), (vec![2], 3));
        disk.restart();
        outcomes.insert((disk.files(), byte(&disk, 2, 0)));
    }
    let all = [(vec![1, 2, 3], 2), (vec![2], 3), (vec![2, 3], 2)];
    assert!(outcomes.into_iter().eq(all), "in order, or not at all");
}

#[test]
fn a_failed_sync_is_not_made_good_by_a_later_one() {
    let survives = |seed| {
        let mut disk = Disk::new(512, seed);
        disk.sync_directory().unwrap();
        disk.write(1, 0, &[1; 512]).unwrap();
        disk.fail_sync_at(3);
        assert_eq!(disk.sync(1), Err(DiskError::SyncFailed));
        assert_eq!(byte(&disk, 1, 0), 1, "it is read as if nothing had happened");
        disk.sync(1).unwrap();
        disk.sync_directory().unwrap();
        disk.restart();
        byte(&disk, 1, 0) == 1
    };
    assert!((0..50).any(survives) && !(0..50).all(survives));
}
