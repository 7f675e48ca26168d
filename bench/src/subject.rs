//! What is measured: a mirrored region, through the same calls that any program makes.
//!
//! Without `--peer` the holder is this program again, as a process of its own, in a directory of its own that only this
//! user may enter; whichever of the two ends last removes it. Both copies are written once from end to end before the
//! first slice, so that no store meets a page for the first time. Nothing is locked in memory: the limit is not either.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mirrorbus::fabric::SourceUse;
use mirrorbus::memory::LockPolicy;
use mirrorbus::mirror::Polling as LanePolling;
use mirrorbus::{
    Attach, Deadline, FabricUrl, Holder, HolderConfig, KeySet, Lane, LaneConfig, Level, Region, RegionConfig,
    SharedLane, Ticket,
};

use crate::Failure;
use crate::child::{self, Peer};
use crate::driver::Side;
use crate::limit::{self, Team};
use crate::options::{AskedLevel, HoldOptions, RegionOptions};
use crate::pair::Contender;
use crate::workload::{Fabric, Polling, SPIN, Workload};

/// How long a store may wait for its acknowledgment, and the region for its holder.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the stores that write the region for the first time.
const FIRST_STORE_BYTES: usize = 64 << 10;

/// A mirrored region, ready to run.
pub(crate) struct Subject {
    contender: Box<dyn Contender>,
    /// What it is, in a line.
    pub(crate) does: String,
    /// Copies of each byte made by code of this process.
    pub(crate) copies_per_byte: f64,
}

/// What the lanes need, in the order in which it ends.
struct Kept {
    _region: Region,
    _peer: Option<Peer>,
    _directory: Option<Directory>,
}

impl Subject {
    /// Opens the region that `options` ask for, against a holder of its own or the one given.
    ///
    /// # Errors
    /// No holder, no memory, or the two could not agree.
    pub(crate) fn open(workload: &Workload, options: &RegionOptions) -> Result<Self, Failure> {
        let (url, keys, peer, directory) = match (&options.peer, &options.key) {
            (Some(url), Some(key)) => (url.clone(), KeySet::load(key)?, None, None),
            _ => {
                let directory = Directory::new()?;
                let keys = KeySet::create(&directory.key())?;
                let peer = Peer::start(&hold_arguments(workload, &directory)?)?;
                let url = peer.ready().trim_start_matches("listening on ").parse()?;
                (url, keys, Some(peer), Some(directory))
            }
        };
        let replace = peer.is_some();
        let mut config = RegionConfig::new(url.clone(), workload.region, Attach::Push { replace });
        config.lock = LockPolicy::Off;
        config.timeout = PATIENCE;
        let region = Region::open(config, keys)?;
        write_once(&region)?;
        let kept = Kept { _region: region, _peer: peer, _directory: directory };
        let level = match options.level {
            AskedLevel::Acked => Level::Acked,
            AskedLevel::Visible => Level::Visible,
        };
        Self::over(kept, workload, level, &url)
    }

    fn over(kept: Kept, workload: &Workload, level: Level, url: &FabricUrl) -> Result<Self, Failure> {
        let per_lane = workload.threads.div_ceil(workload.lanes);
        let config = LaneConfig {
            depth: (workload.depth * per_lane).min(Lane::DEPTH_MAX),
            polling: match workload.polling {
                Polling::Spin => LanePolling::Spin,
                Polling::Block => LanePolling::Block,
            },
            store_timeout: PATIENCE,
        };
        let lanes: Result<Vec<Lane>, _> = (0..workload.lanes).map(|_| kept._region.lane(config)).collect();
        let lanes = lanes?;
        let copies_per_byte = lanes.first().map_or(2.0, |lane| match lane.capabilities().source {
            // Into the region, and from there onto the medium or into what the medium sends from.
            SourceUse::AtPost => 2.0,
            SourceUse::UntilCompleted => 1.0,
        });
        let does = format!("a region mirrored over {url}, level {level}, holder in another process");
        let contender: Box<dyn Contender> = if workload.threads == workload.lanes {
            match level {
                Level::Visible => exclusive::<true>(lanes, workload, kept),
                _ => exclusive::<false>(lanes, workload, kept),
            }
        } else {
            let lanes: Result<Vec<SharedLane>, _> = lanes.into_iter().map(Lane::into_shared).collect();
            let lanes = lanes?;
            let sides = (0..workload.threads).map(|index| SharedSide {
                lane: lanes[index % lanes.len()].clone(),
                source: vec![0xa5; workload.size],
                level,
            });
            Box::new(Team::new(sides.collect(), workload, kept))
        };
        Ok(Self { contender, does, copies_per_byte })
    }

    /// The one that takes turns with the limit.
    pub(crate) fn contender(&mut self) -> &mut dyn Contender {
        &mut *self.contender
    }
}

/// Writes the whole region, on both sides.
fn write_once(region: &Region) -> Result<(), Failure> {
    let mut lane = region.lane(LaneConfig { store_timeout: PATIENCE, ..LaneConfig::default() })?;
    let chunk = vec![1; FIRST_STORE_BYTES];
    for offset in (0..region.size()).step_by(FIRST_STORE_BYTES) {
        lane.store(offset, &chunk[..FIRST_STORE_BYTES.min(region.size() - offset)])?;
    }
    lane.flush(Level::Visible, Deadline::within(PATIENCE))?;
    Ok(())
}

fn exclusive<const VISIBLE: bool>(lanes: Vec<Lane>, workload: &Workload, kept: Kept) -> Box<dyn Contender> {
    let source = vec![0xa5; workload.size];
    let sides = lanes.into_iter().map(|lane| ExclusiveSide::<VISIBLE> { lane, source: source.clone() });
    Box::new(Team::new(sides.collect(), workload, kept))
}

/// A thread with a lane of its own. It knows when it is compiled what it waits for, as programs do.
struct ExclusiveSide<const VISIBLE: bool> {
    lane: Lane,
    source: Vec<u8>,
}

impl<const VISIBLE: bool> Side for ExclusiveSide<VISIBLE> {
    type Mark = Ticket;

    #[inline(always)]
    fn store(&mut self, offset: usize) -> Result<Ticket, Failure> {
        Ok(self.lane.store(offset, &self.source)?)
    }

    #[inline(always)]
    fn post(&mut self, last: Ticket, more: bool) -> Result<Ticket, Failure> {
        // Where the wait follows at once, it posts what is left.
        if more {
            self.lane.poll()?;
        }
        Ok(last)
    }

    #[inline(always)]
    fn wait(&mut self, mark: Ticket) -> Result<(), Failure> {
        let level = if VISIBLE { Level::Visible } else { Level::Acked };
        Ok(self.lane.wait(mark, level, Deadline::within(PATIENCE))?)
    }

    fn calls(&self) -> Option<u64> {
        // Those of its queue, and those of a waiter that sleeps. A device has no count of its own.
        let stats = self.lane.stats();
        stats.syscalls.map_or(Some(stats.doorbells), |calls| Some(calls + stats.sleeps))
    }
}

/// A thread that shares its lane with others. What it waits for may be a lock or another thread, and nobody counts
/// those system calls: so it gives none.
struct SharedSide {
    lane: SharedLane,
    source: Vec<u8>,
    level: Level,
}

impl Side for SharedSide {
    type Mark = Ticket;

    #[inline(always)]
    fn store(&mut self, offset: usize) -> Result<Ticket, Failure> {
        Ok(self.lane.store(offset, &self.source)?)
    }

    #[inline(always)]
    fn post(&mut self, last: Ticket, _more: bool) -> Result<Ticket, Failure> {
        Ok(last)
    }

    #[inline(always)]
    fn wait(&mut self, mark: Ticket) -> Result<(), Failure> {
        Ok(self.lane.wait(mark, self.level, Deadline::within(PATIENCE))?)
    }
}

/// A directory for the key and the socket, gone when dropped.
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn new() -> Result<Self, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let path = std::env::temp_dir().join(format!("mirrorbus-bench-{}-{now}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self { path })
    }

    fn key(&self) -> PathBuf {
        self.path.join("key")
    }

    fn socket(&self) -> PathBuf {
        self.path.join("holder.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes what [`Directory`] made; the other process may have done so already.
fn remove(path: &Path) {
    for file in ["key", "holder.sock"] {
        drop(std::fs::remove_file(path.join(file)));
    }
    drop(std::fs::remove_dir(path));
}

fn hold_arguments(workload: &Workload, directory: &Directory) -> Result<Vec<String>, Failure> {
    let url = match workload.fabric {
        Fabric::Shm => FabricUrl::Shm { socket: directory.socket() },
        Fabric::Tcp => FabricUrl::Tcp { address: "127.0.0.1:0".to_owned(), encrypt: false },
        Fabric::Rdma => FabricUrl::Rdma { address: limit::own_rdma_address()?.to_string() },
    };
    let spin = match workload.polling {
        Polling::Spin => SPIN,
        Polling::Block => Duration::ZERO,
    };
    Ok([
        "hold",
        "--listen",
        &url.to_string(),
        "--region",
        &workload.region.to_string(),
        "--directory",
        &directory.path.display().to_string(),
        "--spin-us",
        &spin.as_micros().to_string(),
    ]
    .map(str::to_owned)
    .to_vec())
}

/// Runs `mirrorbus-bench hold`: holds the copy until the parent is gone.
///
/// # Errors
/// The holder did not start.
pub(crate) fn hold(options: &HoldOptions) -> Result<std::convert::Infallible, Failure> {
    let directory = options.directory.clone();
    child::end_with_parent(move || remove(&directory));
    let keys = KeySet::load(&options.directory.join("key"))?;
    let mut config = HolderConfig::new(options.listen.clone(), options.region);
    config.lock = LockPolicy::Off;
    config.spin = Duration::from_micros(options.spin_us);
    let holder = Holder::start(config, keys)?;
    println!("listening on {}", holder.url());
    loop {
        std::thread::park();
    }
}
