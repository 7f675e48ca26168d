//! Frames of runs: read back, cut into any sizes, and made of anything.

use proptest::prelude::*;

use super::*;
use crate::base::BlockSize;
use crate::sim::Random;

fn map(random: &mut Random, blocks: u64) -> BlockMap {
    let mut map = BlockMap::new(if random.chance(50) { BlockSize::Small } else { BlockSize::Large }, blocks);
    let mut lsn = Lsn(1 << 16);
    for _ in 0..60 {
        let block = random.below(blocks);
        let count = 1 + random.below((blocks - block).min(40));
        map.write(BlockNumber(block), count, lsn);
        lsn = Lsn((lsn.plus(count << 12).0 + random.below(1 << 30)).next_multiple_of(4096));
    }
    map
}

#[test]
fn frames_of_any_size_tell_all_of_it_once() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let maps: Vec<_> = (0..4)
            .map(|at| {
                let blocks = 1 + random.below(5000);
                let (old, mut new) = (map(&mut random, blocks), map(&mut random, blocks));
                new = if old.block_size() == new.block_size() { new } else { old.clone() };
                new.trim(BlockNumber(0), blocks / 2, Lsn(1 << 50));
                (VolumeId(at * at * 1000), random.chance(70).then_some(old), new)
            })
            .collect();
        let each = || maps.iter().map(|(volume, old, new)| (*volume, old.as_ref(), new));
        let (whole, end) = frame(each(), Cursor::default(), 1 << 20);
        assert_eq!(end, None);
        let all = decode_runs(&whole).unwrap();
        assert_eq!(encode_runs(&all), whole);
        let (mut from, mut found) = (Some(Cursor::default()), Vec::new());
        while let Some(cursor) = from {
            let bytes_max = FRAME_BYTES_MIN + usize::try_from(random.below(300)).unwrap();
            let (bytes, next) = frame(each(), cursor, bytes_max);
            assert!(bytes.len() <= bytes_max && next.is_none_or(|next| next > cursor), "seed {seed}");
            found.extend(decode_runs(&bytes).unwrap());
            from = next;
        }
        assert_eq!(found, all, "seed {seed}");
    }
}

#[test]
fn a_run_is_a_few_bytes() {
    let run =
        |block, lsn| MapRun { volume: VolumeId(1), block: BlockNumber(block), count: 1, lsn: Some(Lsn(lsn)) };
    let runs: Vec<_> = (0..1000).map(|at| run(at * 3, (1 << 40) + at * 7919 % 1000 * 4096)).collect();
    let bytes = encode_runs(&runs);
    assert!(bytes.len() <= 8 + 8 + 1000 * 5, "{} bytes for 1000 runs", bytes.len());
    assert_eq!(decode_runs(&bytes), Ok(runs));
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let run = MapRun { volume: VolumeId(9), block: BlockNumber(77), count: 300, lsn: Some(Lsn(1 << 33)) };
    let hole = MapRun { block: BlockNumber(1 << 40), lsn: None, ..run };
    let bytes = encode_runs(&[run, hole]);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_runs(&damaged).is_err(), "bit {bit}");
    }
    (0..bytes.len()).for_each(|len| assert!(decode_runs(&bytes[..len]).is_err(), "{len} bytes"));
    assert_eq!(decode_runs(&bytes), Ok(vec![run, hole]));
}

/// A frame with this body, whose checksum is right.
fn sealed(count: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; 4], &count.to_le_bytes()[..], body].concat();
    let crc = crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn what_no_sender_writes_is_named_with_its_number() {
    let field = |count, body: &[u8]| match decode_runs(&sealed(count, body)) {
        Err(RunError::Field { field, value, .. }) => (field, value),
        other => panic!("{other:?}"),
    };
    assert_eq!(field(1, &[4, 0, 0]), ("tag", 4));
    assert_eq!(field(1, &[0, 0, 1]), ("tag", 0), "the first names its volume");
    assert_eq!(field(1, &[2, 0, 0, 0]), ("count", 0));
    assert_eq!(field(2, &[2, 5, 0, 1, 2, 5, 0, 1]), ("volume", 5), "again");
    assert_eq!(field(1, &[2, 0x80, 0, 0, 1]), ("volume", 0), "longer than it must be");
    assert_eq!(field(1, &[2, 0xff, 0xff, 0xff, 0xff, 0x1f, 0, 1]), ("volume", (1 << 33) - 1));
    assert_eq!(field(1, &[2, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 2]).0, "gap");
    assert_eq!(field(1, &[3, 0, 0, 1, 0]), ("distance", 0), "data at position 0");
    assert_eq!(field(1, &[3, 0, 0, 1, 3]), ("distance", 3), "data before it");
    assert_eq!(field(1, &[2, 0, 0, 1, 7]), ("bytes behind the last run,", 1));
    let long = [2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2, 0, 1];
    assert_eq!(field(1, &long).0, "volume", "more than 64 bits");
    assert!(matches!(decode_runs(&sealed(u32::MAX, &[2, 0, 0, 1])), Err(RunError::Short { .. })));
    assert!(matches!(decode_runs(&sealed(1, &[2, 0, 0])), Err(RunError::Short { field: "count", .. })));
}

proptest! {
    #[test]
    fn anything_is_decoded_or_refused(count in 0..6_u32, body in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(runs) = decode_runs(&sealed(count, &body)) {
            prop_assert_eq!(encode_runs(&runs), sealed(count, &body));
        }
    }

    #[test]
    fn near_misses_are_decoded_or_refused(body in prop::collection::vec(0..4_u8, 4..40), count in 1..8_u32) {
        if let Ok(runs) = decode_runs(&sealed(count, &body)) {
            // A run of the same volume that names it again is refused, so there is one way to say each.
            prop_assert_eq!(encode_runs(&runs), sealed(count, &body));
        }
    }
}
