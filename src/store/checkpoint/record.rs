//! A volume, as the checkpoint keeps it.
//!
//! ```text
//!  0 u8 block shift   1 u8 0   2 u16 bytes of the name   4 u32 0   8 u64 blocks   16 name, UTF-8
//! ```

use crate::base::BlockSize;
use crate::store::volumes::{Entry, NAME_BYTES_MAX};
use crate::volume::BlockMap;

const NAME_AT: usize = 16;

pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let mut bytes = vec![0; NAME_AT];
    bytes[0] = entry.map.block_size().shift();
    let len = u16::try_from(entry.name.len()).expect("at most 255");
    bytes[2..4].copy_from_slice(&len.to_le_bytes());
    bytes[8..16].copy_from_slice(&entry.map.blocks().to_le_bytes());
    bytes.extend_from_slice(entry.name.as_bytes());
    bytes
}

/// Its name, and its map without anything in it.
///
/// # Errors
/// What cannot be, in words.
pub(super) fn decode(bytes: &[u8]) -> Result<(String, BlockMap), String> {
    let Some((head, name)) = bytes.split_at_checked(NAME_AT) else {
        return Err(format!("its record has {} bytes", bytes.len()));
    };
    let size = BlockSize::from_shift(head[0]).ok_or_else(|| format!("its block shift is {}", head[0]))?;
    let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
    if len != name.len() || len > NAME_BYTES_MAX {
        return Err(format!("its name has {} bytes, not {len}", name.len()));
    }
    let blocks = u64::from_le_bytes(head[8..].try_into().expect("eight bytes"));
    if blocks > BlockMap::BLOCKS_MAX {
        return Err(format!("it has {blocks} blocks"));
    }
    let name = std::str::from_utf8(name).map_err(|error| format!("its name: {error}"))?;
    Ok((name.to_owned(), BlockMap::new(size, blocks)))
}
