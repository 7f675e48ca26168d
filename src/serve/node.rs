//! A node: its datasets, opened, with their doors.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::admin::{AdminServer, EventLog, StatusSource, Subject};
use super::config::{self, NbdAddress, NodeConfig, TlsConfig};
use super::exports::{DatasetExports, Waits};
use super::hooks::{HookDesk, Hooks};
use super::metrics::MetricsServer;
use super::nbd::{Endpoint, Server, ServerConfig, ServerError, TlsFiles, TlsMode};
use super::subject::{NodeSubject, Served};
use crate::control::KeySet;
use crate::node::KeyFileError;
use crate::segment::{LayoutError, SegmentLayout};
use crate::store::{
    AfterHold, ArbiterConfig, ArbiterKind, Dataset, DatasetConfig, Durability, HoldBound, OpenError, Reads,
    VolumeSpec,
};

/// Events that are remembered.
const EVENTS_MAX: usize = 1024;
/// How often what changed is looked for, to tell it as an event.
const LOOK_TIME: Duration = Duration::from_millis(200);
/// Bytes that the disk below writes as a whole.
const DEVICE_BLOCK_BYTES: u64 = 4096;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Sizes that cannot be.
    #[error("dataset {dataset:?}: {error}")]
    Layout {
        /// Which.
        dataset: String,
        /// What is wrong.
        error: LayoutError,
    },
    /// No key.
    #[error("dataset {dataset:?}: {error}")]
    Key {
        /// Which.
        dataset: String,
        /// Why.
        error: KeyFileError,
    },
    /// No key of the mediator.
    #[error("dataset {dataset:?}: the mediator's key: {error}")]
    MediatorKey {
        /// Which.
        dataset: String,
        /// Why.
        error: KeyFileError,
    },
    /// What etcd is reached with.
    #[cfg(feature = "etcd")]
    #[error("dataset {dataset:?}: {error}")]
    Etcd {
        /// Which.
        dataset: String,
        /// Why.
        error: crate::etcd::EtcdError,
    },
    /// It is to go by etcd, and was built without.
    #[error(
        "dataset {dataset:?}: this program was built without etcd: build it with the feature `etcd`, or have a [dataset.mediator]"
    )]
    NoEtcd {
        /// Which.
        dataset: String,
    },
    /// It cannot be opened.
    #[error("dataset {dataset:?}: {error}")]
    Open {
        /// Which.
        dataset: String,
        /// Why.
        error: OpenError,
    },
    /// Its clients could not reach it.
    #[error("dataset {dataset:?}: {error}")]
    Nbd {
        /// Which.
        dataset: String,
        /// Why.
        error: ServerError,
    },
    /// Operators could not reach it.
    #[error("the admin socket {path}: {error}")]
    Admin {
        /// Where.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Nobody could watch it.
    #[error("metrics at {address}: {error}")]
    Metrics {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The system refused something else.
    #[error(transparent)]
    System(#[from] std::io::Error),
}

/// A running node. Ends when dropped; [`stop`](Self::stop) ends it in good order.
pub struct Node {
    // In this order they end: the doors before what is behind them.
    nbd: Vec<Server>,
    hooks: Vec<Hooks>,
    admin: Option<AdminServer>,
    metrics: Option<MetricsServer>,
    served: Vec<Arc<Dataset>>,
    events: Arc<EventLog>,
    asked: Arc<Asked>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("datasets", &self.served.len()).finish_non_exhaustive()
    }
}

/// Whether the end was asked for.
#[derive(Debug, Default)]
struct Asked {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Asked {
    fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for it, at most for `most`; whether it was.
    fn wait(&self, most: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if *asked {
            return true;
        }
        *self.changed.wait_timeout(asked, most).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Node {
    /// Opens the datasets and their doors. On return clients and operators can connect; what is served is up to the pair.
    ///
    /// # Errors
    /// With the dataset or the address that is wrong; nothing is open then.
    pub fn start(config: &NodeConfig) -> Result<Self, NodeError> {
        let events = Arc::new(EventLog::new(EVENTS_MAX));
        let asked = Arc::new(Asked::default());
        let (mut served, mut nbd, mut hooks) = (Vec::new(), Vec::new(), Vec::new());
        for dataset in &config.datasets {
            let name = || dataset.name.clone();
            let keys =
                KeySet::load(&dataset.key).map_err(|error| NodeError::Key { dataset: name(), error })?;
            let opened = Dataset::open(store_config(config, dataset)?, keys);
            let opened = Arc::new(opened.map_err(|error| NodeError::Open { dataset: name(), error })?);
            let waits = Arc::new(Waits::default());
            if let Some(doors) = nbd_config(dataset) {
                let exports = DatasetExports::new(opened.clone(), waits.clone());
                let server = Server::start(&doors, Arc::new(exports));
                nbd.push(server.map_err(|error| NodeError::Nbd { dataset: name(), error })?);
            }
            let desk = Arc::new(HookDesk::default());
            if !dataset.hooks.is_empty() {
                let config = dataset.hooks.clone();
                hooks.push(Hooks::start(config, &opened, desk.clone(), events.clone())?);
            }
            served.push(Served { dataset: opened, waits, hooks: desk });
        }
        let datasets: Vec<_> = served.iter().map(|served| served.dataset.clone()).collect();
        let stop = asked.clone();
        let subject: Arc<dyn Subject> = Arc::new(NodeSubject {
            name: config.name.clone(),
            began: Instant::now(),
            served,
            events: events.clone(),
            stop: Box::new(move || stop.ask()),
        });
        let source = StatusSource::start(subject.clone())?;
        let admin = AdminServer::start(&config.admin, subject, source.clone());
        let admin = admin.map_err(|error| NodeError::Admin { path: config.admin.clone(), error })?;
        let metrics = config.metrics.map(|address| {
            let server = MetricsServer::start(address, source.clone());
            server.map_err(|error| NodeError::Metrics { address, error })
        });
        let metrics = metrics.transpose()?;
        events.add(None, "started", format!("node {:?}", config.name));
        Ok(Self { nbd, hooks, admin: Some(admin), metrics, served: datasets, events, asked })
    }

    /// Where clients reach the datasets.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.nbd.iter().flat_map(Server::endpoints)
    }

    /// A way to ask it to end, from anywhere.
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let asked = self.asked.clone();
        move || asked.ask()
    }

    /// Tells changes as events, until the end is asked for.
    pub fn run(&self) {
        let mut seen: Vec<Option<&'static str>> = vec![None; self.served.len()];
        let mut served = vec![None; self.served.len()];
        loop {
            for ((dataset, seen), served) in self.served.iter().zip(&mut seen).zip(&mut served) {
                for note in dataset.take_notes() {
                    self.events.add(Some(&dataset.config().name), note.code, note.text);
                }
                let status = dataset.status();
                let now = Some((status.role, status.generation));
                if !status.busy && std::mem::replace(served, now) != now {
                    self.nbd.iter().for_each(Server::end_moved);
                }
                if !status.busy && *seen != Some(status.reason.code) {
                    *seen = Some(status.reason.code);
                    let text = format!("{:?}: {}", status.role, status.reason.text);
                    log::info!("{}: {text}", status.name);
                    self.events.add(Some(&status.name), status.reason.code, text);
                }
            }
            if self.asked.wait(LOOK_TIME) {
                return;
            }
        }
    }

    /// Ends it in good order: clients' requests come to their end, or are cut off; what was taken becomes durable, the maps are written. In
    /// bounded time, whatever the peers do and however many datasets there are.
    pub fn stop(mut self) {
        let doors = std::mem::take(&mut self.nbd);
        at_once(doors, Server::stop);
        let hooks = std::mem::take(&mut self.hooks);
        hooks.iter().for_each(Hooks::begin_to_end);
        drop(self.admin.take());
        drop(self.metrics.take());
        at_once(std::mem::take(&mut self.served), |dataset| dataset.settle());
        // Each has its time, and they run at the same.
        drop(hooks);
    }
}

/// Ends all of them at the same time, each as long as it takes.
fn at_once<T: Send>(all: Vec<T>, end: impl Fn(T) + Sync) {
    let all: Vec<_> = all.into_iter().map(|one| Mutex::new(Some(one))).collect();
    let end_one = |one: &Mutex<Option<T>>| {
        let one = one.lock().unwrap_or_else(PoisonError::into_inner).take();
        one.into_iter().for_each(&end);
    };
    std::thread::scope(|scope| {
        for one in &all {
            let thread = std::thread::Builder::new().name("mirrorbus-stop".into());
            if thread.spawn_scoped(scope, move || end_one(one)).is_err() {
                end_one(one);
            }
        }
    });
}

fn store_config(node: &NodeConfig, dataset: &config::DatasetConfig) -> Result<DatasetConfig, NodeError> {
    let layout = SegmentLayout::new(dataset.segment_bytes, DEVICE_BLOCK_BYTES)
        .map_err(|error| NodeError::Layout { dataset: dataset.name.clone(), error })?;
    let volume = |volume: &config::VolumeConfig| VolumeSpec {
        name: volume.name.clone(),
        bytes: volume.bytes,
        block_size: volume.block_size,
    };
    Ok(DatasetConfig {
        name: dataset.name.clone(),
        id: dataset.id,
        node: node.name.clone(),
        directory: dataset.directory.clone(),
        listen: dataset.listen.clone(),
        peer: dataset.peer.clone(),
        layout,
        places: dataset.region_bytes / dataset.segment_bytes,
        durability: match dataset.durability {
            config::Durability::Disk => Durability::Disk,
            config::Durability::Memory => Durability::Memory,
        },
        reads: match dataset.reads {
            config::Reads::Lease => Reads::Lease,
            config::Reads::Confirm => Reads::Confirm,
        },
        hold: dataset.hold.map(|hold| HoldBound {
            time: hold.time,
            after: match hold.after {
                config::AfterHold::Suspend => AfterHold::Suspend,
                config::AfterHold::Error => AfterHold::Error,
            },
        }),
        silence: dataset.silence,
        lock: dataset.lock,
        volumes: dataset.volumes.iter().map(volume).collect(),
        arbiter: arbiter(dataset)?,
    })
}

/// Who decides which node serves, with the files that it is asked with.
fn arbiter(dataset: &config::DatasetConfig) -> Result<Option<ArbiterConfig>, NodeError> {
    if let Some(mediator) = &dataset.mediator {
        let keys = KeySet::load(&mediator.key)
            .map_err(|error| NodeError::MediatorKey { dataset: dataset.name.clone(), error })?;
        let kind = ArbiterKind::Mediator { url: mediator.address.clone(), keys };
        return Ok(Some(ArbiterConfig { kind, preferred: mediator.preferred.clone() }));
    }
    let Some(etcd) = &dataset.etcd else { return Ok(None) };
    let kind = etcd_kind(&dataset.name, etcd)?;
    Ok(Some(ArbiterConfig { kind, preferred: etcd.preferred.clone() }))
}

#[cfg(feature = "etcd")]
fn etcd_kind(dataset: &str, etcd: &config::EtcdConfig) -> Result<ArbiterKind, NodeError> {
    use crate::etcd::{EtcdConfig, EtcdLogin, EtcdTls, Gateway};
    let login = |(user, password): (String, PathBuf)| EtcdLogin { user, password };
    let gateway = Gateway::open(&EtcdConfig {
        endpoints: etcd.endpoints.clone(),
        prefix: etcd.prefix.clone(),
        tls: etcd.ca.clone().map(|ca| EtcdTls { ca, certificate: etcd.certificate.clone() }),
        login: etcd.login.clone().map(login),
    });
    gateway.map(ArbiterKind::Etcd).map_err(|error| NodeError::Etcd { dataset: dataset.to_owned(), error })
}

#[cfg(not(feature = "etcd"))]
fn etcd_kind(dataset: &str, _: &config::EtcdConfig) -> Result<ArbiterKind, NodeError> {
    Err(NodeError::NoEtcd { dataset: dataset.to_owned() })
}

fn nbd_config(dataset: &config::DatasetConfig) -> Option<ServerConfig> {
    let endpoint = |address: &NbdAddress| match address {
        NbdAddress::Unix(path) => Endpoint::Unix(path.clone()),
        NbdAddress::Tcp(address) => Endpoint::Tcp(address.to_string()),
    };
    let endpoints: Vec<_> = dataset.nbd.iter().map(endpoint).collect();
    let files = |tls: &TlsConfig| TlsFiles {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        client_ca: tls.client_ca.clone(),
    };
    let tls = match &dataset.tls {
        None => TlsMode::Off,
        Some(tls) if tls.required => TlsMode::Required,
        Some(_) => TlsMode::Allowed,
    };
    let tls_files = dataset.tls.as_ref().map(files);
    (!endpoints.is_empty()).then_some(ServerConfig { endpoints, tls, tls_files })
}
