//! Which data a node lacks: of the blocks that are live now, those whose data lies in a part of the log that it does not have.
//!
//! In the order of the log, segment by segment, since that is how both nodes keep it. A block that was written ten times is there once, where
//! it was written last. It takes 24 bytes of memory for each run, so 24 for each block of what was written at random at worst.

use std::ops::Range;

use super::runs::{MapRun, MapRuns};
use crate::base::{BlockNumber, BlockSize, Lsn, VolumeId};
use crate::segment::SegmentLayout;
use crate::volume::BlockMap;

/// Blocks of a volume in order whose data follow each other in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataRun {
    /// Which volume.
    pub volume: VolumeId,
    /// The first block.
    pub block: BlockNumber,
    /// How many; at least one.
    pub count: u32,
    /// Where the first one's data is; that of the others follows it.
    pub lsn: Lsn,
    /// Bytes of each.
    pub block_size: BlockSize,
}

impl DataRun {
    /// Bytes of all.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        (self.count as u64) << self.block_size.shift()
    }

    /// The position behind the last one's data.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.lsn.plus(self.bytes())
    }

    /// The parts that `map`, the volume's of now, has where this says. The others were overwritten, and need not be moved.
    pub fn live_in<'a>(&self, map: &'a BlockMap) -> impl Iterator<Item = Self> + use<'a> {
        let (run, mut at) = (*self, 0);
        let is_live = move |at: u32| {
            let block = BlockNumber(run.block.0 + u64::from(at));
            let lsn = run.lsn.plus(u64::from(at) << run.block_size.shift());
            block.0 < map.blocks() && map.lookup(block) == Some(lsn)
        };
        std::iter::from_fn(move || {
            let first = (at..run.count).find(|at| is_live(*at))?;
            at = (first..run.count).find(|at| !is_live(*at)).unwrap_or(run.count);
            let (block, lsn) =
                (run.block.0 + u64::from(first), run.lsn.plus(u64::from(first) << run.block_size.shift()));
            Some(Self { block: BlockNumber(block), count: at - first, lsn, ..run })
        })
    }
}

/// A run, without what is the volume's.
#[derive(Debug, Clone, Copy)]
struct Lack {
    lsn: Lsn,
    block: BlockNumber,
    volume: VolumeId,
    count: u32,
}

const _: () = assert!(size_of::<Lack>() == 24);

/// What a node lacks.
#[derive(Debug)]
pub struct Plan {
    layout: SegmentLayout,
    /// By rising position.
    lacks: Vec<Lack>,
    /// By rising number.
    sizes: Vec<(VolumeId, BlockSize)>,
    bytes: u64,
}

impl Plan {
    /// Of what differs between the old maps and the new ones, where the new one's data lies in `within`. A volume without an old map is compared
    /// with an empty one.
    ///
    /// # Panics
    /// When the numbers of the volumes do not rise, or block sizes of a volume differ.
    pub fn new<'a>(
        layout: SegmentLayout,
        within: &Range<Lsn>,
        maps: impl IntoIterator<Item = (VolumeId, Option<&'a BlockMap>, &'a BlockMap)>,
    ) -> Self {
        let mut plan = Self { layout, lacks: Vec::new(), sizes: Vec::new(), bytes: 0 };
        for (volume, old, new) in maps {
            assert!(plan.sizes.last().is_none_or(|(last, _)| *last < volume), "volumes rise, at {volume}");
            plan.sizes.push((volume, new.block_size()));
            let empty = BlockMap::new(new.block_size(), 0);
            for run in MapRuns::new(volume, old.unwrap_or(&empty), new, BlockNumber(0)) {
                plan.add(&run, new.block_size(), within);
            }
        }
        plan.lacks.sort_unstable_by_key(|lack| (lack.lsn, lack.volume, lack.block));
        plan.bytes = plan.segments().map(|segment| segment.bytes()).sum();
        plan
    }

    /// Takes what of a run lies within, in pieces that each lie in one segment.
    fn add(&mut self, run: &MapRun, size: BlockSize, within: &Range<Lsn>) {
        let Some(lsn) = run.lsn else { return };
        let end = lsn.plus(run.count << size.shift());
        let before = within.start.0.saturating_sub(lsn.0).div_ceil(size.bytes());
        let mut at = before.min(run.count);
        while at < run.count {
            let lsn = lsn.plus(at << size.shift());
            if lsn >= within.end {
                return;
            }
            let stop = end.min(within.end).min(self.layout.base(lsn).plus(self.layout.segment_bytes()));
            let count = stop.since(lsn).div_ceil(size.bytes());
            let block = BlockNumber(run.block.0 + at);
            let count_small = u32::try_from(count).expect("a segment has at most 2^30 bytes");
            self.lacks.push(Lack { lsn, block, volume: run.volume, count: count_small });
            at += count;
        }
    }

    /// Bytes of data, each counted once.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is lacking.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lacks.is_empty()
    }

    /// Each segment with something that is lacking, by rising base.
    pub fn segments(&self) -> impl Iterator<Item = SegmentPlan<'_>> {
        let layout = self.layout;
        let same = move |a: &Lack, b: &Lack| layout.base(a.lsn) == layout.base(b.lsn);
        self.lacks.chunk_by(same).map(|lacks| SegmentPlan { plan: self, lacks })
    }

    /// The first segment with something that is lacking from `base` on, which is a segment's; found without a walk over those before.
    #[must_use]
    pub fn next_segment(&self, base: Lsn) -> Option<SegmentPlan<'_>> {
        let start = self.lacks.partition_point(|lack| lack.lsn < base);
        let found = self.layout.base(self.lacks.get(start)?.lsn);
        let count = self.lacks[start..].partition_point(|lack| self.layout.base(lack.lsn) == found);
        Some(SegmentPlan { plan: self, lacks: &self.lacks[start..start + count] })
    }

    /// What is lacking of the segment at `base`, if anything is.
    #[must_use]
    pub fn segment(&self, base: Lsn) -> Option<SegmentPlan<'_>> {
        self.next_segment(base).filter(|segment| segment.base() == base)
    }

    fn size(&self, volume: VolumeId) -> BlockSize {
        match self.sizes.binary_search_by_key(&volume, |(volume, _)| *volume) {
            Ok(at) => self.sizes[at].1,
            Err(_) => unreachable!("each run's volume is there"),
        }
    }
}

/// What is lacking of one segment.
#[derive(Debug, Clone, Copy)]
pub struct SegmentPlan<'a> {
    plan: &'a Plan,
    /// Not empty.
    lacks: &'a [Lack],
}

impl<'a> SegmentPlan<'a> {
    /// Where the segment begins.
    #[must_use]
    pub fn base(&self) -> Lsn {
        self.plan.layout.base(self.lacks[0].lsn)
    }

    /// The runs of blocks, by rising position.
    pub fn runs(&self) -> impl Iterator<Item = DataRun> + use<'a> {
        let Self { plan, lacks } = *self;
        lacks.iter().map(move |lack| {
            let Lack { lsn, block, volume, count } = *lack;
            DataRun { volume, block, count, lsn, block_size: plan.size(volume) }
        })
    }

    /// Their bytes in the segment, by rising offset: the longest ranges, none touching another.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + use<'a> {
        let base = self.base();
        let mut runs = self.runs().map(move |run| run.lsn.since(base)..run.end().since(base)).peekable();
        std::iter::from_fn(move || {
            let mut range = runs.next()?;
            while let Some(next) = runs.next_if(|next| next.start <= range.end) {
                range.end = range.end.max(next.end);
            }
            Some(range)
        })
    }

    /// Bytes of all ranges.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges().map(|range| range.end - range.start).sum()
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
