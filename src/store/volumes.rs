//! The table of volumes with their maps, as the log has made it.
//!
//! A volume comes to be, changes its size and ends by records of the log like any other, so both nodes' tables are equal when both
//! have applied the same. The change itself is the payload of its record, one block of 4096 bytes:
//!
//! ```text
//!  0 "MBVOLUME"   8 u8 operation: 1 create, 2 resize, 3 delete   9 u8 block shift   10 u16 bytes of the name
//! 12 u32 0       16 u64 blocks   24 name, UTF-8   … 0
//! ```

use crate::base::{BlockSize, VolumeId};
use crate::segment::{Record, RecordKind};
use crate::volume::{ApplyError, BlockMap};

/// Bytes of a volume's name at most.
pub const NAME_BYTES_MAX: usize = 255;

/// Volumes of a dataset at most.
pub const VOLUMES_MAX: usize = 1024;

/// Bytes of a change's payload.
pub(super) const CHANGE_BYTES: usize = 4096;

const MAGIC: &[u8; 8] = b"MBVOLUME";
const NAME_AT: usize = 24;

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its number in the log. Not given twice.
    pub id: VolumeId,
    /// Its name; unique among the dataset's.
    pub name: String,
    /// Bytes of a block.
    pub block_size: BlockSize,
    /// Blocks.
    pub blocks: u64,
    /// Blocks that have data.
    pub mapped: u64,
}

impl VolumeInfo {
    /// Bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks << self.block_size.shift()
    }
}

/// What a record of the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum VolumeChange {
    Create { name: String, block_size: BlockSize, blocks: u64 },
    Resize { blocks: u64 },
    Delete,
}

/// Why a record cannot be applied to the table, or a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// No such name.
    #[error("no volume {0:?}")]
    UnknownName(String),
    /// No such number: the table is older or newer than the log.
    #[error("a record for volume {0}, which does not exist there: the table is older or newer than the log")]
    UnknownId(VolumeId),
    /// The name is taken.
    #[error("there is a volume {0:?} already")]
    Exists(String),
    /// The number was given before.
    #[error("volume {0} is made a second time")]
    Again(VolumeId),
    /// A name that cannot be.
    #[error("the volume's name {name:?}: {why}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// As many as there can be.
    #[error("{0} volumes exist, the most that a dataset has: delete one first")]
    TooMany(usize),
    /// A size that cannot be.
    #[error(
        "a volume of {bytes} bytes: it has at least one block of {block_bytes} bytes, whole ones, and at most 2^48"
    )]
    Size {
        /// What was given.
        bytes: u64,
        /// A block's.
        block_bytes: u64,
    },
    /// The payload of the table's record is none.
    #[error("the change of volume {volume} says {what} {value}: written by a newer program, or by a defect")]
    Change {
        /// The volume.
        volume: VolumeId,
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// The record does not fit its volume.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl VolumeChange {
    pub(super) fn encode(&self) -> [u8; CHANGE_BYTES] {
        let mut bytes = [0; CHANGE_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        let (operation, shift, blocks, name) = match self {
            Self::Create { name, block_size, blocks } => (1, block_size.shift(), *blocks, name.as_str()),
            Self::Resize { blocks } => (2, 0, *blocks, ""),
            Self::Delete => (3, 0, 0, ""),
        };
        assert!(name.len() <= NAME_BYTES_MAX, "{} bytes of name", name.len());
        bytes[8] = operation;
        bytes[9] = shift;
        let len = u16::try_from(name.len()).expect("at most 255");
        bytes[10..12].copy_from_slice(&len.to_le_bytes());
        bytes[16..24].copy_from_slice(&blocks.to_le_bytes());
        bytes[NAME_AT..NAME_AT + name.len()].copy_from_slice(name.as_bytes());
        bytes
    }

    pub(super) fn decode(volume: VolumeId, bytes: &[u8; CHANGE_BYTES]) -> Result<Self, VolumeError> {
        let wrong = |what, value| VolumeError::Change { volume, what, value };
        if &bytes[..8] != MAGIC {
            return Err(wrong("first byte", bytes[0].into()));
        }
        let blocks = u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes"));
        if blocks > BlockMap::BLOCKS_MAX {
            return Err(wrong("blocks", blocks));
        }
        match bytes[8] {
            1 => {
                let shift = bytes[9];
                let block_size =
                    BlockSize::from_shift(shift).ok_or_else(|| wrong("block shift", shift.into()))?;
                let len = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
                let name = bytes.get(NAME_AT..NAME_AT + len).filter(|_| (1..=NAME_BYTES_MAX).contains(&len));
                let name = name.and_then(|name| std::str::from_utf8(name).ok());
                let name = name.ok_or_else(|| wrong("a name of bytes", len as u64))?.to_owned();
                Ok(Self::Create { name, block_size, blocks })
            }
            2 => Ok(Self::Resize { blocks }),
            3 => Ok(Self::Delete),
            operation => Err(wrong("operation", operation.into())),
        }
    }
}

/// One volume.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: VolumeId,
    pub(super) name: String,
    pub(super) map: BlockMap,
}

impl Entry {
    pub(super) fn info(&self) -> VolumeInfo {
        let (block_size, blocks) = (self.map.block_size(), self.map.blocks());
        VolumeInfo { id: self.id, name: self.name.clone(), block_size, blocks, mapped: self.map.mapped() }
    }
}

/// The table. A clone shares the maps' trees.
#[derive(Debug, Clone, Default)]
pub(super) struct Volumes {
    /// By rising number.
    entries: Vec<Entry>,
    /// Numbers below were given.
    next: u32,
}

impl Volumes {
    /// As a checkpoint has it: numbers below `next` were given.
    ///
    /// # Panics
    /// When an entry has a number that was not.
    pub(super) fn restore(mut entries: Vec<Entry>, next: u32) -> Self {
        entries.sort_by_key(|entry| entry.id);
        assert!(entries.last().is_none_or(|last| last.id.0 < next), "numbers below {next} were given");
        Self { entries, next }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Equal on two nodes when each volume has the same name, and each of its blocks the same position.
    pub(super) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.next.to_le_bytes());
        for entry in &self.entries {
            hasher.update(&entry.id.0.to_le_bytes()).update(&(entry.name.len() as u64).to_le_bytes());
            hasher.update(entry.name.as_bytes()).update(&entry.map.digest());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The number that the next volume gets.
    pub(super) const fn next(&self) -> u32 {
        self.next
    }

    pub(super) fn get(&self, id: VolumeId) -> Option<&Entry> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok().map(|at| &self.entries[at])
    }

    pub(super) fn get_mut(&mut self, id: VolumeId) -> Option<&mut Entry> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok().map(|at| &mut self.entries[at])
    }

    pub(super) fn find(&self, name: &str) -> Result<&Entry, VolumeError> {
        self.entries
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| VolumeError::UnknownName(name.to_owned()))
    }

    /// Whether a volume can be made so: blocks of it.
    pub(super) fn check_new(
        &self,
        name: &str,
        bytes: u64,
        block_size: BlockSize,
    ) -> Result<u64, VolumeError> {
        check_name(name)?;
        if self.find(name).is_ok() {
            return Err(VolumeError::Exists(name.to_owned()));
        }
        if self.entries.len() == VOLUMES_MAX {
            return Err(VolumeError::TooMany(VOLUMES_MAX));
        }
        blocks_of(bytes, block_size)
    }

    /// Does what a record of the log says; `change` is the payload of one of the table.
    ///
    /// # Errors
    /// The record does not fit; nothing was changed then.
    pub(super) fn apply(&mut self, record: &Record, change: Option<VolumeChange>) -> Result<(), VolumeError> {
        let id = record.volume;
        match record.kind {
            RecordKind::PhaseMarker | RecordKind::Void => Ok(()),
            RecordKind::Write | RecordKind::Trim | RecordKind::WriteZeroes => {
                let entry = self.get_mut(id).ok_or(VolumeError::UnknownId(id))?;
                entry.map.apply(record).map_err(VolumeError::from)
            }
            RecordKind::Volume => {
                let wrong = VolumeError::Change { volume: id, what: "nothing at", value: record.lsn.0 };
                self.change(record, change.ok_or(wrong)?)
            }
        }
    }

    fn change(&mut self, record: &Record, change: VolumeChange) -> Result<(), VolumeError> {
        let id = record.volume;
        match change {
            VolumeChange::Create { name, block_size, blocks } => {
                if id.0 < self.next {
                    return Err(VolumeError::Again(id));
                }
                self.next = id.0 + 1;
                self.entries.push(Entry { id, name, map: BlockMap::new(block_size, blocks) });
            }
            VolumeChange::Resize { blocks } => {
                let entry = self.get_mut(id).ok_or(VolumeError::UnknownId(id))?;
                entry.map.resize(blocks, record.lsn);
            }
            VolumeChange::Delete => {
                let at = self.entries.binary_search_by_key(&id, |entry| entry.id);
                self.entries.remove(at.map_err(|_| VolumeError::UnknownId(id))?);
            }
        }
        Ok(())
    }
}

/// Whole blocks that make `bytes`.
pub(super) fn blocks_of(bytes: u64, block_size: BlockSize) -> Result<u64, VolumeError> {
    let blocks = bytes >> block_size.shift();
    let whole = bytes.is_multiple_of(block_size.bytes());
    if !whole || blocks == 0 || blocks > BlockMap::BLOCKS_MAX {
        return Err(VolumeError::Size { bytes, block_bytes: block_size.bytes() });
    }
    Ok(blocks)
}

/// Names are what clients ask for: printable, without blanks at the ends, and not empty.
pub(super) fn check_name(name: &str) -> Result<(), VolumeError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "it has more than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "it has control characters"
    } else if name.trim() != name {
        "it begins or ends with a blank"
    } else {
        return Ok(());
    };
    Err(VolumeError::Name { name: name.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockNumber, Lsn};

    fn record(volume: u32, lsn: u64) -> Record {
        Record {
            kind: RecordKind::Volume,
            volume: VolumeId(volume),
            block: BlockNumber(0),
            blocks: 1,
            block_size: BlockSize::Large,
            lsn: Lsn(lsn),
            durable: Lsn::ZERO,
            sequence: 0,
        }
    }

    #[test]
    fn changes_are_read_back_as_they_were_written() {
        let name = "ä".repeat(127);
        let create = VolumeChange::Create { name, block_size: BlockSize::Small, blocks: 1 << 48 };
        for change in [create, VolumeChange::Resize { blocks: 7 }, VolumeChange::Delete] {
            assert_eq!(VolumeChange::decode(VolumeId(3), &change.encode()), Ok(change));
        }
        let mut bytes = VolumeChange::Delete.encode();
        let mut nameless =
            VolumeChange::Create { name: "x".into(), block_size: BlockSize::Small, blocks: 1 }.encode();
        nameless[10] = 0;
        assert!(VolumeChange::decode(VolumeId(3), &nameless).is_err());
        for (at, value) in [(0, b'X'), (8, 4), (23, 1)] {
            let before = std::mem::replace(&mut bytes[at], value);
            assert!(VolumeChange::decode(VolumeId(3), &bytes).is_err(), "byte {at}");
            bytes[at] = before;
        }
    }

    #[test]
    fn the_table_follows_its_records() {
        let mut volumes = Volumes::default();
        let create = |name: &str, blocks| {
            Some(VolumeChange::Create { name: name.into(), block_size: BlockSize::Large, blocks })
        };
        assert_eq!(volumes.check_new("root", 4096 * 10, BlockSize::Large), Ok(10));
        volumes.apply(&record(0, 4096), create("root", 10)).unwrap();
        volumes.apply(&record(4, 8192), create("data", 20)).unwrap();
        assert_eq!(volumes.next(), 5);
        assert_eq!(
            volumes.apply(&record(4, 12288), create("again", 1)),
            Err(VolumeError::Again(VolumeId(4)))
        );
        volumes.apply(&record(4, 16384), Some(VolumeChange::Resize { blocks: 5 })).unwrap();
        assert_eq!(volumes.find("data").unwrap().info().bytes(), 5 * 4096);
        volumes.apply(&record(0, 20480), Some(VolumeChange::Delete)).unwrap();
        assert!(matches!(volumes.find("root"), Err(VolumeError::UnknownName(_))));
        let write = Record { kind: RecordKind::Write, ..record(0, 24576) };
        assert_eq!(volumes.apply(&write, None), Err(VolumeError::UnknownId(VolumeId(0))));
        assert_eq!(volumes.next(), 5, "numbers are not given twice");
    }

    #[test]
    fn names_and_sizes_that_cannot_be_are_refused() {
        let volumes = Volumes::default();
        for name in ["", " a", "a\n", &"x".repeat(256)] {
            assert!(volumes.check_new(name, 4096, BlockSize::Large).is_err(), "{name:?}");
        }
        for bytes in [0, 4095, 4097, u64::MAX] {
            assert!(volumes.check_new("a", bytes, BlockSize::Large).is_err(), "{bytes}");
        }
    }
}
