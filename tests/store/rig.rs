//! A pair in this process, on directories that end with the test.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mirrorbus::KeySet;
use mirrorbus::base::{BlockSize, DatasetId};
use mirrorbus::segment::SegmentLayout;
use mirrorbus::store::{
    Dataset, DatasetConfig, DatasetStatus, Durability, Mark, ReplicationState, RoleStatus, Source, Volume,
    VolumeSpec,
};
use tempfile::TempDir;

/// How the two reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    Shm,
    Tcp,
}

pub(crate) const SECONDS: Duration = Duration::from_secs(60);

/// Both nodes' directories and addresses; the nodes come and go.
pub(crate) struct Rig {
    pub(crate) directory: TempDir,
    medium: Medium,
    ports: [u16; 2],
    pub(crate) durability: Durability,
    pub(crate) places: u64,
    pub(crate) volume_bytes: u64,
    pub(crate) block_size: BlockSize,
}

/// A free port, likely still free when it is listened on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Rig {
    pub(crate) fn new(medium: Medium) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            medium,
            ports: [free_port(), free_port()],
            durability: Durability::Disk,
            places: 4,
            volume_bytes: 8 << 20,
            block_size: BlockSize::Large,
        }
    }

    fn url(&self, node: usize) -> mirrorbus::FabricUrl {
        let url = match self.medium {
            Medium::Shm => format!("shm:{}/{node}.sock", self.directory.path().display()),
            Medium::Tcp => format!("tcp://127.0.0.1:{}", self.ports[node]),
        };
        url.parse().unwrap()
    }

    pub(crate) fn path(&self, node: usize) -> PathBuf {
        self.directory.path().join(["a", "b"][node])
    }

    pub(crate) fn config(&self, node: usize) -> DatasetConfig {
        let id = DatasetId::from_bytes([0x5a; 16]);
        let name = ["alpha", "beta"][node];
        let mut config =
            DatasetConfig::new("test", id, name, self.path(node), self.url(node), self.url(1 - node));
        config.layout = SegmentLayout::new(1 << 20, 4096).unwrap();
        config.places = self.places;
        config.lock = mirrorbus::memory::LockPolicy::Off;
        config.durability = self.durability;
        let (bytes, block_size) = (self.volume_bytes, self.block_size);
        config.volumes = vec![VolumeSpec { name: "root".into(), bytes, block_size }];
        config
    }

    pub(crate) fn keys() -> KeySet {
        KeySet::from_bytes(&[[9; 32]]).unwrap()
    }

    pub(crate) fn open(&self, node: usize) -> Dataset {
        Dataset::open(self.config(node), Self::keys()).unwrap()
    }

    /// Both nodes, mirrored; the first serves.
    pub(crate) fn pair(&self) -> [Dataset; 2] {
        let nodes = [self.open(0), self.open(1)];
        wait_for(&nodes[0], |status| status.replication == ReplicationState::Established);
        assert_eq!(nodes[0].status().role, RoleStatus::Primary);
        nodes
    }
}

/// Waits until the node's status is as wanted.
pub(crate) fn wait_for(node: &Dataset, wanted: impl Fn(&DatasetStatus) -> bool) {
    let began = Instant::now();
    loop {
        let status = node.status();
        if wanted(&status) {
            return;
        }
        assert!(began.elapsed() < SECONDS, "not in time: {status:#?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) const fn here() -> bool {
    false
}

/// A write, acknowledged.
pub(crate) fn write(volume: &Volume, offset: u64, bytes: &[u8]) {
    let mark = volume.write(offset, Source::Bytes(bytes), &here).unwrap();
    volume.commit(mark, &here).unwrap();
}

pub(crate) fn read(volume: &Volume, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    let mark: Mark = volume.read(offset, &mut bytes).unwrap();
    volume.commit(mark, &here).unwrap();
    bytes
}

/// Bytes that tell where they were written, and when.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}
