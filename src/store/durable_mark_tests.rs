//! The mark: its bytes, its two places, and that nothing wrong with it is in anybody's way.

use std::os::unix::fs::MetadataExt;

use super::*;

const DATASET: DatasetId = DatasetId::from_bytes([7; 16]);

const fn marked(generation: u64, durable: u64) -> Marked {
    Marked { generation: LogGeneration(generation), durable: Lsn(durable) }
}

#[test]
fn it_is_read_back_and_every_flipped_bit_is_found() {
    let place = marked(3, 0x1234_5600).encode(DATASET);
    assert_eq!(Marked::decode(&place, DATASET), Ok(Some(marked(3, 0x1234_5600))));
    for bit in 0..size_of::<Wire>() * 8 {
        let mut damaged = place;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Marked::decode(&damaged, DATASET).is_err(), "bit {bit}");
    }
    assert_eq!(Marked::decode(&[0; PLACE_BYTES], DATASET), Ok(None));
    assert!(Marked::decode(&place[..63], DATASET).is_err());
    let other = DatasetId::from_bytes([8; 16]);
    assert!(Marked::decode(&place, other).unwrap_err().contains(&DATASET.to_string()));
}

#[test]
fn the_two_places_take_turns_and_a_torn_one_leaves_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let mark = DurableMark::open(directory.path(), DATASET);
    assert_eq!(mark.marked(), None);
    (1..=3).for_each(|step| mark.write(marked(2, step * 512)));
    // What is lower says nothing new.
    mark.write(marked(2, 512));
    mark.sync();
    assert_eq!(mark.marked(), Some(marked(2, 3 * 512)));
    let bytes = std::fs::read(mark.path()).unwrap();
    assert_eq!(bytes.len(), 2 * PLACE_BYTES);
    assert_eq!(std::fs::metadata(mark.path()).unwrap().mode() & 0o7777, 0o600);
    let read = |at: usize| Marked::decode(&bytes[at..at + PLACE_BYTES], DATASET);
    assert_eq!((read(0), read(PLACE_BYTES)), (Ok(Some(marked(2, 1536))), Ok(Some(marked(2, 1024)))));
    let mut torn = bytes;
    torn[44] ^= 1;
    std::fs::write(mark.path(), &torn).unwrap();
    let mark = DurableMark::open(directory.path(), DATASET);
    assert_eq!(mark.marked(), Some(marked(2, 1024)));
    // The torn one is the next to be written.
    mark.write(marked(5, 2048));
    let bytes = std::fs::read(mark.path()).unwrap();
    assert_eq!(Marked::decode(&bytes[..PLACE_BYTES], DATASET), Ok(Some(marked(5, 2048))));
    assert_eq!(bytes[PLACE_BYTES..], torn[PLACE_BYTES..]);
}

#[test]
fn what_cannot_be_read_or_written_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("durable");
    for bytes in [&b"MBDURA02 of a newer program"[..], &[0xff; 9000], &[0; 100], b""] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(DurableMark::open(directory.path(), DATASET).marked(), None);
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let mark = DurableMark::open(directory.path(), DATASET);
    mark.write(marked(1, 512));
    mark.sync();
    assert!(mark.remove().is_err(), "what is still there may count");
}

#[test]
fn what_was_not_written_is_written_when_it_can_be_and_to_the_same_place() {
    let directory = tempfile::tempdir().unwrap();
    let mark = DurableMark::open(directory.path(), DATASET);
    mark.write(marked(1, 512));
    drop(mark);
    let mark = DurableMark::open(directory.path(), DATASET);
    let aside = directory.path().join("aside");
    std::fs::rename(mark.path(), &aside).unwrap();
    std::os::unix::fs::symlink("/dev/full", mark.path()).unwrap();
    mark.write(marked(1, 1024));
    mark.write(marked(1, 1536));
    assert_eq!(mark.marked(), Some(marked(1, 512)));
    std::fs::rename(&aside, mark.path()).unwrap();
    mark.write(marked(1, 1024));
    let bytes = std::fs::read(mark.path()).unwrap();
    let read = |at: usize| Marked::decode(&bytes[at..at + PLACE_BYTES], DATASET);
    assert_eq!((read(0), read(PLACE_BYTES)), (Ok(Some(marked(1, 512))), Ok(Some(marked(1, 1024)))));
}

#[test]
fn it_is_removed_for_good_and_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let mark = DurableMark::open(directory.path(), DATASET);
    mark.remove().unwrap();
    mark.write(marked(4, 8192));
    mark.remove().unwrap();
    assert_eq!((mark.marked(), mark.path().exists()), (None, false));
    assert_eq!(DurableMark::open(directory.path(), DATASET).marked(), None);
    // A log that was cut goes on from where it was cut.
    mark.write(marked(4, 4096));
    assert_eq!(DurableMark::open(directory.path(), DATASET).marked(), Some(marked(4, 4096)));
}
