//! Frames of a map's difference, as a peer may send them.
//!
//! The first byte chooses whether the checksum and the number of runs are made right, so that fuzzing goes on behind them. What is decoded
//! encodes to the same bytes, and enters maps of some size or is refused. Executions behind the checksum are counted and printed at
//! each power of two. Packed bytes that can be unpacked come back from what they are packed to again.
#![no_main]

use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::fuzz_target;
use mirrorbus::base::{BlockNumber, BlockSize, Lsn, crc32c};
use mirrorbus::replica::{
    Cursor, FRAME_BYTES_MIN, UNIT_BYTES, decode_runs, encode_runs, frame, pack_sparse, unpack_sparse,
};
use mirrorbus::volume::BlockMap;

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static DEEP: AtomicU64 = AtomicU64::new(0);

/// More than is ever unpacked here.
const MOST: usize = 1 << 16;

fn pack_and_unpack(data: &[u8]) {
    let units = &data[..data.len() / UNIT_BYTES * UNIT_BYTES];
    for bytes in unpack_sparse(data, MOST).into_iter().chain([units.to_vec()]) {
        assert!(bytes.len() <= MOST.max(units.len()));
        let packed = pack_sparse(&bytes, 2 * MOST.max(bytes.len())).expect("hardly more than they are");
        assert!(pack_sparse(&bytes, packed.len().saturating_sub(1)).is_none() == !packed.is_empty());
        assert_eq!(unpack_sparse(&packed, bytes.len()), Some(bytes));
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    pack_and_unpack(data);
    let mut bytes = data.to_vec();
    if mode % 8 != 0 && bytes.len() >= 8 {
        bytes[4..8].copy_from_slice(&u32::from(mode / 8).to_le_bytes());
        let crc = crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
    }
    let decoded = decode_runs(&bytes);
    let executions = EXECUTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let deep = DEEP.fetch_add(u64::from(decoded.is_ok()), Ordering::Relaxed) + u64::from(decoded.is_ok());
    if executions.is_power_of_two() {
        eprintln!("deep: {deep} of {executions} (executions behind the checksum)");
    }
    let Ok(runs) = decoded else { return };
    assert_eq!(encode_runs(&runs), bytes);
    for (size, blocks) in [(BlockSize::Small, 1 << 16), (BlockSize::Large, 300)] {
        let mut map = BlockMap::new(size, blocks);
        let old = map.clone();
        let mut volume = None;
        for run in &runs {
            if *volume.get_or_insert(run.volume) == run.volume {
                let before = map.digest();
                if run.apply(&mut map, Lsn(1 << 40)).is_err() {
                    assert_eq!(map.digest(), before);
                }
            }
        }
        // What was entered is what the difference tells, however it is cut.
        let (mut again, mut from) = (old.clone(), Some(Cursor::default()));
        let volume = volume.unwrap_or_default();
        while let Some(cursor) = from {
            let (bytes, next) = frame([(volume, Some(&old), &map)], cursor, FRAME_BYTES_MIN + 40);
            let told = decode_runs(&bytes).expect("it was just made");
            told.iter()
                .for_each(|run| run.apply(&mut again, Lsn(1 << 40)).expect("it was in a map of this size"));
            from = next;
        }
        assert!(again.digest() == map.digest() && map.mapped() <= blocks);
        assert_eq!(map.lookup(BlockNumber(0)), again.lookup(BlockNumber(0)));
    }
});
