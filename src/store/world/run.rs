//! A run of the world from a seed: the pair comes up, clients work, faults come and go, all heals, and what clients were told is looked at.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::aims::Aim;
use super::client::{CELLS, Clients};
use super::faults::{Fault, Faults};
use super::history::History;
use super::lane;
use super::net;
use super::node::{Look, Mediator, Node};
use super::oracle;
use super::rules::{self, Defect};
use super::trace::{self, fail, tell};
use crate::sim::scheduler::{self, Clock, ProcessId};
use crate::sim::{Random, files};
use crate::store::config::Reads;

/// Faults of a run, and operations of clients at least.
pub(super) const FAULTS: u64 = 20;
pub(super) const OPERATIONS: u64 = 2000;
const CLIENTS: usize = 4;
const WATCHERS: usize = 2;
/// Why a node may be out of service: its disk failed.
const REASONS: [&str; 5] = ["sync-failed", "write-failed", "file-failed", "checkpoint-failed", "cut-failed"];
/// Between two looks whether somebody is done.
pub(super) const WAIT_STEP: Duration = Duration::from_millis(20);
/// How long clients may take to leave, and nodes to end what they asked for.
const QUIET_TIME: Duration = Duration::from_secs(5);
/// Between two looks at both nodes at once.
const LOOK_STEP: Duration = Duration::from_millis(10);
/// All clocks are as good as they have to be.
const PPM_MAX: u64 = 990;

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) failures: Vec<String>,
    pub(super) faults: BTreeMap<Fault, u64>,
    /// Moments that were waited for and came.
    pub(super) aims: BTreeMap<Aim, u64>,
    pub(super) operations: u64,
    pub(super) unknown: u64,
    pub(super) answered: u64,
    pub(super) turns: u64,
    pub(super) time: Duration,
    pub(super) trace: Vec<String>,
}

pub(super) struct World {
    pub(super) clients: Rc<Clients>,
    pub(super) outside: ProcessId,
    pub(super) faults: Faults,
    pub(super) aims: BTreeMap<Aim, u64>,
    /// When both nodes are looked at next.
    looks_at: Duration,
    pub(super) random: Random,
}

/// What the world is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// In 1000 messages so many end their connection.
    losses: u64,
    /// How much longer everything takes on its way, and each sync.
    slow: Duration,
    slow_disk: Duration,
    /// How often in 4096 a thread is set aside where it locks something.
    interrupts: u64,
    preferred: Option<usize>,
    reads: Reads,
    loses_power: bool,
    /// How long clients think at most, in microseconds.
    thinks: u64,
}

impl Setting {
    /// In which nothing happens by itself.
    pub(super) const fn quiet(preferred: Option<usize>) -> Self {
        Self {
            losses: 0,
            slow: Duration::ZERO,
            slow_disk: Duration::ZERO,
            interrupts: 20,
            preferred,
            reads: Reads::Lease,
            loses_power: false,
            thinks: 40_000,
        }
    }

    fn of(random: &mut Random) -> Self {
        let mut one_of = |of: [u64; 4]| of[usize::try_from(random.below(4)).expect("one of four")];
        let (slow, slow_disk) = (one_of([0, 0, 150, 1000]), one_of([0, 0, 3000, 25_000]));
        let interrupts = one_of([0, 20, 80, 200]);
        let preferred =
            [Some(0), Some(1), None, None][usize::try_from(one_of([0, 1, 2, 3])).expect("one of four")];
        Self {
            losses: random.below(3),
            slow: Duration::from_micros(slow),
            slow_disk: Duration::from_micros(slow_disk),
            interrupts,
            preferred,
            reads: if random.chance(25) { Reads::Confirm } else { Reads::Lease },
            loses_power: random.chance(35),
            thinks: 40_000 + random.below(50_000),
        }
    }
}

/// A run of the seed's own.
pub(super) fn run(seed: u64, defect: Option<Defect>, is_traced: bool) -> Outcome {
    act(seed, None, defect, is_traced, &mut World::harm)
}

/// A run in which `acts` does what is to be done to a pair that is whole and has clients.
pub(super) fn act(
    seed: u64,
    setting: Option<Setting>,
    defect: Option<Defect>,
    is_traced: bool,
    acts: &mut dyn FnMut(&mut World),
) -> Outcome {
    let root = tempfile::Builder::new().prefix("mirrorbus-world-").tempdir_in(scratch());
    let root = root.expect("a scratch directory");
    scheduler::begin(seed);
    trace::begin(is_traced, root.path());
    rules::break_rule(defect);
    let mut world = World::new(seed, setting, root.path());
    world.live(acts);
    let World { clients, mut faults, aims, .. } = world;
    for node in clients.nodes.borrow_mut().iter_mut() {
        node.kill(true);
    }
    faults.mediator.kill();
    let mut failures = trace::failures();
    failures.extend(scheduler::failures());
    let history = clients.history.borrow();
    let (time, turns) = (scheduler::time(), scheduler::end());
    net::begin(0, Duration::ZERO);
    oracle::begin(false);
    rules::break_rule(None);
    Outcome {
        failures,
        faults: faults.counts,
        aims,
        operations: history.count,
        unknown: history.unknown,
        answered: clients.answered.get(),
        turns,
        time,
        trace: trace::take(),
    }
}

/// Where there is memory for files, if there is.
fn scratch() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

impl World {
    fn new(seed: u64, setting: Option<Setting>, root: &Path) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let setting = setting.unwrap_or_else(|| Setting::of(&mut random));
        let Setting { reads, preferred, loses_power, .. } = setting;
        net::begin(setting.losses, setting.slow);
        scheduler::interrupt(setting.interrupts);
        let clock = |random: &mut Random| Clock {
            offset: random.below(1_000_000_000_000),
            ppm: i64::try_from(random.below(2 * PPM_MAX)).expect("small") - PPM_MAX.cast_signed(),
        };
        oracle::begin(reads == Reads::Confirm);
        let nodes = [0, 1].map(|machine| Node::new(machine, root, clock(&mut random), preferred, reads));
        let mediator = Mediator::new(root, clock(&mut random));
        let clients = Rc::new(Clients {
            nodes: RefCell::new(nodes.into()),
            history: RefCell::new(History::new(CELLS)),
            stopping: Cell::new(false),
            thinks: Cell::new(setting.thinks),
            answered: Cell::new(0),
        });
        files::begin(loses_power, setting.slow_disk);
        let faults = Faults::new(random.next(), mediator, loses_power);
        Self {
            clients,
            outside: scheduler::process(Clock::default()),
            faults,
            aims: BTreeMap::new(),
            looks_at: Duration::ZERO,
            random,
        }
    }

    fn live(&mut self, acts: &mut dyn FnMut(&mut Self)) {
        self.faults.mediator.start();
        self.clients.nodes.borrow_mut().iter_mut().for_each(Node::start);
        if !self.wait_until_mirrored() {
            return;
        }
        let (clients, outside) = (self.clients.clone(), self.outside);
        let mut tasks: Vec<_> =
            (0..CLIENTS).map(|number| clients.begin(outside, number, self.random.next())).collect();
        let watchers = CLIENTS..CLIENTS + WATCHERS;
        tasks.extend(watchers.map(|number| clients.watch(outside, number, self.random.next())));
        acts(self);
        tell(|| "nothing fails any more".into());
        self.heal();
        if !self.wait_until_mirrored() {
            return;
        }
        self.clients.stopping.set(true);
        // Nobody writes any more, not even for a client that is gone.
        let is_quiet = || tasks.iter().all(|task| scheduler::is_done(*task)) && !clients.are_served();
        self.advance_until(QUIET_TIME, &is_quiet);
        if !self.is_over() && !is_quiet() {
            fail(format!("clients are still served {QUIET_TIME:?} after they were told to leave"));
        }
        self.compare();
        if !trace::has_failed()
            && let Err(why) = self.clients.history.borrow().check()
        {
            fail(why);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        trace::has_failed()
    }

    /// Lets time pass, and ends what is due; to the moment that is waited for, if that comes.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = scheduler::time() + by;
        while !self.is_over() && !lane::is_on_its_way() && scheduler::time() < end {
            let next = self.faults.under_way.iter().map(|(at, _)| *at).min().unwrap_or(end).min(end);
            scheduler::run(next.min(self.looks_at), &mut || trace::has_failed() || lane::is_on_its_way());
            if scheduler::time() >= self.looks_at {
                self.looks_at = scheduler::time() + LOOK_STEP;
                oracle::look();
            }
            self.faults.undo(&self.clients, scheduler::time());
        }
        if let Some(why) = scheduler::failures().first() {
            fail(why.clone());
        }
        for node in self.clients.nodes.borrow().iter().filter(|node| node.look() == Look::Failed) {
            let reason = node.reason();
            if !REASONS.iter().any(|code| reason.starts_with(code)) {
                fail(format!("node {} is out of service: {reason}", node.machine));
            }
        }
    }

    /// Lets time pass until `is_done` says so, at most for `most`.
    pub(super) fn advance_until(&mut self, most: Duration, is_done: &dyn Fn() -> bool) {
        let end = scheduler::time() + most;
        while !self.is_over() && !is_done() && scheduler::time() < end {
            self.advance(WAIT_STEP);
        }
    }
}
