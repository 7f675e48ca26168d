//! What fails, and what is safe to fail: a node is never killed that alone has something which was acknowledged and is on no disk, unless both
//! nodes are to lose their memory.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::client::Clients;
use super::net::{self, Cut, MEDIATOR};
use super::node::{Look, Mediator};
use super::trace::{fail, tell};
use crate::sim::{Random, scheduler};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    CutLoud,
    CutSilent,
    CutOneWay,
    SlowLink,
    Flaps,
    HangUp,
    KillNode,
    StopNode,
    PauseNode,
    KillMediator,
    PauseMediator,
    CutFromMediator,
    EmptyMediator,
    /// It is put back to what it knew before a node came to serve alone, of which the other one has not heard.
    OldMediator,
    /// It is lost first, for long enough that a primary is elected, and then the link, and the primary's way to it.
    MediatorThenLink,
    Switch,
    SlowDisk,
    FailDisk,
    FullDisk,
    /// A node comes back with an empty disk, while the other one serves alone.
    NewDisk,
    PowerOfNode,
    PowerOfMediator,
    /// Of both nodes, processes or machines.
    BothNodes,
}

impl Fault {
    /// Of which most that is wrong is told.
    pub(super) const FREQUENT: [Self; 6] =
        [Self::PauseNode, Self::KillNode, Self::Switch, Self::HangUp, Self::CutLoud, Self::CutSilent];

    pub(super) const ALL: [Self; 23] = [
        Self::CutLoud,
        Self::CutSilent,
        Self::CutOneWay,
        Self::SlowLink,
        Self::Flaps,
        Self::HangUp,
        Self::KillNode,
        Self::StopNode,
        Self::PauseNode,
        Self::KillMediator,
        Self::PauseMediator,
        Self::CutFromMediator,
        Self::EmptyMediator,
        Self::OldMediator,
        Self::MediatorThenLink,
        Self::Switch,
        Self::SlowDisk,
        Self::FailDisk,
        Self::FullDisk,
        Self::NewDisk,
        Self::PowerOfNode,
        Self::PowerOfMediator,
        Self::BothNodes,
    ];
}

/// How a fault ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    Mend(usize, usize),
    Speed(usize, usize),
    Cut(usize, usize, bool),
    Start(usize),
    Kill(usize),
    Resume(usize),
    StartMediator,
    ResumeMediator,
    Seed,
    /// The operator looks so often whether he is asked about a new disk.
    Vouch(u16),
    OldMediator,
    Disk(usize),
}

pub(super) struct Faults {
    pub(super) random: Random,
    pub(super) mediator: Mediator,
    /// What ends when.
    pub(super) under_way: Vec<(Duration, Undo)>,
    /// The mediator that was emptied last was given a configuration.
    pub(super) is_seeded: Rc<Cell<bool>>,
    /// The node was ended in good order while it served: all that it has is on its disk.
    pub(super) is_settled: [Rc<Cell<bool>>; 2],
    /// What is not synced may be lost.
    loses_power: bool,
    pub(super) counts: BTreeMap<Fault, u64>,
}

impl Faults {
    pub(super) fn new(seed: u64, mediator: Mediator, loses_power: bool) -> Self {
        Self {
            random: Random::new(seed),
            mediator,
            under_way: Vec::new(),
            is_seeded: Rc::default(),
            is_settled: Default::default(),
            loses_power,
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.random.below(most - least))
    }

    /// More often the one that serves than the other.
    fn node(&mut self, clients: &Clients) -> usize {
        let serves =
            |node: &usize| matches!(clients.nodes.borrow()[*node].look(), Look::Mirrored | Look::Alone);
        match (0..2).find(serves) {
            Some(serves) if self.random.chance(40) => serves,
            _ => usize::from(self.random.chance(50)),
        }
    }

    pub(super) fn later(&mut self, after: Duration, undo: Undo) {
        self.under_way.push((scheduler::time() + after, undo));
    }

    pub(super) fn is_under_way(&self, undo: Undo) -> bool {
        self.under_way.iter().any(|(_, other)| *other == undo)
    }

    /// Whether the operator is about to say what counts.
    pub(super) fn is_seeding(&self) -> bool {
        self.is_under_way(Undo::Seed)
    }

    /// Whether nothing that was acknowledged is lost with this node's memory.
    pub(super) fn may_lose(&self, clients: &Clients, node: usize) -> bool {
        let nodes = clients.nodes.borrow();
        let (here, there) = (nodes[node].look(), nodes[1 - node].look());
        match here {
            Look::Down | Look::Busy => false,
            Look::Mirrored | Look::Held if self.is_settled[node].get() => true,
            Look::Alone | Look::Undecided | Look::Failed => true,
            // One that is about to be ended does not take over.
            Look::Mirrored | Look::Held => {
                there == Look::Secondary { is_member: true } && !self.is_under_way(Undo::Kill(1 - node))
            }
            Look::Secondary { .. } => {
                matches!(there, Look::Alone | Look::Mirrored | Look::Held) && !self.is_failing(1 - node)
            }
        }
    }

    /// Whether its disk fails, on account of which it is killed later: what it has in its memory is not to be the only copy.
    fn is_failing(&self, node: usize) -> bool {
        self.is_under_way(Undo::Disk(node)) && self.is_under_way(Undo::Kill(node))
    }

    /// A fault, if it may be now; whether it was.
    pub(super) fn inject(&mut self, clients: &Clients, fault: Fault) -> bool {
        let node = match fault {
            Fault::Switch => (0..2).find(|node| clients.nodes.borrow()[*node].look() == Look::Mirrored),
            _ => None,
        };
        let node = node.unwrap_or_else(|| self.node(clients));
        let done = match fault {
            Fault::PowerOfNode | Fault::PowerOfMediator if !self.loses_power => false,
            Fault::HangUp => {
                net::hang_up_between(0, 1);
                true
            }
            Fault::CutLoud | Fault::CutSilent | Fault::CutOneWay | Fault::SlowLink | Fault::Flaps => {
                self.harm_link(fault, 0, 1)
            }
            Fault::CutFromMediator => {
                let how = [Fault::CutLoud, Fault::CutSilent, Fault::CutOneWay, Fault::SlowLink];
                let how = how[usize::try_from(self.random.below(4)).expect("one of four")];
                self.harm_link(how, node, MEDIATOR)
            }
            Fault::MediatorThenLink => self.lose_mediator_first(clients),
            Fault::OldMediator => self.put_back_mediator(clients),
            Fault::BothNodes => self.harm_both(clients),
            Fault::KillMediator | Fault::PauseMediator | Fault::EmptyMediator | Fault::PowerOfMediator => {
                self.harm_mediator(clients, fault)
            }
            Fault::SlowDisk | Fault::FailDisk | Fault::FullDisk => self.harm_disk(clients, fault, node),
            Fault::NewDisk => self.replace_disk(clients),
            Fault::KillNode | Fault::PowerOfNode | Fault::StopNode | Fault::PauseNode | Fault::Switch => {
                self.harm_node(clients, fault, node)
            }
        };
        let goes_by_plan =
            [Fault::BothNodes, Fault::EmptyMediator, Fault::OldMediator, Fault::MediatorThenLink];
        if done && !goes_by_plan.contains(&fault) {
            // One that is lost in the midst of what comes of it.
            let ends = self.under_way.iter().any(|(_, undo)| matches!(undo, Undo::Kill(_) | Undo::Start(_)));
            if !ends && self.random.chance(15) {
                let after = self.millis(1, 80);
                self.later(after, Undo::Kill(node));
            }
        }
        if done {
            tell(|| format!("FAULT {fault:?} (of node {node}, if of one)"));
            *self.counts.entry(fault).or_default() += 1;
        }
        done
    }

    fn harm_link(&mut self, fault: Fault, one: usize, other: usize) -> bool {
        if self.is_under_way(Undo::Mend(one, other)) || self.is_under_way(Undo::Speed(one, other)) {
            return false;
        }
        let long = self.random.chance(15);
        let lasts = if long { self.millis(900, 2000) } else { self.millis(5, 500) };
        match fault {
            Fault::CutLoud | Fault::CutSilent => {
                let how = if fault == Fault::CutLoud { Cut::Loud } else { Cut::Silent };
                net::cut(one, other, how);
                net::cut(other, one, how);
            }
            Fault::CutOneWay => {
                let (from, to) = if self.random.chance(50) { (one, other) } else { (other, one) };
                net::cut(from, to, Cut::Silent);
            }
            Fault::SlowLink => {
                let slow = self.millis(1, 60);
                net::slow(one, other, slow);
                self.later(lasts, Undo::Speed(one, other));
                return true;
            }
            _ => {
                let is_loud = self.random.chance(50);
                let mut at = Duration::ZERO;
                for _ in 0..3 + self.random.below(5) {
                    self.later(at, Undo::Cut(one, other, is_loud));
                    at += self.millis(5, 250);
                    self.later(at, Undo::Mend(one, other));
                    at += self.millis(5, 250);
                }
                return true;
            }
        }
        self.later(lasts, Undo::Mend(one, other));
        true
    }

    /// Both lose their memory: what was flushed is there afterwards.
    fn harm_both(&mut self, clients: &Clients) -> bool {
        let is_usual = |undo: &Undo| !matches!(undo, Undo::Kill(_) | Undo::Start(_) | Undo::Resume(_));
        if !self.under_way.iter().all(|(_, undo)| is_usual(undo)) || self.random.chance(60) {
            return false;
        }
        let has_power = self.random.chance(40) || !self.loses_power;
        for node in [0, 1] {
            clients.nodes.borrow_mut()[node].kill(has_power);
            let after = self.millis(5, 700);
            self.later(after, Undo::Start(node));
        }
        super::oracle::lose_memory();
        if let Err(why) = clients.history.borrow_mut().lose_memory(scheduler::time()) {
            fail(why);
        }
        true
    }

    fn harm_node(&mut self, clients: &Clients, fault: Fault, node: usize) -> bool {
        let process = clients.nodes.borrow()[node].process;
        let is_ending = self.is_under_way(Undo::Kill(node)) || self.is_under_way(Undo::Start(node));
        let Some(process) = process.filter(|_| !is_ending) else { return false };
        match fault {
            Fault::KillNode | Fault::PowerOfNode => {
                if self.is_under_way(Undo::Resume(node)) || !self.may_lose(clients, node) {
                    return false;
                }
                clients.nodes.borrow_mut()[node].kill(fault == Fault::KillNode);
                let after = if self.random.chance(20) { self.millis(900, 2000) } else { self.millis(5, 500) };
                self.later(after, Undo::Start(node));
            }
            Fault::StopNode => {
                // One that ends does not take over, so nobody would serve if the other one is about to be lost.
                let is_needed = [Undo::Disk(1 - node), Undo::Kill(1 - node)];
                if is_needed.into_iter().any(|undo| self.is_under_way(undo))
                    || self.is_under_way(Undo::Resume(node))
                    || !self.may_lose(clients, node)
                {
                    return false;
                }
                let nodes = clients.nodes.borrow();
                let serves = matches!(nodes[node].look(), Look::Alone | Look::Mirrored | Look::Held);
                let is_settled = self.is_settled[node].clone();
                nodes[node].command("stop", move |dataset| {
                    dataset.settle();
                    is_settled.set(serves);
                    Ok(())
                });
                drop(nodes);
                let after = self.millis(100, 900);
                self.later(after, Undo::Kill(node));
            }
            Fault::PauseNode => {
                if self.is_under_way(Undo::Resume(node)) {
                    return false;
                }
                scheduler::pause(process);
                let after = if self.random.chance(40) { self.millis(600, 1500) } else { self.millis(5, 600) };
                self.later(after, Undo::Resume(node));
            }
            _ => {
                let nodes = clients.nodes.borrow();
                if nodes[node].look() != Look::Mirrored {
                    return false;
                }
                nodes[node].command("switch", |dataset| {
                    dataset.switch().map(|_| ()).map_err(|error| error.to_string())
                });
            }
        }
        true
    }
}
