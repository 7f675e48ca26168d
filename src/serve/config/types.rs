//! The configuration as the node uses it: every value is read, within its bounds, and fits the others.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::{BlockSize, DatasetId, FabricUrl};
use crate::memory::LockPolicy;

/// One node: a process that serves its side of one or more datasets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// What it is called. The other node of the pair has another.
    pub name: String,
    /// Where its admin socket is; an absolute path.
    pub admin: PathBuf,
    /// Where it answers requests for metrics, by HTTP.
    pub metrics: Option<SocketAddr>,
    /// At least one. Names, ids and directories are distinct, and so is everything that is listened on.
    pub datasets: Vec<DatasetConfig>,
}

/// One dataset on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetConfig {
    /// What commands call it.
    pub name: String,
    /// What it is, for life; the same on both nodes.
    pub id: DatasetId,
    /// Where its segments and its checkpoint are; an absolute path that no other dataset is in.
    pub directory: PathBuf,
    /// The key file that both nodes have; an absolute path.
    pub key: PathBuf,
    /// Where the peer's ring reaches this node.
    pub listen: FabricUrl,
    /// Where this node's ring reaches the peer; over the same medium.
    pub peer: FabricUrl,
    /// Bytes of the ring: whole segments, two at least. The same on both nodes.
    pub region_bytes: u64,
    /// Bytes of a segment: a power of two. The same on both nodes.
    pub segment_bytes: u64,
    /// When a flush is done.
    pub durability: Durability,
    /// How it is made sure that an answer is the newest.
    pub reads: Reads,
    /// Whether the ring is locked in memory.
    pub lock: LockPolicy,
    /// Where its volumes are served. What is reachable from elsewhere has `tls` with `required`.
    pub nbd: Vec<NbdAddress>,
    /// Encryption for clients over TCP.
    pub tls: Option<TlsConfig>,
    /// For how long requests are held while the link is lost and nothing is decided; without it for as long as that takes.
    pub hold: Option<HoldConfig>,
    /// How long the other node is not heard before it is missed.
    pub silence: Duration,
    /// What is run when this node begins to serve, and when it ceases to.
    pub hooks: HooksConfig,
    /// Who decides which node serves; without one, and without `etcd`, the operator.
    pub mediator: Option<MediatorConfig>,
    /// Who does in place of a mediator; then there is none.
    pub etcd: Option<EtcdConfig>,
    /// Volumes to make at the very first start, when the dataset is empty. Names are distinct.
    pub volumes: Vec<VolumeConfig>,
}

/// What a client's flush waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The stable storage of both nodes.
    #[default]
    Disk,
    /// The memory of both nodes: what was flushed survives the loss of either one, and not of both at once.
    Memory,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        })
    }
}

/// How a node that serves makes sure that the other one does not, before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reads {
    /// By a lease of the other one's, where an arbiter decides which serves.
    #[default]
    Lease,
    /// By a look at the other one's memory.
    Confirm,
}

/// Where clients of a dataset's volumes come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbdAddress {
    /// A Unix socket at an absolute path.
    Unix(PathBuf),
    /// An address of this machine. Port 0 takes a free one.
    Tcp(SocketAddr),
}

impl fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// How clients over TCP are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// This node's certificate chain, PEM; an absolute path.
    pub certificate: PathBuf,
    /// Its private key, PEM; an absolute path.
    pub key: PathBuf,
    /// Who signs the certificates of clients, PEM: others are turned away. An absolute path.
    pub client_ca: Option<PathBuf>,
    /// Whether clients over TCP that do not encrypt are turned away.
    pub required: bool,
}

/// The mediator of a dataset; the same on both nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediatorConfig {
    /// Where it listens: by TCP, or at a Unix socket.
    pub address: FabricUrl,
    /// Its key file, which is not the pair's; an absolute path.
    pub key: PathBuf,
    /// The name of the node that goes on when each of the two could; without one, that which serves.
    pub preferred: Option<String>,
}

/// Commands: a program, an absolute path, and its arguments; none where there are no words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HooksConfig {
    /// When this node begins to serve.
    pub on_promote: Vec<String>,
    /// When it ceases to, and once at its start.
    pub on_demote: Vec<String>,
    /// How long each may take.
    pub time_max: Duration,
}

impl HooksConfig {
    /// Whether nothing is run.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.on_promote.is_empty() && self.on_demote.is_empty()
    }
}

/// A bound of how long requests are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldConfig {
    /// So long.
    pub time: Duration,
    /// What becomes of them then.
    pub after: AfterHold,
}

/// What becomes of requests that were held for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterHold {
    /// They wait on, and operators are told.
    #[default]
    Suspend,
    /// They fail, and so do those that come.
    Error,
}

/// etcd as the arbiter of a dataset; the same registers for both nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Where it listens for clients, at least one: `http://HOST:PORT`, or `https://HOST:PORT` for all of them.
    pub endpoints: Vec<String>,
    /// What the keys of registers begin with.
    pub prefix: String,
    /// Who signed etcd's certificate, PEM; an absolute path. There is one if the endpoints are `https`.
    pub ca: Option<PathBuf>,
    /// This node's certificate and its private key, PEM, if etcd asks for one; absolute paths. Only with a CA.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The user that this node is, and the file with the password; an absolute path.
    pub login: Option<(String, PathBuf)>,
    /// The name of the node that goes on when each of the two could; without one, that which serves.
    pub preferred: Option<String>,
}

/// A volume to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeConfig {
    /// Its name.
    pub name: String,
    /// Its size: whole blocks, at least one.
    pub bytes: u64,
    /// Its blocks.
    pub block_size: BlockSize,
}
