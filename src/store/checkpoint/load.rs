//! Reading a checkpoint back. Nothing that the file says is taken on trust: each value has a checksum, and the numbers must agree.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableError};

use super::record::{HeadRecord, VolumeRecord, decode_leaf};
use super::{CheckpointError, HEAD, LEAVES, Snapshot, VOLUMES};
use crate::base::{DatasetId, Lsn, VolumeId};
use crate::store::volumes::{Entry, Volumes};
use crate::volume::BlockMap;

/// A table that was not made is no table of a checkpoint.
fn missing(table: &'static str) -> impl Fn(TableError) -> CheckpointError {
    move |error| match error {
        TableError::TableDoesNotExist(_)
        | TableError::TableTypeMismatch { .. }
        | TableError::TableIsMultimap(_)
        | TableError::TypeDefinitionChanged { .. } => CheckpointError::NoTable { table },
        error => CheckpointError::storage(error),
    }
}

fn head(transaction: &ReadTransaction, dataset: DatasetId) -> Result<HeadRecord, CheckpointError> {
    let table = transaction.open_table(HEAD).map_err(missing("head"))?;
    let value = table.get(0).map_err(CheckpointError::storage)?;
    let value = value.ok_or(CheckpointError::NoTable { table: "head" })?;
    let decoded = HeadRecord::decode(value.value());
    let head = decoded.map_err(|error| CheckpointError::Record { what: "head".to_owned(), error })?;
    if head.dataset != dataset {
        return Err(CheckpointError::Dataset { found: head.dataset, wanted: dataset });
    }
    Ok(head)
}

/// All of it.
pub(super) fn snapshot(
    transaction: &ReadTransaction,
    dataset: DatasetId,
) -> Result<Snapshot, CheckpointError> {
    let head = head(transaction, dataset)?;
    let table = transaction.open_table(VOLUMES).map_err(missing("volumes"))?;
    let (mut entries, mut leaves) = (Vec::new(), 0);
    for entry in table.iter().map_err(CheckpointError::storage)? {
        let (key, value) = entry.map_err(CheckpointError::storage)?;
        let id = VolumeId(key.value());
        let record = |error| CheckpointError::Record { what: format!("volume {id}"), error };
        let record = VolumeRecord::decode(id, value.value()).map_err(record)?;
        let (map, count) = map(transaction, id, &record, head.position)?;
        leaves += count;
        entries.push(Entry { id, name: record.name, map });
    }
    agree("volumes", entries.len() as u64, head.volumes.into())?;
    if let Some(last) = entries.last().filter(|last| last.id.0 >= head.volume_next) {
        return Err(CheckpointError::Count {
            what: "as the highest volume".to_owned(),
            found: last.id.0.into(),
            wanted: u64::from(head.volume_next).saturating_sub(1),
        });
    }
    let table = transaction.open_table(LEAVES).map_err(missing("leaves"))?;
    agree("leaves", table.len().map_err(CheckpointError::storage)?, leaves)?;
    let volumes = Volumes::restore(entries, head.volume_next);
    Ok(Snapshot { position: head.position, generation: head.generation, volumes })
}

/// The volume's map, and its number of leaves.
fn map(
    transaction: &ReadTransaction,
    id: VolumeId,
    record: &VolumeRecord,
    position: Lsn,
) -> Result<(BlockMap, u64), CheckpointError> {
    let table = transaction.open_table(LEAVES).map_err(missing("leaves"))?;
    let mut map = BlockMap::new(record.block_size, record.blocks);
    let mut count = 0;
    for entry in table.range((id.0, 0)..=(id.0, u64::MAX)).map_err(CheckpointError::storage)? {
        let (key, value) = entry.map_err(CheckpointError::storage)?;
        let (_, leaf) = key.value();
        let lsns = decode_leaf(id, leaf, value.value());
        let damaged = |error| CheckpointError::Record { what: format!("leaf {leaf} of volume {id}"), error };
        let lsns = lsns.map_err(damaged)?;
        if let Some(lsn) = lsns.iter().copied().find(|lsn| *lsn >= position) {
            return Err(CheckpointError::Position { volume: id, lsn, position });
        }
        map.set_leaf(leaf, &lsns).map_err(|error| CheckpointError::Leaf { volume: id, error })?;
        count += 1;
    }
    agree(&format!("mapped blocks of volume {id}"), map.mapped(), record.mapped)?;
    Ok((map, count))
}

fn agree(what: &str, found: u64, wanted: u64) -> Result<(), CheckpointError> {
    if found == wanted {
        Ok(())
    } else {
        Err(CheckpointError::Count { what: what.to_owned(), found, wanted })
    }
}
