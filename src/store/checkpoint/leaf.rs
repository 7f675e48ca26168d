//! A leaf of a map, as the checkpoint keeps it: the positions of 64 blocks, little-endian, 0 for a block without data.

use super::fits;
use crate::base::Lsn;
use crate::segment::LSN_STEP;
use crate::volume::BlockMap;

/// Blocks of a leaf.
pub(super) const LEAF_BLOCKS: u64 = 64;
/// Its bytes.
pub(super) const LEAF_BYTES: usize = 512;

/// The leaf's bytes; `None` when no block of it has data.
pub(super) fn encode(map: &BlockMap, leaf: u64) -> Option<[u8; LEAF_BYTES]> {
    let mut bytes = [0; LEAF_BYTES];
    let mut is_empty = true;
    for (place, block) in bytes.chunks_exact_mut(8).zip(leaf * LEAF_BLOCKS..) {
        let Some(lsn) = fits(map, block).and_then(|block| map.lookup(block)) else { continue };
        place.copy_from_slice(&lsn.0.to_le_bytes());
        is_empty = false;
    }
    (!is_empty).then_some(bytes)
}

/// Puts the leaf into the map. All of it lies before `position`.
///
/// # Errors
/// What cannot be, in words. Part of it may be in the map.
pub(super) fn decode(map: &mut BlockMap, leaf: u64, bytes: &[u8], position: Lsn) -> Result<(), String> {
    if bytes.len() != LEAF_BYTES {
        return Err(format!("it has {} bytes, not {LEAF_BYTES}", bytes.len()));
    }
    let first = leaf.checked_mul(LEAF_BLOCKS).filter(|first| *first < map.blocks());
    let first = first.ok_or_else(|| format!("the volume has {} blocks", map.blocks()))?;
    for (bytes, block) in bytes.chunks_exact(8).zip(first..) {
        let lsn = Lsn(u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
        if lsn == Lsn::ZERO {
            continue;
        }
        let block = fits(map, block).ok_or_else(|| format!("block {block} of {}", map.blocks()))?;
        let end = lsn.0.checked_add(map.block_size().bytes());
        if !lsn.0.is_multiple_of(LSN_STEP) || end.is_none_or(|end| end > position.0) {
            return Err(format!("block {block} is at {lsn}, in a checkpoint at {position}"));
        }
        map.write(block, 1, lsn);
    }
    Ok(())
}
