//! A scan finds what is there, names what is not, and is fooled by nothing.

use super::super::head::tests::sample;
use super::super::testing::{append, file, memory, records, request, write};
use super::*;
use crate::base::BlockSize;
use crate::segment::RecordKind;
use crate::segment::{Append, Salt};

/// Four records of 1, 6, 0 and 1 payload blocks with a flush before the last, which knows the first to be durable.
fn written() -> (SegmentHead, Vec<u8>, [Lsn; 4]) {
    let head = sample();
    let (memory, mut log) = (memory(&head), Append::new(head));
    let mut ends = Vec::new();
    for (number, wanted) in
        [write(1, 1), write(2, 6), request(RecordKind::Trim, 3, 1, BlockSize::Small), write(4, 1)]
            .into_iter()
            .enumerate()
    {
        if number == 3 {
            log.pad();
            log.set_durable(ends[0]);
        }
        assert!(append(&mut log, &memory, wanted, 1 + u8::try_from(number).unwrap()));
        ends.push(log.end());
    }
    (head, file(&head, &memory), ends.try_into().unwrap())
}

#[test]
fn records_come_back_as_they_were() {
    let (head, bytes, ends) = written();
    let (found, fault, scan) = records(head, &bytes);
    assert_eq!(found.iter().map(Record::end).collect::<Vec<_>>(), ends);
    assert_eq!(found.iter().map(|record| record.block.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(found[3].durable, ends[0]);
    assert_eq!((fault, scan.records()), (Fault::NoRecord { slot: 65 }, 4));
}

/// Flips each bit of all that is written in turn: never is a changed record found, nor one behind it.
#[test]
fn every_flipped_bit_ends_the_scan_at_its_record() {
    let (head, bytes, ends) = written();
    let whole = records(head, &bytes).0;
    let slots = [(0, 0), (1, 1), (1, 2), (2, 3), (3, 64)];
    let bits_of_slots = slots.iter().flat_map(|(record, slot)| {
        let start = 65536 - 64 * (slot + 1);
        (start * 8..(start + 64) * 8).map(move |bit| (*record, bit))
    });
    let bits_of_payloads = (4096..8 * 4096).step_by(97).map(|byte| (usize::from(byte >= 8192), byte * 8 + 3));
    for (record, bit) in bits_of_slots.chain(bits_of_payloads) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (found, fault, scan) = records(head, &damaged);
        assert_eq!(found, whole[..record], "bit {bit}: {fault}");
        assert_eq!(scan.end(), if record == 0 { head.previous_end } else { ends[record - 1] });
        if bit / 8 < 8 * 4096 {
            let Fault::Payload { range, .. } = fault else { panic!("bit {bit}: {fault}") };
            assert!(range.contains(&(bit as u64 / 8)), "the very block is named: {range:?}");
        }
    }
}

#[test]
fn a_later_record_tells_that_an_earlier_one_was_durable() {
    let (head, mut bytes, ends) = written();
    bytes[65536 - 64] ^= 1;
    let (found, _, scan) = records(head, &bytes);
    let Ok(durable) = scan.durable_behind(&bytes[..]);
    assert_eq!((found.len(), durable), (0, Some(ends[0])));
    // Of the last record nobody knows: it may never have been written.
    let (head, mut bytes, _) = written();
    bytes[65536 - 64 * 65] ^= 1;
    let (found, _, scan) = records(head, &bytes);
    let Ok(durable) = scan.durable_behind(&bytes[..]);
    assert_eq!((found.len(), durable), (3, None));
}

#[test]
fn what_an_earlier_segment_left_is_nothing() {
    let (head, bytes, _) = written();
    for stranger in [
        SegmentHead { salt: Salt([9; 16]), ..head },
        SegmentHead { base: head.base.plus(head.layout.segment_bytes()), ..head },
    ] {
        let (found, fault, scan) = records(stranger, &bytes);
        assert_eq!((found.len(), fault), (0, Fault::NoRecord { slot: 0 }));
        let Ok(durable) = scan.durable_behind(&bytes[..]);
        assert_eq!(durable, None);
    }
}

#[test]
fn slots_in_payloads_are_no_records() {
    let (head, bytes, _) = written();
    let (memory, mut log) = (memory(&head), Append::new(head));
    let place = log.reserve(write(0, 1)).unwrap();
    // The very table of this segment, as a client's data.
    memory.slice().write(usize::try_from(place.payload().start).unwrap(), &bytes[65536 - 4096..]);
    log.seal(place, memory.slice());
    assert_eq!(records(head, &file(&head, &memory)).0.len(), 1);
}

#[test]
fn a_scan_goes_on_when_more_has_come() {
    let head = sample();
    let (memory, mut log) = (memory(&head), Append::new(head));
    let mut scan = Scan::in_ring(head, Lsn::ZERO);
    for round in 0..5 {
        let Ok(none) = scan.next(&memory.slice());
        assert!(matches!(none, Err(Fault::NoRecord { .. })));
        assert!(append(&mut log, &memory, write(round, 1), 1));
        let Ok(found) = scan.next(&memory.slice());
        assert_eq!(found.unwrap().0.block.0, round);
    }
}
