//! An election in advance, for the case that the mediator is lost first. The pair does not have it: here is what it would need.
//!
//! ```text
//!  mirrored ──▶ the member renounces, on its disk ──▶ the primary is elected ──link lost──▶ alone, without the mediator ──mediator back──▶ asks
//!     ▲                                                   │ mediator back
//!     └────── the member need not have ◀── is no more ◀───┘
//! ```
//!
//! A renunciation is for the configuration that the node knows, and void with a later one.

use crate::config::{Config, Name, end};
use crate::model::{Failover, Rule};
use crate::state::{Ask, Mode, Request, Role, State};

impl State {
    /// The member renounces, and the primary hears of it, or does not.
    pub(crate) fn elect(&mut self, name: Name, is_heard: bool, model: &Failover) -> bool {
        let (node, peer) = (self[name], self[name.other()]);
        let has_member = matches!(node.mode(), Some(Mode::SettingIn | Mode::Mirrored | Mode::Held));
        let is_sure = node.ask == Ask::Nothing
            && node.known.members == 3
            && (node.request != Some(Request::Join) || model.lacks(Rule::ElectWithoutJoin));
        // What an earlier life of it asked for it does not know.
        let is_same_life =
            peer.role == Role::Follows || model.lacks(Rule::RenounceInLife) && peer.mode().is_none();
        let is_settled =
            peer.is_settled() || model.lacks(Rule::RenounceWhenSettled) && peer.ask == Ask::Nothing;
        let is_same = peer.behind == node.behind || model.lacks(Rule::RenounceForSameId);
        let agrees = is_same_life && is_settled && is_same && peer.known.primary == name;
        if !model.elects || !has_member || !is_sure || !agrees {
            return false;
        }
        let hears = is_heard || !model.lacks(Rule::ElectedByAnswer);
        self[name.other()].has_renounced |= hears;
        if !model.lacks(Rule::NumberElections) {
            self[name.other()].is_freed = false;
        }
        self[name].is_elected |= is_heard || model.lacks(Rule::ElectedByAnswer);
        true
    }

    /// The elected node is no more; the other one hears of it, or only later.
    pub(crate) fn end_election(&mut self, name: Name, is_heard: bool, model: &Failover) -> bool {
        if !self[name].is_elected || self[name].mode() != Some(Mode::Mirrored) || !self[name].is_settled() {
            return false;
        }
        self[name].is_elected = model.lacks(Rule::ElectedEndsFirst);
        let peer = &mut self[name.other()];
        peer.is_freed = peer.has_renounced && !is_heard;
        peer.has_renounced &= !is_heard;
        true
    }

    /// Word of that comes late.
    pub(crate) fn hear_freed(&mut self, name: Name) -> bool {
        let node = &mut self[name];
        node.has_renounced &= !node.is_freed;
        std::mem::take(&mut node.is_freed)
    }

    /// The peer is lost, and so is the mediator: goes on alone, and notes that it does.
    pub(crate) fn go_alone(&mut self, name: Name, model: &Failover) -> bool {
        let node = &mut self[name];
        let has_all = node.disk & node.committed == node.committed || model.lacks(Rule::DiskBeforeAlone);
        let is_sure = node.ask == Ask::Nothing
            && (node.request != Some(Request::Join) || model.lacks(Rule::ElectWithoutJoin));
        let may = node.is_elected && node.mode() == Some(Mode::Held) && is_sure && has_all;
        if may {
            (node.role, node.is_told) = (Role::Serves(Mode::Alone), false);
            node.known = Config::alone(name, end(node.committed));
            (node.is_elected, node.by_election) = (false, true);
        }
        may
    }

    /// It restarted since: goes on, for the other one has renounced.
    pub(crate) fn go_on_elected(&mut self, name: Name, model: &Failover) -> bool {
        let node = &mut self[name];
        let is_alone = node.by_election || (model.lacks(Rule::ElectionEndsWithLife) && node.is_elected);
        let may = node.role == Role::Undecided && node.ask == Ask::Nothing && is_alone;
        if may {
            node.known = Config::alone(name, end(node.disk));
            (node.ask, node.by_election, node.is_elected) = (Ask::Won, true, false);
        }
        may
    }

    /// The mediator is back: asks it for what is so.
    pub(crate) fn confirm(&mut self, name: Name) -> bool {
        let node = &mut self[name];
        let may = node.mode() == Some(Mode::Alone) && node.by_election && node.is_settled();
        if may {
            (node.request, node.ask) = (Some(Request::Alone(node.known.floor)), Ask::Sent);
        }
        may
    }
}
