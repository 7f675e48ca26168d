//! Giving the room of dead blocks back: a segment in which nothing lives is removed, one of which much is dead gets holes.
//!
//! Local to each node: no data moves, nothing crosses the wire. What lives is what the checkpointed maps have; what is behind the
//! checkpoint is left alone, and so is what a peer that is away could still be brought up to date with.

use std::collections::BTreeMap;
use std::ops::Range;

use super::checkpoint::Snapshot;
use super::counters::count;
use super::engine::Engine;
use super::volumes::Volumes;
use crate::base::{BlockNumber, Lsn};
use crate::segment::SegmentLayout;

/// Dead blocks are looked for when the log takes this much more than what lives: in quarters.
const SLACK_QUARTERS: u64 = 2;
/// Holes are punched into a segment of which at most so many of four quarters live.
const LIVE_QUARTERS_MAX: u64 = 2;
/// The unit in which room is given back.
const UNIT_SHIFT: u32 = 12;

/// What lives in one segment: a bit for each unit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Live {
    bits: Vec<u64>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing in it lives.
    Remove(Lsn),
    /// These of its bytes are dead.
    Punch(Lsn, Vec<Range<u64>>),
}

/// What can be given back of the segments `bases`, which lie wholly before `limit` or in part; `last` segments are kept whatever is in
/// them. `punched` knows how much lived in a segment when holes were made, so that it is not done again for little.
pub(super) fn plan(
    layout: SegmentLayout,
    volumes: &Volumes,
    bases: &[Lsn],
    limit: Lsn,
    punched: &mut BTreeMap<Lsn, u64>,
) -> Vec<Action> {
    let segment = layout.segment_bytes();
    let candidates = bases.iter().filter(|base| base.plus(segment) <= limit);
    let units = segment >> UNIT_SHIFT;
    let words = usize::try_from(units.div_ceil(64)).expect("at most 2^18 units");
    let mut live: BTreeMap<Lsn, Live> =
        candidates.map(|base| (*base, Live { bits: vec![0; words] })).collect();
    for entry in volumes.entries() {
        mark(&mut live, layout, &entry.map);
    }
    punched.retain(|base, _| live.contains_key(base));
    let mut actions = Vec::new();
    for (base, live) in live {
        let count = live.count();
        if count == 0 {
            punched.remove(&base);
            actions.push(Action::Remove(base));
            continue;
        }
        let before = punched.get(&base).copied().unwrap_or(units);
        if count * 4 <= units * LIVE_QUARTERS_MAX && before - count.min(before) >= units / 4 {
            let dead = live.dead(layout);
            if !dead.is_empty() {
                punched.insert(base, count);
                actions.push(Action::Punch(base, dead));
            }
        }
    }
    actions
}

fn mark(live: &mut BTreeMap<Lsn, Live>, layout: SegmentLayout, map: &crate::volume::BlockMap) {
    let (mut block, blocks) = (0, map.blocks());
    while block < blocks {
        let run = map.run(BlockNumber(block), blocks - block);
        if let Some(lsn) = run.lsn {
            let base = layout.base(lsn);
            if let Some(live) = live.get_mut(&base) {
                let start = lsn.since(base);
                live.set(start..start + (run.blocks << map.block_size().shift()));
            }
        }
        block += run.blocks;
    }
}

impl Live {
    fn set(&mut self, bytes: Range<u64>) {
        for unit in bytes.start >> UNIT_SHIFT..((bytes.end - 1) >> UNIT_SHIFT) + 1 {
            self.bits[index(unit / 64)] |= 1 << (unit % 64);
        }
    }

    fn has(&self, unit: u64) -> bool {
        self.bits[index(unit / 64)] & 1 << (unit % 64) != 0
    }

    fn count(&self) -> u64 {
        self.bits.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Ranges of payload in which nothing lives, so far as they lie before the last that does: what is behind may be the table.
    fn dead(&self, layout: SegmentLayout) -> Vec<Range<u64>> {
        let first = layout.payload_start().next_multiple_of(1 << UNIT_SHIFT) >> UNIT_SHIFT;
        let last = (0..self.bits.len() as u64 * 64).rev().find(|unit| self.has(*unit)).unwrap_or(first);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for unit in (first..last).filter(|unit| !self.has(*unit)) {
            let bytes = unit << UNIT_SHIFT..(unit + 1) << UNIT_SHIFT;
            match ranges.last_mut().filter(|last| last.end == bytes.start) {
                Some(last) => last.end = bytes.end,
                None => ranges.push(bytes),
            }
        }
        ranges
    }
}

fn index(count: u64) -> usize {
    usize::try_from(count).expect("at most 2^18 units")
}

/// Gives back what a checkpoint allows to, if that is worth the look. `limit`: nothing behind is touched.
pub(super) fn run(
    engine: &Engine,
    snapshot: &Snapshot,
    limit: Lsn,
    punched: &mut BTreeMap<Lsn, u64>,
) -> Result<(), super::segment_files::SegmentFileError> {
    let layout = engine.layout();
    let mut bases = engine.files.list()?;
    // The newest has the position from which replay goes on.
    bases.pop();
    let size = |entry: &super::volumes::Entry| entry.map.mapped() << entry.map.block_size().shift();
    let live: u64 = snapshot.volumes.entries().iter().map(size).sum();
    let taken = bases.len() as u64 * layout.segment_bytes();
    if taken <= live / 4 * (4 + SLACK_QUARTERS) + 2 * engine.config.ring_bytes() {
        return Ok(());
    }
    let counters = &engine.shared.counters;
    for action in plan(layout, &snapshot.volumes, &bases, limit.min(snapshot.position), punched) {
        match action {
            Action::Remove(base) => {
                engine.files.remove(base)?;
                engine.sums.forget(base);
                count(&counters.segments_removed, 1);
            }
            Action::Punch(base, ranges) => {
                for range in ranges {
                    count(&counters.punched_bytes, range.end - range.start);
                    engine.files.punch(base, range)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockSize, VolumeId};
    use crate::store::volumes::Entry;
    use crate::volume::BlockMap;

    #[test]
    fn nothing_that_lives_is_given_back() {
        let layout = SegmentLayout::new(1 << 16, 4096).unwrap();
        let base = |number: u64| Lsn(number << 16);
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let small = next(2) == 0;
            let (size, per_unit) = if small { (BlockSize::Small, 8) } else { (BlockSize::Large, 1) };
            let mut map = BlockMap::new(size, 64);
            for _ in 0..next(60) {
                let unit = 1 + next(13);
                let lsn = base(4 + next(6)).plus(unit * 4096 + next(per_unit) * 512);
                map.write(BlockNumber(next(64)), 1, lsn);
            }
            let entry = Entry { id: VolumeId(0), name: "v".into(), map: map.clone() };
            let volumes = Volumes::restore(vec![entry], 1);
            let bases: Vec<_> = (4..10).map(base).collect();
            let limit = base(9);
            let actions = plan(layout, &volumes, &bases, limit, &mut BTreeMap::new());
            for block in 0..64 {
                let Some(lsn) = map.lookup(BlockNumber(block)) else { continue };
                for action in &actions {
                    match action {
                        Action::Remove(base) => assert_ne!(*base, layout.base(lsn)),
                        Action::Punch(base, ranges) if *base == layout.base(lsn) => {
                            let at = lsn.since(*base);
                            let end = at + size.bytes();
                            assert!(
                                ranges.iter().all(|range| end <= range.start || range.end <= at),
                                "{lsn}"
                            );
                        }
                        Action::Punch(..) => {}
                    }
                }
            }
            for action in &actions {
                match action {
                    Action::Remove(base) => assert!(base.plus(1 << 16) <= limit),
                    Action::Punch(base, ranges) => {
                        assert!(base.plus(1 << 16) <= limit && !ranges.is_empty());
                        assert!(ranges.iter().all(|range| range.start >= 4096), "the head stays");
                    }
                }
            }
        }
    }
}
