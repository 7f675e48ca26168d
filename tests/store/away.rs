//! What tests of resyncs share: a volume of which every block is known, and two nodes on a slow network.

use std::ops::Range;
use std::time::{Duration, Instant};

use mirrorbus::store::{Counts, Dataset, Mark, ReplicationState, Source, Volume};

use super::proxy::Proxy;
use super::rig::{Medium, Rig, here, pattern, read, wait_for};

/// Bytes of a block, and blocks of the volume.
pub(crate) const BLOCK: u64 = 4096;
pub(crate) const BLOCKS: u64 = 8192;
/// Bytes of the rig's ring, and of a segment of it.
pub(crate) const RING: u64 = 4 << 20;
pub(crate) const SEGMENT: u64 = 1 << 20;

/// What each block was written with last; 0 for zeroes.
#[derive(Clone)]
pub(crate) struct Model {
    pub(super) seeds: Vec<u64>,
    next: u64,
    random: u64,
}

impl Model {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seeds: vec![0; usize::try_from(BLOCKS).unwrap()], next: 1, random: seed }
    }

    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    /// Writes `count` blocks at random, of those from `from` to `to`; all are acknowledged on return.
    pub(crate) fn write_some(&mut self, volume: &Volume, count: u64, from: u64, to: u64) {
        let mut mark = Mark::default();
        for _ in 0..count {
            let block = from + self.below(to - from);
            let bytes = self.renew(block);
            mark = volume.write(block * BLOCK, Source::Bytes(&bytes), &here).unwrap();
        }
        volume.commit(mark, &here).unwrap();
    }

    /// Writes each block.
    pub(crate) fn write_all(&mut self, volume: &Volume) {
        self.write_each(volume, 0..BLOCKS);
    }

    /// Writes each of these blocks; all are acknowledged on return.
    pub(crate) fn write_each(&mut self, volume: &Volume, blocks: Range<u64>) {
        let mut mark = Mark::default();
        for block in blocks {
            let bytes = self.renew(block);
            mark = volume.write(block * BLOCK, Source::Bytes(&bytes), &here).unwrap();
        }
        volume.commit(mark, &here).unwrap();
    }

    /// Writes all of these blocks by one request, which is acknowledged on return.
    pub(crate) fn write_at_once(&mut self, volume: &Volume, blocks: Range<u64>) {
        let first = blocks.start;
        let bytes: Vec<u8> = blocks.flat_map(|block| self.renew(block)).collect();
        let mark = volume.write(first * BLOCK, Source::Bytes(&bytes), &here).unwrap();
        volume.commit(mark, &here).unwrap();
    }

    /// What the block has next.
    fn renew(&mut self, block: u64) -> Vec<u8> {
        let seed = self.next;
        self.next += 1;
        self.seeds[usize::try_from(block).unwrap()] = seed;
        pattern(seed, usize::try_from(BLOCK).unwrap())
    }

    pub(crate) fn trim(&mut self, volume: &Volume, block: u64, count: u64) {
        let mark = volume.trim(block * BLOCK, count * BLOCK, &here).unwrap();
        volume.commit(mark, &here).unwrap();
        let first = usize::try_from(block).unwrap();
        self.seeds[first..first + usize::try_from(count).unwrap()].fill(0);
    }

    pub(crate) fn written(&self) -> u64 {
        self.seeds.iter().filter(|seed| **seed != 0).count() as u64
    }

    /// Compares every block.
    pub(crate) fn compare(&self, volume: &Volume) {
        let len = usize::try_from(BLOCK).unwrap();
        for (block, seed) in self.seeds.iter().enumerate() {
            let wanted = if *seed == 0 { vec![0; len] } else { pattern(*seed, len) };
            assert!(read(volume, block as u64 * BLOCK, len) == wanted, "block {block}, seed {seed}");
        }
    }
}

pub(crate) fn rig(medium: Medium) -> Rig {
    let mut rig = Rig::new(medium);
    rig.volume_bytes = BLOCKS * BLOCK;
    rig
}

pub(crate) fn alone(node: &Dataset) {
    wait_for(node, |status| status.replication == ReplicationState::LinkLost);
    node.alone().unwrap();
}

pub(crate) fn moved(before: &Counts, node: &Dataset) -> (u64, u64) {
    let now = node.status().counts;
    (now.resync_data_bytes - before.resync_data_bytes, now.resync_table_bytes - before.resync_table_bytes)
}

/// The primary ends; the other serves all of it.
pub(crate) fn switch_over(primary: Dataset, secondary: &Dataset, model: &Model) -> Volume {
    drop(primary);
    secondary.promote(false).unwrap();
    let volume = secondary.volume("root").unwrap();
    model.compare(&volume);
    let scrubbed = secondary.scrub(false).unwrap();
    assert_eq!(scrubbed.damaged_blocks, 0, "{scrubbed:?}");
    volume
}

/// Two nodes on a slow network, on which a resync takes seconds.
pub(crate) struct Slow {
    pub(crate) rig: Rig,
    pub(crate) proxies: [Proxy; 2],
}

impl Slow {
    /// Of 16 MiB a second.
    pub(crate) fn new() -> Self {
        Self::of(16 << 20)
    }

    /// Of so many bytes a second.
    pub(crate) fn of(bytes_a_second: u64) -> Self {
        let rig = rig(Medium::Tcp);
        let proxies = [0, 1].map(|node| Proxy::new(&rig.config(node).listen, bytes_a_second));
        Self { rig, proxies }
    }

    pub(crate) fn open(&self, node: usize) -> Dataset {
        let mut config = self.rig.config(node);
        config.peer = self.proxies[1 - node].url.clone();
        Dataset::open(config, Rig::keys()).unwrap()
    }

    /// The first node has written 32 MiB since the second one left, which is what this gives beside it: what the second one has, and what
    /// the first one has.
    pub(crate) fn long_away(&self) -> (Dataset, Volume, Model, Model) {
        let [primary, secondary] = [self.open(0), self.open(1)];
        wait_for(&primary, |status| status.replication == ReplicationState::Established);
        let volume = primary.volume("root").unwrap();
        let mut model = Model::new(5);
        model.write_some(&volume, 1000, 0, BLOCKS);
        volume.flush(&here).unwrap();
        let old = model.clone();
        drop(secondary);
        alone(&primary);
        model.write_all(&volume);
        (primary, volume, old, model)
    }

    pub(crate) fn until_mirrored(primary: &Dataset) {
        wait_for(primary, |status| status.replication == ReplicationState::Established);
    }
}

/// Waits until so many bytes of data were moved since.
pub(crate) fn until_moved(before: &Counts, node: &Dataset, bytes: u64) {
    let began = Instant::now();
    while moved(before, node).0 < bytes {
        assert!(began.elapsed() < super::rig::SECONDS, "{:?}", node.status());
        std::thread::sleep(Duration::from_millis(1));
    }
}
