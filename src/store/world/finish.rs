//! How a run ends: all heals, the pair is whole, and both nodes have the same.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::client::Clients;
use super::history::Value;
use super::node::{Look, Node};
use super::run::{WAIT_STEP, World};
use super::trace::fail;
use crate::sim::scheduler;

/// How long the pair may take to be mirrored when nothing fails any more. Whoever was asked to follow and whose answer was lost is asked again when the
/// minute is over that he had for it.
const HEAL_TIME: Duration = Duration::from_secs(150);

impl World {
    /// Ends all faults.
    pub(super) fn heal(&mut self) {
        let end = scheduler::time() + HEAL_TIME;
        while let Some(last) = self.faults.under_way.iter().map(|(at, _)| *at).max()
            && !self.is_over()
        {
            if scheduler::time() > end {
                let (under_way, looks) = (&self.faults.under_way, self.looks());
                fail(format!("{under_way:?} is still under way after {HEAL_TIME:?}: {looks:?}"));
                return;
            }
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

    /// How both nodes are, and why.
    fn looks(&self) -> Vec<(Look, String)> {
        self.clients.nodes.borrow().iter().map(|node| (node.look(), node.reason())).collect()
    }

    pub(super) fn primary(&self) -> Option<usize> {
        primary(&self.clients)
    }

    pub(super) fn wait_until_mirrored(&mut self) -> bool {
        let end = scheduler::time() + HEAL_TIME;
        while !self.is_over() && scheduler::time() < end {
            self.advance(WAIT_STEP);
            if self.primary().is_some() {
                return true;
            }
        }
        if !self.is_over() {
            fail(format!("the pair is not mirrored after {HEAL_TIME:?}: {:?}", self.looks()));
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
        self.advance_until(Duration::from_secs(10), &|| scheduler::is_done(task));
        all.take()
    }

    /// Reads all at the node that serves, and which that is. A switch that was asked for before may end meanwhile: then it is the other one.
    fn read_at_primary(&mut self) -> Option<(usize, Option<Vec<Value>>)> {
        loop {
            if self.is_over() || !self.wait_until_mirrored() {
                return None;
            }
            let Some(primary) = self.primary() else {
                fail("the pair does not stay mirrored".into());
                return None;
            };
            let all = self.read_all(primary);
            if all.is_some() || self.primary() == Some(primary) {
                return Some((primary, all));
            }
        }
    }

    /// Both nodes have the same: all is read at the one, then at the other.
    pub(super) fn compare(&mut self) {
        let Some((primary, one)) = self.read_at_primary() else { return };
        // A message may still be lost.
        for number in 0..1000 {
            if number % 200 == 0 && self.primary() == Some(primary) {
                self.clients.nodes.borrow()[primary].command("switch", |dataset| {
                    dataset.switch().map(|_| ()).map_err(|error| error.to_string())
                });
            }
            self.advance(WAIT_STEP);
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

/// The node that serves with the other one beside it, if one does.
pub(super) fn primary(clients: &Clients) -> Option<usize> {
    let nodes = clients.nodes.borrow();
    [0, 1].into_iter().find(|number| {
        nodes[*number].look() == Look::Mirrored
            && nodes[1 - number].look() == Look::Secondary { is_member: true }
    })
}
