//! The machines: two nodes and a mediator, each with a disk, and with a process on it or not.

use std::cell::RefCell;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::client::Line;
use super::net::{self, MEDIATOR};
use super::oracle;
use super::rules::{self, Defect};
use super::trace::{fail, tell};
use crate::base::{BlockSize, DatasetId};
use crate::memory::LockPolicy;
use crate::node::{HolderConfig, KeySet};
use crate::segment::SegmentLayout;
use crate::sim::files::{self, Disk};
use crate::sim::scheduler::{self, Clock, ProcessId};
use crate::store::config::{ArbiterConfig, ArbiterKind, Reads, VolumeSpec};
use crate::store::dataset::Dataset;
use crate::store::follower::Stage;
use crate::store::primary::Mode;
use crate::store::state::Role;
use crate::store::{DatasetConfig, Durability};

/// Bytes of a segment, and how many there are in a ring: small, so that a node that is away for a moment is resynced.
const SEGMENT_BYTES: u64 = 1 << 16;
const PLACES: u64 = 6;
pub(super) const VOLUME: &str = "v";
pub(super) const NAMES: [&str; 2] = ["alpha", "beta"];

/// A disk on which nothing is wrong, but for a defect.
pub(super) fn usual_disk() -> Disk {
    Disk { lies: rules::breaks(Defect::SyncsNothing), ..Disk::default() }
}

pub(super) fn keys() -> KeySet {
    KeySet::from_bytes(&[[7; 32]]).expect("a key")
}

/// How a node is, as far as its state can be looked at just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Down,
    /// Somebody is about to change it, or it starts.
    Busy,
    Undecided,
    Secondary {
        is_member: bool,
    },
    /// Its own disk has what it acknowledges.
    Alone,
    /// Both memories have it.
    Mirrored,
    Held,
    Failed,
}

pub(super) struct Node {
    pub(super) machine: usize,
    pub(super) directory: PathBuf,
    preferred: Option<String>,
    reads: Reads,
    pub(super) clock: Clock,
    pub(super) process: Option<ProcessId>,
    pub(super) dataset: Rc<RefCell<Option<Arc<Dataset>>>>,
    pub(super) lines: RefCell<Vec<Weak<RefCell<Line>>>>,
}

impl Node {
    pub(super) fn new(
        machine: usize,
        root: &Path,
        clock: Clock,
        preferred: Option<usize>,
        reads: Reads,
    ) -> Self {
        Self {
            machine,
            directory: root.join(NAMES[machine]),
            preferred: preferred.map(|machine| NAMES[machine].to_owned()),
            reads,
            clock,
            process: None,
            dataset: Rc::default(),
            lines: RefCell::default(),
        }
    }

    fn config(&self) -> DatasetConfig {
        let (listen, peer) = (net::address(self.machine), net::address(1 - self.machine));
        let id = DatasetId::from_bytes([5; 16]);
        let mut config =
            DatasetConfig::new("world", id, NAMES[self.machine], self.directory.clone(), listen, peer);
        config.layout = SegmentLayout::new(SEGMENT_BYTES, 4096).expect("a small one");
        config.places = PLACES;
        config.lock = LockPolicy::Off;
        config.durability = Durability::Disk;
        config.reads = self.reads;
        let bytes = super::client::VOLUME_BYTES;
        config.volumes = vec![VolumeSpec { name: VOLUME.into(), bytes, block_size: BlockSize::Large }];
        let kind = ArbiterKind::Mediator { url: net::address(MEDIATOR), keys: keys() };
        config.arbiter = Some(ArbiterConfig { kind, preferred: self.preferred.clone() });
        config
    }

    /// Begins a process.
    pub(super) fn start(&mut self) {
        let process = scheduler::process(self.clock);
        net::place(process, self.machine);
        net::set_off(self.machine, false);
        self.process = Some(process);
        files::set(process, usual_disk());
        self.dataset = Rc::default();
        oracle::place(self.machine, Some((process, self.dataset.clone())));
        let (config, dataset) = (self.config(), self.dataset.clone());
        scheduler::spawn_in(process, "main", move || match Dataset::open(config, keys()) {
            Ok(opened) => {
                dataset.replace(Some(Arc::new(opened)));
            }
            Err(error) => fail(format!("a node does not start: {error}")),
        });
    }

    /// Ends it, wherever it is. Without power nobody is told.
    pub(super) fn kill(&mut self, has_power: bool) {
        let Some(process) = self.process.take() else { return };
        oracle::place(self.machine, None);
        let dataset = self.dataset.take();
        scheduler::kill(process, || {
            net::unlisten(process);
            drop(dataset);
        });
        net::set_off(self.machine, !has_power);
        net::ended(process, has_power);
        if !has_power {
            files::lose_power(&self.directory).expect("files of a scratch directory");
        }
        let lines = self.lines.take();
        for line in lines.iter().filter_map(Weak::upgrade).filter(|_| has_power) {
            super::client::close(&line);
        }
    }

    pub(super) fn opened(&self) -> Option<Arc<Dataset>> {
        self.process?;
        self.dataset.borrow().clone()
    }

    pub(super) fn look(&self) -> Look {
        if self.process.is_none() {
            return Look::Down;
        }
        let Some(dataset) = self.opened() else { return Look::Busy };
        let Some(state) = dataset.pair.engine.shared.try_lock(Duration::ZERO) else { return Look::Busy };
        match &state.role {
            Role::Undecided => Look::Undecided,
            Role::Failed { .. } => Look::Failed,
            Role::Secondary(secondary) => {
                let follows = matches!(secondary.stage, Stage::Following(_));
                Look::Secondary { is_member: secondary.is_member && follows }
            }
            Role::Primary(primary) => match primary.mode {
                Mode::Alone | Mode::CatchingUp { .. } | Mode::SettingIn => Look::Alone,
                Mode::Mirrored => Look::Mirrored,
                Mode::Held { .. } => Look::Held,
            },
        }
    }

    /// Why it is as it is.
    pub(super) fn reason(&self) -> String {
        let Some(dataset) = self.opened() else { return "not open".into() };
        let Some(state) = dataset.pair.engine.shared.try_lock(Duration::ZERO) else { return "busy".into() };
        format!("{} ({})", state.reason.code, state.reason.text)
    }

    /// Has it do something for the operator.
    pub(super) fn command(
        &self,
        what: &'static str,
        work: impl FnOnce(&Dataset) -> Result<(), String> + 'static,
    ) {
        let (Some(process), Some(dataset)) = (self.process, self.opened()) else { return };
        let machine = self.machine;
        scheduler::spawn_in(process, what, move || {
            let done = work(&dataset);
            tell(|| format!("node {machine}: {what}: {done:?}"));
        });
    }
}

pub(super) struct Mediator {
    pub(super) directory: PathBuf,
    clock: Clock,
    pub(super) process: Option<ProcessId>,
}

impl Mediator {
    pub(super) fn new(root: &Path, clock: Clock) -> Self {
        Self { directory: root.join("mediator"), clock, process: None }
    }

    pub(super) fn start(&mut self) {
        let process = scheduler::process(self.clock);
        net::place(process, MEDIATOR);
        self.process = Some(process);
        files::set(process, Disk { lies: rules::breaks(Defect::MediatorSyncsNothing), ..Disk::default() });
        let directory = self.directory.clone();
        scheduler::spawn_in(process, "mediator", move || {
            match crate::mediator::gate(&directory, Duration::from_secs(1)) {
                Ok(gate) => {
                    let config = HolderConfig::new(net::address(MEDIATOR), 4096);
                    super::holder::HolderCore::start(&config, gate).expect("memory");
                }
                Err(error) => fail(format!("the mediator does not start: {error}")),
            }
        });
    }

    pub(super) fn kill(&mut self) {
        let Some(process) = self.process.take() else { return };
        oracle::lose_sight(false);
        scheduler::kill(process, || net::unlisten(process));
        net::ended(process, true);
    }

    /// It has lost all that it knew.
    pub(super) fn empty(&self) {
        oracle::lose_sight(true);
        std::fs::remove_dir_all(&self.directory).expect("its directory");
    }

    /// What it knows now is kept beside it.
    pub(super) fn copy(&self) {
        copy(&self.directory, &self.directory.with_extension("old"));
    }

    /// It knows what it knew when it was copied last.
    pub(super) fn go_back(&self) {
        self.empty();
        copy(&self.directory.with_extension("old"), &self.directory);
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::DirBuilder::new().mode(0o700).create(to).expect("a scratch directory");
    for entry in std::fs::read_dir(from).expect("its directory") {
        let entry = entry.expect("a file of it");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}
