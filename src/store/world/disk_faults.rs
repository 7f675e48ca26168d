//! What happens to the disks of nodes.

use super::client::Clients;
use super::faults::{Fault, Faults, Undo};
use super::node::{Look, NAMES, usual_disk};
use super::oracle;
use crate::sim::files;

/// So often the operator looks whether he is asked about a new disk.
const VOUCHES: u16 = 500;

impl Faults {
    pub(super) fn harm_disk(&mut self, clients: &Clients, fault: Fault, node: usize) -> bool {
        let Some(process) = clients.nodes.borrow()[node].process else { return false };
        if self.is_under_way(Undo::Disk(node)) {
            return false;
        }
        let mut disk = usual_disk();
        let mut lasts = self.millis(50, 900);
        match fault {
            Fault::SlowDisk => disk.slow = self.millis(2, 150),
            Fault::FullDisk => disk.is_full = true,
            _ => {
                // What it has not synced is in nobody's memory for long.
                if !self.may_lose(clients, node) || !Self::has_peer(clients, node) {
                    return false;
                }
                disk.fails = true;
                lasts = self.millis(50, 400);
                let after = lasts + self.millis(50, 1000);
                self.later(after, Undo::Kill(node));
            }
        }
        files::set(process, disk);
        self.later(lasts, Undo::Disk(node));
        true
    }

    /// Whether the other node has all that this one has.
    fn has_peer(clients: &Clients, node: usize) -> bool {
        let nodes = clients.nodes.borrow();
        matches!(
            (nodes[node].look(), nodes[1 - node].look()),
            (Look::Mirrored, Look::Secondary { is_member: true })
                | (Look::Secondary { .. }, Look::Mirrored | Look::Alone)
        )
    }

    /// A node comes back with an empty disk. The other one serves alone, and is the only member.
    pub(super) fn replace_disk(&mut self, clients: &Clients) -> bool {
        let serves = (0..2).find(|node| clients.nodes.borrow()[*node].look() == Look::Alone);
        let Some(node) = serves.map(|serves| 1 - serves) else { return false };
        if !self.empty_disk(clients, node) {
            return false;
        }
        if !self.is_under_way(Undo::Start(node)) {
            let after = self.millis(5, 500);
            self.later(after, Undo::Start(node));
        }
        true
    }

    /// Ends a node and empties its disk, if the other one is the only member, and serves; whether it did.
    pub(super) fn empty_disk(&mut self, clients: &Clients, node: usize) -> bool {
        let serves = 1 - node;
        let is_alone = oracle::held().is_some_and(|held| held.is_alone(NAMES[serves]))
            && clients.nodes.borrow()[serves].look() == Look::Alone;
        let is_busy = [Undo::Kill(node), Undo::Resume(node), Undo::Disk(node)];
        let is_vouching = self.under_way.iter().any(|(_, undo)| matches!(undo, Undo::Vouch(_)));
        if !is_alone || is_vouching || is_busy.into_iter().any(|undo| self.is_under_way(undo)) {
            return false;
        }
        let mut nodes = clients.nodes.borrow_mut();
        nodes[node].kill(true);
        std::fs::remove_dir_all(&nodes[node].directory).expect("its directory");
        drop(nodes);
        let after = self.millis(100, 900);
        self.later(after, Undo::Vouch(VOUCHES));
        true
    }
}
