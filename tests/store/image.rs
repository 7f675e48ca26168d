//! A whole directory as version 1 left it when its node was killed: this program opens it, reads every block, and goes on.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use mirrorbus::base::{BlockSize, Lsn};
use mirrorbus::store::{Dataset, IoError, ReplicationState, Volume};

use super::rig::{Medium, Rig, here, pattern, read, wait_for, write};
use crate::golden::{Files, dump, offer, parse};

/// Of a node that served alone when it was killed. Before, it and its peer had a checkpoint and a marker.
const VERSION_1: &str = include_str!("golden/version1.txt");

const ROOT_BYTES: u64 = 256 << 10;
const GROWN_BYTES: u64 = 320 << 10;
const LOG_BYTES: u64 = 64 << 10;

/// A change of what is read, of the volume `root` or of the other, at an offset and of so many bytes.
enum Step {
    Write(&'static str, u64, usize, u64),
    Trim(&'static str, u64, usize),
    Zeroes(&'static str, u64, usize),
}
use Step::{Trim, Write, Zeroes};

/// What both nodes had, and what the checkpoint and the marker have.
const BOTH: &[Step] = &[
    Write("root", 0, 40 << 10, 1),
    Write("root", 128 << 10, 64 << 10, 2),
    Write("log", 512, 1024, 3),
    Write("log", 16 << 10, 20 << 10, 4),
    Trim("root", 8 << 10, 12 << 10),
    Zeroes("root", 132 << 10, 8 << 10),
    Write("root", 4 << 10, 4 << 10, 5),
];

/// What the one that was left wrote: it is in its log only.
const ALONE: &[Step] = &[
    Write("root", 0, 4 << 10, 6),
    Write("root", 312 << 10, 8 << 10, 7),
    Write("log", 1024, 512, 8),
    Trim("log", 17 << 10, 1024),
    Zeroes("root", 128 << 10, 4 << 10),
    Write("log", 65024, 512, 9),
];

/// What was never acknowledged: its payload was written in part when the power went.
const CUT: Step = Write("root", 128 << 10, 8 << 10, 10);

/// Bytes of which few are not zero, so that the image is small.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (number, block) in bytes.chunks_mut(512).enumerate() {
        block[480..].copy_from_slice(&pattern(seed << 16 | number as u64, 32));
    }
    bytes
}

impl Step {
    fn apply(&self, node: &Dataset) {
        let volume = |name| node.volume(name).unwrap();
        let commit = |volume: &Volume, mark| volume.commit(mark, &here).unwrap();
        match *self {
            Write(name, offset, len, seed) => write(&volume(name), offset, &content(seed, len)),
            Trim(name, offset, len) => {
                let volume = volume(name);
                let mark = volume.trim(offset, len as u64, &here).unwrap();
                commit(&volume, mark);
            }
            Zeroes(name, offset, len) => {
                let volume = volume(name);
                let mark = volume.write_zeroes(offset, len as u64, &here).unwrap();
                commit(&volume, mark);
            }
        }
    }

    fn apply_to(&self, name: &str, bytes: &mut [u8]) {
        let (of, offset, new) = match *self {
            Write(of, offset, len, seed) => (of, offset, content(seed, len)),
            Trim(of, offset, len) | Zeroes(of, offset, len) => (of, offset, vec![0; len]),
        };
        if of == name {
            bytes[usize::try_from(offset).unwrap()..][..new.len()].copy_from_slice(&new);
        }
    }
}

/// What is in a volume of the image.
fn expected(name: &str, bytes: u64) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(bytes).unwrap()];
    BOTH.iter().chain(ALONE).for_each(|step| step.apply_to(name, &mut all));
    all
}

fn rig() -> Rig {
    let mut rig = Rig::new(Medium::Tcp);
    rig.volume_bytes = ROOT_BYTES;
    rig
}

/// A directory as a node wrote it, whose last write was cut. Where its marker is.
fn make(rig: &Rig) -> Lsn {
    let [primary, secondary] = rig.pair();
    primary.create_volume("log", LOG_BYTES, BlockSize::Small).unwrap();
    primary.create_volume("gone", 4096, BlockSize::Large).unwrap();
    primary.delete_volume("gone").unwrap();
    BOTH.iter().for_each(|step| step.apply(&primary));
    // Ends in good order: with a checkpoint and a marker of all that there is.
    primary.stop();
    drop(secondary);
    let [primary, secondary] = rig.pair();
    let both = primary.status();
    assert!(both.checkpoint > Lsn::ZERO && both.marker.is_some_and(|marker| marker > Lsn::ZERO), "{both:#?}");
    drop(secondary);
    wait_for(&primary, |status| status.replication == ReplicationState::LinkLost);
    primary.alone().unwrap();
    primary.resize_volume("root", GROWN_BYTES).unwrap();
    ALONE.iter().for_each(|step| step.apply(&primary));
    // A power cut leaves an older mark, as it leaves a write in part that nobody was told of.
    let mark = rig.path(0).join("durable");
    let before = fs::read(&mark).unwrap();
    CUT.apply(&primary);
    let status = primary.status();
    assert!(status.checkpoint <= both.appended, "what was written alone is to be replayed: {status:#?}");
    drop(primary);
    fs::write(&mark, before).unwrap();
    cut(&rig.path(0));
    status.marker.expect("it was there")
}

/// Takes from the last write the end of its payload, which is in one place of one segment.
fn cut(directory: &Path) {
    let Write(_, _, len, seed) = CUT else { panic!("a write is cut") };
    let payload = content(seed, len);
    let mut cuts = 0;
    for path in files_of(&directory.join("segments")) {
        let bytes = fs::read(&path).unwrap();
        let found = bytes.windows(len).position(|found| found == payload);
        if let Some(at) = found {
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(&vec![0; len / 2 - 512], (at + len / 2 + 512) as u64).unwrap();
            cuts += 1;
        }
    }
    assert_eq!(cuts, 1);
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
    files.sort_unstable();
    files
}

/// All files of the directory, by their paths in it.
fn collect(directory: &Path) -> Files {
    let paths = [files_of(directory), files_of(&directory.join("segments"))].concat();
    let name = |path: &Path| path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

/// Puts the files where the rig's first node has its directory.
fn restore(rig: &Rig, files: &Files) {
    let directory = rig.path(0);
    DirBuilder::new().recursive(true).mode(0o700).create(directory.join("segments")).unwrap();
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).unwrap();
    }
}

/// Opens the image and reads all that it has: from its log what the checkpoint lacks, and nothing of the write that was cut.
fn is_read_and_goes_on(files: &Files, marker: Lsn) {
    let rig = rig();
    restore(&rig, files);
    let served = || {
        let node = rig.open(0);
        wait_for(&node, |_| node.volume("root").is_ok());
        node
    };
    let node = served();
    let status = node.status();
    let told: Vec<_> = status
        .volumes
        .iter()
        .map(|info| (info.id.0, info.name.as_str(), info.bytes(), info.block_size))
        .collect();
    let volumes = [(0, "root", GROWN_BYTES, BlockSize::Large), (1, "log", LOG_BYTES, BlockSize::Small)];
    assert_eq!(told, volumes);
    let configuration = status.configuration.expect("the register has one");
    assert_eq!(
        (configuration.members, configuration.primary),
        (vec!["alpha".to_owned()], "alpha".to_owned())
    );
    assert!(status.checkpoint >= marker, "the marker follows the checkpoint: {} {marker}", status.checkpoint);
    assert_eq!(status.marker, Some(marker), "it stays where it was while the peer is away");
    for (_, name, bytes, _) in volumes {
        let found = read(&node.volume(name).unwrap(), 0, usize::try_from(bytes).unwrap());
        let expected = expected(name, bytes);
        let differ =
            found.chunks(512).zip(expected.chunks(512)).position(|(found, expected)| found != expected);
        assert_eq!(differ, None, "the first piece of 512 bytes of {name} that is another");
    }
    assert!(matches!(node.volume("gone"), Err(IoError::Volume(_))));
    write(&node.volume("log").unwrap(), 0, &content(11, 512));
    node.stop();
    let node = served();
    assert_eq!(read(&node.volume("log").unwrap(), 0, 512), content(11, 512));
    assert_eq!(read(&node.volume("root").unwrap(), 0, 40 << 10), expected("root", GROWN_BYTES)[..40 << 10]);
}

#[test]
fn version_1_is_read_whole_and_goes_on() {
    is_read_and_goes_on(&parse(VERSION_1), Lsn(0x42_6000));
}

/// By which the image was made, and one of a later version will be.
#[test]
fn an_image_can_be_made_anew() {
    let rig = rig();
    let marker = make(&rig);
    let files = collect(&rig.path(0));
    offer("dataset.txt", &files);
    let parsed = parse(&dump(&files));
    assert!(parsed == files, "an image has all of the files");
    is_read_and_goes_on(&parsed, marker);
}
