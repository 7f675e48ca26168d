//! What a node that is being resynced asks, and what it is answered. Data does not travel here: an answer says how much of it lies in the
//! window, and the next question may overwrite it.

use serde::{Deserialize, Serialize};

use crate::base::{BlockSize, VolumeId};
use crate::store::ring_memory::WINDOW_BYTES;
use crate::volume::BlockMap;

/// Bytes of data that one answer brings at most: a question and its answer take the time of several hundred kilobytes.
pub(super) const PIECE_BYTES: u64 = WINDOW_BYTES as u64;
/// What a primary of an older build answers at most.
pub(super) const OLDER_PIECE_BYTES: u64 = 256 << 10;
/// Runs that one question names at most: what is asked has a greatest length.
pub(super) const RUNS_MAX: usize = 512;
/// Tables that one question names at most. Those of short segments fit the window.
pub(super) const TABLES_MAX: usize = 16;
/// The refusal of what this primary's files do not have, and of nothing else: there may be more that they do.
pub(super) const DAMAGED: &str = "damaged";
/// That of a question that makes no sense to it.
pub(super) const UNCLEAR: &str = "unclear";

/// Blocks whose data follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct AskedRun {
    pub(in crate::store) lsn: u64,
    pub(in crate::store) count: u32,
    pub(in crate::store) shift: u8,
}

/// A segment whose head and table are wanted, unless they have this digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct WantedTable {
    pub(in crate::store) base: u64,
    pub(in crate::store) digest: Option<String>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) enum Ask {
    /// Which volumes are there? The answer lies in the window, as JSON.
    Volumes,
    /// Where do their blocks lie? A frame of runs, from this block of this volume on.
    Maps { volume: u32, block: u64 },
    /// Head and table of this segment, from byte `at` of them on, unless they have this digest.
    Table { base: u64, digest: Option<String>, at: u64 },
    /// Head and table of each of these segments. A primary of an older build does not know this one.
    Tables { wanted: Vec<WantedTable> },
    /// The data of these blocks, one behind the other.
    Data { runs: Vec<AskedRun> },
    /// All is here and durable.
    Finished,
    /// It does not go on: a word for machines, and a sentence.
    GivesUp { code: String, text: String },
}

/// What is answered. `bytes` lie in the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) enum Reply {
    /// The runs that follow are what differs since this position: blocks with data from there on are to be forgotten first. `next`: numbers of
    /// volumes below were given.
    Volumes {
        bytes: usize,
        since: u64,
        next: u32,
    },
    /// Where the next frame begins, or what the maps' digest is now that all were told.
    Maps {
        bytes: usize,
        next: Option<(u32, u64)>,
        digest: String,
    },
    /// They are the same.
    SameTable,
    /// A part of them, and how long they are.
    Table {
        bytes: usize,
        all: usize,
    },
    /// How long those of the first segments are, packed, one behind the other, or nothing where they are the same. What comes behind did not fit,
    /// or has to be asked for alone.
    Tables {
        bytes: Vec<Option<usize>>,
    },
    Data {
        bytes: usize,
    },
    Done,
}

/// A volume, without its map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeRow {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) shift: u8,
    pub(super) blocks: u64,
}

impl VolumeRow {
    /// The map that a volume of this row begins with: what `old` has from before `since`, or none.
    pub(super) fn map(&self, old: Option<&BlockMap>, since: crate::base::Lsn) -> Result<BlockMap, String> {
        let wrong = |what: &str| format!("volume {} has {what}", VolumeId(self.id));
        let size = BlockSize::from_shift(self.shift).ok_or_else(|| wrong("blocks of no known size"))?;
        if self.blocks > BlockMap::BLOCKS_MAX {
            return Err(wrong("more blocks than there can be"));
        }
        let known = old.filter(|old| since.0 > 0 && old.block_size() == size);
        let Some(mut map) = known.cloned() else { return Ok(BlockMap::new(size, self.blocks)) };
        map.resize(self.blocks, since);
        // What was written since may have been cut off or trimmed again, and then the difference says nothing of it.
        let mut newer = Vec::new();
        map.for_each_run(|block, lsn, count| {
            let before = since.0.saturating_sub(lsn.0).div_ceil(size.bytes()).min(count);
            if before < count {
                newer.push((crate::base::BlockNumber(block.0 + before), count - before));
            }
        });
        newer.into_iter().for_each(|(block, count)| map.trim(block, count, crate::base::Lsn::MAX));
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockNumber, Lsn};

    #[test]
    fn tables_are_asked_for_and_told_as_json() {
        let wanted = |base, digest: Option<&str>| WantedTable { base, digest: digest.map(str::to_owned) };
        let ask = Ask::Tables { wanted: vec![wanted(1 << 20, Some("d1")), wanted(2 << 20, None)] };
        let json = r#"{"Tables":{"wanted":[{"base":1048576,"digest":"d1"},{"base":2097152,"digest":null}]}}"#;
        assert_eq!(serde_json::to_string(&ask).unwrap(), json);
        assert_eq!(serde_json::from_str::<Ask>(json).unwrap(), ask);
        let reply = Reply::Tables { bytes: vec![None, Some(4224)] };
        let json = r#"{"Tables":{"bytes":[null,4224]}}"#;
        assert_eq!(serde_json::to_string(&reply).unwrap(), json);
        assert_eq!(serde_json::from_str::<Reply>(json).unwrap(), reply);
        assert!(serde_json::from_str::<Reply>(r#"{"Tables":{"bytes":[-1]}}"#).is_err());
    }

    #[test]
    fn a_map_begins_with_what_is_older_than_the_difference() {
        let mut old = BlockMap::new(BlockSize::Large, 100);
        old.write(BlockNumber(0), 10, Lsn(1 << 20));
        old.write(BlockNumber(50), 10, Lsn(2 << 20));
        let row = VolumeRow { id: 3, name: "v".into(), shift: 12, blocks: 200 };
        let since = Lsn((1 << 20) + 4 * 4096);
        let map = row.map(Some(&old), since).unwrap();
        assert_eq!((map.blocks(), map.mapped()), (200, 4));
        assert_eq!(map.lookup(BlockNumber(3)), Some(Lsn((1 << 20) + 3 * 4096)));
        assert_eq!(row.map(Some(&old), Lsn(3 << 20)).unwrap().mapped(), 20);
        assert_eq!(row.map(Some(&old), Lsn::ZERO).unwrap().mapped(), 0);
        assert_eq!(row.map(None, since).unwrap().mapped(), 0);
        let small = VolumeRow { blocks: 5, ..row.clone() };
        assert_eq!(small.map(Some(&old), Lsn(3 << 20)).unwrap().mapped(), 5);
        assert!(VolumeRow { shift: 11, ..row.clone() }.map(None, since).is_err());
        assert!(VolumeRow { blocks: u64::MAX, ..row }.map(None, since).is_err());
    }
}
