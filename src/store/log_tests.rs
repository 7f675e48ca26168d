//! A primary's log and a follower of it, in memory: what one appends the other has, and the ring gives nothing away too early.

use std::sync::Arc;

use super::*;
use crate::base::{BlockNumber, BlockSize, DatasetId, Generation, LogGeneration, Phase, VolumeId};
use crate::memory::{MapOptions, Mapping};
use crate::segment::{GenerationBegin, Scan, SegmentLayout, Verify};
use crate::store::follower::{Secondary, Step};
use crate::store::ring_memory::{CONTROL_BYTES, PrimaryWords};
use crate::store::volumes::{VolumeChange, Volumes};

const PLACES: u64 = 4;
const DATASET: DatasetId = DatasetId::from_bytes([4; 16]);

fn layout() -> SegmentLayout {
    SegmentLayout::new(1 << 16, 4096).unwrap()
}

fn memory() -> RingMemory {
    let bytes = RingMemory::region_bytes(layout(), PLACES);
    RingMemory::new(Arc::new(Mapping::anonymous(bytes, MapOptions::default()).unwrap()), layout(), PLACES)
}

fn salt() -> Salt {
    use std::sync::atomic::{AtomicU8, Ordering};
    static NEXT: AtomicU8 = AtomicU8::new(1);
    Salt([NEXT.fetch_add(1, Ordering::Relaxed); 16])
}

/// A primary's log and a follower's, with memories of their own and disks that do at once what they are told.
struct Nodes {
    log: Log,
    volumes: Volumes,
    peer_memory: RingMemory,
    peer: Secondary,
    peer_volumes: Volumes,
}

impl Nodes {
    fn new() -> Self {
        let memory = memory();
        let begin = GenerationBegin {
            generation: LogGeneration(1),
            predecessor: LogGeneration(0),
            fork: Lsn::ZERO,
            highest_known: Lsn::ZERO,
            ring_bytes: PLACES << 16,
        };
        let head = SegmentHead::first(DATASET, layout(), begin, Phase(1), salt());
        let log = Log::begin(memory, Begin { head, durable: Lsn::ZERO }, salt);
        let peer = Secondary::new(Lsn::ZERO, LogGeneration(0), Lsn::ZERO, Generation(0));
        let mut nodes = Self {
            log,
            volumes: Volumes::default(),
            peer_memory: self::memory(),
            peer,
            peer_volumes: Volumes::default(),
        };
        nodes.log.set_prepared(Lsn(u64::MAX >> 2));
        let change = VolumeChange::Create { name: "v".into(), block_size: BlockSize::Large, blocks: 100 };
        let request = Request {
            kind: RecordKind::Volume,
            volume: VolumeId(0),
            block: BlockNumber(0),
            blocks: 1,
            block_size: BlockSize::Large,
        };
        let appended = nodes.log.append(request, &mut Payload::Bytes(&change.encode())).unwrap();
        nodes.volumes.apply(&appended.record(&request), Some(change)).unwrap();
        nodes
    }

    fn write(&mut self, block: u64, byte: u8) -> Result<Appended, Full> {
        let request = Request {
            kind: RecordKind::Write,
            volume: VolumeId(0),
            block: BlockNumber(block),
            blocks: 1,
            block_size: BlockSize::Large,
        };
        let appended = self.log.append(request, &mut Payload::Bytes(&[byte; 4096]))?;
        self.volumes.apply(&appended.record(&request), None).unwrap();
        Ok(appended)
    }

    /// The ring as it is goes to the peer, which begins to follow.
    fn attach(&mut self) {
        assert!(self.log.meet(self.peer.applied, self.peer.applied), "the ring reaches back");
        self.log.memory().write_primary(&PrimaryWords {
            dataset: DATASET,
            generation: self.log.head().generation,
            start: self.peer.applied,
            flush: self.log.padded(),
            own_durable: self.log.own_durable(),
        });
        self.peer_memory = memory();
        let all = self.log.memory().mapping().slice();
        self.peer_memory.mapping().slice().copy_from(0, all);
        self.peer.begin(self.peer_memory.clone(), DATASET, Generation(1), |_| false).unwrap();
    }

    /// What is posted arrives, the first `most` of it.
    fn post(&mut self, most: usize) {
        self.log.gather();
        for _ in 0..most {
            let Some(post) = self.log.next_post() else { return };
            let bytes = self.log.memory().mapping().slice().subslice(post.offset, post.len).unwrap();
            self.peer_memory.mapping().slice().copy_from(post.offset, bytes);
            self.log.posted();
        }
    }

    fn follow(&mut self) {
        while self.peer.step(&mut self.peer_volumes, |_| true).unwrap() == Step::Moved {}
    }

    fn destage_own(&mut self) {
        let end = self.log.end();
        self.log.commit(end);
        drain(&mut self.log.destage);
        while let Some(sync) = self.log.destage.begin_sync() {
            self.log.synced(sync);
            drain(&mut self.log.destage);
        }
    }

    /// All that was appended comes to both nodes' disks.
    fn make_durable(&mut self) {
        self.post(usize::MAX);
        self.follow();
        self.log.pad();
        self.peer.pad();
        self.destage_own();
        self.destage_peer();
    }

    fn destage_peer(&mut self) {
        loop {
            let Some(destage) = self.peer.destage() else { return };
            drain(destage);
            let Some(sync) = destage.begin_sync() else { break };
            self.peer.synced(sync);
            if self.peer.renewal().is_some() {
                self.peer.renewed();
            }
        }
        self.log.set_durable(Node::Peer, self.peer.durable);
    }
}

fn drain(destage: &mut Destage) {
    while let Some(write) = destage.next_write(8192) {
        destage.written(&write);
    }
}

#[test]
fn a_follower_has_what_was_posted_and_the_ring_goes_round() {
    let mut nodes = Nodes::new();
    nodes.attach();
    let mut full = 0;
    for round in 0..500_u32 {
        let byte = u8::try_from(round % 251).unwrap();
        while let Err(why) = nodes.write(u64::from(round * 7 % 100), byte) {
            assert_eq!(why, Full::Ring, "files are there");
            full += 1;
            nodes.make_durable();
        }
        nodes.post(usize::try_from(round % 5).unwrap());
        nodes.follow();
        assert!(nodes.peer.applied <= nodes.log.end());
    }
    assert!(full > 5, "500 blocks do not fit into four small segments: {full}");
    nodes.post(usize::MAX);
    nodes.follow();
    assert_eq!(nodes.peer.applied, nodes.log.end());
    let digest = |volumes: &Volumes| volumes.get(VolumeId(0)).unwrap().map.digest();
    assert_eq!(digest(&nodes.volumes), digest(&nodes.peer_volumes));
}

#[test]
fn nothing_is_given_back_in_the_ring_that_the_peer_lacks() {
    let mut nodes = Nodes::new();
    nodes.attach();
    while nodes.write(3, 9).is_ok() {}
    nodes.log.pad();
    nodes.destage_own();
    assert_eq!(nodes.write(3, 9), Err(Full::Ring), "the own disk alone frees nothing");
    nodes.log.part();
    nodes.destage_own();
    assert!(nodes.write(3, 9).is_ok(), "without a peer it does");
}

#[test]
fn a_follower_that_missed_some_is_brought_up_to_date_by_the_ring_or_refused() {
    let mut nodes = Nodes::new();
    nodes.attach();
    let _ = nodes.write(1, 1).unwrap();
    nodes.make_durable();
    let had = nodes.peer.applied;
    assert_eq!(nodes.peer.durable, had);
    nodes.log.part();
    for round in 0..20 {
        nodes.write(round, 2).unwrap();
    }
    // It comes back, with part of the segment on its disk already.
    nodes.peer = Secondary::new(had, LogGeneration(1), had, Generation(0));
    nodes.attach();
    assert!(nodes.peer.renewed.is_some(), "its last segment is written anew");
    nodes.follow();
    nodes.destage_peer();
    assert!(nodes.peer.durable >= had && nodes.peer.applied == nodes.log.end());
    let digest = |volumes: &Volumes| volumes.get(VolumeId(0)).unwrap().map.digest();
    assert_eq!(digest(&nodes.volumes), digest(&nodes.peer_volumes));
    // Away for longer than the ring reaches.
    nodes.log.part();
    for round in 0..100 {
        while nodes.write(round, 3).is_err() {
            nodes.log.pad();
            nodes.destage_own();
        }
    }
    assert!(!nodes.log.meet(had, had));
}

#[test]
fn a_segment_that_a_follower_writes_anew_keeps_its_place() {
    let mut nodes = Nodes::new();
    nodes.attach();
    let (kind, block_size) = (RecordKind::Write, BlockSize::Large);
    let next = Request { kind, volume: VolumeId(0), block: BlockNumber(0), blocks: 1, block_size };
    while nodes.log.append.has_room_before(&next, 0) {
        let _ = nodes.write(1, 1).unwrap();
    }
    let base = nodes.log.head().base;
    nodes.make_durable();
    nodes.log.part();
    // It comes back, and has all that the segment will ever have.
    let had = nodes.peer.applied;
    nodes.peer = Secondary::new(had, LogGeneration(1), had, Generation(0));
    nodes.attach();
    assert_eq!(nodes.peer.renewed, Some((base, had)));
    for _ in 0..8 {
        while nodes.write(2, 2).is_ok() {}
        nodes.log.pad();
        nodes.destage_own();
        nodes.post(usize::MAX);
        nodes.follow();
        let told = nodes.peer.words().unwrap().durable;
        nodes.log.set_durable(Node::Peer, told);
    }
    assert!(nodes.peer_memory.head(DATASET, base).is_some(), "it is yet to be written from there");
    nodes.destage_peer();
    assert!(nodes.peer.renewed.is_none() && nodes.write(2, 2).is_ok(), "then the ring goes round");
}

#[test]
fn a_payload_that_does_not_come_leaves_a_record_that_says_nothing() {
    let mut nodes = Nodes::new();
    nodes.attach();
    let request = Request {
        kind: RecordKind::Write,
        volume: VolumeId(0),
        block: BlockNumber(7),
        blocks: 2,
        block_size: BlockSize::Large,
    };
    let appended = nodes.log.append(request, &mut Payload::Fill(&mut |_| false)).unwrap();
    assert_eq!(appended.record(&request).kind, RecordKind::Void);
    let after = nodes.write(8, 1).unwrap();
    nodes.post(usize::MAX);
    nodes.follow();
    assert_eq!(nodes.peer.applied, after.end);
    let map = &nodes.peer_volumes.get(VolumeId(0)).unwrap().map;
    assert_eq!((map.lookup(BlockNumber(7)), map.lookup(BlockNumber(8))), (None, Some(after.lsn)));
    assert!(nodes.log.memory().offset(after.lsn) >= CONTROL_BYTES);
}

#[test]
fn what_is_drained_in_several_steps_is_whole_in_the_file() {
    let mut nodes = Nodes::new();
    nodes.attach();
    for round in 0..12 {
        let _ = nodes.write(round, u8::try_from(round).unwrap()).unwrap();
        if round == 5 {
            nodes.log.pad();
        }
    }
    nodes.post(usize::MAX);
    let mut image = vec![0xee; 1 << 16];
    let mut steps = 0;
    loop {
        let moved = nodes.peer.step(&mut nodes.peer_volumes, |_| true).unwrap() == Step::Moved;
        steps += u32::from(moved);
        if !moved {
            nodes.peer.pad();
        }
        while let Some((write, pieces, memory)) = nodes.peer.next_write(8192) {
            assert_eq!(write.base, nodes.log.head().base, "they fit one segment");
            image[index(write.range.start)..index(write.range.end)]
                .copy_from_slice(&memory.place(write.base).gather(&pieces));
            nodes.peer.destage().unwrap().written(&write);
        }
        if let Some(sync) = nodes.peer.destage().unwrap().begin_sync() {
            nodes.peer.synced(sync);
        }
        if !moved && nodes.peer.durable >= nodes.log.end() {
            break;
        }
    }
    assert!(steps > 1, "a step takes few records here");
    let mut scan = Scan::new(*nodes.log.head(), Verify::Payloads { from: Lsn::ZERO });
    while let Ok(Ok(_)) = scan.next(&image[..]) {}
    assert_eq!(scan.end(), nodes.log.end());
}

/// Two nodes, and the first write of a log, whose payload is damaged in the follower's memory.
fn damaged() -> (Nodes, Appended) {
    let mut nodes = Nodes::new();
    nodes.attach();
    let first = nodes.write(1, 1).unwrap();
    nodes.post(usize::MAX);
    let place = nodes.peer_memory.place(nodes.log.head().base);
    let at = nodes.log.packed(nodes.log.head().base).unwrap().payloads(4096 * 2..4096 * 3);
    let Piece::Memory(range) = &at[0] else { panic!("{at:?}") };
    assert_eq!(first.lsn.since(nodes.log.head().base), 4096 * 2);
    place.write(range.start, &[9]);
    nodes.follow();
    assert_eq!(nodes.peer.applied, first.lsn, "it may be on its way");
    (nodes, first)
}

#[test]
fn a_payload_that_is_damaged_in_the_memory_is_no_end_of_the_log() {
    let (mut nodes, first) = damaged();
    while nodes.log.head().base == nodes.log.memory().layout().base(first.lsn) {
        nodes.write(2, 2).unwrap();
    }
    nodes.post(usize::MAX);
    let mut looks = (0..5000).map(|_| nodes.peer.step(&mut nodes.peer_volumes, |_| true));
    let error = looks.find_map(Result::err).unwrap();
    assert!(error.to_string().contains("this node's memory is damaged"), "{error}");
}

#[test]
fn what_the_memory_had_beyond_what_could_be_read_is_known_in_the_end() {
    // Without anything behind it, it may not have come whole.
    let (mut nodes, _) = damaged();
    nodes.peer.part(Generation(1));
    assert_eq!(nodes.peer.lost, None);
    // The word of a flush comes behind what it is about.
    let (mut nodes, _) = damaged();
    let flush = nodes.log.pad();
    let words = nodes.peer_memory.primary().unwrap();
    nodes.peer_memory.write_primary(&PrimaryWords { flush, ..words });
    nodes.follow();
    nodes.peer.part(Generation(1));
    assert_eq!(nodes.peer.lost, Some(flush));
    // And so does a segment.
    let (mut nodes, first) = damaged();
    let before = *nodes.log.head();
    while nodes.log.head().base == before.base {
        nodes.write(2, 2).unwrap();
    }
    nodes.post(usize::MAX);
    let until = nodes.log.head().previous_end;
    nodes.follow();
    nodes.peer.part(Generation(1));
    assert!(nodes.peer.lost == Some(until) && until > first.lsn, "{:?}", nodes.peer);
    // What is whole is all there is.
    let mut nodes = Nodes::new();
    nodes.attach();
    for block in 0..40 {
        nodes.write(block, 3).unwrap();
        nodes.make_durable();
    }
    assert_ne!(nodes.log.head().base, before.base);
    nodes.follow();
    nodes.peer.part(Generation(1));
    assert_eq!((nodes.peer.lost, nodes.peer.applied), (None, nodes.log.end()));
}
