//! The NBD server over a disk in memory: raw clients at every byte, and the clients that people use.
//!
//! A tool that is missing fails its test and names the package; `cargo xtask test` installs them.

#[path = "common/authority.rs"]
mod authority;
mod common;
#[path = "common/tool.rs"]
mod tool;

#[path = "nbd/config.rs"]
mod config;
#[path = "nbd/gate.rs"]
mod gate;
#[path = "nbd/memory.rs"]
mod memory;
#[path = "nbd/raw.rs"]
mod raw;
#[path = "nbd/scripted.rs"]
mod scripted;
#[path = "nbd/stalls.rs"]
mod stalls;
#[path = "nbd/tls.rs"]
mod tls;
#[path = "nbd/tools.rs"]
mod tools;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Scratch;
use memory::{Disks, Memory};
use mirrorbus::serve::nbd::{Endpoint, Server, ServerConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long anything that must happen may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with one disk, named `disk`, at a Unix socket and a port of loopback.
struct Rig {
    disk: Arc<Memory>,
    server: Server,
    scratch: Scratch,
}

impl Rig {
    fn new(bytes: u64) -> Self {
        Self::with(Memory::new(bytes, false), |_| {})
    }

    fn with(disk: Arc<Memory>, adjust: impl FnOnce(&mut ServerConfig)) -> Self {
        let _ = env_logger::try_init();
        let scratch = Scratch::new();
        let mut config = ServerConfig::new(scratch.path("nbd.sock"));
        config.endpoints.push(Endpoint::Tcp("127.0.0.1:0".into()));
        adjust(&mut config);
        let server = Server::start(&config, Disks::one(&disk)).unwrap();
        Self { disk, server, scratch }
    }

    fn socket(&self) -> PathBuf {
        self.scratch.path("nbd.sock")
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///disk?socket={}", self.socket().display())
    }

    fn port(&self) -> u16 {
        let Endpoint::Tcp(address) = &self.server.endpoints()[1] else { panic!("no port") };
        address.rsplit_once(':').unwrap().1.parse().unwrap()
    }
}

/// Waits until `happened`.
fn until(what: &str, happened: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < end, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tests with hundreds of clients have both ends of each in this process.
fn many_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    assert!(
        maximum.is_none_or(|most| most >= 4096),
        "this test needs 4096 descriptors, {maximum:?} are allowed"
    );
    setrlimit(Resource::Nofile, Rlimit { current: maximum.map(|most| most.min(65536)), maximum }).unwrap();
}
