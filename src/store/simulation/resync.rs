//! A resync as pure steps: the maps' difference in frames, the plan, the pieces of segments under their own positions.

use super::node::Node;
use super::world::BLOCKS;
use super::{DATASET, Defect, layout};
use crate::base::{BlockNumber, BlockSize, Lsn};
use crate::replica::{Cursor, FRAME_BYTES_MIN, Plan, SegmentPlan, decode_runs, frame};
use crate::segment::{Scan, SegmentHead, Verify};
use crate::sim::Random;
use crate::store::SegmentFileError;
use crate::store::log_files::LogFiles;
use crate::store::volumes::{Entry, Volumes};
use crate::volume::BlockMap;

/// Brings `to`, which has the log to `end`, the data of all that `from` has to `position`. The new maps, once all data is there and synced.
pub(super) fn go_over(
    from: &mut Node,
    to: &mut Node,
    (end, position): (Lsn, Lsn),
    random: &mut Random,
    defect: Defect,
) -> Result<Volumes, SegmentFileError> {
    let now = from.up().volumes.clone();
    let since = Some(&from.marker).filter(|marker| marker.position <= end);
    let volumes = maps(
        &now,
        since.map(|marker| &marker.volumes),
        to,
        since.map_or(Lsn::ZERO, |m| m.position),
        random,
        position,
    );
    assert_eq!(volumes.entries()[0].map.digest(), now.entries()[0].map.digest(), "the maps at {position}");
    let old = to.up().volumes.clone();
    let start = if defect == Defect::PlansLate { end.plus(4096) } else { Lsn::ZERO };
    let each =
        volumes.entries().iter().map(|entry| (entry.id, old.get(entry.id).map(|old| &old.map), &entry.map));
    let plan = Plan::new(layout(), &(start..position), each);
    if let Some(marker) = since {
        let each = now.entries().iter();
        let each = each.map(|entry| (entry.id, marker.volumes.get(entry.id).map(|old| &old.map), &entry.map));
        let bound = Plan::new(layout(), &(marker.position..position), each);
        assert!(
            plan.bytes() <= bound.bytes(),
            "{} bytes are lacking, at most {}",
            plan.bytes(),
            bound.bytes()
        );
    }
    let heads: Vec<SegmentHead> =
        from.files.heads(DATASET, Lsn::MAX)?.into_iter().map(|(head, _)| head).collect();
    let mut synced = Vec::new();
    // The last one is looked for by a start, even when nothing in it lives; not one behind the log's end, which is void.
    let mut bases: std::collections::BTreeSet<_> = plan.segments().map(|segment| segment.base()).collect();
    bases.extend(heads.iter().filter(|head| head.previous_end < position).map(|head| head.base).next_back());
    // Of what is void here nothing may stay that the primary does not have: without the note it would count again.
    let streamed = from.primary().expect("it serves").log.head().base;
    for base in to.files.list()?.into_iter().filter(|base| *base >= end && *base != streamed) {
        if !bases.contains(&base) {
            to.files.remove(base)?;
        }
    }
    for base in bases {
        let segment = plan.segment(base);
        let head = heads.iter().find(|head| head.base == base).expect("what lives has a head");
        if !to.files.exists(base) {
            to.files.create(base)?;
        }
        // Head and table go with the data, so that it can be told from damage.
        let (source, mut scan) = (from.files.source(base), Scan::new(*head, Verify::Slots));
        while scan.next(&source).expect("a simulated disk reads").is_ok() {}
        let table = scan.table_start()..layout().segment_bytes();
        for range in segment.iter().flat_map(SegmentPlan::ranges).map(device_blocks).chain([table, 0..4096]) {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).expect("small")];
            from.files.read(base, range.start, &mut bytes).expect("a simulated disk reads");
            to.files.write_bytes(base.0, range.start, &bytes)?;
        }
        synced.push(base);
    }
    to.files.sync(&synced)?;
    Ok(volumes)
}

/// Sectors that hold the range.
fn device_blocks(range: std::ops::Range<u64>) -> std::ops::Range<u64> {
    range.start - range.start % 512..range.end.next_multiple_of(512)
}

/// The maps as they come: in frames of any size, on what the node has without what came since.
fn maps(
    now: &Volumes,
    marker: Option<&Volumes>,
    to: &mut Node,
    since: Lsn,
    random: &mut Random,
    position: Lsn,
) -> Volumes {
    let mut entries: Vec<Entry> = now.entries().to_vec();
    for entry in &mut entries {
        let old = to.up().volumes.get(entry.id).map(|old| old.map.clone());
        entry.map = BlockMap::new(BlockSize::Small, BLOCKS);
        if let Some(old) = old {
            let kept = (0..BLOCKS).map(BlockNumber).filter_map(|block| Some((block, old.lookup(block)?)));
            kept.filter(|(_, lsn)| *lsn < since).for_each(|(block, lsn)| entry.map.write(block, 1, lsn));
        }
    }
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        let bytes_max = FRAME_BYTES_MIN + usize::try_from(random.below(100)).expect("small");
        let pairs = now.entries().iter();
        let pairs = pairs.map(|entry| {
            (entry.id, marker.and_then(|marker| marker.get(entry.id)).map(|old| &old.map), &entry.map)
        });
        let (bytes, next) = frame(pairs, cursor, bytes_max);
        for run in decode_runs(&bytes).expect("it was just made") {
            let entry = entries.iter_mut().find(|entry| entry.id == run.volume).expect("it is there");
            run.apply(&mut entry.map, position).expect("it fits");
        }
        from = next;
    }
    Volumes::restore(entries, now.next())
}
