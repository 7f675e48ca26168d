//! The mediator, and what a node hears of it: by an answer, or from the other node.

use crate::config::{Config, Name};
use crate::model::{Failover, Rule};
use crate::state::{Ask, Mode, Request, Role, State, Told};

impl State {
    /// A change is taken.
    fn take(&mut self, by: Name, request: Request) {
        (self.register, self.made_by) = (request.config(by), None);
        for name in Name::ALL {
            let node = &mut self[name];
            node.behind += 1;
            node.note = node.note.map(|note| note + 1);
            node.told = node.told.map(|told| Told { behind: told.behind + 1, ..told });
            // Made for an earlier one: never taken any more.
            (node.late, node.is_hurt) = (0, false);
        }
    }

    /// The mediator decides on what was sent.
    pub(crate) fn decide(&mut self, name: Name, model: &Failover) -> bool {
        let node = self[name];
        let (Ask::Sent, Some(request)) = (node.ask, node.request) else { return false };
        if self.made_by == Some(name) && !model.lacks(Rule::RetryIsTaken) {
            self[name].ask = Ask::Taken;
        } else if node.behind == 0 {
            self.take(name, request);
            self.made_by = Some(name);
            self[name].ask = Ask::Taken;
        } else {
            (self[name].ask, self[name].request) = (Ask::Nothing, None);
            self.learn(name, model);
        }
        true
    }

    /// A copy comes late of what this node asked for, and still would.
    pub(crate) fn decide_late(&mut self, name: Name) -> bool {
        let node = self[name];
        let may = node.is_undetermined() && node.behind == 0 && self.made_by != Some(name);
        if let (true, Some(request)) = (may, node.request) {
            self.take(name, request);
            self.made_by = Some(name);
        }
        may
    }

    /// What an earlier life of the node asked for comes late.
    pub(crate) fn decide_for_dead(&mut self, name: Name, request: Request) -> bool {
        let may = self[name].late & request.bit() != 0;
        if may {
            self.take(name, request);
        }
        may
    }

    /// The node hears that its request was taken.
    pub(crate) fn hear(&mut self, name: Name) -> bool {
        let node = &mut self[name];
        let (Ask::Taken, Some(request)) = (node.ask, node.request) else { return false };
        (node.known, node.behind) = (request.config(name), node.behind - 1);
        node.renew();
        (node.ask, node.request) = (Ask::Nothing, None);
        match (node.role, request) {
            (Role::Serves(Mode::Held), Request::Alone(_)) => {
                (node.role, node.is_told) = (Role::Serves(Mode::Alone), false);
            }
            (Role::Serves(Mode::SettingIn), Request::Alone(_)) if !node.again => {
                node.role = Role::Serves(Mode::CatchingUp);
            }
            (Role::Serves(_), _) => {}
            // What was asked for before may be long ago: it asks for a fresh id.
            (Role::Undecided | Role::Follows, _) if node.again => {}
            (Role::Undecided | Role::Follows, _) => node.ask = Ask::Won,
        }
        true
    }

    /// The node waits no longer for the answer.
    pub(crate) fn time_out(&mut self, name: Name) -> bool {
        let waits = matches!(self[name].ask, Ask::Sent | Ask::Taken);
        if waits {
            self[name].ask = Ask::Nothing;
        }
        waits
    }

    /// The node is told by the mediator what it holds.
    pub(crate) fn learn(&mut self, name: Name, model: &Failover) {
        let found = self.register;
        let node = &mut self[name];
        if node.behind > 0 {
            node.request = None;
            node.renew();
        }
        if node.known.is_alone(name) && !found.has(name) {
            return; // what it acknowledged alone nobody else has
        }
        let is_noted = node.known == Request::Join.config(name) && node.behind == 0;
        let is_by_election = node.by_election && !model.lacks(Rule::ElectionStaysNoted);
        let join_stays = model.join_stays_noted && is_noted && found.is_alone(name);
        if !(is_by_election || join_stays) {
            (node.known, node.behind) = (found, 0);
        }
        self.be_named(name, &found, model);
    }

    fn be_named(&mut self, name: Name, found: &Config, model: &Failover) {
        let node = &mut self[name];
        if node.role == Role::Follows {
            let has_followed = node.has_followed || model.lacks(Rule::MemberByFollowing);
            node.is_member = has_followed && found.has(name);
        }
    }

    /// The peer says that this node is a member, by a configuration to which the mediator's is later by `behind`; whether this node knows of none
    /// that is later.
    pub(crate) fn take_note(&mut self, name: Name, behind: u8, model: &Failover) -> bool {
        let config = Config::both(name.other());
        let node = &mut self[name];
        if node.behind < behind {
            return false;
        }
        if node.behind > behind {
            (node.request, node.ask) = (None, Ask::Nothing);
            node.renew();
        }
        (node.known, node.behind) = (config, behind);
        self.be_named(name, &config, model);
        true
    }

    /// The word of the peer comes late.
    pub(crate) fn hear_note(&mut self, name: Name, model: &Failover) -> bool {
        let Some(behind) = self[name].note.take() else { return false };
        self.take_note(name, behind, model);
        true
    }

    /// The node's process ends, and is started anew.
    pub(crate) fn crash(&mut self, name: Name, model: &Failover) -> bool {
        if self.crashes == model.bounds.crashes {
            return false;
        }
        self.crashes += 1;
        let (before, made_by) = (self[name], self.made_by);
        let node = &mut self[name];
        let is_under_way = matches!(before.ask, Ask::Nothing | Ask::Sent) && before.behind == 0;
        if let Some(request) = before.request.filter(|_| is_under_way && made_by != Some(name)) {
            node.late |= request.bit();
        }
        (node.request, node.ask, node.again, node.note) = (None, Ask::Nothing, false, None);
        (node.role, node.log, node.lease) = (Role::Undecided, node.disk, false);
        (node.is_freed, node.told) = (false, None);
        node.is_elected &= model.lacks(Rule::ElectionEndsWithLife);
        node.has_renounced &= !model.lacks(Rule::RenounceOnDisk);
        if model.lacks(Rule::NoMemberAfterRestart) && before.is_member {
            node.role = Role::Follows;
        }
        if self.register.members == 3 {
            self[name].is_hurt = true;
            if Name::ALL.iter().all(|name| self[*name].is_hurt) {
                // Both memories are lost: what was in those only is gone, and nobody was promised more.
                self.acked &= self.nodes[0].log | self.nodes[1].log;
            }
        }
        true
    }
}
