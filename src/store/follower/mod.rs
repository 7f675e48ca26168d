//! A node that follows: it reads the log out of its own memory, where the primary places it, and does the same with it by itself.
//!
//! ```text
//!   Waiting ──told to follow, a whole ring arrived──▶ Following ──▶ (scan, apply, destage, publish) …
//!      ▲                                                  │
//!      └──────────────── told to follow anew ─────────────┘
//! ```
//!
//! What is valid in the ring is committed where this node is a member: the primary acknowledges nothing that is not here. What it
//! attached with begins at *start*, so the first segment may be one that this node has in part; it is written anew beside the old
//! file, which stays until the new one has all that it had.

mod following;
mod steps;

use std::collections::VecDeque;

pub(in crate::store) use following::Following;
pub(in crate::store) use steps::{begin_to_follow, publish};

use super::resync::Staging;
use super::ring_memory::{RingMemory, SecondaryWords, Trouble};
use super::volumes::{VolumeError, Volumes};
use crate::base::{DatasetId, Generation, LogGeneration, Lsn};
use crate::memory::Piece;
use crate::segment::{Destage, DestageWrite, Fault, Packed, Scan, Sync};

/// Records applied under one hold of the lock at most; in tests so few that a burst takes several steps.
const RECORDS_AT_ONCE: usize = if cfg!(test) { 8 } else { 256 };
/// And bytes of payload: each is read, and summed.
const BYTES_AT_ONCE: u64 = 1 << 20;

/// What a follower is doing.
#[derive(Debug)]
pub(in crate::store) enum Stage {
    /// For a primary that attaches.
    Waiting,
    /// The log as it comes.
    Following(Box<Following>),
}

/// A node that is not the primary.
#[derive(Debug)]
pub(in crate::store) struct Secondary {
    pub(in crate::store) stage: Stage,
    /// The log is applied to there.
    pub(in crate::store) applied: Lsn,
    /// And durable.
    pub(in crate::store) durable: Lsn,
    pub(in crate::store) generation: LogGeneration,
    /// Behind every position that this node knows to have been given out.
    pub(in crate::store) highest: Lsn,
    /// What the primary has durable.
    pub(in crate::store) primary_durable: Lsn,
    pub(in crate::store) trouble: Trouble,
    /// A ring that arrives is granted later than this.
    pub(in crate::store) since: Generation,
    /// What comes next in the ring needs a file for which there is no room.
    pub(in crate::store) is_stuck: bool,
    /// The segment that is written anew, until it is durable beyond this position.
    pub(in crate::store) renewed: Option<(Lsn, Lsn)>,
    /// While it is resynced: what is applied goes there, and what this node has stays as it is.
    pub(in crate::store) resync: Option<Box<Staging>>,
    /// To where the ring had the log when this node was done with it, if it had more than could be read: its memory is damaged.
    pub(in crate::store) lost: Option<Lsn>,
    /// It was resynced in the session of this number, and the primary does not know yet that it is done.
    pub(in crate::store) resynced: Option<u64>,
    /// A ring has arrived.
    pub(in crate::store) has_followed: bool,
    /// It has every acknowledged write, since then: what a register says may be of an earlier life.
    pub(in crate::store) is_member: bool,
}

/// What there is to do before the follower goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Step {
    /// Nothing new.
    Idle,
    /// Records were applied.
    Moved,
    /// A segment begins whose file does not exist.
    NeedsFile(Lsn),
}

/// Why the log in the ring cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum FollowError {
    #[error("the ring is of dataset {found}, this node has {wanted}")]
    Dataset { found: DatasetId, wanted: DatasetId },
    #[error("the ring has no primary's words, or those of another version of this program")]
    NoWords,
    #[error(
        "the ring begins at {start}, this node has the log to {applied}, and was not told that it is resynced"
    )]
    Gap { start: Lsn, applied: Lsn },
    #[error("no segment of the ring continues the log at {applied}")]
    NoSegment { applied: Lsn },
    #[error("{fault}, though the ring goes on behind it: this node's memory is damaged; restart the node")]
    Damaged { fault: Fault },
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl Secondary {
    /// A follower with the log to `applied`, all of it durable, for a ring that is granted later than `since`.
    pub(in crate::store) const fn new(
        applied: Lsn,
        generation: LogGeneration,
        highest: Lsn,
        since: Generation,
    ) -> Self {
        Self {
            stage: Stage::Waiting,
            applied,
            durable: applied,
            generation,
            highest,
            primary_durable: Lsn::ZERO,
            trouble: Trouble::None,
            since,
            is_stuck: false,
            renewed: None,
            resync: None,
            lost: None,
            resynced: None,
            has_followed: false,
            is_member: false,
        }
    }

    /// Whether it has all that the primary had when it came to follow, or will have.
    pub(in crate::store) fn is_whole(&self) -> bool {
        #[cfg(test)]
        if crate::store::world::breaks(crate::store::world::Defect::StaysMemberAfterRestart) {
            return true;
        }
        self.has_followed && self.resync.is_none()
    }

    /// It has what it had again, if it was being resynced; whether it was.
    pub(in crate::store) fn give_up_resync(&mut self) -> bool {
        let Some(staging) = self.resync.take() else { return false };
        (self.applied, self.durable) = (staging.old.end(), staging.old.end());
        self.generation = staging.old.generation();
        self.renewed = None;
        self.is_member = false;
        true
    }

    pub(in crate::store) fn destage(&mut self) -> Option<&mut Destage> {
        match &mut self.stage {
            Stage::Following(following) => Some(&mut following.destage),
            Stage::Waiting => None,
        }
    }

    /// The next part of the log to be written to a file, the pieces of the memory of which it consists, and that.
    pub(in crate::store) fn next_write(
        &mut self,
        bytes_max: u64,
    ) -> Option<(DestageWrite, Vec<Piece>, RingMemory)> {
        let Stage::Following(following) = &mut self.stage else { return None };
        let (write, pieces) = following.next_write(bytes_max)?;
        Some((write, pieces, following.memory.clone()))
    }

    /// To where no fork can come any more.
    pub(in crate::store) fn durable_for_good(&self) -> Lsn {
        self.durable.min(self.primary_durable)
    }

    /// Takes note of a sync.
    pub(in crate::store) fn synced(&mut self, sync: Sync) {
        if let Stage::Following(following) = &mut self.stage {
            let durable = following.destage.synced(sync);
            following.forget(durable);
            if self.renewed.is_none() {
                self.durable = self.durable.max(durable);
            }
        }
    }

    /// The segment whose new file has all that the old one had: it is to take its name.
    pub(in crate::store) fn renewal(&self) -> Option<Lsn> {
        let Stage::Following(following) = &self.stage else { return None };
        self.renewed.filter(|(_, had)| following.destage.durable() >= *had).map(|(base, _)| base)
    }

    /// The new file has the name of the old one, durably.
    pub(in crate::store) fn renewed(&mut self) {
        self.renewed = None;
        if let Stage::Following(following) = &self.stage {
            self.durable = self.durable.max(following.destage.durable());
        }
    }

    /// A whole ring is here: begins to follow.
    ///
    /// # Errors
    /// It does not continue what this node has.
    pub(in crate::store) fn begin(
        &mut self,
        memory: RingMemory,
        dataset: DatasetId,
        grant: Generation,
        has_file: impl Fn(Lsn) -> bool,
    ) -> Result<Lsn, FollowError> {
        let words = memory.primary().ok_or(FollowError::NoWords)?;
        if words.dataset != dataset {
            return Err(FollowError::Dataset { found: words.dataset, wanted: dataset });
        }
        if self.resync.is_some() {
            // The maps of the log before are fetched, and come to stand beside what it has.
            self.applied = words.start;
        } else if words.start > self.applied {
            return Err(FollowError::Gap { start: words.start, applied: self.applied });
        }
        let heads = memory.heads(dataset);
        let first = heads.iter().rev().find(|head| head.previous_end <= self.applied);
        let head = *first.ok_or(FollowError::NoSegment { applied: self.applied })?;
        // A file may be there with a head and no record: the node followed before, and none came.
        let is_renewed = head.previous_end < self.applied || has_file(head.base);
        self.renewed = is_renewed.then_some((head.base, self.applied));
        if let Some(staging) = &mut self.resync {
            staging.begin(self.applied, head.base);
            self.durable = head.previous_end;
        }
        let mut destage = Destage::new(head.previous_end);
        destage.open(head);
        self.generation = head.generation;
        self.highest = self.highest.max(head.end());
        // What it has already may be dead, and holes.
        let scan = Scan::in_ring(head, self.applied);
        let packed = VecDeque::from([(head.base, Packed::default())]);
        let following =
            Following { memory, dataset, scan, destage, packed, flushed: Lsn::ZERO, idle: 0, grant };
        self.stage = Stage::Following(Box::new(following));
        self.has_followed = true;
        Ok(head.base)
    }

    /// Takes some records that have come.
    ///
    /// # Errors
    /// The log cannot be applied: a defect, or damage.
    pub(in crate::store) fn step(
        &mut self,
        volumes: &mut Volumes,
        has_file: impl Fn(Lsn) -> bool,
    ) -> Result<Step, FollowError> {
        let Stage::Following(following) = &mut self.stage else { return Ok(Step::Idle) };
        let (mut moved, mut bytes) = (false, 0);
        for _ in 0..RECORDS_AT_ONCE {
            if bytes >= BYTES_AT_ONCE || self.resync.as_ref().is_some_and(|staging| !staging.has_room()) {
                break;
            }
            let place = following.memory.place(following.scan.head().base);
            let next = match following.scan.next(&place) {
                Ok(next) => next,
                Err(never) => match never {},
            };
            let (record, extent) = match next {
                Ok(found) => found,
                Err(fault) => {
                    let Some(head) = following.next_head() else {
                        if fault != Fault::Full && !moved && following.is_damaged() {
                            return Err(FollowError::Damaged { fault });
                        }
                        break;
                    };
                    if !has_file(head.base) {
                        return Ok(Step::NeedsFile(head.base));
                    }
                    self.generation = head.generation;
                    self.highest = self.highest.max(head.end());
                    following.enter(head);
                    moved = true;
                    continue;
                }
            };
            let end = extent.end;
            bytes += record.payload_bytes();
            if end > self.applied {
                let change = following.change(&record, &extent)?;
                match &mut self.resync {
                    None => volumes.apply(&record, change)?,
                    Some(staging) => staging.take(&record, change)?,
                }
                self.applied = end;
            }
            if let Some((_, packed)) = following.packed.back_mut() {
                packed.push(&extent);
            }
            following.destage.append(extent);
            following.destage.commit(end);
            (moved, following.idle) = (true, 0);
        }
        following.take_words(self.applied, &mut self.primary_durable);
        Ok(if moved { Step::Moved } else { Step::Idle })
    }

    /// Nothing more comes: all that was applied may be destaged.
    pub(in crate::store) fn pad(&mut self) {
        if let Stage::Following(following) = &mut self.stage {
            following.destage.pad(following.scan.end());
        }
    }

    /// Nothing more comes, and all that was applied is durable: waits for another primary.
    pub(in crate::store) fn part(&mut self, since: Generation) {
        if let Stage::Following(following) = &self.stage {
            // The first segment may be one that this node has had whole before.
            self.lost = following.goes_on_to().filter(|position| *position > self.applied);
        }
        (self.stage, self.since) = (Stage::Waiting, since);
    }

    /// Whether a look at the ring cannot wait: the primary has flushed what was not looked at yet, or this node does not just follow.
    pub(in crate::store) fn is_asked(&self) -> bool {
        let Stage::Following(following) = &self.stage else { return true };
        following.memory.primary().is_some_and(|words| words.flush > following.flushed)
    }

    /// Whether the primary waits for something to become durable.
    pub(in crate::store) fn is_wanted(&self) -> bool {
        match &self.stage {
            Stage::Following(following) => self.told(following) < following.flushed.min(self.applied),
            Stage::Waiting => false,
        }
    }

    /// What the primary may take for durable: the ring's bytes before it are not needed here any more. A segment that is written anew needs
    /// its place, although the old file has the same records.
    fn told(&self, following: &Following) -> Lsn {
        if self.renewed.is_some() { self.durable.min(following.destage.durable()) } else { self.durable }
    }

    /// What the primary is to be told, while there is one: with the end 0 that this node cannot begin to follow.
    pub(in crate::store) fn words(&self) -> Option<SecondaryWords> {
        match &self.stage {
            Stage::Following(following) => {
                let durable = self.told(following);
                Some(SecondaryWords { durable, end: self.applied, trouble: self.trouble })
            }
            Stage::Waiting if self.trouble == Trouble::None => None,
            Stage::Waiting => {
                Some(SecondaryWords { durable: Lsn::ZERO, end: Lsn::ZERO, trouble: self.trouble })
            }
        }
    }

    /// The copy lies elsewhere now, with the same bytes: it moves when somebody's access to it was taken away.
    pub(in crate::store) fn move_to(&mut self, memory: RingMemory, grant: Generation) {
        if let Stage::Following(following) = &mut self.stage {
            (following.memory, following.grant) = (memory, grant);
        }
    }

    /// Under which grant the copy lies where it is read.
    pub(in crate::store) fn grant(&self) -> Option<Generation> {
        match &self.stage {
            Stage::Following(following) => Some(following.grant),
            Stage::Waiting => None,
        }
    }
}
