//! The block maps on disk: where replay begins after a restart.
//!
//! One transaction of the database has a checkpoint whole, or not at all: position and generation of the log, the table of volumes, and
//! of each map the leaves that changed since the one before. `docs/formats.md` has the tables.

mod leaf;
mod record;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::volumes::{Entry, Volumes};
use crate::base::{BlockNumber, LogGeneration, Lsn, VolumeId};
use crate::volume::BlockMap;
use leaf::{LEAF_BLOCKS, LEAF_BYTES};

/// Version of the tables.
const VERSION: u64 = 1;

/// `version`, `position`, `generation`, `next volume`.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// What [`record`] draws, by volume.
const VOLUMES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("volumes");
/// 64 positions, by volume and leaf.
const LEAVES: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("leaves");

/// Why a checkpoint is not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The system refused.
    #[error("the checkpoint's file: {0}")]
    System(#[from] std::io::Error),
    /// The database did.
    #[error("the checkpoint's database: {0}")]
    Database(#[from] redb::Error),
    /// It is of another version.
    #[error("the checkpoint has version {found}, this program reads {VERSION}: use the one that wrote it")]
    Version {
        /// What it has.
        found: u64,
    },
    /// What is in it cannot be.
    #[error("the checkpoint is damaged: {0}; take the peer's copy of the dataset")]
    Damaged(String),
}

macro_rules! from_database {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for CheckpointError {
            fn from(error: redb::$error) -> Self {
                Self::Database(error.into())
            }
        })*
    };
}

from_database!(DatabaseError, TransactionError, TableError, StorageError, CommitError, SetDurabilityError);

/// What a checkpoint has.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// All of the log before is in the maps.
    pub(super) position: Lsn,
    /// Of the last record before.
    pub(super) generation: LogGeneration,
    pub(super) volumes: Volumes,
}

/// The database, with what its last checkpoint has.
#[derive(Debug)]
pub(super) struct Checkpoint {
    database: Database,
    last: Snapshot,
}

impl Checkpoint {
    /// The one in this file, or an empty one.
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let backend = redb::backends::FileBackend::new(file).map_err(redb::Error::from)?;
        Self::open_on(backend)
    }

    /// The one on this medium.
    pub(super) fn open_on(backend: impl StorageBackend) -> Result<Self, CheckpointError> {
        let database = Database::builder().create_with_backend(backend)?;
        let last = read(&database)?;
        Ok(Self { database, last })
    }

    /// What the last checkpoint has.
    pub(super) const fn last(&self) -> &Snapshot {
        &self.last
    }

    /// Writes one. Durable on return; after a crash the one before, or this.
    ///
    /// # Errors
    /// Which of the two is there is not known.
    pub(super) fn write(&mut self, next: &Snapshot) -> Result<(), CheckpointError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut numbers = transaction.open_table(NUMBERS)?;
            numbers.insert("version", VERSION)?;
            numbers.insert("position", next.position.0)?;
            numbers.insert("generation", next.generation.0)?;
            numbers.insert("next volume", u64::from(next.volumes.next()))?;
            let mut volumes = transaction.open_table(VOLUMES)?;
            let mut leaves = transaction.open_table(LEAVES)?;
            for entry in self.last.volumes.entries() {
                if next.volumes.get(entry.id).is_none() {
                    volumes.remove(entry.id.0)?;
                    leaves.retain_in((entry.id.0, 0)..=(entry.id.0, u64::MAX), |_, _| false)?;
                }
            }
            for entry in next.volumes.entries() {
                volumes.insert(entry.id.0, record::encode(entry).as_slice())?;
                let before = self.last.volumes.get(entry.id);
                for leaf in changed(before.map(|entry| &entry.map), &entry.map) {
                    match leaf::encode(&entry.map, leaf) {
                        Some(bytes) => drop(leaves.insert((entry.id.0, leaf), bytes.as_slice())?),
                        None => drop(leaves.remove((entry.id.0, leaf))?),
                    }
                }
            }
        }
        transaction.commit()?;
        self.last = next.clone();
        Ok(())
    }
}

/// The leaves in which the maps differ.
fn changed(before: Option<&BlockMap>, now: &BlockMap) -> BTreeSet<u64> {
    let empty = BlockMap::new(now.block_size(), 0);
    before.unwrap_or(&empty).diff(now).map(|change| change.block.0 / LEAF_BLOCKS).collect()
}

fn read(database: &Database) -> Result<Snapshot, CheckpointError> {
    let transaction = database.begin_read()?;
    let numbers = match transaction.open_table(NUMBERS) {
        Ok(numbers) => numbers,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Snapshot::default()),
        Err(error) => return Err(error.into()),
    };
    let number = |name: &'static str| -> Result<u64, CheckpointError> {
        let value = numbers.get(name)?.map(|value| value.value());
        value.ok_or_else(|| CheckpointError::Damaged(format!("it has no {name:?}")))
    };
    let found = number("version")?;
    if found != VERSION {
        return Err(CheckpointError::Version { found });
    }
    let position = Lsn(number("position")?);
    if position > Lsn::MAX {
        return Err(CheckpointError::Damaged(format!("its position is {position}")));
    }
    let next = number("next volume")?;
    let next = u32::try_from(next)
        .map_err(|_| CheckpointError::Damaged(format!("the next volume's number is {next}")))?;
    let mut entries: Vec<Entry> = Vec::new();
    for volume in transaction.open_table(VOLUMES)?.iter()? {
        let (id, bytes) = volume?;
        let id = id.value();
        if id >= next {
            return Err(CheckpointError::Damaged(format!("volume {id} was never made: the next is {next}")));
        }
        let (name, map) = record::decode(bytes.value())
            .map_err(|why| CheckpointError::Damaged(format!("volume {id}: {why}")))?;
        entries.push(Entry { id: VolumeId(id), name, map });
    }
    for leaf in transaction.open_table(LEAVES)?.iter()? {
        let (key, bytes) = leaf?;
        let (id, leaf) = key.value();
        let entry = entries.iter_mut().find(|entry| entry.id.0 == id);
        let entry = entry
            .ok_or_else(|| CheckpointError::Damaged(format!("a map of volume {id}, which is not there")))?;
        leaf::decode(&mut entry.map, leaf, bytes.value(), position)
            .map_err(|why| CheckpointError::Damaged(format!("leaf {leaf} of volume {id}: {why}")))?;
    }
    let generation = LogGeneration(number("generation")?);
    Ok(Snapshot { position, generation, volumes: Volumes::restore(entries, next) })
}

const _: () = assert!(LEAF_BYTES as u64 == LEAF_BLOCKS * 8);

/// Whether the block can be in the map at all.
fn fits(map: &BlockMap, block: u64) -> Option<BlockNumber> {
    (block < map.blocks()).then_some(BlockNumber(block))
}

#[cfg(test)]
mod tests;
