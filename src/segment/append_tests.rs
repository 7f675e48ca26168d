//! What is appended is found again, in whatever order it was sealed.

use proptest::prelude::*;

use super::super::head::tests::sample;
use super::super::testing::{append, file, fill, memory, records, records_in_ring, request, write};
use super::*;
use crate::segment::{Fault, RecordKind};

#[test]
fn a_batch_is_one_range_and_waits_for_what_is_open() {
    let (head, mut extents) = (sample(), Vec::new());
    let (memory, mut log) = (memory(&head), Append::new(head));
    let first = log.reserve(write(0, 1)).unwrap();
    let second = log.reserve(write(8, 2)).unwrap();
    assert_eq!((first.payload(), second.payload()), (4160..8256, 8320..16512));
    assert_eq!((first.lsn(), second.end()), (head.base.plus(4096), head.base.plus(16384)));
    fill(&second, &memory, 2);
    log.seal(second, memory.slice());
    assert_eq!(log.take_batch(&mut extents), None, "the first is open");
    fill(&first, &memory, 1);
    log.seal(first, memory.slice());
    let batch = log.take_batch(&mut extents).unwrap();
    let end = head.base.plus(16384);
    assert_eq!(batch, Batch { records: 2, end, range: 4096..16512 });
    assert_eq!((extents.len(), log.take_batch(&mut extents), log.pending()), (2, None, 0));
    let trim = request(RecordKind::Trim, 0, 9, BlockSize::Large);
    assert!(append(&mut log, &memory, trim, 0));
    let batch = log.take_batch(&mut extents).unwrap();
    assert_eq!(batch.range, 16512..16576);
}

#[test]
fn a_void_place_keeps_its_number() {
    let head = sample();
    let (memory, mut log) = (memory(&head), Append::new(head));
    assert!(append(&mut log, &memory, write(0, 1), 1));
    for kind in [RecordKind::Write, RecordKind::Trim] {
        let place = log.reserve(request(kind, 1, 3, BlockSize::Large)).unwrap();
        log.void(place, memory.slice());
    }
    assert!(append(&mut log, &memory, write(2, 1), 2));
    let (found, fault, scan) = records(head, &file(&head, &memory));
    let kinds: Vec<_> = found.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [RecordKind::Write, RecordKind::Void, RecordKind::Void, RecordKind::Write]);
    assert_eq!((fault, scan.end()), (Fault::NoRecord { slot: 4 }, log.end()));
}

#[test]
fn after_a_flush_no_device_block_is_shared() {
    let head = sample();
    let (memory, mut log) = (memory(&head), Append::new(head));
    assert!(append(&mut log, &memory, request(RecordKind::Write, 0, 1, BlockSize::Small), 1));
    assert_eq!((log.pad(), log.pad()), (log.end(), log.end()));
    let place = log.reserve(request(RecordKind::Write, 1, 1, BlockSize::Small)).unwrap();
    assert_eq!((place.payload().start, place.extent.slots.start), (8192 + 65 * 64, 64));
    log.seal(place, memory.slice());
    assert_eq!(records(head, &file(&head, &memory)).0.len(), 2);
}

#[test]
fn a_full_segment_gives_no_place_and_its_successor_says_where_it_ended() {
    let head = sample();
    let (memory, mut log) = (memory(&head), Append::new(head));
    let mut count = 0;
    while append(&mut log, &memory, write(0, 1), 1) {
        count += 1;
    }
    assert_eq!(count, 14, "16 blocks less the head and one block of slots");
    let next = log.next(head.phase, Salt([1; 16]));
    assert_eq!((next.base, next.previous_end), (head.end(), log.end()));
    assert!(log.reserve(request(RecordKind::Trim, 0, 1, BlockSize::Small)).is_none(), "it is closed");
    let (found, fault, _) = records(head, &file(&head, &memory));
    assert_eq!((found.len(), fault), (14, Fault::Full));
}

#[test]
fn the_largest_record_fits_into_every_empty_segment() {
    for (segment, device) in
        [(1 << 15, 512), (1 << 15, 4096), (1 << 19, 65536), (1 << 21, 512), (16 << 20, 4096)]
    {
        let layout = SegmentLayout::new(segment, device).unwrap();
        for size in [BlockSize::Small, BlockSize::Large] {
            let head = SegmentHead { layout, base: layout.next_base(Lsn(1 << 24)), ..sample() };
            let most = layout.payload_blocks_max(size);
            assert!(most >= 3, "{layout:?} {size:?}");
            assert!(
                Append::new(head).reserve(request(RecordKind::Write, 0, most, size)).is_some(),
                "{layout:?}"
            );
        }
    }
}

#[test]
#[should_panic(expected = "with room for 1 to")]
fn more_than_a_record_holds_is_a_defect() {
    _ = Append::new(sample()).reserve(write(0, PAYLOAD_MAX + 1));
}

const PAYLOAD_MAX: u32 = super::super::record::PAYLOAD_BLOCKS_MAX;

#[derive(Debug, Clone)]
enum Action {
    Append(RecordKind, u32, BlockSize),
    SealOneOf(usize, bool),
    Pad,
    Take,
}

fn action() -> impl Strategy<Value = Action> {
    let kind = prop_oneof![3 => Just(RecordKind::Write), 1 => Just(RecordKind::Trim), 1 => Just(RecordKind::WriteZeroes)];
    let size = prop_oneof![Just(BlockSize::Small), Just(BlockSize::Large)];
    prop_oneof![
        6 => (kind, 1_u32..8, size).prop_map(|(kind, blocks, size)| Action::Append(kind, blocks, size)),
        6 => (any::<usize>(), prop::bool::weighted(0.2)).prop_map(|(which, void)| Action::SealOneOf(which, void)),
        1 => Just(Action::Pad),
        2 => Just(Action::Take),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// The memory has stale bytes of an earlier segment; a copy gets nothing but the batches. A scan of the copy finds after each
    /// batch exactly the records to its end, and batches never overlap.
    #[test]
    fn batches_carry_everything(actions in prop::collection::vec(action(), 1..120)) {
        let head = sample();
        let (memory, mut log) = (memory(&head), Append::new(head));
        memory.slice().write(0, &vec![0xa5; memory.slice().len()]);
        let mut copy = vec![0x5a; memory.slice().len()];
        let (mut open, mut extents, mut posted) = (Vec::new(), Vec::new(), 0);
        for (number, action) in actions.into_iter().enumerate() {
            match action {
                Action::Append(kind, blocks, size) => open.extend(log.reserve(request(kind, 7, blocks, size))),
                Action::SealOneOf(which, void) if !open.is_empty() => {
                    let place = open.swap_remove(which % open.len());
                    fill(&place, &memory, u8::try_from(number).unwrap());
                    if void { log.void(place, memory.slice()) } else { log.seal(place, memory.slice()) }
                }
                Action::SealOneOf(..) => {}
                Action::Pad => { log.pad(); }
                Action::Take => {
                    let Some(batch) = log.take_batch(&mut extents) else { continue };
                    prop_assert!(batch.range.start >= posted);
                    posted = batch.range.end;
                    let range = index(batch.range.start)..index(batch.range.end);
                    let part = memory.slice().subslice(range.start, range.len()).unwrap().to_vec();
                    copy[range].copy_from_slice(&part);
                    let (found, fault, scan) = records_in_ring(head, &copy);
                    prop_assert_eq!(scan.end(), batch.end);
                    let ended = matches!(fault, Fault::NoRecord { .. } | Fault::Full);
                    prop_assert!(ended, "{}", fault);
                    prop_assert_eq!(found.len(), extents.len());
                }
            }
        }
    }
}
