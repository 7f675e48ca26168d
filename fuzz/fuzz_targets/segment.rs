//! The scan of a segment against whatever a disk or a peer may hold.
//!
//! The first byte chooses. *Raw*: the rest is the head's and the table's bytes as they are; unless the fuzzer finds a CRC32C, no record
//! may come of it. *Built*: the rest is read as a list of records, each of which is right or wrong in one field and gets right
//! checksums around that; so fuzzing goes on behind them. A model says which must be found: all before the first
//! wrong one. Executions in which records were found are counted and printed at each power of two.
#![no_main]

use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::fuzz_target;
use mirrorbus::base::{DatasetId, LogGeneration, Lsn, Phase, crc32c_append};
use mirrorbus::segment::{
    Fault, HEAD_BYTES, Known, Replay, Salt, Scan, SegmentHead, SegmentLayout, SegmentSource, Verify,
};

const SEGMENT_BYTES: usize = 1 << 15;
const DEVICE_BLOCK_BYTES: usize = 4096;
const SLOT: usize = 64;
const SLOTS_PER_BLOCK: usize = DEVICE_BLOCK_BYTES / SLOT;
const BASE: u64 = 1 << 20;
static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static DEEP: AtomicU64 = AtomicU64::new(0);
static RECORDS: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let found = if mode % 8 == 0 { raw(data) } else { built(data) };
    let executions = EXECUTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let records = RECORDS.fetch_add(found, Ordering::Relaxed) + found;
    let deep = DEEP.fetch_add(u64::from(found > 0), Ordering::Relaxed) + u64::from(found > 0);
    if executions.is_power_of_two() {
        eprintln!("deep: {deep} of {executions} (executions behind the checksums; {records} records found)");
    }
});

/// A segment's bytes.
struct Image(Vec<u8>);

impl SegmentSource for Image {
    type Error = std::convert::Infallible;

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), Self::Error> {
        SegmentSource::read(&self.0[..], offset, target)
    }
}

fn head() -> SegmentHead {
    SegmentHead {
        dataset: DatasetId::from_bytes([7; 16]),
        base: Lsn(BASE),
        generation: LogGeneration(1),
        predecessor: LogGeneration(0),
        fork: Lsn(0),
        previous_end: Lsn(0),
        phase: Phase(1),
        salt: Salt([9; 16]),
        layout: SegmentLayout::new(SEGMENT_BYTES as u64, DEVICE_BLOCK_BYTES as u64).expect("the smallest"),
    }
}

fn raw(data: &[u8]) -> u64 {
    let mut image = vec![0; SEGMENT_BYTES];
    let (front, back) = data.split_at(data.len().min(HEAD_BYTES));
    image[..front.len()].copy_from_slice(front);
    let count = back.len().min(SEGMENT_BYTES / 2);
    image[SEGMENT_BYTES - count..].copy_from_slice(&back[..count]);
    let first = image.first_chunk().expect("longer than a head");
    // A head that is valid says what it is; its records are scanned under it if its sizes are those of the image.
    let head =
        SegmentHead::decode(first).ok().filter(|found| found.layout == head().layout).unwrap_or(head());
    scan(head, &Image(image)).0
}

/// How a record is wrong.
#[derive(PartialEq)]
enum Wrong {
    Nothing,
    Slots,
    Payload,
    /// With a right checksum around it.
    Field,
}

fn built(mut data: &[u8]) -> u64 {
    let (head, mut image) = (head(), vec![0; SEGMENT_BYTES]);
    let (mut slot, mut payload, mut expected, mut right) = (0_usize, DEVICE_BLOCK_BYTES, 0, true);
    for sequence in 0..200_u32 {
        let Some((&[kind, blocks, odd, value, text, pad], rest)) = data.split_first_chunk::<6>() else {
            break;
        };
        data = rest;
        if pad % 8 == 0 {
            slot = slot.next_multiple_of(SLOTS_PER_BLOCK);
            payload = payload.next_multiple_of(DEVICE_BLOCK_BYTES);
        }
        let kind = 1 + kind % 6;
        let (has_payload, has_sums) = (matches!(kind, 1 | 5 | 6), matches!(kind, 1 | 6));
        let blocks = if has_payload { 1 + blocks % 24 } else { blocks.max(1) };
        let bytes = if has_payload { usize::from(blocks) * 512 } else { 0 };
        let count = if has_payload { 1 + usize::from(blocks).saturating_sub(5).div_ceil(16) } else { 1 };
        let end = payload + bytes.max(512);
        let table = ((slot + count) * SLOT).next_multiple_of(DEVICE_BLOCK_BYTES);
        if end.next_multiple_of(DEVICE_BLOCK_BYTES) + table > SEGMENT_BYTES {
            break;
        }
        image[payload..payload + bytes].fill(text);
        let sum = if has_sums { head.salt.checksum(&[text; 512]) } else { 0 };
        let sums = vec![sum; if has_sums { usize::from(blocks) } else { 0 }];
        let mut slots = vec![[0; SLOT]; count];
        first_slot(&mut slots[0], (kind, blocks, sequence), BASE + payload as u64, &sums);
        for (slot, sums) in slots[1..].iter_mut().zip(sums.get(5..).unwrap_or_default().chunks(16)) {
            slot.chunks_mut(4).zip(sums).for_each(|(place, sum)| place.copy_from_slice(&sum.to_le_bytes()));
        }
        let wrong = spoil(&mut slots, odd, value);
        let mut crc = head.salt.seed();
        slots
            .iter()
            .enumerate()
            .for_each(|(at, slot)| crc = crc32c_append(crc, &slot[if at == 0 { 4 } else { 0 }..]));
        slots[0][..4].copy_from_slice(&(crc ^ u32::from(wrong == Wrong::Slots)).to_le_bytes());
        let mut is_wrong = wrong != Wrong::Nothing;
        if wrong == Wrong::Payload {
            // Of a record without summed payload nothing is spoiled.
            is_wrong = has_sums;
            image[payload..payload + bytes].iter_mut().take(1).for_each(|byte| *byte ^= 1);
        }
        for (at, bytes) in (slot..).zip(&slots) {
            let start = SEGMENT_BYTES - SLOT * (at + 1);
            image[start..start + SLOT].copy_from_slice(bytes);
        }
        (slot, payload) = (slot + count, end);
        right &= !is_wrong;
        expected += u64::from(right);
    }
    image[..HEAD_BYTES].copy_from_slice(&head.encode());
    let image = Image(image);
    let (found, fault) = scan(head, &image);
    assert_eq!(found, expected, "{fault}");
    found
}

fn first_slot(slot: &mut [u8; SLOT], (kind, blocks, sequence): (u8, u8, u32), lsn: u64, sums: &[u32]) {
    slot[4] = kind;
    slot[5] = 9;
    slot[8..16].copy_from_slice(&lsn.to_le_bytes());
    slot[24..32].copy_from_slice(&u64::from(sequence * 3).to_le_bytes());
    slot[32..36].copy_from_slice(&u32::from(blocks).to_le_bytes());
    slot[36..40].copy_from_slice(&sequence.to_le_bytes());
    slot[44..].chunks_mut(4).zip(sums).for_each(|(place, sum)| place.copy_from_slice(&sum.to_le_bytes()));
}

/// Makes one field wrong, sometimes.
fn spoil(slots: &mut [[u8; SLOT]], odd: u8, value: u8) -> Wrong {
    let bit = 1 << (value % 8);
    let is_single = slots.len() == 1;
    let first = &mut slots[0];
    match odd {
        0 => return Wrong::Slots,
        1 => return Wrong::Payload,
        // Kinds beyond the known ones: one slot each, as a reader takes them.
        2 if is_single => first[4] = 7 + value % 249,
        3 => first[5] ^= bit,
        4 => first[6] ^= bit,
        // A position far outside of the segment.
        5 => first[10 + usize::from(value / 8 % 6)] ^= bit,
        // More durable than itself.
        6 => first[16..24].copy_from_slice(&(u64::MAX - u64::from(value)).to_le_bytes()),
        // No number that a record here has, or it might be the one that is missed.
        7 => first[37 + usize::from(value / 8 % 3)] ^= bit,
        // Beyond the last block; a phase marker has no block.
        8 if first[4] != 4 => first[24..32].copy_from_slice(&u64::MAX.to_le_bytes()),
        _ => return Wrong::Nothing,
    }
    Wrong::Field
}

/// Records found, and what ended it.
fn scan(head: SegmentHead, image: &Image) -> (u64, Fault) {
    let mut scan = Scan::new(head, Verify::Payloads { from: Lsn::ZERO });
    let (mut found, mut payload_end, mut slots_end, mut end) =
        (0, DEVICE_BLOCK_BYTES as u64, 0, head.previous_end);
    let fault = loop {
        let Ok(next) = scan.next(image);
        let (record, extent) = match next {
            Ok(next) => next,
            Err(fault) => break fault,
        };
        assert!(record.sequence == found && record.lsn >= end && record.end() == extent.end);
        assert!(extent.payload.start >= payload_end && extent.payload.end <= SEGMENT_BYTES as u64);
        assert!(extent.slots.start >= slots_end && extent.slots.end > extent.slots.start);
        assert!(record.durable <= record.lsn);
        (payload_end, slots_end, end) = (extent.payload.end, extent.slots.end, extent.end);
        found += 1;
    };
    assert!(scan.end() == end && scan.records() == found);
    let Ok(_) = scan.durable_behind(image);
    // The log of this segment alone ends there, or is damaged there.
    let known = Known { from: head.previous_end, durable: head.previous_end };
    if let Ok(mut replay) = Replay::new(vec![(head, Image(image.0.clone()))], known) {
        let records = replay.by_ref().filter(Result::is_ok).count();
        assert!(records as u64 <= u64::from(found));
        assert!(replay.outcome().is_none_or(|outcome| outcome.end == end.max(head.previous_end)));
    }
    (found.into(), fault)
}
