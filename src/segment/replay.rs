//! What the log says after a crash: all that is valid, in order, and where it ends; or where it is damaged.
//!
//! The scan of a segment ends at the first place without a valid record. That place is the **tail** of the log, never written or
//! not synced, unless something proves that there was a record, and then it is **corruption**:
//! * a later segment's head says that the records before it went further (heads are written after all before them is durable);
//! * it is below a position that is known to have been durable: from a checkpoint, from the mark of a node that was alone;
//! * a record behind it says that both nodes were durable beyond it.
//!
//! Where a later generation forks off below, what follows the fork is void, valid or not: its writer was set aside and the log went
//! on without it. Segments that lie behind the fork altogether are skipped.
//!
//! What is found was not lost, but need not be durable: after the death of the process alone, part of it may still be in the kernel's
//! cache only. Sync every file that was read before anything is said to be durable.
//!
//! Segments are read from the one with the checkpoint's position on; it and those after it are never reclaimed.

use super::error::{Fault, ReplayError};
use super::head::SegmentHead;
use super::record::{Record, RecordKind};
use super::scan::{Scan, SegmentSource, Verify};
use crate::base::{LogGeneration, Lsn};

/// What is known from outside the segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Everything before is in the checkpoint.
    pub from: Lsn,
    /// The log was durable to there, by whatever says so; at least `from`.
    pub durable: Lsn,
}

/// Where a replayed log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Behind the last valid record: where the next generation forks off.
    pub end: Lsn,
    /// Behind every position that this node knows to have been given out: the next generation begins a ring past it.
    pub highest_known: Lsn,
}

/// Reads a log back. An iterator of the records that a checkpoint at [`Known::from`] lacks, in order, without those that say
/// nothing. After the last one [`outcome`](Self::outcome) has where the log ends.
#[derive(Debug)]
pub struct Replay<S> {
    /// Those that count, in the order of the log.
    pieces: Vec<(SegmentHead, S)>,
    /// The piece that is read, and how far.
    current: usize,
    scan: Option<Scan>,
    known: Known,
    highest: Lsn,
    end: Lsn,
    ended: bool,
    failed: bool,
}

impl<S: SegmentSource> Replay<S> {
    /// Of the segments with valid heads, by rising base; those without one are left out, and missed if they matter.
    ///
    /// # Errors
    /// The heads contradict each other, or a segment is missing.
    ///
    /// # Panics
    /// When the segments are not in order, or less is known to be durable than the checkpoint has.
    pub fn new(segments: Vec<(SegmentHead, S)>, known: Known) -> Result<Self, ReplayError<S::Error>> {
        assert!(segments.is_sorted_by(|a, b| a.0.base < b.0.base), "segments are given by rising base");
        assert!(known.durable >= known.from, "{known:?}: what a checkpoint has is durable");
        let highest = segments.last().map_or(known.durable, |(head, _)| head.end().max(known.durable));
        for pair in segments.windows(2) {
            check_pair(&pair[0].0, &pair[1].0)?;
        }
        let pieces = without_void(segments);
        for pair in pieces.windows(2) {
            check_gap(&pair[0].0, &pair[1].0, known.from)?;
        }
        for (head, _) in pieces.iter().filter(|(head, _)| head.fork < known.from && known.from < head.base) {
            if head.begins_generation() {
                let why = "the checkpoint has records that it set aside; open one from before its fork";
                return Err(ReplayError::Chain { base: head.base, generation: head.generation, why });
            }
        }
        // The last segment whose predecessor's records the checkpoint has.
        let current = pieces.iter().rposition(|piece| piece.0.previous_end <= known.from);
        match (current, pieces.first()) {
            (None, Some(first)) => {
                return Err(ReplayError::Missing { from: known.from, to: first.0.previous_end });
            }
            (None, None) if known.durable > known.from => {
                return Err(ReplayError::Missing { from: known.from, to: known.durable });
            }
            _ => {}
        }
        let ended = pieces.is_empty();
        let current = current.unwrap_or(0);
        Ok(Self { pieces, current, scan: None, known, highest, end: known.from, ended, failed: false })
    }

    /// Where the log ends; `None` until the last record was returned, and when it is damaged.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        (self.ended && !self.failed)
            .then_some(Outcome { end: self.end, highest_known: self.highest.max(self.end) })
    }

    /// The next record of the segment that is read, or `None` at its end.
    fn step(&mut self) -> Result<Option<Record>, ReplayError<S::Error>> {
        let (head, source) = (self.pieces[self.current].0, &self.pieces[self.current].1);
        let failed = |error| ReplayError::Medium { base: head.base, error };
        let from = self.known.from;
        let scan = self.scan.get_or_insert_with(|| Scan::new(head, Verify::Payloads { from }));
        let before = scan.end();
        let next = self.pieces.get(self.current + 1).map(|(next, _)| *next);
        if next.is_some_and(|next| next.previous_end == before && next.generation > head.generation) {
            return Ok(None); // what follows is void
        }
        match scan.next(source).map_err(failed)? {
            Ok((record, extent)) => {
                if let Some(next) = next.filter(|next| extent.end > next.previous_end) {
                    let why = "a record goes beyond the end that its head names";
                    return Err(ReplayError::Chain { base: next.base, generation: next.generation, why });
                }
                Ok(Some(record))
            }
            Err(fault @ Fault::Unreadable { .. }) => Err(ReplayError::Unreadable { at: before, fault }),
            Err(fault) => {
                let durable = match next {
                    Some(next) => next.previous_end,
                    None => {
                        let told = scan.durable_behind(source).map_err(failed)?;
                        self.known.durable.max(told.unwrap_or_default())
                    }
                };
                if before < durable {
                    return Err(ReplayError::Corrupt { from: before, to: durable, fault });
                }
                Ok(None)
            }
        }
    }
}

/// Two segments next to each other in the log, void ones included.
fn check_pair<E>(before: &SegmentHead, after: &SegmentHead) -> Result<(), ReplayError<E>> {
    let why = if after.layout != before.layout {
        "its sizes differ"
    } else if after.dataset != before.dataset {
        "it is another dataset's"
    } else if after.generation < before.generation {
        "generations rise"
    } else if after.generation == before.generation
        && (after.predecessor, after.fork) != (before.predecessor, before.fork)
    {
        "its generation began otherwise"
    } else if after.generation == before.generation && after.phase < before.phase {
        "phases rise"
    } else {
        return Ok(());
    };
    Err(ReplayError::Chain { base: after.base, generation: after.generation, why })
}

/// The segments without those that lie behind the fork of a later generation that counts.
fn without_void<S>(segments: Vec<(SegmentHead, S)>) -> Vec<(SegmentHead, S)> {
    let mut kept: Vec<(SegmentHead, S)> = Vec::with_capacity(segments.len());
    // The lowest fork of the generations behind, and the generation that is gone through with its own.
    let (mut lowest, mut group): (Option<Lsn>, Option<(LogGeneration, Lsn)>) = (None, None);
    for (head, source) in segments.into_iter().rev() {
        if let Some((_, fork)) = group.filter(|(generation, _)| *generation > head.generation) {
            lowest = Some(lowest.map_or(fork, |lowest| lowest.min(fork)));
        }
        if lowest.is_none_or(|fork| head.base < fork) {
            group = Some((head.generation, head.fork));
            kept.push((head, source));
        }
    }
    kept.reverse();
    kept
}

/// Two segments next to each other that both count: the second continues the first.
fn check_gap<E>(before: &SegmentHead, after: &SegmentHead, from: Lsn) -> Result<(), ReplayError<E>> {
    // What the checkpoint has may be reclaimed, with holes.
    if after.previous_end <= from {
        return Ok(());
    }
    let follows = if after.generation == before.generation {
        after.base == before.end()
    } else {
        before.previous_end <= after.fork && after.fork <= before.end() && after.begins_generation()
    };
    let missing = ReplayError::Missing { from: before.end(), to: after.previous_end.max(before.end()) };
    if follows { Ok(()) } else { Err(missing) }
}

impl<S: SegmentSource> Iterator for Replay<S> {
    type Item = Result<Record, ReplayError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended && !self.failed {
            match self.step() {
                Ok(Some(record)) => {
                    self.end = self.end.max(record.end());
                    // The checkpoint has what ends at its position or before.
                    if record.end() > self.known.from && record.kind != RecordKind::Void {
                        return Some(Ok(record));
                    }
                }
                Ok(None) => {
                    self.scan = None;
                    self.current += 1;
                    self.ended = self.current == self.pieces.len();
                }
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
