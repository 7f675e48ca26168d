//! The pair: this process writes, a child follows, or a process of another machine.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mirrorbus::FabricUrl;
use mirrorbus::base::BlockSize;
use mirrorbus::mediator::{Mediator, MediatorServerConfig};
use mirrorbus::store::{Dataset, DatasetConfig, DatasetStatus, ReplicationState, Source, Volume, VolumeSpec};

use super::measure::{CHECK, measure, payload};
use super::options::{StoreFabric, StoreOptions, StorePeerOptions, StoreTurnsOptions};
use super::peer::{Side, config, keys};
use crate::Failure;
use crate::child::Peer;
use crate::driver::Slice;
use crate::pair::Contender;

/// How long the two may take to find each other.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Who decides which of a pair serves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Decider {
    /// Nobody, in a run.
    Operator,
    /// A mediator in this process: while all is well it is asked once a second whether it is there.
    Mediator,
}

/// A mirrored pair with one volume.
pub(super) struct Subject {
    volume: Volume,
    dataset: Option<Dataset>,
    peer: Option<Peer>,
    /// Of a pair that has one.
    mediator: Option<Mediator>,
    directory: PathBuf,
    payload: Vec<u8>,
    slots: u64,
    depth: usize,
    /// Batches between two looks at the clock.
    check: u32,
    random: u64,
}

impl Subject {
    pub(super) fn open(options: &StoreOptions) -> Result<Self, Failure> {
        Self::open_with(options, Decider::Operator)
    }

    /// A pair with this one to decide which of the two serves.
    pub(super) fn open_with(options: &StoreOptions, decider: Decider) -> Result<Self, Failure> {
        let name = format!("mirrorbus-bench-{}-{decider:?}", std::process::id());
        let directory = options.directory.join(name.to_lowercase());
        std::fs::create_dir_all(&directory)?;
        let [here, there] = urls(options, &directory)?;
        let mediator = match decider {
            Decider::Operator => None,
            Decider::Mediator => Some(mediator(&directory)?),
        };
        let url = mediator.as_ref().map(|mediator| mediator.url().clone());
        let mut arguments = [
            "store-peer",
            "--directory",
            &directory.display().to_string(),
            "--listen",
            &there.to_string(),
            "--peer",
            &here.to_string(),
            "--ring",
            &options.ring.to_string(),
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend(url.iter().map(|url| format!("--mediator={url}")));
        let peer = Peer::start(&arguments)?;
        let ours = config(Side::Primary, &directory, here, there, options.ring, url)?;
        let mut subject = Self::of(ours, directory, options.volume, options.size)?;
        (subject.peer, subject.mediator, subject.depth) = (Some(peer), mediator, options.depth);
        if !options.empty {
            subject.fill()?;
        }
        Ok(subject)
    }

    /// With a `store-peer` that runs already.
    pub(super) fn join(options: &StoreTurnsOptions, size: u64) -> Result<Self, Failure> {
        let StoreTurnsOptions { node, volume, .. } = options.clone();
        let StorePeerOptions { directory, listen, peer, ring, mediator } = node;
        std::fs::create_dir_all(&directory)?;
        let ours = config(Side::Primary, &directory, listen, peer, ring, mediator)?;
        let mut subject = Self::of(ours, directory, volume, size)?;
        // Between machines a batch takes so long that the clock is nothing beside it.
        subject.check = 1;
        subject.fill()?;
        Ok(subject)
    }

    /// A pair that has found itself, with an empty volume.
    fn of(mut ours: DatasetConfig, directory: PathBuf, bytes: u64, size: u64) -> Result<Self, Failure> {
        ours.volumes = vec![VolumeSpec { name: "volume".into(), bytes, block_size: BlockSize::Large }];
        let dataset = Dataset::open(ours, keys()?)?;
        wait(&dataset)?;
        let volume = dataset.volume("volume")?;
        Ok(Self {
            volume,
            dataset: Some(dataset),
            peer: None,
            mediator: None,
            directory,
            payload: payload(size),
            slots: bytes / size,
            depth: 1,
            check: CHECK,
            random: 0x9e37_79b9_7f4a_7c15,
        })
    }

    /// Itself, with so many writes acknowledged together from now on.
    pub(super) const fn at_depth(&mut self, depth: usize) -> &mut Self {
        self.depth = depth;
        self
    }

    /// Every block once, in order.
    fn fill(&mut self) -> Result<(), Failure> {
        let size = self.payload.len() as u64;
        for slot in 0..self.slots {
            let mark = self.volume.write(slot * size, Source::Bytes(&self.payload), &|| false)?;
            if slot % 64 == 63 || slot + 1 == self.slots {
                self.volume.commit(mark, &|| false)?;
            }
        }
        Ok(())
    }

    pub(super) fn status(&self) -> DatasetStatus {
        self.dataset.as_ref().map(Dataset::status).expect("open until it is dropped")
    }

    /// Whether this node writes a checkpoint or gives room back just now.
    pub(super) fn is_keeping(&self) -> bool {
        self.dataset.as_ref().is_some_and(Dataset::is_keeping)
    }

    /// One batch, acknowledged.
    pub(super) fn batch(&mut self) -> Result<(), Failure> {
        let mut last = None;
        for _ in 0..self.depth {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let slot = self.random % self.slots;
            // No two writes are the same, and none is all zeroes.
            self.payload[..8].copy_from_slice(&(self.random | 1).to_le_bytes());
            let offset = slot * self.payload.len() as u64;
            last = Some(self.volume.write(offset, Source::Bytes(&self.payload), &|| false)?);
        }
        if let Some(mark) = last {
            self.volume.commit(mark, &|| false)?;
        }
        Ok(())
    }
}

impl Contender for Subject {
    fn slice(&mut self, duration: Duration) -> Result<Slice, Failure> {
        let depth = self.depth as u64;
        measure(duration, depth, self.check, || self.batch())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        drop(self.dataset.take());
        drop(self.peer.take());
        drop(self.mediator.take());
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

fn mediator(directory: &std::path::Path) -> Result<Mediator, Failure> {
    let url = FabricUrl::Shm { socket: directory.join("mediator.sock") };
    Ok(Mediator::start(MediatorServerConfig::new(url, directory.join("mediator")), keys()?)?)
}

fn urls(options: &StoreOptions, directory: &std::path::Path) -> Result<[FabricUrl; 2], Failure> {
    match options.fabric {
        StoreFabric::Shm => {
            Ok(["a", "b"].map(|name| FabricUrl::Shm { socket: directory.join(format!("{name}.sock")) }))
        }
        StoreFabric::Tcp => {
            let free = || -> Result<FabricUrl, Failure> {
                let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
                Ok(FabricUrl::Tcp { address: address.to_string(), encrypt: false })
            };
            Ok([free()?, free()?])
        }
    }
}

fn wait(dataset: &Dataset) -> Result<(), Failure> {
    let began = Instant::now();
    while dataset.status().replication != ReplicationState::Established {
        if began.elapsed() > READY_WITHIN {
            let reason = dataset.status().reason;
            return Err(
                format!("the two nodes are not mirrored within {READY_WITHIN:?}: {}", reason.text).into()
            );
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}
