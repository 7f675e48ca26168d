//! What it takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use mirrorbus::FabricUrl;
use mirrorbus::base::parse_bytes;
use mirrorbus::store::Durability;

/// The medium between the two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreFabric {
    /// Memory mapped by both.
    Shm,
    /// A TCP stream.
    Tcp,
}

/// `mirrorbus-bench store`
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreOptions {
    /// The medium between the two nodes.
    #[arg(long, value_enum, default_value = "shm")]
    pub fabric: StoreFabric,
    /// Bytes of one write: whole blocks of 4096.
    #[arg(long, value_parser = bytes, default_value = "4K")]
    pub size: u64,
    /// Writes that are acknowledged together.
    #[arg(long, default_value_t = 1)]
    pub depth: usize,
    /// Bytes of the volume.
    #[arg(long, value_parser = bytes, default_value = "1G")]
    pub volume: u64,
    /// Bytes of the ring: whole segments of 16 MiB, two at least.
    #[arg(long, value_parser = bytes, default_value = "256M")]
    pub ring: u64,
    /// Where both nodes keep their files; a directory on tmpfs leaves the disk out.
    #[arg(long, default_value = "/dev/shm")]
    pub directory: PathBuf,
    /// Do not write the whole volume once before measuring.
    #[arg(long)]
    pub empty: bool,
    /// Seconds during which the store is measured; the limit takes as long twice over.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Make so many writes a second, one at a time, and tell latencies while a checkpoint is written or room given back from others.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000), conflicts_with = "depth")]
    pub steady: Option<u64>,
    /// What a mediator costs while all is well: the pair has one, and beside it, in place of the limit, stands a pair without.
    #[arg(long, conflicts_with = "steady")]
    pub safety: bool,
    /// Write the figures here as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl StoreOptions {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.clamp(0.1, 86400.0))
    }

    /// Why they make no sense, if they do not.
    pub(crate) fn mistake(&self) -> Option<String> {
        if self.size == 0 || !self.size.is_multiple_of(4096) || self.size > self.volume {
            return Some(format!(
                "--size {}: whole blocks of 4096 bytes, at most the volume's {}",
                self.size, self.volume
            ));
        }
        if !(1..=256).contains(&self.depth) {
            return Some(format!("--depth {}: 1 to 256", self.depth));
        }
        if !self.ring.is_multiple_of(16 << 20) || self.ring < 32 << 20 {
            return Some(format!("--ring {}: whole segments of 16 MiB, two at least", self.ring));
        }
        None
    }
}

/// One of two nodes, and with this alone the other one of a run of this program.
#[derive(Debug, Clone, Args)]
pub(crate) struct StorePeerOptions {
    /// Where this node keeps its files and sockets.
    #[arg(long)]
    pub directory: PathBuf,
    /// Where this node is reached.
    #[arg(long)]
    pub listen: FabricUrl,
    /// Where the other one is.
    #[arg(long)]
    pub peer: FabricUrl,
    /// Bytes of the ring.
    #[arg(long, value_parser = bytes)]
    pub ring: u64,
    /// Where a mediator listens, if there is one.
    #[arg(long)]
    pub mediator: Option<FabricUrl>,
}

/// The store between two machines, measured turn by turn.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreTurnsOptions {
    /// This node; the other one is `store-peer`.
    #[command(flatten)]
    pub node: StorePeerOptions,
    /// Bytes of the volume.
    #[arg(long, value_parser = bytes)]
    pub volume: u64,
    /// `HOST:PORT` of `limit-peer --fabric rdma`, there too.
    #[arg(long)]
    pub limit_peer: String,
    /// Bytes of the memory that it serves.
    #[arg(long, value_parser = bytes)]
    pub limit_memory: u64,
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text)
}

/// What the pair promises in a run: two memories count, or no acknowledged write would be without a disk.
pub(crate) const DURABILITY: Durability = Durability::Memory;
