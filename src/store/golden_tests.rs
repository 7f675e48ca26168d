//! Version 1 of what a node keeps beside its segments, byte for byte. A change that breaks one of these tests is a new version.

use std::path::Path;

use super::checkpoint::decoders::{HeadRecord, VolumeRecord, decode_leaf, encode_leaf};
use super::checkpoint::{Checkpoint, Snapshot};
use super::durable_mark::{DurableMark, Marked};
use super::identity::Identity;
use super::marker::Marker;
use super::register::{Configuration, Contents, Fork, LocalRegister, Position, Register};
use super::resync::Note;
use super::volumes::{Entry, VolumeChange, Volumes};
use crate::base::{BlockNumber, BlockSize, DatasetId, LifeId, LogGeneration, Lsn, VolumeId};
use crate::segment::SegmentLayout;
use crate::volume::{BlockMap, LEAF_BLOCKS};

#[path = "../../tests/common/golden.rs"]
mod golden;

/// Files and values of which each bit is known. Computed by another program, from what `docs/formats.md` says.
const GOLDEN: &str = include_str!("golden/version1.txt");
/// A file of the checkpoint's form, as this program wrote it: where its library puts what is the library's affair.
const CHECKPOINT: &str = include_str!("golden/checkpoint1.txt");

const DATASET: DatasetId = DatasetId::from_bytes(*b"dataset of tests");

fn named(image: &str, name: &str) -> Vec<u8> {
    let found = golden::parse(image).into_iter().find(|(found, _)| found == name);
    found.unwrap_or_else(|| panic!("the image has no {name}")).1
}

fn identity() -> Identity {
    Identity {
        dataset: DATASET,
        node: "knoten-ä".into(),
        life: LifeId::from_bytes(*b"0123456789abcdef"),
        starts: 0x0102_0304_0506,
        layout: SegmentLayout::new(1 << 20, 4096).unwrap(),
    }
}

fn register() -> Contents {
    let members = vec!["alpha".to_owned(), "beta".to_owned()];
    let configuration = Configuration { id: 7, members, primary: "beta".into(), floor: 1 << 40 };
    let fork =
        |generation, predecessor, fork, by: &str| Fork { generation, predecessor, fork, by: by.into() };
    let history = vec![fork(1, 0, 0, "alpha"), fork(4, 1, 0x12_3000, "beta")];
    Contents {
        configuration: Some(configuration),
        history,
        had_peer: true,
        awaits_new_peer: false,
        renounced: None,
    }
}

/// Of a node that goes on without the peer, and waits for another one.
fn lone_register() -> Contents {
    let mut contents = register();
    let configuration = contents.configuration.as_mut().unwrap();
    (configuration.id, configuration.members, configuration.primary) =
        (8, vec!["beta".into()], "beta".into());
    contents.awaits_new_peer = true;
    contents
}

const MARKS: [Marked; 2] = [
    Marked { generation: LogGeneration(3), durable: Lsn(0x41_2000) },
    Marked { generation: LogGeneration(5), durable: Lsn(0x0102_0304_0600) },
];

const NOTE: Position = Position { generation: 3, end: 0x41_2000, highest: 1 << 33 };

fn head() -> HeadRecord {
    let (position, generation) = (Lsn(0x30_0000), LogGeneration(3));
    HeadRecord { dataset: DATASET, position, generation, volume_next: 6, volumes: 2 }
}

fn volume() -> VolumeRecord {
    VolumeRecord { name: "drei ü".into(), block_size: BlockSize::Small, blocks: 1 << 33, mapped: 65 }
}

/// The last of volume 3: 63 of its blocks with data.
fn leaf() -> [Lsn; LEAF_BLOCKS] {
    std::array::from_fn(|at| if at == 5 { Lsn::ZERO } else { Lsn(0x20_0000 + at as u64 * 512) })
}

const LEAF: u64 = (1 << 27) - 1;

fn change() -> VolumeChange {
    VolumeChange::Create { name: "größe".into(), block_size: BlockSize::Large, blocks: 1 << 36 }
}

/// What [`CHECKPOINT`] says: the values above, and a volume of large blocks.
fn snapshot() -> Snapshot {
    let mut one = BlockMap::new(BlockSize::Large, 200);
    one.write(BlockNumber(60), 10, Lsn(0x10_0000));
    one.write(BlockNumber(62), 1, Lsn(0x2f_f000));
    one.trim(BlockNumber(64), 1, Lsn(0x2f_e000));
    let mut three = BlockMap::new(BlockSize::Small, 1 << 33);
    for (at, lsn) in leaf().into_iter().enumerate().filter(|(_, lsn)| *lsn != Lsn::ZERO) {
        three.write(BlockNumber(LEAF * 64 + at as u64), 1, lsn);
    }
    three.write(BlockNumber(0), 2, Lsn(0x22_0000));
    let entry = |id, name: &str, map| Entry { id: VolumeId(id), name: name.to_owned(), map };
    let volumes = Volumes::restore(vec![entry(1, "one", one), entry(3, "drei ü", three)], 6);
    Snapshot { position: Lsn(0x30_0000), generation: LogGeneration(3), volumes }
}

/// Each block of a volume that has data.
fn blocks(map: &BlockMap) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    map.for_each_run(|block, lsn, count| {
        found.extend((0..count).map(|at| (block.0 + at, lsn.0 + (at << map.block_size().shift()))));
    });
    found
}

fn assert_is_the_snapshot(found: &Snapshot) {
    assert_eq!((found.position, found.generation), (Lsn(0x30_0000), LogGeneration(3)));
    assert_eq!(found.volumes.next(), 6);
    let [one, three] = found.volumes.entries() else { panic!("{:?}", found.volumes) };
    assert_eq!((one.id, one.name.as_str()), (VolumeId(1), "one"));
    assert_eq!((one.map.block_size(), one.map.blocks()), (BlockSize::Large, 200));
    let mut expected: Vec<_> = (0..10).map(|at| (60 + at, 0x10_0000 + at * 4096)).collect();
    expected[2].1 = 0x2f_f000;
    expected.remove(4);
    assert_eq!(blocks(&one.map), expected);
    assert_eq!((three.id, three.name.as_str()), (VolumeId(3), "drei ü"));
    assert_eq!((three.map.block_size(), three.map.blocks()), (BlockSize::Small, 1 << 33));
    let mut expected = vec![(0, 0x22_0000), (1, 0x22_0200)];
    expected.extend((0..64).filter(|at| *at != 5).map(|at| (LEAF * 64 + at, 0x20_0000 + at * 512)));
    assert_eq!(blocks(&three.map), expected);
}

fn write(directory: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(directory.join(name), bytes).unwrap();
}

/// The bytes of the file in which a register's contents are kept.
fn written_register(contents: Contents) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    LocalRegister::open(directory.path()).unwrap().compare_and_set(0, contents).unwrap();
    std::fs::read(directory.path().join("register")).unwrap()
}

fn written_note() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let mark = DurableMark::open(directory.path(), DATASET);
    Note::open(directory.path()).unwrap().write(NOTE, &mark).unwrap();
    std::fs::read(directory.path().join("resync")).unwrap()
}

/// Both places of the mark, the second of which was written last.
fn written_mark() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let mark = DurableMark::open(directory.path(), DATASET);
    MARKS.into_iter().for_each(|marked| mark.write(marked));
    std::fs::read(mark.path()).unwrap()
}

/// What this program writes, under the names of the image.
fn made() -> golden::Files {
    let resize = VolumeChange::Resize { blocks: 1 << 20 };
    let made = [
        ("identity", identity().encode().to_vec()),
        ("register", written_register(register())),
        ("register.lone", written_register(lone_register())),
        ("resync", written_note()),
        ("checkpoint.head", head().encode()),
        ("checkpoint.volume", volume().encode(VolumeId(3))),
        ("checkpoint.leaf", encode_leaf(VolumeId(3), LEAF, &leaf()).to_vec()),
        ("change.create", change().encode().to_vec()),
        ("change.resize", resize.encode().to_vec()),
        ("change.delete", VolumeChange::Delete.encode().to_vec()),
        ("durable", written_mark()),
    ];
    made.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

#[test]
fn version_1_is_written_as_ever() {
    let made = made();
    golden::offer("version.txt", &made);
    let is_early = |(name, _): &(String, Vec<u8>)| name == "register.early";
    let expected: Vec<_> = golden::parse(GOLDEN).into_iter().filter(|file| !is_early(file)).collect();
    for (made, expected) in made.iter().zip(&expected) {
        assert_eq!(made, expected);
    }
    assert_eq!(made.len(), expected.len());
}

#[test]
fn the_identity_is_read_as_ever() {
    assert_eq!(Identity::decode(&named(GOLDEN, "identity")), Ok(identity()));
}

#[test]
fn the_register_is_read_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    let read = |name| {
        write(directory.path(), "register", &named(GOLDEN, name));
        LocalRegister::open(directory.path()).unwrap().contents().clone()
    };
    assert_eq!(read("register"), register());
    assert_eq!(read("register.lone"), lone_register());
    // From before there were the two flags: nothing is written so any more, it is read.
    assert_eq!(read("register.early"), Contents { had_peer: false, ..register() });
}

#[test]
fn the_note_of_a_resync_is_read_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "resync", &named(GOLDEN, "resync"));
    assert_eq!(Note::open(directory.path()).unwrap().from(), Some(NOTE));
}

#[test]
fn the_mark_is_read_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = named(GOLDEN, "durable");
    write(directory.path(), "durable", &bytes);
    assert_eq!(DurableMark::open(directory.path(), DATASET).marked(), Some(MARKS[1]));
    write(directory.path(), "durable", &bytes[..4096]);
    assert_eq!(DurableMark::open(directory.path(), DATASET).marked(), Some(MARKS[0]));
}

#[test]
fn a_change_of_a_volume_is_read_as_ever() {
    let read = |name| VolumeChange::decode(VolumeId(1), &named(GOLDEN, name).try_into().unwrap());
    assert_eq!(read("change.create"), Ok(change()));
    assert_eq!(read("change.resize"), Ok(VolumeChange::Resize { blocks: 1 << 20 }));
    assert_eq!(read("change.delete"), Ok(VolumeChange::Delete));
}

#[test]
fn the_values_of_a_checkpoint_are_read_as_ever() {
    assert_eq!(HeadRecord::decode(&named(GOLDEN, "checkpoint.head")), Ok(head()));
    assert_eq!(VolumeRecord::decode(VolumeId(3), &named(GOLDEN, "checkpoint.volume")), Ok(volume()));
    assert_eq!(decode_leaf(VolumeId(3), LEAF, &named(GOLDEN, "checkpoint.leaf")), Ok(leaf()));
}

/// The marker has the same form. Both are then written on, as by a node that is a newer program now.
#[test]
fn the_checkpoint_and_the_marker_are_read_as_ever_and_written_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    for name in ["checkpoint.redb", "marker.redb"] {
        write(directory.path(), name, &named(CHECKPOINT, "checkpoint.redb"));
    }
    let mut checkpoint = Checkpoint::open(&path("checkpoint.redb"), DATASET, false).unwrap();
    assert_is_the_snapshot(checkpoint.snapshot());
    let mut marker = Marker::open(&path("marker.redb"), DATASET, false).unwrap();
    assert_is_the_snapshot(marker.snapshot().expect("a marker that cannot be read is none"));
    let mut next = checkpoint.snapshot().clone();
    next.position = Lsn(0x40_0000);
    next.volumes.get_mut(VolumeId(1)).unwrap().map.write(BlockNumber(199), 1, Lsn(0x30_0000));
    checkpoint.write(&next).unwrap();
    marker.advance(&next).unwrap();
    drop((checkpoint, marker));
    for name in ["checkpoint.redb", "marker.redb"] {
        let read = Checkpoint::open(&path(name), DATASET, false).unwrap();
        assert_eq!(read.snapshot().position, Lsn(0x40_0000), "{name}");
        let map = &read.snapshot().volumes.get(VolumeId(1)).unwrap().map;
        assert_eq!((map.mapped(), map.lookup(BlockNumber(199))), (10, Some(Lsn(0x30_0000))), "{name}");
    }
}

/// What is in the file are the values of which each bit is known.
#[test]
fn the_checkpoint_has_the_values_of_the_other_image() {
    let file = named(CHECKPOINT, "checkpoint.redb");
    for name in ["checkpoint.head", "checkpoint.volume", "checkpoint.leaf"] {
        let value = named(GOLDEN, name);
        assert!(file.windows(value.len()).any(|found| found == value), "{name}");
    }
}

/// By which the image was made, and one of a later version will be.
#[test]
fn an_image_of_a_checkpoint_can_be_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint.redb");
    drop(Checkpoint::begin(&path, DATASET, &snapshot()).unwrap());
    let files = vec![("checkpoint.redb".to_owned(), std::fs::read(&path).unwrap())];
    golden::offer("checkpoint.txt", &files);
    assert_eq!(golden::parse(&golden::dump(&files)), files);
    assert_is_the_snapshot(Checkpoint::open(&path, DATASET, false).unwrap().snapshot());
}
