//! The values of a checkpoint and a directory's identity against whatever a disk may hold.
//!
//! The first byte chooses the kind of value and whether its checksum, magic and size are made right, so that fuzzing goes on behind them. What is
//! decoded encodes to the same bytes; a leaf enters a map of some size or is refused. Executions behind the checksums are counted and
//! printed at each power of two.
#![no_main]

use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::fuzz_target;
use mirrorbus::base::{BlockNumber, BlockSize, Lsn, VolumeId, crc32c, crc32c_append};
use mirrorbus::store::checkpoint_decoders::{HeadRecord, VolumeRecord, decode_leaf, encode_leaf};
use mirrorbus::store::{IDENTITY_BYTES, Identity};
use mirrorbus::volume::{BlockMap, LEAF_BLOCKS};

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static DEEP: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let is_right = mode % 8 != 0;
    let deep = match mode / 8 % 4 {
        0 => identity(value(data, IDENTITY_BYTES, is_right)),
        1 => head(value(data, 56, is_right)),
        2 => volume(value(data, 280, is_right), is_right),
        _ => leaf(value(data, 520, is_right), is_right),
    };
    let executions = EXECUTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let deep = DEEP.fetch_add(u64::from(deep), Ordering::Relaxed) + u64::from(deep);
    if executions.is_power_of_two() {
        eprintln!("deep: {deep} of {executions} (executions behind the checksums)");
    }
});

/// The fuzzer's bytes, of the right size if they are to be right.
fn value(data: &[u8], bytes: usize, is_right: bool) -> Vec<u8> {
    let mut value = data.to_vec();
    if is_right {
        value.resize(bytes, 0);
    }
    value
}

/// Makes the checksum at the front right.
fn sum(value: &mut [u8], key: &[u8], is_right: bool) {
    if is_right {
        let crc = crc32c_append(crc32c(key), &value[4..]);
        value[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

fn with_magic(value: &mut [u8], magic: &[u8; 8]) {
    if value.len() > 12 {
        value[..8].copy_from_slice(magic);
        let crc = crc32c(&value[12..]);
        value[8..12].copy_from_slice(&crc.to_le_bytes());
    }
}

fn identity(mut value: Vec<u8>) -> bool {
    let _ = Identity::decode(&value);
    with_magic(&mut value, b"MBNODE01");
    let Ok(found) = Identity::decode(&value) else { return false };
    assert_eq!(&found.encode()[..], &value[..]);
    assert!(found.check_peer(&found).is_err() && found.check_seen(found.life, found.starts).is_ok());
    true
}

fn head(mut value: Vec<u8>) -> bool {
    let _ = HeadRecord::decode(&value);
    with_magic(&mut value, b"MBCKPT01");
    let Ok(found) = HeadRecord::decode(&value) else { return false };
    assert_eq!(found.encode(), value);
    true
}

fn volume(mut value: Vec<u8>, is_right: bool) -> bool {
    sum(&mut value, &7_u32.to_le_bytes(), is_right);
    let Ok(found) = VolumeRecord::decode(VolumeId(7), &value) else { return false };
    assert_eq!(found.encode(VolumeId(7)), value);
    assert!(found.mapped <= found.blocks && BlockMap::new(found.block_size, found.blocks).mapped() == 0);
    true
}

fn leaf(mut value: Vec<u8>, is_right: bool) -> bool {
    let key: Vec<u8> = 7_u32.to_le_bytes().into_iter().chain(3_u64.to_le_bytes()).collect();
    sum(&mut value, &key, is_right);
    let Ok(lsns) = decode_leaf(VolumeId(7), 3, &value) else { return false };
    assert_eq!(&encode_leaf(VolumeId(7), 3, &lsns)[..], &value[..]);
    for (size, blocks) in [(BlockSize::Small, 1 << 20), (BlockSize::Large, 220), (BlockSize::Small, 100)] {
        let mut map = BlockMap::new(size, blocks);
        if map.set_leaf(3, &lsns).is_ok() {
            let found: [Lsn; LEAF_BLOCKS] = std::array::from_fn(|at| {
                let block = 192 + at as u64;
                if block < blocks { map.lookup(BlockNumber(block)).unwrap_or_default() } else { Lsn::ZERO }
            });
            assert!(found == lsns && map.leaf(3) == Some(lsns));
            let mut mapped = 0;
            map.for_each_run(|_, _, count| mapped += count);
            assert_eq!(mapped, map.mapped());
        } else {
            assert_eq!(map.mapped(), 0);
        }
    }
    true
}
