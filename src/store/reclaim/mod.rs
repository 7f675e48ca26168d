//! Giving the room of dead blocks back: a segment in which nothing lives is removed, one of which much is dead gets holes.
//!
//! Local to each node: no data moves, nothing crosses the wire. What lives is what the checkpointed maps have, and the marker's; what is behind the
//! checkpoint is left alone, and so is what a peer that is away could still be brought up to date with. [`plan`] decides; here is when that
//! is worth the look, what a segment's payload is, and the doing.

pub(super) mod plan;

use std::collections::BTreeMap;

use super::checkpoint::Snapshot;
use super::counters::count;
use super::engine::Engine;
use super::segment_files::SegmentFileError;
use super::volumes::{Entry, Volumes};
use crate::base::Lsn;
use plan::{Live, Punch, ReclaimSegment, Want};

/// Dead blocks are looked for when the log takes this much more than what lives: in quarters.
const SLACK_QUARTERS: u64 = 2;

/// What is known of segments from one look to the next: of those in which holes were worth a thought, how much of what was kept.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<Lsn, ReclaimSegment>);

/// Gives back what a checkpoint allows to, if that is worth the look, as it always is when the disk is full. What the `pinned` maps have is
/// kept too. `limit`: nothing behind is touched. What is left when `ends` says so is left for the next time.
///
/// # Errors
/// The disk's. What was not given back is no damage.
pub(super) fn run(
    engine: &Engine,
    snapshot: &Snapshot,
    pinned: &[&Volumes],
    limit: Lsn,
    is_full: bool,
    kept: &mut Kept,
    ends: &dyn Fn() -> bool,
) -> Result<(), SegmentFileError> {
    let layout = engine.layout();
    let bases = engine.files.list()?;
    let size = |entry: &Entry| entry.map.mapped() << entry.map.block_size().shift();
    let lives: u64 = snapshot.volumes.entries().iter().map(size).sum();
    let taken = bases.len() as u64 * layout.segment_bytes();
    if !is_full && taken <= lives / 4 * (4 + SLACK_QUARTERS) + 2 * engine.config.ring_bytes() {
        return Ok(());
    }
    let limit = limit.min(snapshot.position);
    let mut live = Live::new(layout);
    let roots = pinned.iter().copied().chain([&snapshot.volumes]);
    roots.flat_map(Volumes::entries).for_each(|entry| live.add(&entry.map));
    kept.0.retain(|base, _| bases.binary_search(base).is_ok());
    let before = bases.into_iter().filter(|base| base.plus(layout.segment_bytes()) < limit);
    let segments: Vec<_> = before.map(|base| kept.segment(engine, &live, base)).collect::<Result<_, _>>()?;
    let plan = live.plan(&segments, limit, if is_full { Want::Room } else { Want::Rest });
    let counters = &engine.shared.counters;
    for base in plan.unlink {
        if ends() {
            return Ok(());
        }
        engine.files.remove(base)?;
        engine.sums.forget(base);
        count(&counters.segments_removed, 1);
    }
    for Punch { base, ranges, kept_bytes } in plan.punch {
        // Where the file system has no holes it is not asked for the same ones again.
        if let Some(segment) = kept.0.get_mut(&base) {
            segment.kept_bytes = kept_bytes;
        }
        for range in ranges {
            if ends() {
                kept.0.remove(&base);
                return Ok(());
            }
            let bytes = range.end - range.start;
            engine.files.punch(base, range)?;
            count(&counters.punched_bytes, bytes);
        }
    }
    Ok(())
}

impl Kept {
    /// The segment at `base`, looked at if that was not done before and much of it may be dead.
    fn segment(
        &mut self,
        engine: &Engine,
        live: &Live,
        base: Lsn,
    ) -> Result<ReclaimSegment, SegmentFileError> {
        if let Some(known) = self.0.get(&base) {
            return Ok(known.clone());
        }
        let layout = engine.layout();
        let (start, all) = (layout.payload_start(), layout.segment_bytes());
        let live_bytes = live.bytes(base);
        // All of it lives, as far as this look goes.
        let unknown = ReclaimSegment { base, payload: start..start, kept_bytes: live_bytes };
        if live_bytes == 0 || live_bytes > (all - start) / 8 * 7 {
            return Ok(unknown);
        }
        let Some(head) = engine.files.head(engine.config.id, base, Lsn::MAX)? else { return Ok(unknown) };
        let Some(payload) = engine.files.payload_area(&head, live.end(base))? else { return Ok(unknown) };
        let payload_bytes = payload.end - payload.start;
        // The head and the table are never given back.
        let kept_bytes = engine.files.allocated_bytes(base)?.saturating_sub(all - payload_bytes);
        let segment = ReclaimSegment { base, payload, kept_bytes: kept_bytes.min(payload_bytes) };
        self.0.insert(base, segment.clone());
        Ok(segment)
    }
}
