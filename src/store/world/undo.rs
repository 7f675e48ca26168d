//! How faults end.

use std::time::Duration;

use super::client::Clients;
use super::faults::{Fault, Faults, Undo};
use super::finish::primary;
use super::net::{self, Cut};
use super::node::{Look, Node, usual_disk};
use super::trace::tell;
use crate::sim::{files, scheduler};

/// Between two attempts of the operator to say which configuration counts.
const SEED_STEP: Duration = Duration::from_millis(700);
/// And that a disk is a new one.
const VOUCH_STEP: Duration = Duration::from_millis(200);

impl Faults {
    /// Ends what is due until `now`.
    pub(super) fn undo(&mut self, clients: &Clients, now: Duration) {
        self.under_way.sort_by_key(|(at, _)| *at);
        while let Some((at, undo)) = self.under_way.first().copied()
            && at <= now
        {
            self.under_way.remove(0);
            tell(|| format!("UNDO {undo:?}"));
            self.undo_one(clients, undo);
        }
    }

    fn undo_one(&mut self, clients: &Clients, undo: Undo) {
        match undo {
            Undo::Mend(one, other) => {
                net::mend(one, other);
                net::mend(other, one);
            }
            Undo::Speed(one, other) => net::slow(one, other, Duration::ZERO),
            Undo::Cut(one, other, is_loud) => {
                let how = if is_loud { Cut::Loud } else { Cut::Silent };
                net::cut(one, other, how);
                net::cut(other, one, how);
            }
            Undo::Start(node) => {
                let is_down = clients.nodes.borrow()[node].process.is_none();
                if is_down && self.random.chance(20) && self.empty_disk(clients, node) {
                    tell(|| format!("FAULT {:?} (of node {node})", Fault::NewDisk));
                    *self.counts.entry(Fault::NewDisk).or_default() += 1;
                }
                let nodes = &mut clients.nodes.borrow_mut();
                if nodes[node].process.is_none() {
                    self.is_settled[node].set(false);
                    nodes[node].start();
                }
            }
            // Whoever was to be ended may have come to be the only one that has something; then it goes on.
            Undo::Kill(node) => {
                if self.may_lose(clients, node) {
                    clients.nodes.borrow_mut()[node].kill(true);
                    let after = self.millis(5, 1500);
                    self.later(after, Undo::Start(node));
                } else if clients.nodes.borrow()[node].process.is_some() {
                    self.later(Duration::from_millis(50), Undo::Kill(node));
                }
            }
            Undo::Resume(node) => {
                if let Some(process) = clients.nodes.borrow()[node].process {
                    scheduler::resume(process);
                }
            }
            Undo::StartMediator => {
                if self.mediator.process.is_none() {
                    self.mediator.start();
                }
            }
            Undo::ResumeMediator => {
                if let Some(process) = self.mediator.process {
                    scheduler::resume(process);
                }
            }
            Undo::Seed => self.seed(clients),
            Undo::Vouch(tries) => self.vouch(clients, tries),
            Undo::OldMediator => {
                self.mediator.kill();
                self.mediator.go_back();
                self.mediator.start();
            }
            Undo::Disk(node) => {
                if let Some(process) = clients.nodes.borrow()[node].process {
                    files::set(process, usual_disk());
                }
            }
        }
    }

    /// The operator says which configuration counts, at the node that serves.
    fn seed(&mut self, clients: &Clients) {
        if self.is_seeded.get() {
            return;
        }
        let nodes = clients.nodes.borrow();
        let serves = |node: &&Node| matches!(node.look(), Look::Alone | Look::Mirrored);
        let holds = |node: &&Node| node.look() == Look::Held;
        if let Some(node) = nodes.iter().find(serves).or_else(|| nodes.iter().find(holds)) {
            let is_seeded = self.is_seeded.clone();
            node.command("seed", move |dataset| {
                let seeded = dataset.seed().map_err(|error| error.to_string());
                // It was taken before, and another change since.
                is_seeded.set(seeded.as_ref().err().is_none_or(|why| why.contains("not-locked")));
                seeded
            });
        }
        drop(nodes);
        self.later(SEED_STEP, Undo::Seed);
    }

    /// The operator says that the disk without anything is a new one, at the node that asks for that, until it is let in.
    fn vouch(&mut self, clients: &Clients, tries: u16) {
        if tries == 0 || primary(clients).is_some() {
            return;
        }
        let nodes = clients.nodes.borrow();
        if let Some(node) = nodes.iter().find(|node| node.reason().starts_with("peer-empty")) {
            node.command("replace-peer", |dataset| dataset.replace_peer().map_err(|error| error.to_string()));
        }
        drop(nodes);
        self.later(VOUCH_STEP, Undo::Vouch(tries - 1));
    }
}
