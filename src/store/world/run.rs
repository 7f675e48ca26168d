//! A run of the world from a seed: the pair comes up, clients work, faults come and go, all heals, and what clients were told is looked at.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::client::{CELLS, Clients};
use super::faults::{Fault, Faults};
use super::history::{History, Value};
use super::net;
use super::node::{Look, Mediator, Node};
use super::rules::{self, Defect};
use super::trace::{self, fail, tell};
use crate::sim::scheduler::{self, Clock, ProcessId};
use crate::sim::{Random, files};

/// Faults of a run, and operations of clients at least.
pub(super) const FAULTS: u64 = 24;
pub(super) const OPERATIONS: u64 = 4000;
const CLIENTS: usize = 4;
const WATCHERS: usize = 2;
/// Why a node may be out of service: its disk failed.
const REASONS: [&str; 4] = ["sync-failed", "write-failed", "file-failed", "checkpoint-failed"];
/// How long the pair may take to be mirrored when nothing fails any more.
const HEAL_TIME: Duration = Duration::from_secs(60);
/// All clocks are as good as they have to be.
const PPM_MAX: u64 = 990;

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) failures: Vec<String>,
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) operations: u64,
    pub(super) unknown: u64,
    pub(super) answered: u64,
    pub(super) turns: u64,
    pub(super) time: Duration,
    pub(super) trace: Vec<String>,
}

struct World {
    clients: Rc<Clients>,
    outside: ProcessId,
    faults: Faults,
    random: Random,
}

pub(super) fn run(seed: u64, defect: Option<Defect>, is_traced: bool) -> Outcome {
    let root = tempfile::Builder::new().prefix("mirrorbus-world-").tempdir_in(scratch());
    let root = root.expect("a scratch directory");
    scheduler::begin(seed);
    trace::begin(is_traced, root.path());
    rules::break_rule(defect);
    let mut world = World::new(seed, root.path());
    world.live();
    let World { clients, mut faults, .. } = world;
    for node in clients.nodes.borrow_mut().iter_mut() {
        node.kill(true);
    }
    faults.mediator.kill();
    let mut failures = trace::failures();
    failures.extend(scheduler::failures());
    let history = clients.history.borrow();
    let (time, turns) = (scheduler::time(), scheduler::end());
    net::begin(0, Duration::ZERO);
    rules::break_rule(None);
    Outcome {
        failures,
        faults: faults.counts,
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
    fn new(seed: u64, root: &Path) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let micros = |random: &mut Random, of: [u64; 4]| {
            Duration::from_micros(of[usize::try_from(random.below(4)).expect("one of four")])
        };
        net::begin(random.below(3), micros(&mut random, [0, 0, 150, 1000]));
        scheduler::interrupt([0, 20, 80, 200][usize::try_from(random.below(4)).expect("one of four")]);
        let clock = |random: &mut Random| Clock {
            offset: random.below(1_000_000_000_000),
            ppm: i64::try_from(random.below(2 * PPM_MAX)).expect("small") - PPM_MAX.cast_signed(),
        };
        let preferred = match random.below(4) {
            0 => Some(0),
            1 => Some(1),
            _ => None,
        };
        let nodes = [0, 1].map(|machine| Node::new(machine, root, clock(&mut random), preferred));
        let mediator = Mediator::new(root, clock(&mut random));
        let clients = Rc::new(Clients {
            nodes: RefCell::new(nodes.into()),
            history: RefCell::new(History::new(CELLS)),
            stopping: Cell::new(false),
            thinks: Cell::new(40_000 + random.below(60_000)),
            answered: Cell::new(0),
        });
        let loses_power = random.chance(50);
        files::begin(loses_power, micros(&mut random, [0, 0, 3000, 25_000]));
        let faults = Faults::new(random.next(), mediator, loses_power);
        Self { clients, outside: scheduler::process(Clock::default()), faults, random }
    }

    fn live(&mut self) {
        self.faults.mediator.start();
        self.clients.nodes.borrow_mut().iter_mut().for_each(Node::start);
        if !self.wait_until_mirrored() {
            return;
        }
        for number in 0..CLIENTS {
            self.clients.begin(self.outside, number, self.random.next());
        }
        for number in CLIENTS..CLIENTS + WATCHERS {
            self.clients.watch(self.outside, number, self.random.next());
        }
        self.harm();
        tell(|| "nothing fails any more".into());
        self.heal();
        if !self.wait_until_mirrored() {
            return;
        }
        self.clients.stopping.set(true);
        self.advance(Duration::from_secs(5));
        self.compare();
        if !trace::has_failed()
            && let Err(why) = self.clients.history.borrow().check()
        {
            fail(why);
        }
    }

    fn is_over(&self) -> bool {
        trace::has_failed()
    }

    /// Lets time pass, and ends what is due.
    fn advance(&mut self, by: Duration) {
        let end = scheduler::time() + by;
        while !self.is_over() && scheduler::time() < end {
            let next = self.faults.under_way.iter().map(|(at, _)| *at).min().unwrap_or(end).min(end);
            scheduler::run(next, &mut trace::has_failed);
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

    fn harm(&mut self) {
        while !self.is_over() {
            let injected: u64 = self.faults.counts.values().sum();
            if injected >= FAULTS && self.clients.history.borrow().count >= OPERATIONS {
                return;
            }
            let long = self.random.chance(30);
            let gap = if long { self.random.below(4000) } else { self.random.below(700) };
            self.advance(Duration::from_millis(gap));
            if self.faults.under_way.len() > 3 || self.faults.is_seeding() {
                continue;
            }
            // Most is to be seen of what happens to a pair that is whole.
            if self.random.chance(60) {
                for _ in 0..40 {
                    if self.primary().is_none() {
                        self.advance(Duration::from_millis(100));
                    }
                }
            }
            for _ in 0..4 {
                let kinds: &[Fault] = if self.random.chance(40) { &Fault::FREQUENT } else { &Fault::ALL };
                let kind = self.random.below(kinds.len() as u64);
                let kind = kinds[usize::try_from(kind).expect("one of them")];
                if self.faults.inject(&self.clients, kind) {
                    break;
                }
            }
            if scheduler::time() > Duration::from_secs(300) {
                return fail("clients get nothing done".into());
            }
        }
    }

    /// Ends all faults.
    fn heal(&mut self) {
        while let Some(last) = self.faults.under_way.iter().map(|(at, _)| *at).max()
            && !self.is_over()
        {
            let left = last.saturating_sub(scheduler::time());
            self.advance(left.max(Duration::from_millis(1)));
        }
        // A disk that failed takes its node out until it is started anew.
        for number in [0, 1] {
            let look = self.clients.nodes.borrow()[number].look();
            if look == Look::Failed {
                let mut nodes = self.clients.nodes.borrow_mut();
                nodes[number].kill(true);
                nodes[number].start();
            }
        }
    }

    fn primary(&self) -> Option<usize> {
        let nodes = self.clients.nodes.borrow();
        [0, 1].into_iter().find(|number| {
            nodes[*number].look() == Look::Mirrored
                && nodes[1 - number].look() == Look::Secondary { is_member: true }
        })
    }

    fn wait_until_mirrored(&mut self) -> bool {
        let end = scheduler::time() + HEAL_TIME;
        while !self.is_over() && scheduler::time() < end {
            self.advance(Duration::from_millis(50));
            if self.primary().is_some() {
                return true;
            }
        }
        let nodes = self.clients.nodes.borrow();
        let looks: Vec<_> = nodes.iter().map(|node| (node.look(), node.reason())).collect();
        if !self.is_over() {
            fail(format!("the pair is not mirrored after {HEAL_TIME:?}: {looks:?}"));
        }
        false
    }

    /// Reads all at a node.
    fn read_all(&mut self, node: usize) -> Option<Vec<Value>> {
        let all = Rc::new(RefCell::new(None));
        let (read, clients) = (all.clone(), self.clients.clone());
        let task = scheduler::spawn_in(self.outside, "reads all", move || {
            for _ in 0..20 {
                *read.borrow_mut() = clients.read_all(node);
                if read.borrow().is_some() {
                    return;
                }
                scheduler::sleep(Duration::from_millis(100));
            }
        });
        for _ in 0..100 {
            self.advance(Duration::from_millis(100));
            if scheduler::is_done(task) {
                break;
            }
        }
        all.take()
    }

    /// Both nodes have the same: all is read at the one, then at the other.
    fn compare(&mut self) {
        if self.is_over() {
            return;
        }
        let Some(primary) = self.primary() else { return fail("the pair does not stay mirrored".into()) };
        let one = self.read_all(primary);
        // A message may still be lost.
        for number in 0..200 {
            if number % 40 == 0 && self.primary() == Some(primary) {
                self.clients.nodes.borrow()[primary].command("switch", |dataset| {
                    dataset.switch().map(|_| ()).map_err(|error| error.to_string())
                });
            }
            self.advance(Duration::from_millis(100));
            if self.primary() == Some(1 - primary) {
                break;
            }
        }
        let other = self.read_all(1 - primary);
        if self.is_over() {
            return;
        }
        match (one, other) {
            (Some(one), Some(other)) if one == other => {}
            (Some(one), Some(other)) => fail(format!("the nodes differ: {one:x?} and {other:x?}")),
            (one, other) => {
                let looks: Vec<_> = self.clients.nodes.borrow().iter().map(Node::look).collect();
                let (one, other) = (one.is_some(), other.is_some());
                fail(format!("not all can be read at the end: {one} {other} {looks:?}"));
            }
        }
    }
}
