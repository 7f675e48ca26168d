//! What happens to the mediator, by itself or first.

use super::client::Clients;
use super::faults::{Fault, Faults, Undo};
use super::net::{self, Cut, MEDIATOR};
use super::node::Look;
use crate::sim::{files, scheduler};

impl Faults {
    pub(super) fn harm_mediator(&mut self, clients: &Clients, fault: Fault) -> bool {
        let Some(process) = self.mediator.process else { return false };
        if self.is_under_way(Undo::ResumeMediator) || self.is_under_way(Undo::Seed) {
            return false;
        }
        let lasts = if self.random.chance(10) { self.millis(3000, 5000) } else { self.millis(20, 900) };
        match fault {
            Fault::KillMediator | Fault::PowerOfMediator => {
                self.mediator.kill();
                if fault == Fault::PowerOfMediator {
                    files::lose_power(&self.mediator.directory).expect("files of a scratch directory");
                }
                self.later(lasts, Undo::StartMediator);
            }
            Fault::PauseMediator => {
                scheduler::pause(process);
                self.later(lasts, Undo::ResumeMediator);
            }
            _ => {
                // The operator says it at the node that serves, so nothing else may be wrong.
                let serves =
                    |node: usize| matches!(clients.nodes.borrow()[node].look(), Look::Alone | Look::Mirrored);
                if !self.under_way.is_empty() || !(serves(0) || serves(1)) {
                    return false;
                }
                self.mediator.kill();
                self.mediator.empty();
                self.mediator.start();
                self.is_seeded.set(false);
                let after = self.millis(100, 4000);
                self.later(after, Undo::Seed);
            }
        }
        true
    }

    /// It is lost first, and then the link, and the primary's way to it.
    pub(super) fn lose_mediator_first(&mut self, clients: &Clients) -> bool {
        let serves = (0..2).find(|node| clients.nodes.borrow()[*node].look() == Look::Mirrored);
        let (Some(serves), Some(process)) = (serves, self.mediator.process) else { return false };
        if !self.under_way.is_empty() {
            return false;
        }
        scheduler::pause(process);
        let (after, is_loud) = (self.millis(10, 3000), self.random.chance(50));
        self.later(after, Undo::Cut(serves, MEDIATOR, is_loud));
        let (after, is_loud) = (self.millis(4800, 6500), self.random.chance(50));
        self.later(after, Undo::Cut(0, 1, is_loud));
        let back = after + self.millis(0, 600);
        self.later(back, Undo::ResumeMediator);
        let after = back + self.millis(800, 2500);
        self.later(after, Undo::Mend(0, 1));
        let after = back + self.millis(800, 2500);
        self.later(after, Undo::Mend(serves, MEDIATOR));
        true
    }

    /// The primary is cut from its member, which is cut from the mediator too, and goes on alone; then that is forgotten.
    pub(super) fn put_back_mediator(&mut self, clients: &Clients) -> bool {
        let serves = (0..2).find(|node| clients.nodes.borrow()[*node].look() == Look::Mirrored);
        let Some(serves) = serves.filter(|_| self.mediator.process.is_some()) else { return false };
        if !self.under_way.is_empty() {
            return false;
        }
        self.mediator.copy();
        for (one, other) in [(0, 1), (1 - serves, MEDIATOR)] {
            net::cut(one, other, Cut::Loud);
            net::cut(other, one, Cut::Loud);
        }
        let back = self.millis(900, 1300);
        self.later(back, Undo::OldMediator);
        let after = back + self.millis(5, 300);
        self.later(after, Undo::Mend(1 - serves, MEDIATOR));
        let after = back + self.millis(3300, 3800);
        self.later(after, Undo::Seed);
        self.later(after, Undo::Mend(0, 1));
        self.is_seeded.set(false);
        true
    }
}
