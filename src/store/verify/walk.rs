//! The walk of a comparison: piece by piece, and down to blocks where two pieces differ.

use super::{Compared, Verified, compare, told};
use crate::base::clock::Instant;
use crate::base::{BlockSize, Lsn, VolumeId};
use crate::store::config::CommandError;
use crate::store::counters::count;
use crate::store::health::Seen;
use crate::store::mend::Broken;
use crate::store::pair::Pair;
use crate::store::pair::compare::DETAIL_BLOCKS_MAX;
use crate::store::peer::PeerError;
use crate::store::ranges::{Outcome, Ranges, Side};
use crate::store::stored::{BlockLook, BlockState};

/// Blocks with data in a piece.
const PIECE_BLOCKS: u64 = 1024;
/// Ranges that wait to be looked at again at most.
const AGAIN_MAX: usize = 4096;
/// How often they are.
const ROUNDS: u32 = 10;
/// Differences that one comparison mends at most; the next mends more.
const DIFFERENCES_MAX: usize = 1 << 16;

/// Blocks of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    volume: VolumeId,
    first: u64,
    count: u64,
}

/// Blocks that are not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Difference {
    span: Span,
    side: Side,
    /// Where the blocks' data begins here.
    lsn: Lsn,
    size: BlockSize,
}

/// A comparison under way.
pub(super) struct Walk<'a> {
    pair: &'a Pair,
    pass: u64,
    seen: Seen,
    found: Verified,
    differences: Vec<Difference>,
    again: Vec<Span>,
    /// Blocks that found no place in `again`.
    dropped: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(pair: &'a Pair, pass: u64, volumes: u64) -> Self {
        Self {
            pair,
            pass,
            seen: Seen::new(),
            found: Verified { volumes, ..Verified::default() },
            differences: Vec::new(),
            again: Vec::new(),
            dropped: 0,
        }
    }

    /// Compares the piece from `block` on; where it ended and how many bytes it has. `None` behind the volume's end.
    pub(super) fn piece(&mut self, volume: VolumeId, block: u64) -> Result<Option<(u64, u64)>, CommandError> {
        let engine = &self.pair.engine;
        let Some(look) = engine.look(volume).filter(|look| block < look.entry.map.blocks()) else {
            return Ok(None);
        };
        let ours = engine.digest(&look, block..look.entry.map.blocks(), PIECE_BLOCKS, &mut self.seen);
        self.found.bytes += ours.bytes;
        let span = Span { volume, first: block, count: ours.end - block };
        let peer = &engine.health.peer;
        let theirs = peer.digest(self.pass, volume, span.first, span.count).map_err(|error| told(&error))?;
        if !ours.agrees(&theirs) {
            self.narrow(span)?;
        }
        Ok(Some((ours.end, ours.bytes)))
    }

    /// Comes down to blocks.
    fn narrow(&mut self, span: Span) -> Result<(), CommandError> {
        let mut stack = vec![span];
        while let Some(Span { volume, first, count }) = stack.pop() {
            if count <= DETAIL_BLOCKS_MAX {
                self.detail(Span { volume, first, count }, false)?;
                continue;
            }
            let half = count / 2;
            // The first half is looked at first.
            for (first, count) in [(first + half, count - half), (first, half)] {
                let engine = &self.pair.engine;
                let Some(look) = engine.look(volume) else { return Ok(()) };
                let ours = engine.digest(&look, first..first + count, u64::MAX, &mut self.seen);
                let theirs = engine.health.peer.digest(self.pass, volume, first, count);
                if !ours.agrees(&theirs.map_err(|error| told(&error))?) {
                    stack.push(Span { volume, first, count });
                }
            }
        }
        Ok(())
    }

    /// Compares block by block. `last`: what has changed meanwhile is not looked at again.
    fn detail(&mut self, span: Span, last: bool) -> Result<(), CommandError> {
        let Span { volume, first, count } = span;
        let engine = &self.pair.engine;
        let theirs =
            engine.health.peer.detail(self.pass, volume, first, count).map_err(|error| told(&error))?;
        let Some(look) = engine.look(volume) else { return Ok(()) };
        let ours = engine.detail(&look, first..first + count, &mut self.seen);
        let size = look.entry.map.block_size();
        for ((block, ours), theirs) in (first..).zip(&ours).zip(&theirs) {
            let side = match compare(ours, theirs) {
                Compared::Equal => continue,
                Compared::Moving if !last => {
                    self.put_off(volume, block);
                    continue;
                }
                Compared::Moving if is_settled(ours) && is_settled(theirs) && self.pair.is_idle() => {
                    Side::Maps
                }
                Compared::Moving => {
                    self.found.moving_blocks += 1;
                    continue;
                }
                Compared::Bad(side) => side,
            };
            self.differ(Span { volume, first: block, count: 1 }, side, Lsn(ours.lsn), size);
        }
        Ok(())
    }

    fn put_off(&mut self, volume: VolumeId, block: u64) {
        let follows = |last: &&mut Span| {
            last.volume == volume && last.first + last.count == block && last.count < DETAIL_BLOCKS_MAX
        };
        let is_full = self.again.len() == AGAIN_MAX;
        match self.again.last_mut().filter(follows) {
            Some(last) => last.count += 1,
            None if is_full => self.dropped += 1,
            None => self.again.push(Span { volume, first: block, count: 1 }),
        }
    }

    fn differ(&mut self, span: Span, side: Side, lsn: Lsn, size: BlockSize) {
        self.found.differing_blocks += span.count;
        let layout = self.pair.engine.layout();
        let follows = |last: &&mut Difference| {
            last.span.volume == span.volume
                && last.span.first + last.span.count == span.first
                && last.span.count < DETAIL_BLOCKS_MAX
                && last.side == side
                && last.lsn.0 + (last.span.count << size.shift()) == lsn.0
                && layout.base(last.lsn) == layout.base(lsn)
        };
        let is_full = self.differences.len() == DIFFERENCES_MAX;
        match self.differences.last_mut().filter(follows) {
            Some(last) => last.span.count += span.count,
            None if is_full => {}
            None => self.differences.push(Difference { span, side, lsn, size }),
        }
    }

    /// Looks at what had changed meanwhile, when both nodes have become durable.
    pub(super) fn look_again(&mut self) -> Result<(), CommandError> {
        for round in 1..=ROUNDS {
            if self.again.is_empty() {
                break;
            }
            self.pair.settle();
            for span in std::mem::take(&mut self.again) {
                self.detail(span, round == ROUNDS)?;
                self.pair.engine.check_running()?;
            }
        }
        self.found.moving_blocks += self.dropped;
        self.differences.sort_by_key(|difference| (difference.span.volume, difference.span.first));
        Ok(())
    }

    /// Mends each difference on the side that is bad; of each whether it is the same and good on both now. When the peer does not answer, or this node
    /// ends, the rest stays as it is.
    pub(super) fn repair(&mut self) -> Vec<Outcome> {
        let broken: Vec<_> = self
            .differences
            .iter()
            .filter(|difference| difference.side == Side::Here)
            .map(|Difference { span, lsn, size, .. }| Broken {
                volume: span.volume,
                first: span.first,
                lsn: *lsn,
                size: *size,
                blocks: span.count,
            })
            .collect();
        self.pair.mend_all(&broken);
        let engine = &self.pair.engine;
        let peer = &engine.health.peer;
        let (mut outcomes, mut ends) = (Vec::new(), false);
        for Difference { span, side, .. } in self.differences.clone() {
            ends = ends || engine.check_running().is_err();
            let began = Instant::now();
            outcomes.push(match side {
                Side::Both => Outcome::Unrecoverable,
                Side::Neither | Side::Maps => Outcome::Unrepaired,
                Side::Here | Side::Peer if ends => Outcome::Unrepaired,
                Side::Here | Side::Peer => {
                    let asked = match side {
                        Side::Peer => peer.mend(span.volume, span.first, span.count),
                        Side::Here | Side::Both | Side::Neither | Side::Maps => Ok(()),
                    };
                    // What was found is told, whatever becomes of the peer.
                    match asked.and_then(|()| self.is_whole(span)) {
                        Ok(true) => Outcome::Repaired,
                        Ok(false) => Outcome::Unrepaired,
                        Err(_) => {
                            ends = peer.is_silent_since(began);
                            Outcome::Unrepaired
                        }
                    }
                }
            });
        }
        outcomes
    }

    /// Whether blocks are the same and good on both, or were written again.
    fn is_whole(&self, Span { volume, first, count }: Span) -> Result<bool, PeerError> {
        let engine = &self.pair.engine;
        let theirs = engine.health.peer.detail(self.pass, volume, first, count)?;
        let Some(look) = engine.look(volume) else { return Ok(true) };
        let ours = engine.detail(&look, first..first + count, &mut Seen::new());
        let is_bad = |(ours, theirs)| matches!(compare(ours, theirs), Compared::Bad(_));
        Ok(!ours.iter().zip(&theirs).any(is_bad))
    }

    pub(super) fn judge(self, outcomes: &[Outcome]) -> Verified {
        let Self { pair, mut found, differences, .. } = self;
        let mut ranges = Ranges::default();
        let mut bad_here = 0;
        for (number, Difference { span, side, .. }) in differences.iter().enumerate() {
            let outcome = match (outcomes.get(number), side) {
                (Some(outcome), _) => *outcome,
                (None, Side::Both) => Outcome::Unrecoverable,
                (None, Side::Here | Side::Peer | Side::Neither | Side::Maps) => Outcome::Found,
            };
            match outcome {
                Outcome::Repaired => found.repaired_blocks += span.count,
                Outcome::Unrecoverable => found.unrecoverable_blocks += span.count,
                Outcome::Found | Outcome::Unrepaired => {}
            }
            bad_here += if matches!(side, Side::Here | Side::Both) { span.count } else { 0 };
            ranges.add(&pair.engine.name_of(span.volume), span.first, span.count, *side, outcome, "");
        }
        count(&pair.engine.shared.counters.damaged_blocks, bad_here);
        found.ranges = ranges.into_vec();
        found
    }
}

/// Whether nothing of the block is on its way to the files.
const fn is_settled(look: &BlockLook) -> bool {
    !matches!(look.state, BlockState::Moving)
}
