//! What the integration tests share: a pair of holder and owner over any fabric, in scratch space of their own.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::cast_possible_truncation, reason = "test data is made of the low bits of counters")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mirrorbus::memory::LockPolicy;
use mirrorbus::{Attach, Deadline, FabricUrl, Holder, HolderConfig, KeySet, Region, RegionConfig};

/// A fabric under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fabric {
    Shm,
    Tcp,
    TcpSealed,
    Rdma,
    /// A device window; here a file that both sides map.
    Device,
}

/// The address of this machine's RDMA device, for tests of `rdma://`.
pub const RDMA_ADDRESS: &str = "MIRRORBUS_TEST_RDMA";

/// What a device of these tests has, more than any region of them.
const DEVICE_BYTES: u64 = 4 << 20;

/// A directory that is removed on drop.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mirrorbus-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// It is not removed.
    pub fn keep(&mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Fabric {
    /// Where a holder of this fabric may listen.
    pub fn url(self, scratch: &Scratch) -> FabricUrl {
        match self {
            Self::Shm => FabricUrl::Shm { socket: scratch.path("holder.sock") },
            Self::Tcp => "tcp://127.0.0.1:0".parse().unwrap(),
            Self::TcpSealed => "tcp://127.0.0.1:0?encrypt=1".parse().unwrap(),
            Self::Rdma => {
                let address = std::env::var(RDMA_ADDRESS)
                    .unwrap_or_else(|_| panic!("{RDMA_ADDRESS} does not say the RDMA device's address"));
                format!("rdma://{address}:0").parse().unwrap()
            }
            Self::Device => {
                let device = scratch.path("device");
                std::fs::File::create(&device).unwrap().set_len(DEVICE_BYTES).unwrap();
                format!("shm://127.0.0.1:0?device={}", device.display()).parse().unwrap()
            }
        }
    }
}

/// A key that all tests share.
pub fn keys() -> KeySet {
    KeySet::from_bytes(&[[7; 32]]).unwrap()
}

/// A deadline far beyond what any step takes.
pub fn soon() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

/// What nobody is silent for by chance, on a machine that does much else. Whoever waits for a silence to be noticed has one of its own.
const SILENCE: Duration = Duration::from_secs(30);

pub fn holder_config(url: FabricUrl, size: usize) -> HolderConfig {
    let mut config = HolderConfig::new(url, size);
    config.lock = LockPolicy::Try;
    config.silence = SILENCE;
    config
}

pub fn region_config(url: &FabricUrl, size: usize, attach: Attach) -> RegionConfig {
    let mut config = RegionConfig::new(url.clone(), size, attach);
    config.lock = LockPolicy::Try;
    config.silence = SILENCE;
    config
}

/// A holder and an owner in this process.
#[derive(Debug)]
pub struct Pair {
    pub region: Region,
    pub holder: Holder,
    pub scratch: Scratch,
}

impl Pair {
    pub fn new(fabric: Fabric, size: usize) -> Self {
        Self::with(fabric, size, |_, _| {})
    }

    pub fn with(fabric: Fabric, size: usize, adjust: impl FnOnce(&mut HolderConfig, &Scratch)) -> Self {
        let _ = env_logger::try_init();
        let scratch = Scratch::new();
        let mut config = holder_config(fabric.url(&scratch), size);
        adjust(&mut config, &scratch);
        let holder = Holder::start(config, keys()).unwrap();
        let region =
            Region::open(region_config(holder.url(), size, Attach::Push { replace: false }), keys()).unwrap();
        Self { region, holder, scratch }
    }

    /// The bytes that the holder has now.
    pub fn held(&self) -> Vec<u8> {
        self.holder.memory().slice().to_vec()
    }

    /// The bytes that the owner has now.
    pub fn local(&self) -> Vec<u8> {
        self.region.memory().to_vec()
    }
}

/// A small fast generator: tests print its seed.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A port at which nobody listens, another one each time: the kernel gives one again that nobody has taken.
pub(crate) fn free_port() -> u16 {
    static GIVEN: std::sync::Mutex<Vec<u16>> = std::sync::Mutex::new(Vec::new());
    loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut given = GIVEN.lock().unwrap();
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}
