//! Which parts of the segments' files nobody needs any more. Pure: it says what to give back; the caller does it.
//!
//! ```text
//!  roots ─▶ Live: the device blocks of the log that some map has ─▶ plan ─▶ segments to unlink, ranges to punch
//! ```
//!
//! Only segments that end before the limit are touched: the position of the newest checkpoint, and not beyond what both nodes have durably.
//! So replay never looks for what is given back, and no fork lies before it. Heads and tables are never punched: the table says of every
//! block that is left what its checksum is. What lies behind the last live block and before the table is given back too.
//!
//! *Roots* are all maps that somebody may read by: the checkpoint's, which a restart begins with. What a newer map has besides lies behind
//! the limit. A reader that looked a block up long ago may find it gone: it fails by its checksum, and is to look it
//! up again before it calls that damage.

use std::collections::HashMap;
use std::ops::Range;

use crate::base::Lsn;
use crate::segment::SegmentLayout;
use crate::volume::BlockMap;

/// The device blocks of the log that hold data of some map.
#[derive(Debug)]
pub(in crate::store) struct Live {
    layout: SegmentLayout,
    segments: HashMap<Lsn, Marks>,
}

/// Those of one segment.
#[derive(Debug)]
struct Marks {
    /// A bit for each device block.
    bits: Vec<u64>,
    /// Behind the last data.
    end: Lsn,
}

/// A segment as reclaim has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct ReclaimSegment {
    /// Where it begins.
    pub(in crate::store) base: Lsn,
    /// Its bytes that are neither head nor table; whole device blocks.
    pub(in crate::store) payload: Range<u64>,
    /// How much of that was not given back yet.
    pub(in crate::store) kept_bytes: u64,
}

/// Parts of a segment to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Punch {
    /// The segment.
    pub(in crate::store) base: Lsn,
    /// Whole device blocks, by rising offset, none next to another.
    pub(in crate::store) ranges: Vec<Range<u64>>,
    /// What is kept of it then.
    pub(in crate::store) kept_bytes: u64,
}

/// How much of a segment has to be dead before holes are made in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Want {
    /// Three quarters of what is kept: the dead lie in long runs then, and a hole costs a system call each.
    Rest,
    /// An eighth: the disk is full.
    Room,
}

/// What to give back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::store) struct ReclaimPlan {
    /// Segments without any live block.
    pub(in crate::store) unlink: Vec<Lsn>,
    /// Segments of which enough of what is kept is dead.
    pub(in crate::store) punch: Vec<Punch>,
}

impl Live {
    /// None.
    pub(in crate::store) fn new(layout: SegmentLayout) -> Self {
        Self { layout, segments: HashMap::new() }
    }

    /// Adds all that `root` has.
    pub(in crate::store) fn add(&mut self, root: &BlockMap) {
        let shift = root.block_size().shift();
        root.for_each_run(|_, lsn, count| self.mark(lsn, count << shift));
    }

    /// Adds the blocks from `lsn` on.
    fn mark(&mut self, mut lsn: Lsn, mut bytes: u64) {
        let block = self.layout.device_block_bytes();
        let words = index(self.layout.segment_bytes() / block).div_ceil(64);
        while bytes > 0 {
            let base = self.layout.base(lsn);
            let start = lsn.since(base);
            let count = bytes.min(self.layout.segment_bytes() - start);
            let marks =
                self.segments.entry(base).or_insert_with(|| Marks { bits: vec![0; words], end: base });
            for at in index(start / block)..index((start + count).div_ceil(block)) {
                marks.bits[at / 64] |= 1 << (at % 64);
            }
            (lsn, bytes) = (lsn.plus(count), bytes - count);
            marks.end = marks.end.max(lsn);
        }
    }

    /// Bytes of device blocks with data in the segment at `base`.
    pub(in crate::store) fn bytes(&self, base: Lsn) -> u64 {
        let bits = self.segments.get(&base).into_iter().flat_map(|marks| &marks.bits);
        bits.map(|word| u64::from(word.count_ones())).sum::<u64>() * self.layout.device_block_bytes()
    }

    /// Behind the last data of the segment at `base`; where it begins when there is none.
    pub(in crate::store) fn end(&self, base: Lsn) -> Lsn {
        self.segments.get(&base).map_or(base, |marks| marks.end)
    }

    /// Ranges of `within`, whole device blocks of the segment at `base`, without data.
    fn dead(&self, base: Lsn, within: &Range<u64>) -> Vec<Range<u64>> {
        let block = self.layout.device_block_bytes();
        let bits = self.segments.get(&base).map(|marks| &marks.bits);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for start in within.clone().step_by(index(block)) {
            let at = index(start / block);
            if bits.is_some_and(|bits| bits[at / 64] >> (at % 64) & 1 == 1) {
                continue;
            }
            match ranges.last_mut().filter(|last| last.end == start) {
                Some(last) => last.end += block,
                None => ranges.push(start..start + block),
            }
        }
        ranges
    }

    /// What of `segments` to give back when everything that a restart needs of the log lies at `limit` or behind it.
    /// What has no live block is given back in any case.
    ///
    /// # Panics
    /// When a segment's payload is not of whole device blocks of a segment, behind the head's.
    pub(in crate::store) fn plan(&self, segments: &[ReclaimSegment], limit: Lsn, want: Want) -> ReclaimPlan {
        let layout = self.layout;
        let (block, all) = (layout.device_block_bytes(), layout.segment_bytes());
        let mut plan = ReclaimPlan::default();
        for ReclaimSegment { base, payload, kept_bytes } in segments {
            assert!(
                layout.payload_start() <= payload.start
                    && payload.start <= payload.end
                    && payload.end <= all
                    && payload.start.is_multiple_of(block)
                    && payload.end.is_multiple_of(block),
                "payloads at {payload:?} of a segment of {all} bytes"
            );
            // The one with the limit's position is looked for by replay, even when nothing in it counts.
            if base.plus(all) >= limit {
                continue;
            }
            let live = self.bytes(*base);
            if live == 0 {
                plan.unlink.push(*base);
                continue;
            }
            let dead = kept_bytes.saturating_sub(live);
            if dead > 0 && dead >= want.least_dead(*kept_bytes) {
                let ranges = self.dead(*base, payload);
                if !ranges.is_empty() {
                    plan.punch.push(Punch { base: *base, ranges, kept_bytes: live });
                }
            }
        }
        plan
    }
}

impl Want {
    /// Of so many bytes that are kept.
    const fn least_dead(self, kept_bytes: u64) -> u64 {
        match self {
            Self::Rest => kept_bytes / 4 * 3,
            Self::Room => kept_bytes / 8,
        }
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("segments have at most 2^30 bytes")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::base::{BlockNumber, BlockSize};
    use crate::sim::Random;

    const SEGMENT_BYTES: u64 = 1 << 16;
    const TABLE: u64 = 8192;

    fn layout() -> SegmentLayout {
        SegmentLayout::new(SEGMENT_BYTES, 4096).unwrap()
    }

    fn segment(number: u64) -> ReclaimSegment {
        let payload = 4096..SEGMENT_BYTES - TABLE;
        ReclaimSegment { base: Lsn(number * SEGMENT_BYTES), kept_bytes: payload.end - payload.start, payload }
    }

    /// A log of random writes to two volumes, one in small blocks, and where it ends.
    fn history(seed: u64) -> ([BlockMap; 2], Vec<BlockMap>, Lsn) {
        let mut random = Random::new(seed);
        let mut maps =
            [(BlockSize::Small, 500), (BlockSize::Large, 90)].map(|(size, n)| BlockMap::new(size, n));
        let (mut end, mut pinned) = (Lsn(SEGMENT_BYTES + 4096), Vec::new());
        for step in 0..200 + random.below(400) {
            let map = &mut maps[usize::try_from(random.below(2)).unwrap()];
            let (bytes, count) = (map.block_size().bytes(), 1 + random.below(6));
            let block = BlockNumber(random.below(map.blocks() - count));
            let mut lsn = Lsn(end.0.next_multiple_of(bytes));
            let base = layout().base(lsn);
            if lsn.since(base) + count * bytes > SEGMENT_BYTES - TABLE {
                lsn = base.plus(SEGMENT_BYTES + 4096);
            }
            if random.chance(80) {
                map.write(block, count, lsn);
                end = lsn.plus(count * bytes);
            } else {
                map.trim(block, count, lsn);
                end = lsn.plus(512);
            }
            if step % 150 == 149 {
                pinned.push(maps[1].clone());
            }
        }
        (maps, pinned, end)
    }

    #[test]
    fn no_live_block_is_ever_given_back() {
        let (mut unlinked, mut punched) = (0, 0);
        for seed in 0..60 {
            let (maps, pinned, end) = history(seed);
            let roots: Vec<_> = maps.iter().chain(pinned.iter().filter(|_| seed % 2 == 0)).collect();
            let mut live = Live::new(layout());
            roots.iter().for_each(|root| live.add(root));
            // The model: each step of the log that some root has.
            let mut steps = HashSet::new();
            for root in &roots {
                let each = root.block_size().bytes() / 512;
                let lsns = (0..root.blocks()).filter_map(|block| root.lookup(BlockNumber(block)));
                lsns.for_each(|lsn| steps.extend((0..each).map(|step| lsn.0 / 512 + step)));
            }
            let is_live =
                |range: Range<u64>| (range.start / 512..range.end / 512).any(|step| steps.contains(&step));
            let segments: Vec<_> = (1..=end.0 / SEGMENT_BYTES).map(segment).collect();
            let limit = Lsn(end.0 - end.0 / 4);
            let want = if seed % 3 == 0 { Want::Rest } else { Want::Room };
            let plan = live.plan(&segments, limit, want);
            for base in &plan.unlink {
                assert!(!is_live(base.0..base.0 + SEGMENT_BYTES) && base.0 + SEGMENT_BYTES < limit.0);
            }
            for punch in &plan.punch {
                assert!(punch.base.0 + SEGMENT_BYTES < limit.0);
                let bytes: u64 = punch.ranges.iter().map(|range| range.end - range.start).sum();
                assert_eq!(bytes + punch.kept_bytes, SEGMENT_BYTES - TABLE - 4096, "all that is dead");
                let all = bytes + punch.kept_bytes;
                assert!(bytes >= want.least_dead(all) && punch.ranges.is_sorted_by(|a, b| a.end < b.start));
                for range in &punch.ranges {
                    assert!(range.start >= 4096 && range.end <= SEGMENT_BYTES - TABLE);
                    assert!(!is_live(punch.base.0 + range.start..punch.base.0 + range.end), "seed {seed}");
                }
            }
            // Nothing that should be given back is left.
            for segment in segments.iter().filter(|segment| segment.base.0 + SEGMENT_BYTES < limit.0) {
                let base = segment.base;
                let live_end = steps.iter().filter(|step| layout().base(Lsn(**step * 512)) == base).max();
                assert_eq!(live.end(base), live_end.map_or(base, |step| Lsn(step * 512 + 512)));
                if !is_live(base.0..base.0 + SEGMENT_BYTES) {
                    assert!(plan.unlink.contains(&base));
                } else if segment.kept_bytes - live.bytes(base) >= want.least_dead(segment.kept_bytes) {
                    assert!(plan.punch.iter().any(|punch| punch.base == base));
                }
            }
            unlinked += plan.unlink.len();
            punched += plan.punch.len();
        }
        assert!(unlinked > 20 && punched > 20, "{unlinked} unlinked, {punched} punched are no test");
    }

    #[test]
    fn what_was_given_back_is_not_asked_for_again() {
        let mut map = BlockMap::new(BlockSize::Large, 10);
        map.write(BlockNumber(0), 3, Lsn(SEGMENT_BYTES + 8192));
        let mut live = Live::new(layout());
        live.add(&map);
        let mut one = segment(1);
        let limit = Lsn(10 * SEGMENT_BYTES);
        let plan = live.plan(&[one.clone()], limit, Want::Room);
        let ranges = vec![4096..8192, 20480..SEGMENT_BYTES - TABLE];
        let punch = Punch { base: one.base, ranges, kept_bytes: 12288 };
        assert_eq!(plan, ReclaimPlan { unlink: Vec::new(), punch: vec![punch] });
        one.kept_bytes = 12288;
        assert_eq!(live.plan(&[one.clone()], limit, Want::Room), ReclaimPlan::default());
        for limit in [Lsn(0), Lsn(SEGMENT_BYTES + 4096), Lsn(2 * SEGMENT_BYTES)] {
            assert_eq!(
                live.plan(&[segment(1), segment(2)], limit, Want::Room),
                ReclaimPlan::default(),
                "{limit}"
            );
        }
        let none = Live::new(layout());
        assert_eq!(
            none.plan(&[one, segment(2)], limit, Want::Room).unlink,
            [Lsn(SEGMENT_BYTES), Lsn(2 * SEGMENT_BYTES)]
        );
    }
}
