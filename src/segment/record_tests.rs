//! Records survive their slots, and nothing else passes for one.

use proptest::prelude::*;

use super::*;

const SALT: Salt = Salt([7; 16]);

fn write(blocks: u32) -> Record {
    Record {
        kind: RecordKind::Write,
        volume: VolumeId(3),
        block: BlockNumber(1 << 40),
        blocks,
        block_size: BlockSize::Large,
        lsn: Lsn(0x6_2000),
        durable: Lsn(0x6_1000),
        sequence: 9,
    }
}

fn sums(count: u32) -> Vec<u32> {
    (0..count).map(|index| 0x0101_0101_u32.wrapping_mul(index + 1)).collect()
}

#[test]
fn every_length_survives() {
    for blocks in 1..=PAYLOAD_BLOCKS_MAX {
        let record = write(blocks);
        let slots = record.encode(&sums(blocks), SALT);
        let count = slots_claimed(&slots[0]).unwrap();
        assert_eq!(count, record.slots());
        assert_eq!(decode(&slots, count, SALT, 0), Ok(Some(record)));
        let found: Vec<_> = (0..blocks as usize).map(|index| block_checksum(&slots, index)).collect();
        assert_eq!(found, sums(blocks));
    }
    assert_eq!([5, 6, 21, 22, 256].map(|blocks| write(blocks).slots()), [1, 2, 2, 3, 17]);
}

#[test]
fn every_flipped_bit_is_found() {
    let record = write(40);
    let slots = record.encode(&sums(40), SALT);
    for bit in 0..record.slots() as usize * SLOT * 8 {
        let mut damaged = slots;
        damaged[bit / 8 / SLOT][bit / 8 % SLOT] ^= 1 << (bit % 8);
        let found = slots_claimed(&damaged[0]).map(|count| decode(&damaged, count, SALT, 0));
        assert!(matches!(found, None | Some(Ok(None))), "bit {bit}: {found:?}");
    }
}

#[test]
fn another_segments_salt_makes_it_invalid() {
    let slots = write(1).encode(&sums(1), SALT);
    assert_eq!(decode(&slots, 1, Salt([8; 16]), 0), Ok(None));
    assert_eq!(decode(&[[0; SLOT]; RECORD_SLOTS_MAX as usize], 1, SALT, 0), Ok(None));
}

/// With a right checksum around a changed field.
fn changed(change: impl FnOnce(&mut Wire)) -> Result<Option<Record>, Fault> {
    let mut slots = write(1).encode(&sums(1), SALT);
    let mut wire: Wire = zerocopy::transmute!(slots[0]);
    change(&mut wire);
    slots[0] = zerocopy::transmute!(wire);
    let crc = checksum(&slots, 1, SALT);
    slots[0][..4].copy_from_slice(&crc.to_le_bytes());
    decode(&slots, 1, SALT, 4)
}

#[test]
fn what_no_writer_writes_is_an_error_and_not_the_tail() {
    let field = |result: Result<Option<Record>, Fault>| match result {
        Err(Fault::Unreadable { slot: 4, field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert!(changed(|_| ()).unwrap().is_some());
    assert_eq!(field(changed(|wire| wire.kind = 77)), "kind");
    assert_eq!(field(changed(|wire| wire.block_shift = 10)), "block shift");
    assert_eq!(field(changed(|wire| wire.flags = 1.into())), "flags");
    assert_eq!(field(changed(|wire| wire.blocks = 0.into())), "blocks");
    assert_eq!(field(changed(|wire| wire.lsn = 0x6_2001.into())), "lsn");
    assert_eq!(field(changed(|wire| wire.lsn = u64::MAX.into())), "lsn");
    assert_eq!(field(changed(|wire| wire.durable = 0x6_2001.into())), "durable");
    assert_eq!(field(changed(|wire| wire.block = u64::MAX.into())), "block");
}

#[test]
fn what_has_no_payload_takes_a_step() {
    let trim = Record { kind: RecordKind::Trim, blocks: u32::MAX, ..write(1) };
    assert_eq!((trim.payload_bytes(), trim.slots(), trim.end()), (0, 1, Lsn(0x6_2200)));
    let slots = trim.encode(&[], SALT);
    assert_eq!(decode(&slots, 1, SALT, 0), Ok(Some(trim)));
    let void = Record { kind: RecordKind::Void, ..write(30) };
    assert_eq!((void.payload_bytes(), void.slots()), (30 * 4096, write(30).slots()));
    let slots = void.encode(&[], SALT);
    assert_eq!(decode(&slots, void.slots(), SALT, 0), Ok(Some(void)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever stands in the slots, with right checksums or without, is judged and never panics.
    #[test]
    fn any_slot_is_judged(mut first in prop::array::uniform32(any::<u8>()), fix: bool, blocks in 0_u32..400) {
        let mut slots = [[0; SLOT]; RECORD_SLOTS_MAX as usize];
        first[4] %= 8;
        slots[0][..32].copy_from_slice(&first);
        slots[0][32..36].copy_from_slice(&blocks.to_le_bytes());
        if let Some(count) = slots_claimed(&slots[0]) {
            if fix {
                let crc = checksum(&slots, count as usize, SALT);
                slots[0][..4].copy_from_slice(&crc.to_le_bytes());
            }
            let found = decode(&slots, count, SALT, 0);
            prop_assert!(!fix || found != Ok(None));
            if let Ok(Some(record)) = found {
                prop_assert!(record.slots() == count && record.end() > record.lsn);
            }
        }
    }
}
