//! What the tests of this room share: memory for a segment, and requests.

use super::{Append, Place, Record, Request, Scan, SegmentHead, Verify};
use crate::base::{BlockNumber, BlockSize, Lsn, VolumeId};
use crate::memory::{MapOptions, Mapping};
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

/// Reserves, fills and seals.
pub(super) fn append(append: &mut Append, memory: &Mapping, request: Request, byte: u8) -> bool {
    let Some(place) = append.reserve(request) else { return false };
    fill(&place, memory, byte);
    append.seal(place, memory.slice());
    true
}

/// All records, and what ended the scan.
pub(super) fn records(head: SegmentHead, bytes: &[u8]) -> (Vec<Record>, Fault, Scan) {
    let mut scan = Scan::new(head, Verify::Payloads { from: Lsn::ZERO });
    let mut found = Vec::new();
    loop {
        let Ok(next) = scan.next(bytes);
        match next {
            Ok((record, _)) => found.push(record),
            Err(fault) => return (found, fault, scan),
        }
    }
}
