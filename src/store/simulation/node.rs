//! One node: what its disk keeps, and while it is up what its memory has.

use std::cell::RefCell;
use std::sync::Arc;

use super::files::Files;
use super::wire::SimulatedWire;
use super::{DATASET, Defect, PLACES, layout};
use crate::base::{BlockNumber, Generation, LogGeneration, Lsn, Phase};
use crate::memory::{MapOptions, Mapping};
use crate::segment::{Destage, GenerationBegin, Salt, Scan, SegmentHead, Verify};
use crate::sim::Random;
use crate::store::checkpoint::Snapshot;
use crate::store::durable_mark::{Marked, Places};
use crate::store::follower::{Secondary, Stage, Step};
use crate::store::log::{Begin, Log};
use crate::store::log_files::LogFiles;
use crate::store::primary::{Mode, Primary};
use crate::store::recover::{Recovered, recover};
use crate::store::register::{Contents, Fork, Position};
use crate::store::ring_memory::RingMemory;
use crate::store::volumes::Volumes;
use crate::store::{OpenError, SegmentFileError};

pub(super) type SimulatedPrimary = Primary<(), SimulatedWire>;

pub(super) enum Role {
    Undecided,
    Secondary(Box<Secondary>),
    Primary(Box<SimulatedPrimary>),
}

/// What ends with the power.
pub(super) struct Up {
    pub(super) role: Role,
    pub(super) volumes: Volumes,
    pub(super) position: Position,
    /// A snapshot of which not everything is durable for good yet.
    pub(super) pending: Option<Snapshot>,
}

pub(super) struct Node {
    pub(super) files: Files,
    /// Each of these is a file of its own that is replaced as a whole.
    pub(super) register: Contents,
    pub(super) checkpoint: Snapshot,
    pub(super) marker: Snapshot,
    pub(super) note: Option<Position>,
    pub(super) places: Places,
    pub(super) up: Option<Up>,
    pub(super) defect: Defect,
}

thread_local! {
    /// Salts of segments: the log asks for them by a function.
    static SALTS: RefCell<Random> = const { RefCell::new(Random::new(0)) };
}

pub(super) fn seed_salts(seed: u64) {
    SALTS.with(|salts| *salts.borrow_mut() = Random::new(seed));
}

fn salt() -> Salt {
    let half = || SALTS.with(|salts| salts.borrow_mut().next());
    let (low, high) = (half(), half());
    Salt((u128::from(low) | u128::from(high) << 64).to_le_bytes())
}

pub(super) fn new_memory() -> RingMemory {
    let bytes = RingMemory::region_bytes(layout(), PLACES);
    let memory = Mapping::anonymous(bytes, MapOptions::default()).expect("memory");
    RingMemory::new(Arc::new(memory), layout(), PLACES)
}

type Done = Result<(), SegmentFileError>;

impl Node {
    pub(super) fn new(seed: u64, defect: Defect, name: &'static str) -> Self {
        Self {
            files: Files::new(layout(), seed, defect, name),
            register: Contents::default(),
            checkpoint: Snapshot::default(),
            marker: Snapshot::default(),
            note: None,
            places: Places::default(),
            up: None,
            defect,
        }
    }

    pub(super) fn crash(&mut self, seed: u64) {
        self.up = None;
        let mut disk = self.files.disk.borrow_mut();
        disk.reseed(seed);
        disk.restart();
    }

    /// Reads back what the disk has.
    pub(super) fn start(&mut self) -> Done {
        self.files.open()?;
        self.places = self.files.marked();
        if self.note.is_some() {
            self.files.remove_mark(&mut self.places)?;
        }
        self.note = self.note.filter(|note| note.end() >= self.checkpoint.position);
        let fork = self.note.map(|note| note.end());
        let found =
            recover(&self.files, DATASET, layout(), self.checkpoint.clone(), fork, self.places.marked());
        let found = self.unless_off(found)?;
        let (volumes, position) = (found.volumes, found.position);
        self.up = Some(Up { role: Role::Undecided, volumes, position, pending: None });
        Ok(())
    }

    /// The log ends there from now on, whatever the files have.
    pub(super) fn write_note(&mut self, position: Position) -> Done {
        if self.note != Some(position) {
            self.files.remove_mark(&mut self.places)?;
            self.note = Some(position);
        }
        Ok(())
    }

    /// What the files have behind the position goes for good.
    pub(super) fn set_aside(&mut self, position: Position) -> Done {
        self.write_note(position)?;
        for base in self.files.list()?.into_iter().rev().filter(|base| *base >= position.end()) {
            self.files.remove(base)?;
        }
        self.cut(position.end())?;
        self.note = None;
        Ok(())
    }

    /// The records behind `end` are no more, in the segment that goes beyond it.
    pub(super) fn cut(&mut self, end: Lsn) -> Done {
        let heads = self.files.heads(DATASET, Lsn::MAX)?;
        let heads = heads.into_iter().map(|(head, _)| head);
        let Some(head) = heads.filter(|head| head.base < end && end <= head.end()).last() else {
            return self.files.sync(&[]);
        };
        let (source, mut scan) = (self.files.source(head.base), Scan::new(head, Verify::Slots));
        let mut void: Option<std::ops::Range<u64>> = None;
        while let Ok((record, extent)) = scan.next(&source).expect("a simulated disk reads") {
            let slots = layout().slots(&extent.slots);
            if record.end() > end {
                void = Some(slots.start..void.map_or(slots.end, |void| void.end));
            }
        }
        if let Some(void) = void {
            let start = void.start - void.start % 512;
            let mut bytes = vec![0; usize::try_from(void.end.next_multiple_of(512) - start).expect("small")];
            self.files.read(head.base, start, &mut bytes).expect("a simulated disk reads");
            let index = |at: u64| usize::try_from(at - start).expect("small");
            bytes[index(void.start)..index(void.end)].fill(0);
            self.files.write_bytes(head.base.0, start, &bytes)?;
        }
        self.files.sync(&[head.base])
    }

    /// What was recovered, unless the power went meanwhile. There is no other reason.
    pub(super) fn unless_off(
        &self,
        found: Result<Recovered, OpenError>,
    ) -> Result<Recovered, SegmentFileError> {
        found.map_err(|error| {
            assert!(self.files.disk.borrow().is_off(), "a node is not recovered: {error}");
            let error = std::io::Error::other(error.to_string());
            SegmentFileError::System { path: "simulated".into(), call: "recover", error }
        })
    }

    pub(super) fn up(&mut self) -> &mut Up {
        self.up.as_mut().expect("it is up")
    }

    pub(super) fn primary(&mut self) -> Option<&mut SimulatedPrimary> {
        match &mut self.up.as_mut()?.role {
            Role::Primary(primary) => Some(primary),
            Role::Undecided | Role::Secondary(_) => None,
        }
    }

    pub(super) fn secondary(&mut self) -> Option<&mut Secondary> {
        match &mut self.up.as_mut()?.role {
            Role::Secondary(secondary) => Some(secondary),
            Role::Undecided | Role::Primary(_) => None,
        }
    }

    /// What the node has now, as the shipped hello says it.
    pub(super) fn position(&self) -> Position {
        let up = self.up.as_ref().expect("it is up");
        match &up.role {
            Role::Undecided => up.position,
            Role::Secondary(secondary) => Position {
                generation: secondary.generation.0,
                end: secondary.applied.0,
                highest: secondary.highest.0.max(up.position.highest),
            },
            Role::Primary(primary) => Position {
                generation: primary.generation.0,
                end: primary.log.end().0,
                highest: primary.log.head().end().0.max(up.position.highest),
            },
        }
    }

    /// Begins to serve with a generation of its own, as the shipped pair does it.
    pub(super) fn serve(&mut self, theirs: Position, name: &str) -> Done {
        let ours = self.position();
        let last = self.register.history.last().map_or(0, |fork| fork.generation);
        let begin = GenerationBegin {
            generation: LogGeneration(ours.generation.max(theirs.generation).max(last) + 1),
            predecessor: ours.generation(),
            fork: ours.end(),
            highest_known: Lsn(ours.highest.max(ours.end).max(theirs.highest).max(theirs.end)),
            ring_bytes: PLACES * layout().segment_bytes(),
        };
        let head = SegmentHead::first(DATASET, layout(), begin, Phase(1), salt());
        self.files.create(head.base)?;
        let (generation, fork) = (begin.generation.0, begin.fork.0);
        let by = name.to_owned();
        self.register =
            self.register.with_fork(Fork { generation, predecessor: begin.predecessor.0, fork, by });
        let marked = Marked { generation: begin.predecessor, durable: begin.fork };
        self.files.mark(&mut self.places, marked)?;
        let log = Log::begin(new_memory(), Begin { head, durable: ours.end() }, salt);
        let primary = SimulatedPrimary::new(log, begin.generation, ours.end());
        let up = self.up();
        (up.position, up.pending, up.role) = (ours, None, Role::Primary(Box::new(primary)));
        Ok(())
    }

    /// Follows the log in its memory for some records.
    pub(super) fn follow(&mut self) -> Result<bool, SegmentFileError> {
        let Some(Up { role: Role::Secondary(secondary), volumes, .. }) = &mut self.up else {
            return Ok(false);
        };
        let stepped = secondary.step(volumes, |base| self.files.exists(base));
        match stepped.unwrap_or_else(|error| panic!("the log cannot be followed: {error}")) {
            Step::NeedsFile(base) => self.files.create(base).map(|()| true),
            Step::Moved => Ok(true),
            Step::Idle => Ok(false),
        }
    }

    /// Writes one part of the log to its file; whether there was one.
    pub(super) fn write_one(&mut self, bytes_max: u64) -> Result<bool, SegmentFileError> {
        let Some(up) = &mut self.up else { return Ok(false) };
        let next = match &mut up.role {
            Role::Primary(primary) => {
                let memory = primary.log.memory().clone();
                primary.log.next_write(bytes_max).map(|(write, pieces)| (write, pieces, memory))
            }
            Role::Secondary(secondary) => secondary.next_write(bytes_max),
            Role::Undecided => None,
        };
        let Some((write, pieces, memory)) = next else { return Ok(false) };
        self.files.write(write.base, write.range.start, &memory.place(write.base).gather(&pieces))?;
        match &mut up.role {
            Role::Primary(primary) => primary.log.destage.written(&write),
            Role::Secondary(secondary) => secondary.destage().expect("it follows").written(&write),
            Role::Undecided => {}
        }
        Ok(true)
    }

    /// Syncs what was written; whether there was anything.
    pub(super) fn sync(&mut self) -> Result<bool, SegmentFileError> {
        let Some(up) = &mut self.up else { return Ok(false) };
        let mut marked = None;
        let sync = match &mut up.role {
            Role::Primary(primary) => {
                let sync = primary.log.destage.begin_sync();
                marked = sync.as_ref().and_then(|sync| primary.to_mark(sync));
                sync
            }
            Role::Secondary(secondary) => secondary.destage().and_then(Destage::begin_sync),
            Role::Undecided => None,
        };
        let Some(sync) = sync else { return self.finish_renewal().map(|()| false) };
        let bases: Vec<_> = sync.bases().collect();
        if let (Defect::MarksEarly, Some(marked)) = (self.defect, marked) {
            self.files.mark(&mut self.places, marked)?;
        }
        self.files.sync(&bases)?;
        if let Some(marked) = marked {
            self.files.mark(&mut self.places, marked)?;
        }
        match &mut up.role {
            Role::Primary(primary) => {
                let durable = primary.log.synced(sync);
                assert!(marked.is_none_or(|marked| marked.durable == durable), "{marked:?} at {durable}");
                primary.settle();
            }
            Role::Secondary(secondary) => secondary.synced(sync),
            Role::Undecided => {}
        }
        self.finish_renewal().map(|()| true)
    }

    fn finish_renewal(&mut self) -> Done {
        let Some(base) = self.secondary().and_then(|secondary| secondary.renewal()) else { return Ok(()) };
        self.files.finish_renewal(base)?;
        self.secondary().expect("it is one").renewed();
        Ok(())
    }

    /// Makes the next segment's file.
    pub(super) fn prepare(&mut self) -> Done {
        let Some(base) = self.primary().and_then(|primary| primary.log.to_prepare()) else { return Ok(()) };
        self.files.create(base)?;
        if let Some(primary) = self.primary() {
            primary.log.set_prepared(base);
        }
        Ok(())
    }

    /// What came is applied and durable, with nobody who could change it.
    pub(super) fn drain(&mut self) -> Done {
        while self.secondary().is_some_and(|secondary| matches!(secondary.stage, Stage::Following(_))) {
            let (moved, skips) = (self.follow()?, self.defect == Defect::SkipsDrain);
            if let Some(secondary) = self.secondary() {
                if !moved {
                    secondary.pad();
                }
                if skips || !moved && secondary.durable >= secondary.applied {
                    secondary.stage = Stage::Waiting;
                }
            }
            while self.write_one(u64::MAX)? {}
            self.sync()?;
        }
        self.files.abandon_renewals()
    }

    /// A checkpoint if all of one is durable for good; true: the marker may follow it.
    pub(super) fn checkpoint(&mut self) -> bool {
        let position = if self.up.is_some() { self.position() } else { return false };
        let up = self.up.as_mut().expect("it is up");
        let (for_good, is_mirrored) = match &up.role {
            Role::Primary(primary) => (primary.durable_for_good(), primary.mode == Mode::Mirrored),
            Role::Secondary(secondary) => {
                (secondary.durable_for_good(), matches!(secondary.stage, Stage::Following(_)))
            }
            Role::Undecided => return false,
        };
        let (generation, volumes) = (position.generation(), &up.volumes);
        let snapshot = || Snapshot { position: position.end(), generation, volumes: volumes.clone() };
        let pending = up.pending.get_or_insert_with(snapshot);
        if pending.position > for_good {
            return false;
        }
        let pending = up.pending.take().expect("it is there");
        if pending.position <= self.checkpoint.position {
            return false;
        }
        self.checkpoint = pending;
        // A power cut in it changes nothing about the checkpoint.
        let _ = self.files.sync_mark();
        is_mirrored
    }

    /// The bytes of a block, from wherever they are.
    pub(super) fn read(&mut self, block: BlockNumber) -> Option<[u8; 512]> {
        let up = self.up();
        let lsn = up.volumes.entries().first()?.map.lookup(block)?;
        let (base, mut bytes) = (layout().base(lsn), [0; 512]);
        let is_read = matches!(&up.role, Role::Primary(primary) if primary.log.read(lsn, &mut bytes));
        if !is_read {
            self.files.read(base, lsn.since(base), &mut bytes).expect("a simulated disk reads");
        }
        Some(bytes)
    }

    /// Tells the primary how far this node is.
    pub(super) fn publish(&mut self) {
        let Some(secondary) = self.secondary() else { return };
        if let (Some(words), Stage::Following(following)) = (secondary.words(), &secondary.stage) {
            let slice = following.memory.mapping().slice();
            words.encode().into_iter().for_each(|(at, word)| slice.store_word(at, word));
        }
    }

    /// Follows from now on, with what the ring in `memory` has.
    pub(super) fn attach(&mut self, memory: RingMemory) -> Done {
        let Some(Up { role: Role::Secondary(secondary), .. }) = &mut self.up else { return Ok(()) };
        let begun = secondary.begin(memory, DATASET, Generation(1), |base| self.files.exists(base));
        let base = begun.unwrap_or_else(|error| panic!("the ring does not continue the log: {error}"));
        if secondary.renewed.is_some() { self.files.renew(base) } else { self.files.create(base) }
    }
}
