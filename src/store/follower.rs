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

use super::resync::Staging;
use super::ring_memory::{PrimaryWords, RingMemory, SecondaryWords, Trouble};
use super::volumes::{CHANGE_BYTES, VolumeChange, VolumeError, Volumes};
use crate::base::{DatasetId, Generation, LogGeneration, Lsn};
use crate::segment::{Destage, Record, RecordKind, Scan, SegmentHead, Sync, Verify};

/// Records applied under one hold of the lock at most.
const RECORDS_AT_ONCE: usize = 256;

/// What a follower is doing.
#[derive(Debug)]
pub(super) enum Stage {
    /// For a primary that attaches.
    Waiting,
    /// The log as it comes.
    Following(Box<Following>),
}

/// A node that is not the primary.
#[derive(Debug)]
pub(super) struct Secondary {
    pub(super) stage: Stage,
    /// The log is applied to there.
    pub(super) applied: Lsn,
    /// And durable.
    pub(super) durable: Lsn,
    pub(super) generation: LogGeneration,
    /// Behind every position that this node knows to have been given out.
    pub(super) highest: Lsn,
    /// What the primary has durable.
    pub(super) primary_durable: Lsn,
    pub(super) trouble: Trouble,
    /// A ring that arrives is granted later than this.
    pub(super) since: Generation,
    /// What comes next in the ring needs a file for which there is no room.
    pub(super) is_stuck: bool,
    /// The segment that is written anew, until it is durable beyond this position.
    pub(super) renewed: Option<(Lsn, Lsn)>,
    /// While it is resynced: what is applied goes there, and what this node has stays as it is.
    pub(super) resync: Option<Box<Staging>>,
    /// It was resynced in the session of this number, and the primary does not know yet that it is done.
    pub(super) resynced: Option<u64>,
}

/// Where a follower is in the ring.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) memory: RingMemory,
    dataset: DatasetId,
    scan: Scan,
    destage: Destage,
    flushed: Lsn,
    grant: Generation,
}

/// What there is to do before the follower goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing new.
    Idle,
    /// Records were applied.
    Moved,
    /// A segment begins whose file does not exist.
    NeedsFile(Lsn),
}

/// Why the log in the ring cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("the ring is of dataset {found}, this node has {wanted}")]
    Dataset { found: DatasetId, wanted: DatasetId },
    #[error("the ring has no primary's words")]
    NoWords,
    #[error(
        "the ring begins at {start}, this node has the log to {applied}, and was not told that it is resynced"
    )]
    Gap { start: Lsn, applied: Lsn },
    #[error("no segment of the ring continues the log at {applied}")]
    NoSegment { applied: Lsn },
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl Secondary {
    /// A follower with the log to `applied`, all of it durable, for a ring that is granted later than `since`.
    pub(super) const fn new(
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
            resynced: None,
        }
    }

    /// It has what it had again, if it was being resynced; whether it was.
    pub(super) fn give_up_resync(&mut self) -> bool {
        let Some(staging) = self.resync.take() else { return false };
        (self.applied, self.durable) = (staging.old.end(), staging.old.end());
        self.generation = staging.old.generation();
        self.renewed = None;
        true
    }

    pub(super) fn destage(&mut self) -> Option<(&mut Destage, RingMemory)> {
        match &mut self.stage {
            Stage::Following(following) => {
                let memory = following.memory.clone();
                Some((&mut following.destage, memory))
            }
            Stage::Waiting => None,
        }
    }

    /// To where no fork can come any more.
    pub(super) fn durable_for_good(&self) -> Lsn {
        self.durable.min(self.primary_durable)
    }

    /// Takes note of a sync.
    pub(super) fn synced(&mut self, sync: Sync) {
        if let Stage::Following(following) = &mut self.stage {
            let durable = following.destage.synced(sync);
            if self.renewed.is_none() {
                self.durable = self.durable.max(durable);
            }
        }
    }

    /// The segment whose new file has all that the old one had: it is to take its name.
    pub(super) fn renewal(&self) -> Option<Lsn> {
        let Stage::Following(following) = &self.stage else { return None };
        self.renewed.filter(|(_, had)| following.destage.durable() >= *had).map(|(base, _)| base)
    }

    /// The new file has the name of the old one, durably.
    pub(super) fn renewed(&mut self) {
        self.renewed = None;
        if let Stage::Following(following) = &self.stage {
            self.durable = self.durable.max(following.destage.durable());
        }
    }

    /// A whole ring is here: begins to follow.
    ///
    /// # Errors
    /// It does not continue what this node has.
    pub(super) fn begin(
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
        let scan = Scan::new(head, Verify::Slots);
        let following = Following { memory, dataset, scan, destage, flushed: Lsn::ZERO, grant };
        self.stage = Stage::Following(Box::new(following));
        Ok(head.base)
    }

    /// Takes some records that have come.
    ///
    /// # Errors
    /// The log cannot be applied: a defect, or damage.
    pub(super) fn step(
        &mut self,
        volumes: &mut Volumes,
        has_file: impl Fn(Lsn) -> bool,
    ) -> Result<Step, FollowError> {
        let Stage::Following(following) = &mut self.stage else { return Ok(Step::Idle) };
        let mut moved = false;
        for _ in 0..RECORDS_AT_ONCE {
            if self.resync.as_ref().is_some_and(|staging| !staging.has_room()) {
                break;
            }
            let place = following.memory.place(following.scan.head().base);
            let next = match following.scan.next(&place) {
                Ok(next) => next,
                Err(never) => match never {},
            };
            let Ok((record, extent)) = next else {
                let Some(head) = following.next_head() else { break };
                if !has_file(head.base) {
                    return Ok(Step::NeedsFile(head.base));
                }
                self.generation = head.generation;
                self.highest = self.highest.max(head.end());
                following.enter(head);
                moved = true;
                continue;
            };
            let end = extent.end;
            if end > self.applied {
                let change = following.change(&record)?;
                match &mut self.resync {
                    None => volumes.apply(&record, change)?,
                    Some(staging) => staging.take(&record, change)?,
                }
                self.applied = end;
            }
            following.destage.append(extent);
            following.destage.commit(end);
            moved = true;
        }
        following.take_words(self.applied, &mut self.primary_durable);
        Ok(if moved { Step::Moved } else { Step::Idle })
    }

    /// Nothing more comes: all that was applied may be destaged.
    pub(super) fn pad(&mut self) {
        if let Stage::Following(following) = &mut self.stage {
            following.destage.pad(following.scan.end());
        }
    }

    /// Whether the primary waits for something to become durable.
    pub(super) fn is_wanted(&self) -> bool {
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
    pub(super) fn words(&self) -> Option<SecondaryWords> {
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
    pub(super) fn move_to(&mut self, memory: RingMemory, grant: Generation) {
        if let Stage::Following(following) = &mut self.stage {
            (following.memory, following.grant) = (memory, grant);
        }
    }

    /// Under which grant the copy lies where it is read.
    pub(super) fn grant(&self) -> Option<Generation> {
        match &self.stage {
            Stage::Following(following) => Some(following.grant),
            Stage::Waiting => None,
        }
    }
}

impl Following {
    /// The head of the segment that continues the log behind the last record, if it is there.
    fn next_head(&self) -> Option<SegmentHead> {
        let (head, end) = (self.scan.head(), self.scan.end());
        let continues = |next: &SegmentHead| {
            next.previous_end == end
                && next.base > head.base
                && (next.generation == head.generation || next.begins_generation())
        };
        let next = self.memory.head(self.dataset, head.end()).filter(continues);
        next.or_else(|| {
            // A generation begins elsewhere, and says so.
            let words = self.memory.primary()?;
            (words.generation > head.generation)
                .then(|| self.memory.heads(self.dataset).into_iter().find(continues))
                .flatten()
        })
    }

    fn enter(&mut self, head: SegmentHead) {
        self.destage.pad(self.scan.end());
        self.destage.open(head);
        self.scan = Scan::new(head, Verify::Slots);
    }

    /// What a record of the table of volumes says.
    fn change(&self, record: &Record) -> Result<Option<VolumeChange>, FollowError> {
        if record.kind != RecordKind::Volume {
            return Ok(None);
        }
        let head = self.scan.head();
        let mut bytes = [0; CHANGE_BYTES];
        let at = usize::try_from(record.lsn.since(head.base)).expect("at most 2^30");
        self.memory.place(head.base).read(at, &mut bytes);
        Ok(Some(VolumeChange::decode(record.volume, &bytes)?))
    }

    fn take_words(&mut self, applied: Lsn, primary_durable: &mut Lsn) {
        let Some(PrimaryWords { flush, own_durable, .. }) = self.memory.primary() else { return };
        // The word travels behind the records that it is about, so all of them are here.
        if flush > self.flushed && flush <= applied {
            self.flushed = flush;
            self.destage.pad(flush);
        }
        *primary_durable = own_durable.max(*primary_durable);
    }
}
