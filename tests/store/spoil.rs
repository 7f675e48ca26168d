//! A pair whose files of segments are to be damaged, and the ways to do it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mirrorbus::store::{BadRange, Dataset, Outcome, Side};

use super::rig::{Medium, Rig, here, pattern, read, write};

pub(crate) const BLOCK: usize = 4096;
/// Blocks of the volume: twice what the ring has, so that the first are in files only.
pub(crate) const BLOCKS: u64 = 2048;
pub(crate) const SEGMENT_BYTES: u64 = 1 << 20;

/// A mirrored pair whose volume was written whole; copies of the files when the first segment was half full.
pub(crate) struct Written {
    pub(crate) rig: Rig,
    pub(crate) nodes: [Dataset; 2],
    pub(crate) stale: Vec<PathBuf>,
}

pub(crate) fn segments(rig: &Rig, node: usize) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(rig.path(node).join("segments")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    paths
}

pub(crate) fn content(block: u64) -> Vec<u8> {
    pattern(block + 1, BLOCK)
}

impl Written {
    pub(crate) fn new(medium: Medium) -> Self {
        let rig = Rig::new(medium);
        let nodes = rig.pair();
        let volume = nodes[0].volume("root").unwrap();
        for block in 0..100 {
            write(&volume, block * BLOCK as u64, &content(block));
        }
        volume.flush(&here).unwrap();
        let mut stale = Vec::new();
        for node in 0..2 {
            let first = segments(&rig, node).remove(0);
            let copy = rig.directory.path().join(format!("stale-{node}"));
            std::fs::copy(first, &copy).unwrap();
            stale.push(copy);
        }
        for block in 100..BLOCKS {
            write(&volume, block * BLOCK as u64, &content(block));
        }
        volume.flush(&here).unwrap();
        // Both let go of what they had in the ring only.
        for _ in 0..3 {
            write(&volume, (BLOCKS - 1) * BLOCK as u64, &content(BLOCKS - 1));
            volume.flush(&here).unwrap();
        }
        Self { rig, nodes, stale }
    }

    /// The file of the node's first segment, the blocks that live there and where.
    pub(crate) fn first(&self, node: usize) -> (PathBuf, Vec<(u64, u64)>) {
        let path = segments(&self.rig, node).remove(0);
        let bytes = std::fs::read(&path).unwrap();
        let at = |block: u64| {
            let wanted = content(block);
            bytes.chunks_exact(BLOCK).position(|found| found == wanted)
        };
        let found: Vec<_> = (0..300).filter_map(|block| Some((block, (at(block)? * BLOCK) as u64))).collect();
        assert!(found.len() > 200 && found[0].0 == 0, "{} blocks in {}", found.len(), path.display());
        (path, found)
    }

    pub(crate) fn check_all(&self) {
        let volume = self.nodes[0].volume("root").unwrap();
        for block in 0..BLOCKS {
            assert!(read(&volume, block * BLOCK as u64, BLOCK) == content(block), "block {block}");
        }
    }
}

/// What can be done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    Bit,
    Zeroes,
    Table,
    Head,
    Truncated,
    Missing,
    Stale,
    /// The same, by another file of that name.
    StaleFile,
}

pub(crate) const ALL: [Damage; 8] = [
    Damage::Bit,
    Damage::Zeroes,
    Damage::Table,
    Damage::Head,
    Damage::Truncated,
    Damage::Missing,
    Damage::Stale,
    Damage::StaleFile,
];

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// Changes a bit, whatever was there: of the salt in a head nobody knows that.
fn flip(path: &Path, at: u64) {
    let (file, mut byte) = (open(path), [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Damages the file; which blocks cannot be read from it any more.
pub(crate) fn damage(how: Damage, path: &Path, stale: &Path, lives: &[(u64, u64)]) -> BTreeSet<u64> {
    let all = || lives.iter().map(|(block, _)| *block).collect();
    match how {
        Damage::Bit => {
            let (block, at) = lives[37];
            flip(path, at + 1234);
            BTreeSet::from([block])
        }
        Damage::Zeroes => {
            // From the middle of a block to the middle of another.
            let (first, at) = lives[50];
            open(path).write_all_at(&[0; 3 * BLOCK], at + 2048).unwrap();
            (first..first + 4).collect()
        }
        Damage::Table => {
            open(path).write_all_at(&[0; BLOCK], SEGMENT_BYTES - BLOCK as u64).unwrap();
            all()
        }
        Damage::Head => {
            flip(path, 90);
            all()
        }
        Damage::Truncated => {
            open(path).set_len(SEGMENT_BYTES / 2).unwrap();
            all()
        }
        Damage::Missing => {
            std::fs::remove_file(path).unwrap();
            all()
        }
        Damage::Stale => {
            std::fs::copy(stale, path).unwrap();
            all().into_iter().filter(|block: &u64| *block >= 100).collect()
        }
        Damage::StaleFile => {
            let beside = path.with_extension("beside");
            std::fs::copy(stale, &beside).unwrap();
            std::fs::rename(&beside, path).unwrap();
            all().into_iter().filter(|block: &u64| *block >= 100).collect()
        }
    }
}

/// The blocks of ranges, each of which must be of this side and outcome.
pub(crate) fn blocks(ranges: &[BadRange], side: Side, outcome: Outcome) -> BTreeSet<u64> {
    for pair in ranges.windows(2) {
        assert!(
            pair[0].first_block + pair[0].blocks < pair[1].first_block,
            "ranges are as long as they can be"
        );
    }
    let mut found = BTreeSet::new();
    for range in ranges {
        assert_eq!((range.side, range.outcome, range.volume.as_str()), (side, outcome, "root"), "{range:?}");
        found.extend(range.first_block..range.first_block + range.blocks);
    }
    found
}
