//! The least store: one volume whose log goes through ring, destage and replay to a simulated disk, as in a node whose peer is as
//! fast as itself.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::{Disk, DiskError, Random};
use crate::base::{BlockNumber, BlockSize, DatasetId, LogGeneration, Lsn, Phase, VolumeId};
use crate::memory::{MapOptions, Mapping};
use crate::segment::{
    Append, Destage, GenerationBegin, HEAD_BYTES, Known, Node, Outcome, Packed, RecordKind, Replay,
    ReplayError, Request, Ring, Salt, SegmentHead, SegmentLayout, SegmentSource,
};
use crate::volume::BlockMap;

/// Blocks of the volume.
pub(crate) const BLOCKS: u64 = 40;
const SIZE: BlockSize = BlockSize::Small;
const PLACES: u64 = 3;
/// Syncs that a flush takes at most: one for each open segment.
const ROUNDS_MAX: u64 = PLACES + 1;
const SECTOR: u64 = 4096;
const DATASET: DatasetId = DatasetId::from_bytes([0xda; 16]);

/// The volume's content: a byte for each block that has data.
pub(crate) type Content = BTreeMap<u64, u8>;

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Write {
        block: u64,
        blocks: u32,
        byte: u8,
    },
    Trim {
        block: u64,
        blocks: u32,
    },
    /// A write whose client goes away before its payload is complete.
    BrokenOff {
        block: u64,
        byte: u8,
    },
    Flush,
    /// The destager writes this many pieces.
    Destage(u32),
    /// And syncs.
    Sync,
}

impl Call {
    /// What it makes of the content.
    pub(crate) fn change(self, content: &mut Content) {
        match self {
            Self::Write { block, blocks, byte } => (block..block + u64::from(blocks)).for_each(|block| {
                content.insert(block, byte);
            }),
            Self::Trim { block, blocks } => {
                content.retain(|at, _| !(block..block + u64::from(blocks)).contains(at))
            }
            Self::BrokenOff { .. } | Self::Flush | Self::Destage(_) | Self::Sync => {}
        }
    }
}

/// How a store is built wrong on purpose, to see that the tests find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    /// Says that it synced.
    SkipsSync,
    /// Does not sync the directory.
    SkipsDirectory,
    /// Does not pad at a flush.
    SkipsPadding,
}

/// A running store.
pub(crate) struct Store {
    pub(crate) disk: Disk,
    places: Vec<Mapping>,
    log: Append,
    ring: Ring,
    destage: Destage,
    /// Where the records of the segments lie in the ring.
    packed: BTreeMap<Lsn, Packed>,
    random: Random,
    defect: Defect,
    linked: Vec<u64>,
    /// Everything before was flushed.
    pub(crate) flushed: Lsn,
}

/// The segment's file.
struct OnDisk<'a> {
    disk: &'a Disk,
    file: u64,
}

impl SegmentSource for OnDisk<'_> {
    type Error = Infallible;

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), Infallible> {
        self.disk.read(self.file, offset, target);
        Ok(())
    }
}

/// What a restarted store finds.
pub(crate) struct Recovered {
    pub(crate) content: Content,
    pub(crate) outcome: Outcome,
    pub(crate) generation: LogGeneration,
}

pub(crate) fn layout() -> SegmentLayout {
    SegmentLayout::new(1 << 15, SECTOR).expect("the smallest")
}

/// Reads the log from the disk.
pub(crate) fn recover(disk: &Disk, durable: Lsn) -> Result<Recovered, ReplayError<Infallible>> {
    let mut segments = Vec::new();
    let mut generation = LogGeneration(0);
    for file in disk.files() {
        let mut bytes = [0; HEAD_BYTES];
        disk.read(file, 0, &mut bytes);
        // A file without a valid head is none; if it matters it is missed.
        if let Ok(head) = SegmentHead::decode_at(&bytes, DATASET, Lsn(file)) {
            generation = generation.max(head.generation);
            segments.push((head, OnDisk { disk, file }));
        }
    }
    let mut map = BlockMap::new(SIZE, BLOCKS);
    let mut replay = Replay::new(segments, Known { from: Lsn::ZERO, durable })?;
    for record in &mut replay {
        map.apply(&record?).expect("records of this volume");
    }
    let outcome = replay.outcome().expect("it ended without an error");
    let mut content = Content::new();
    for block in 0..BLOCKS {
        let Some(lsn) = map.lookup(BlockNumber(block)) else { continue };
        let base = layout().base(lsn);
        let mut bytes = [0; 512];
        disk.read(base.0, lsn.since(base), &mut bytes);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "block {block} at {lsn} is torn");
        content.insert(block, bytes[0]);
    }
    Ok(Recovered { content, outcome, generation })
}

impl Store {
    /// Begins a generation on what `recovered` found; `None` for a new disk.
    pub(crate) fn start(disk: Disk, recovered: Option<&Recovered>, seed: u64, defect: Defect) -> Self {
        let mut random = Random::new(seed);
        let (end, highest, last) = recovered.map_or((Lsn::ZERO, Lsn::ZERO, LogGeneration(0)), |found| {
            (found.outcome.end, found.outcome.highest_known, found.generation)
        });
        let mut ring = Ring::new(layout(), PLACES, end);
        let begin = GenerationBegin {
            generation: LogGeneration(last.0 + 1),
            predecessor: last,
            fork: end,
            highest_known: highest,
            ring_bytes: ring.bytes(),
        };
        let head = SegmentHead::first(DATASET, layout(), begin, Phase(1), salt(&mut random));
        let bytes = usize::try_from(layout().segment_bytes()).expect("small");
        let place = || Mapping::anonymous(bytes, MapOptions::default()).expect("memory");
        let places: Vec<_> = (0..PLACES).map(|_| place()).collect();
        let mut destage = Destage::new(end);
        ring.open(head.base, head.previous_end);
        destage.open(head);
        let linked = disk.files();
        let store = Self {
            disk,
            places,
            log: Append::new(head),
            ring,
            destage,
            packed: BTreeMap::new(),
            random,
            defect,
            linked,
            flushed: end,
        };
        store.place(head.base).slice().write(0, &head.encode());
        store
    }

    fn place(&self, base: Lsn) -> &Mapping {
        &self.places[usize::try_from(self.ring.offset(base) / layout().segment_bytes()).expect("small")]
    }

    /// Does what is asked; the position behind the record that it made, if it made one.
    pub(crate) fn call(&mut self, call: Call) -> Result<Option<Lsn>, DiskError> {
        match call {
            Call::Write { block, blocks, byte } => {
                self.append(RecordKind::Write, block, blocks, byte, false).map(Some)
            }
            Call::BrokenOff { block, byte } => self.append(RecordKind::Write, block, 1, byte, true).map(Some),
            Call::Trim { block, blocks } => self.append(RecordKind::Trim, block, blocks, 0, false).map(Some),
            Call::Flush => self.flush().map(|()| None),
            Call::Destage(pieces) => {
                for _ in 0..pieces {
                    self.write_piece()?;
                }
                Ok(None)
            }
            Call::Sync => self.sync().map(|()| None),
        }
    }

    fn append(
        &mut self,
        kind: RecordKind,
        block: u64,
        blocks: u32,
        byte: u8,
        void: bool,
    ) -> Result<Lsn, DiskError> {
        let request =
            Request { kind, volume: VolumeId(1), block: BlockNumber(block), blocks, block_size: SIZE };
        let place = loop {
            match self.log.reserve(request) {
                Some(place) => break place,
                None => self.next_segment()?,
            }
        };
        let end = place.end();
        self.packed.entry(self.log.head().base).or_default().push(place.extent());
        let memory =
            &self.places[usize::try_from(self.ring.offset(self.log.head().base) / layout().segment_bytes())
                .expect("small")];
        let range = place.payload();
        let (start, len) = (range.start, range.end - range.start);
        memory
            .slice()
            .write(usize::try_from(start).expect("small"), &vec![byte; usize::try_from(len).expect("small")]);
        if void {
            self.log.void(place, memory.slice());
        } else {
            self.log.seal(place, memory.slice());
        }
        let mut extents = Vec::new();
        let batch = self.log.take_batch(&mut extents).expect("one record at least");
        extents.into_iter().for_each(|extent| self.destage.append(extent));
        self.destage.commit(batch.end);
        Ok(end)
    }

    fn next_segment(&mut self) -> Result<(), DiskError> {
        let end = self.log.end();
        let head = self.log.next(Phase(1), salt(&mut self.random));
        self.destage.pad(end);
        while !self.ring.has_place(head.base) {
            while self.write_piece()? {}
            self.sync()?;
        }
        self.ring.open(head.base, head.previous_end);
        self.destage.open(head);
        self.place(head.base).slice().write(0, &head.encode());
        self.log = Append::new(head);
        self.log.set_durable(self.ring.durable());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        let end = if self.defect == Defect::SkipsPadding { self.log.end() } else { self.log.pad() };
        self.destage.pad(end);
        let mut rounds = 0;
        while self.destage.durable() < end {
            rounds += 1;
            assert!(
                rounds <= ROUNDS_MAX,
                "durable to {} after {rounds} syncs, not to {end}",
                self.destage.durable()
            );
            while self.write_piece()? {}
            self.sync()?;
        }
        self.flushed = end;
        Ok(())
    }

    /// Whether there was something to write.
    fn write_piece(&mut self) -> Result<bool, DiskError> {
        let Some(write) = self.destage.next_write(2 * SECTOR) else { return Ok(false) };
        let pieces = write.pieces(&self.packed[&write.base]);
        let bytes = self.place(write.base).slice().gather(&pieces);
        self.disk.write(write.base.0, write.range.start, &bytes)?;
        self.destage.written(&write);
        Ok(true)
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        let Some(sync) = self.destage.begin_sync() else { return Ok(()) };
        if self.defect != Defect::SkipsSync {
            let bases: Vec<_> = sync.bases().collect();
            for base in &bases {
                self.disk.sync(base.0)?;
            }
            if self.defect != Defect::SkipsDirectory
                && bases.iter().any(|base| !self.linked.contains(&base.0))
            {
                self.disk.sync_directory()?;
                self.linked.extend(bases.iter().map(|base| base.0));
            }
        }
        let durable = self.destage.synced(sync);
        self.ring.set_durable(Node::Own, durable);
        self.ring.set_durable(Node::Peer, durable);
        self.log.set_durable(durable);
        Ok(())
    }
}

fn salt(random: &mut Random) -> Salt {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random.next().to_le_bytes());
    bytes[8..].copy_from_slice(&random.next().to_le_bytes());
    Salt(bytes)
}
