//! What a peer lacks and the ring's memory does not have any more, brought back from the files.

use std::ops::Range;

use super::config::OpenError;
use super::log_files::LogFiles;
use super::ring_memory::RingMemory;
use crate::base::{DatasetId, Lsn};
use crate::segment::{HEAD_BYTES, Scan, SegmentHead, SegmentLayout, Verify};

/// Every payload is compared with its checksum.
const ALL: Verify = Verify::Payloads { from: Lsn::ZERO };

/// Brings what a peer with the log to `from` lacks, and the ring's memory does not have any more, back from the files, as far as there
/// is room beside what is needed there. What lies behind a segment's last record is left out: nobody knows what it is.
///
/// # Errors
/// The disk's.
pub(super) fn bring_back(
    files: &impl LogFiles,
    dataset: DatasetId,
    memory: &RingMemory,
    from: Lsn,
    resident: &[SegmentHead],
) -> Result<Vec<SegmentHead>, OpenError> {
    let mut needed: Vec<_> = files.heads(dataset, Lsn::MAX)?.into_iter().map(|(head, _)| head).collect();
    needed.retain(|head| resident.iter().all(|known| known.base != head.base));
    needed.extend_from_slice(resident);
    needed.sort_by_key(|head| head.base);
    let first = needed.iter().rposition(|head| head.previous_end <= from).unwrap_or(needed.len());
    needed.drain(..first);
    let mut missing = Vec::new();
    for (at, head) in needed.iter().enumerate() {
        let offset = memory.offset(head.base);
        if needed[at + 1..].iter().any(|later| memory.offset(later.base) == offset) {
            return Ok(Vec::new()); // two that need one place
        }
        if resident.iter().all(|known| known.base != head.base)
            && let Some(next) = needed.get(at + 1)
        {
            missing.push((*head, next.previous_end));
        }
    }
    for (head, limit) in &missing {
        if !is_whole(files, head, *limit)? {
            return Ok(Vec::new());
        }
    }
    for (head, limit) in &missing {
        if !load_segment(files, memory, head, *limit)? {
            return Ok(Vec::new());
        }
    }
    Ok(missing.into_iter().map(|(head, _)| head).collect())
}

/// Whether the file of a segment still has all data of its records before `limit`: what a resync brought has holes where data was dead
/// already, and what was given back is one. Also of what the peer has: its file is written anew from the ring, and it replays from its own
/// checkpoint, which may lie before.
fn is_whole(files: &impl LogFiles, head: &SegmentHead, limit: Lsn) -> Result<bool, OpenError> {
    let (source, mut scan) = (files.source(head.base), Scan::new(*head, ALL));
    while scan.end() < limit {
        if scan.next(&source)?.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Puts one segment into its place, to `limit`, and nothing behind; false when it is not whole, as [`is_whole`] says it.
fn load_segment(
    files: &impl LogFiles,
    memory: &RingMemory,
    head: &SegmentHead,
    limit: Lsn,
) -> Result<bool, OpenError> {
    let place = memory.place(head.base);
    let mut buffer = vec![0; place.len()];
    files.read(head.base, 0, &mut buffer)?;
    place.fill(0, place.len(), 0);
    place.write(0, &buffer[..HEAD_BYTES]);
    let mut scan = Scan::new(*head, ALL);
    while scan.end() < limit {
        let Ok(next) = scan.next(&buffer[..]);
        let Ok((_, extent)) = next else { return Ok(false) };
        let part = |range: Range<u64>| &buffer[index(range.start)..index(range.end)];
        for (number, slot) in (0..).zip(extent.slots.clone()) {
            let bytes = part(head.layout.slots(&(slot..slot + 1)));
            place.write(index(SegmentLayout::in_ring(extent.at, number)), bytes);
        }
        place.write(index(extent.payload_in_ring().start), part(extent.payload));
    }
    Ok(true)
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("segments have at most 2^30 bytes")
}
