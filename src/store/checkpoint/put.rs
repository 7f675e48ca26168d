//! Writing what differs between two snapshots, as part of a transaction.

use redb::{Table, WriteTransaction};

use super::record::{HeadRecord, VolumeRecord, encode_leaf};
use super::{CheckpointError, HEAD, LEAVES, Snapshot, VOLUMES};
use crate::base::{DatasetId, Lsn};
use crate::store::volumes::Entry;
use crate::volume::{BlockMap, LEAF_BLOCKS};

/// All that differs between the two.
pub(super) fn snapshot(
    transaction: &WriteTransaction,
    dataset: DatasetId,
    before: &Snapshot,
    now: &Snapshot,
) -> Result<(), CheckpointError> {
    let mut volumes = transaction.open_table(VOLUMES).map_err(CheckpointError::storage)?;
    let mut leaves = transaction.open_table(LEAVES).map_err(CheckpointError::storage)?;
    for gone in before.volumes.entries().iter().filter(|volume| now.volumes.get(volume.id).is_none()) {
        volumes.remove(gone.id.0).map_err(CheckpointError::storage)?;
        leaves
            .retain_in((gone.id.0, 0)..=(gone.id.0, u64::MAX), |_, _| false)
            .map_err(CheckpointError::storage)?;
    }
    for volume in now.volumes.entries() {
        let old = before.volumes.get(volume.id);
        let record = record_of(volume);
        if old.is_none_or(|old| record_of(old) != record) {
            volumes
                .insert(volume.id.0, record.encode(volume.id).as_slice())
                .map_err(CheckpointError::storage)?;
        }
        let none = BlockMap::new(volume.map.block_size(), 0);
        put_map(&mut leaves, volume, old.map_or(&none, |old| &old.map), now.position)?;
    }
    let mut head = transaction.open_table(HEAD).map_err(CheckpointError::storage)?;
    head.insert(0, head_of(dataset, now).encode().as_slice()).map_err(CheckpointError::storage)?;
    Ok(())
}

fn head_of(dataset: DatasetId, now: &Snapshot) -> HeadRecord {
    let Snapshot { position, generation, volumes } = now;
    let count = u32::try_from(volumes.entries().len()).expect("each has a number of its own");
    let (position, generation) = (*position, *generation);
    HeadRecord { dataset, position, generation, volume_next: volumes.next(), volumes: count }
}

fn record_of(entry: &Entry) -> VolumeRecord {
    let (block_size, blocks, mapped) = (entry.map.block_size(), entry.map.blocks(), entry.map.mapped());
    VolumeRecord { name: entry.name.clone(), block_size, blocks, mapped }
}

/// The leaves that differ.
fn put_map(
    leaves: &mut Table<'_, (u32, u64), &[u8]>,
    volume: &Entry,
    before: &BlockMap,
    position: Lsn,
) -> Result<(), CheckpointError> {
    let mut last = None;
    for change in before.diff(&volume.map) {
        let leaf = change.block.0 / LEAF_BLOCKS as u64;
        if last.replace(leaf) == Some(leaf) {
            continue;
        }
        let key = (volume.id.0, leaf);
        match volume.map.leaf(leaf) {
            Some(lsns) => {
                let newest = lsns.iter().max().expect("64 of them");
                if *newest >= position {
                    return Err(CheckpointError::Position { volume: volume.id, lsn: *newest, position });
                }
                let bytes = encode_leaf(volume.id, leaf, &lsns);
                leaves.insert(key, bytes.as_slice()).map_err(CheckpointError::storage)?;
            }
            None => {
                leaves.remove(key).map_err(CheckpointError::storage)?;
            }
        }
    }
    Ok(())
}
