//! Both nodes, what is between them, and what is known to be promised.

use std::cell::RefCell;
use std::rc::Rc;

use super::counts::Counts;
use super::node::{Node, Role, seed_salts};
use super::{Defect, PLACES, layout};
use crate::base::{BlockNumber, BlockSize, Lsn, VolumeId};
use crate::segment::{RecordKind, Request};
use crate::sim::{Network, Random};
use crate::store::SegmentFileError;
use crate::store::follower::Stage;
use crate::store::log::Payload;
use crate::store::log_files::LogFiles;
use crate::store::primary::Mode;
use crate::store::ring_memory::{RingMemory, WINDOW_BYTES};

pub(super) const VOLUME: VolumeId = VolumeId(0);
pub(super) const BLOCKS: u64 = 60;
pub(super) const NAMES: [&str; 2] = ["alpha", "beta"];

/// What a record of the log did, and where it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Op {
    pub(super) end: Lsn,
    block: u64,
    count: u64,
    /// `None`: no data.
    version: Option<u32>,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) nodes: [Node; 2],
    pub(super) network: Option<Rc<RefCell<Network>>>,
    /// Who serves, or served last, and who has every acknowledged write: what the registers say.
    pub(super) serving: Option<usize>,
    pub(super) members: [bool; 2],
    pub(super) ops: Vec<Op>,
    version: u32,
    pub(super) acked: Lsn,
    pub(super) flushed: Lsn,
    /// The log is to be durable to there, as clients asked.
    pub(super) flush_to: Lsn,
    pub(super) defect: Defect,
    pub(super) counts: Counts,
}

pub(super) type Done = Result<(), SegmentFileError>;

impl World {
    pub(super) fn new(seed: u64, defect: Defect) -> Self {
        seed_salts(seed);
        let mut nodes = [Node::new(seed * 2, defect, NAMES[0]), Node::new(seed * 2 + 1, defect, NAMES[1])];
        nodes.iter_mut().for_each(|node| node.start().expect("nothing is cut yet"));
        Self {
            random: Random::new(seed),
            nodes,
            network: None,
            serving: None,
            members: [true; 2],
            ops: Vec::new(),
            version: 0,
            acked: Lsn::ZERO,
            flushed: Lsn::ZERO,
            flush_to: Lsn::ZERO,
            defect,
            counts: Counts::default(),
        }
    }

    pub(super) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].up.is_some()
    }

    /// One action, by luck.
    pub(super) fn step(&mut self) {
        let any = usize::from(self.random.chance(50));
        match self.random.below(100) {
            0..=24 => self.write(),
            25..=27 => self.flush(),
            28..=44 => self.push(),
            45..=59 => {
                let bytes = usize::try_from(self.random.below(12_000)).expect("small");
                self.deliver(bytes);
            }
            60..=84 => self.tend(any),
            85..=88 => self.keep(any),
            89 => self.lose_link(),
            90..=91 => self.heal(),
            92 => {
                let bytes = self.random.below(8);
                self.nodes[any].files.disk.borrow_mut().cut_in(bytes);
            }
            93 if self.random.chance(30) => self.crash(any),
            93 => {}
            _ => self.decide(),
        }
        self.look_after_power();
        self.check_serving();
    }

    /// Writes or trims, if somebody serves.
    fn write(&mut self) {
        let block = self.random.below(BLOCKS);
        let count = 1 + self.random.below((BLOCKS - block).min(12));
        let (is_trim, is_broken_off) = (self.random.chance(15), self.random.chance(5));
        let Some(at) = self.serving.filter(|at| self.is_up(*at)) else { return };
        let up = self.nodes[at].up();
        let Role::Primary(primary) = &mut up.role else { return };
        let kind = if is_trim { RecordKind::Trim } else { RecordKind::Write };
        let blocks = u32::try_from(count).expect("small");
        let (block_size, first) = (BlockSize::Small, BlockNumber(block));
        let request = Request { kind, volume: VOLUME, block: first, blocks, block_size };
        self.version += 1;
        let bytes: Vec<u8> = (0..count * 128).flat_map(|_| self.version.to_le_bytes()).collect();
        let mut breaks_off = |_: crate::memory::VolatileSlice<'_>| false;
        let mut payload = match (is_trim, is_broken_off) {
            (true, _) => Payload::None,
            (false, true) => Payload::Fill(&mut breaks_off),
            (false, false) => Payload::Bytes(&bytes),
        };
        let Ok(appended) = primary.log.append(request, &mut payload) else { return };
        up.volumes.apply(&appended.record(&request), None).expect("it fits");
        let version = (!is_trim).then_some(self.version);
        if appended.is_whole {
            self.ops.push(Op { end: appended.end, block, count, version });
        }
        self.counts.writes += 1;
    }

    fn flush(&mut self) {
        let Some(at) = self.serving else { return };
        if let Some(primary) = self.nodes[at].primary() {
            self.flush_to = primary.log.pad();
        }
    }

    /// What the thread of a client does that waits.
    pub(super) fn push(&mut self) {
        let Some(at) = self.serving else { return };
        let Some(primary) = self.nodes[at].primary() else { return };
        primary.push();
        primary.ask_peer();
        let (committed, own) = (primary.committed(), primary.log.own_durable());
        let is_there = !primary.has_member() || primary.log.peer_durable() >= self.flush_to;
        let promised = if primary.has_member() { committed } else { committed.min(own) };
        self.acked = promised.max(self.acked);
        if committed >= self.flush_to && own >= self.flush_to && is_there {
            self.flushed = self.flush_to.max(self.flushed);
        }
    }

    pub(super) fn deliver(&mut self, bytes: usize) {
        if let Some(network) = &self.network {
            network.borrow_mut().deliver(bytes);
        }
    }

    /// What the tender of a node does.
    fn tend(&mut self, at: usize) {
        let (bytes, action) = (4096 << self.random.below(4), self.random.below(4));
        let node = &mut self.nodes[at];
        let _ = node.follow();
        let _ = match action {
            0 | 1 => node.write_one(bytes).map(drop),
            2 => node.sync().map(drop),
            _ => node.prepare(),
        };
        node.publish();
    }

    /// What the keeper of a node does. The power may be cut between checkpoint and marker.
    fn keep(&mut self, at: usize) {
        let marks = self.nodes[at].checkpoint();
        if self.random.chance(10) {
            return;
        }
        if marks {
            self.nodes[at].marker = self.nodes[at].checkpoint.clone();
            self.counts.markers += 1;
        }
        let limit = self.limit(at);
        let node = &self.nodes[at];
        let mut live = std::collections::BTreeSet::new();
        for root in [&node.checkpoint, &node.marker] {
            for entry in root.volumes.entries() {
                entry.map.for_each_run(|_, lsn, _| {
                    live.insert(layout().base(lsn));
                });
            }
        }
        let dead = |base: &Lsn| base.plus(layout().segment_bytes()) < limit && !live.contains(base);
        for base in node.files.list().unwrap_or_default().into_iter().filter(dead) {
            if self.nodes[at].files.remove(base).is_err() {
                return;
            }
            self.counts.reclaimed += 1;
        }
    }

    fn limit(&mut self, at: usize) -> Lsn {
        let ring_bytes = PLACES * layout().segment_bytes();
        let (checkpoint, marker) = (self.nodes[at].checkpoint.position, self.nodes[at].marker.position);
        if self.nodes[at].note.is_some() {
            return Lsn::ZERO;
        }
        let limit = match self.nodes[at].up.as_ref().map(|up| &up.role) {
            Some(Role::Primary(primary)) if !primary.has_member() => {
                Lsn(primary.log.end().0.saturating_sub(ring_bytes))
            }
            Some(Role::Primary(primary)) => primary.durable_for_good().min(marker),
            Some(Role::Secondary(secondary)) => secondary.durable_for_good().min(marker),
            Some(Role::Undecided) | None => Lsn::ZERO,
        };
        limit.min(checkpoint)
    }

    pub(super) fn lose_link(&mut self) {
        if let Some(network) = &self.network {
            network.borrow_mut().lose();
        }
    }

    /// The link is back, if both are as they were.
    fn heal(&mut self) {
        let (Some(network), Some(at)) = (&self.network, self.serving) else { return };
        let follows = self.nodes[1 - at].secondary().is_some_and(|s| matches!(s.stage, Stage::Following(_)));
        let Some(primary) = self.nodes[at].primary() else { return };
        if !network.borrow().is_lost() || !follows || !matches!(primary.mode, Mode::Held { .. }) {
            return;
        }
        let ring = RingMemory::region_bytes(layout(), PLACES) - WINDOW_BYTES;
        network.borrow_mut().reconnect(0..crate::store::ring_memory::SECONDARY_AT);
        network.borrow_mut().reconnect(crate::store::ring_memory::CONTROL_BYTES..ring);
        if let Some(link) = primary.link.take() {
            primary.be_reconnected(link);
            self.counts.reconnected += 1;
        }
    }

    pub(super) fn crash(&mut self, at: usize) {
        if !self.is_up(at) {
            return;
        }
        // What was on its way arrives in part, if it is the primary that went.
        let bytes = usize::try_from(self.random.below(20_000)).expect("small");
        if self.serving == Some(at) {
            self.deliver(bytes);
        }
        self.lose_link();
        let seed = self.random.next();
        self.nodes[at].crash(seed);
        self.counts.crashes += 1;
        trace(|| format!("{} crashed", NAMES[at]));
    }

    fn look_after_power(&mut self) {
        for at in 0..2 {
            if self.nodes[at].files.disk.borrow().is_off() {
                self.crash(at);
                let seed = self.random.next();
                self.nodes[at].files.disk.borrow_mut().reseed(seed);
                self.nodes[at].files.disk.borrow_mut().restart();
            }
        }
    }

    fn content(&self) -> Vec<Option<u32>> {
        let blocks = usize::try_from(BLOCKS).expect("small");
        let mut content = vec![None; blocks];
        for op in &self.ops {
            let range = usize::try_from(op.block).expect("small")
                ..usize::try_from(op.block + op.count).expect("small");
            content[range].fill(op.version);
        }
        content
    }

    /// Whoever serves reads what was written.
    fn check_serving(&mut self) {
        let Some(at) = self.serving.filter(|at| self.nodes[*at].primary().is_some()) else { return };
        let marked = self.nodes[at].places.marked();
        if let Some(alone) = self.nodes[at].primary().filter(|primary| primary.mode == Mode::Alone) {
            let (name, committed) = (NAMES[at], alone.committed());
            let is_marked = marked.is_some_and(|marked| marked.durable >= committed);
            assert!(is_marked, "{name} acknowledges to {committed} alone, marked is {marked:?}");
        }
        let block = self.random.below(BLOCKS);
        let expected = self.content()[usize::try_from(block).expect("small")];
        check(&mut self.nodes[at], BlockNumber(block), expected, NAMES[at]);
    }

    /// Everything heals, and both come to have the same.
    pub(super) fn converge(&mut self) {
        for round in 0..3000 {
            for at in 0..2 {
                self.nodes[at].files.disk.borrow_mut().cut_never();
            }
            self.look_after_power();
            self.decide();
            self.heal();
            self.flush();
            self.push();
            self.deliver(usize::MAX);
            (0..8).for_each(|turn| self.tend(turn % 2));
            self.keep(round % 2);
            let Some(at) = self.serving else { continue };
            let Some(primary) = self.nodes[at].primary() else { continue };
            let end = primary.log.end();
            let is_whole = primary.mode == Mode::Mirrored && primary.committed() >= end;
            if is_whole && primary.log.peer_durable() >= end && round > 20 {
                return self.check_both(at, end);
            }
        }
        let modes: Vec<_> = (0..2).map(|at| self.nodes[at].primary().map(|p| p.mode.clone())).collect();
        panic!("the pair does not become whole: {modes:?}, serving {:?}", self.serving);
    }

    fn check_both(&mut self, at: usize, end: Lsn) {
        let digest = |node: &mut Node| node.up().volumes.entries()[0].map.digest();
        let digests = [0, 1].map(|at| digest(&mut self.nodes[at]));
        assert_eq!(digests[0], digests[1], "both maps at {end}");
        let content = self.content();
        for node in [1 - at, at] {
            for (block, expected) in (0..).zip(&content) {
                check(&mut self.nodes[node], BlockNumber(block), *expected, NAMES[node]);
            }
        }
        // And so they are after both lose their memories.
        for (node, name) in NAMES.into_iter().enumerate() {
            self.crash(node);
            self.nodes[node].start().expect("nothing is cut");
            assert!(self.nodes[node].position().end() >= end, "{name} forgets what was flushed");
            for (block, expected) in (0..).zip(&content) {
                check(&mut self.nodes[node], BlockNumber(block), *expected, name);
            }
        }
    }
}

/// Tells what happens when a single seed is replayed.
pub(super) fn trace(text: impl FnOnce() -> String) {
    if std::env::var_os("MIRRORBUS_SEED").is_some() {
        eprintln!("{}", text());
    }
}

fn check(node: &mut Node, block: BlockNumber, expected: Option<u32>, name: &str) {
    let found = node.read(block);
    let expected = expected.map(|version| {
        let mut bytes = [0; 512];
        bytes.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&version.to_le_bytes()));
        bytes
    });
    let told = |bytes: Option<[u8; 512]>| {
        bytes.map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let at = node.up().volumes.entries().first().and_then(|entry| entry.map.lookup(block));
    assert!(
        found == expected,
        "{name}, block {block} at {at:x?}: version {:?}, not {:?}",
        told(found),
        told(expected)
    );
}
