//! What the tests of this room share: memory for a segment, and requests.

use super::{Append, Extent, Packed, Place, Record, Request, Scan, SegmentHead, Verify};
use crate::base::{BlockNumber, BlockSize, Lsn, VolumeId};
use crate::memory::{MapOptions, Mapping, Piece};
use crate::segment::{Fault, RecordKind};

/// Memory for one segment.
pub(super) fn memory(head: &SegmentHead) -> Mapping {
    let bytes = usize::try_from(head.layout.segment_bytes()).unwrap();
    Mapping::anonymous(bytes, MapOptions::default()).expect("memory for a segment")
}

pub(super) fn request(kind: RecordKind, block: u64, blocks: u32, block_size: BlockSize) -> Request {
    Request { kind, volume: VolumeId(1), block: BlockNumber(block), blocks, block_size }
}

pub(super) fn write(block: u64, blocks: u32) -> Request {
    request(RecordKind::Write, block, blocks, BlockSize::Large)
}

/// Fills the place's payload with `byte`.
pub(super) fn fill(place: &Place, memory: &Mapping, byte: u8) {
    let range = place.payload();
    let (start, len) =
        (usize::try_from(range.start).unwrap(), usize::try_from(range.end - range.start).unwrap());
    memory.slice().write(start, &vec![byte; len]);
}

/// Reserves, fills and seals; false when there is no room.
pub(super) fn append(log: &mut Append, memory: &Mapping, request: Request, byte: u8) -> bool {
    appended(log, memory, request, byte).is_some()
}

/// The same; what the record took.
pub(super) fn appended(append: &mut Append, memory: &Mapping, request: Request, byte: u8) -> Option<Extent> {
    let place = append.reserve(request)?;
    let extent = place.extent().clone();
    fill(&place, memory, byte);
    append.seal(place, memory.slice());
    Some(extent)
}

/// The segment's file, when all records that the ring has in `memory` were written there.
pub(super) fn file(head: &SegmentHead, memory: &Mapping) -> Vec<u8> {
    file_with(head, memory, 0)
}

/// The same, with `rest` wherever no record has anything.
pub(crate) fn file_with(head: &SegmentHead, memory: &Mapping, rest: u8) -> Vec<u8> {
    let slice = memory.slice();
    let gather = |image: &mut Vec<u8>, pieces: Vec<Piece>| {
        for piece in pieces {
            match piece {
                Piece::Memory(_) => image.extend(slice.gather(&[piece])),
                Piece::Zeroes(bytes) => image.resize(image.len() + bytes, rest),
            }
        }
    };
    let mut packed = Packed::default();
    let mut scan = Scan::in_ring(*head, Lsn::MAX);
    loop {
        let Ok(next) = scan.next(&slice);
        match next {
            Ok((_, extent)) => packed.push(&extent),
            Err(_) => break,
        }
    }
    let start = scan.table_start();
    let mut image = slice.subslice(0, 4096).unwrap().to_vec();
    gather(&mut image, packed.payloads(4096..start));
    gather(&mut image, packed.table(0..scan.table_slots()));
    image
}

/// All records of a file, and what ended the scan.
pub(super) fn records(head: SegmentHead, bytes: &[u8]) -> (Vec<Record>, Fault, Scan) {
    scanned(Scan::new(head, Verify::Payloads { from: Lsn::ZERO }), bytes)
}

/// The same of a place of the ring.
pub(super) fn records_in_ring(head: SegmentHead, bytes: &[u8]) -> (Vec<Record>, Fault, Scan) {
    scanned(Scan::in_ring(head, Lsn::ZERO), bytes)
}

fn scanned(mut scan: Scan, bytes: &[u8]) -> (Vec<Record>, Fault, Scan) {
    let mut found = Vec::new();
    loop {
        let Ok(next) = scan.next(bytes);
        match next {
            Ok((record, _)) => found.push(record),
            Err(fault) => return (found, fault, scan),
        }
    }
}
