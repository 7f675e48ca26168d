//! What a node does that serves: the log, the link, and who is a member.

use crate::config::{Name, end};
use crate::model::{Failover, Rule};
use crate::state::{Ask, Mode, Request, Role, State, Word};

impl State {
    /// A client writes.
    pub(crate) fn write(&mut self, name: Name, model: &Failover) -> bool {
        if self[name].mode().is_none() || self.written == model.bounds.writes {
            return false;
        }
        self[name].log |= 1 << self.written;
        self.written += 1;
        true
    }

    /// What was written reaches the peer's memory.
    pub(crate) fn place(&mut self, name: Name) -> bool {
        let log = self[name].log;
        let places = self.is_attached(name.other()) && self[name.other()].log != log;
        if places {
            self[name.other()].log = log;
        }
        places
    }

    /// The primary takes note of what the peer's memory has.
    pub(crate) fn commit(&mut self, name: Name, model: &Failover) -> bool {
        let placed = self[name.other()].log;
        let node = &mut self.nodes[name as usize];
        let committed = match node.role {
            Role::Serves(Mode::SettingIn) if model.lacks(Rule::CommitByBoth) => node.disk,
            Role::Serves(Mode::SettingIn) => node.disk & placed,
            Role::Serves(Mode::Mirrored) => placed,
            Role::Serves(Mode::Held)
                if model.lacks(Rule::HoldWhileLeaving) && matches!(node.request, Some(Request::Alone(_))) =>
            {
                let gains = node.disk & !node.committed != 0;
                node.committed |= node.disk;
                return gains;
            }
            Role::Undecided | Role::Follows | Role::Serves(_) => return false,
        };
        node.committed |= committed;
        self.nodes[name.other() as usize].session
    }

    /// What the log has goes to the disk.
    pub(crate) fn destage(&mut self, name: Name) -> bool {
        let placed = self[name.other()].log;
        let is_attached = self.is_attached(name.other());
        let node = &mut self[name];
        let goes = match node.role {
            Role::Undecided => return false,
            Role::Follows | Role::Serves(Mode::Alone | Mode::CatchingUp | Mode::SettingIn | Mode::Held) => {
                node.log
            }
            Role::Serves(Mode::Mirrored) if is_attached => node.log & placed,
            Role::Serves(Mode::Mirrored) => return false,
        };
        node.disk |= goes;
        true
    }

    /// The link is lost.
    pub(crate) fn lose(&mut self, name: Name) -> bool {
        match self[name].mode() {
            Some(Mode::SettingIn | Mode::Mirrored) => self[name].role = Role::Serves(Mode::Held),
            Some(Mode::CatchingUp) => self[name].role = Role::Serves(Mode::Alone),
            Some(Mode::Alone | Mode::Held) | None => return false,
        }
        true
    }

    /// And is back, with the peer as it was.
    pub(crate) fn reconnect(&mut self, name: Name) -> bool {
        let node = &self[name];
        let may = node.mode() == Some(Mode::Held) && node.is_settled() && self[name.other()].session;
        if may {
            let mode = if node.is_told { Mode::Mirrored } else { Mode::SettingIn };
            self[name].role = Role::Serves(mode);
        }
        may
    }

    /// The peer is told to follow, and is given the ring, if its answer is heard.
    pub(crate) fn invite(&mut self, name: Name, word: Word, model: &Failover) -> bool {
        let node = self[name];
        let may = node.mode() == Some(Mode::Alone) && node.is_settled() && node.known.is_alone(name);
        let may = may && (!node.by_election || model.lacks(Rule::InviteWhenConfirmed));
        if !may || self[name.other()].mode().is_some() {
            return false;
        }
        if word == Word::Late {
            self.tell_late(name, true);
            return true;
        }
        if self.follow(name, &self.told(name, true), model) && word == Word::Heard {
            let peer = &mut self[name.other()];
            (peer.session, peer.has_followed, peer.log) = (true, true, node.log);
            let node = &mut self[name];
            (node.role, node.needs, node.is_told) = (Role::Serves(Mode::CatchingUp), node.log, false);
        }
        true
    }

    /// The peer has what it lacked when it attached: nothing is committed any more that it has not.
    pub(crate) fn set_in(&mut self, name: Name) -> bool {
        let disk = self[name.other()].disk;
        let is_attached = self.is_attached(name.other());
        let node = &mut self[name];
        let may = node.mode() == Some(Mode::CatchingUp) && is_attached && disk & node.needs == node.needs;
        if may {
            (node.role, node.needs) = (Role::Serves(Mode::SettingIn), node.committed);
        }
        may
    }

    /// It has all that was committed without it: it is asked for as a member, and noted before that.
    pub(crate) fn join(&mut self, name: Name, model: &Failover) -> bool {
        let peer = &self[name.other()];
        let had = peer.disk & peer.log;
        let node = &mut self[name];
        let has_all = had & node.needs == node.needs || model.lacks(Rule::JoinWhenWhole);
        let may =
            node.mode() == Some(Mode::SettingIn) && node.is_settled() && node.known.is_alone(name) && has_all;
        if may {
            if !model.lacks(Rule::NoteBeforeJoin) {
                node.known = Request::Join.config(name);
            }
            (node.request, node.ask, node.needs) = (Some(Request::Join), Ask::Sent, 0);
        }
        may
    }

    /// The peer is told that it is a member; whether its answer is heard, or only on its way.
    pub(crate) fn note(&mut self, name: Name, is_heard: bool, model: &Failover) -> bool {
        let node = self[name];
        let may = node.mode() == Some(Mode::SettingIn) && node.is_settled() && node.known.members == 3;
        if !may {
            return false;
        }
        if !is_heard {
            let is_new = self[name.other()].note.is_none_or(|note| note > node.behind);
            self[name.other()].note = Some(node.behind);
            return is_new;
        }
        let is_noted = self.take_note(name.other(), node.behind, model);
        if is_noted {
            (self[name].is_told, self[name].role) = (true, Role::Serves(Mode::Mirrored));
        }
        is_noted
    }

    /// The peer is lost, or will not be a member: asks to go on alone, when the own disk has what was committed.
    pub(crate) fn leave(&mut self, name: Name, model: &Failover) -> bool {
        let node = &mut self[name];
        let has_all = node.disk & node.committed == node.committed || model.lacks(Rule::DiskBeforeLeave);
        let is_mode = matches!(node.mode(), Some(Mode::SettingIn | Mode::Held));
        let may =
            is_mode && node.is_settled() && node.known.members == 3 && node.known.primary == name && has_all;
        if may {
            (node.request, node.ask) = (Some(Request::Alone(end(node.committed))), Ask::Sent);
        }
        may
    }

    /// The mediator said before that this node is alone.
    pub(crate) fn be_alone(&mut self, name: Name) -> bool {
        let node = &mut self[name];
        let has_all = node.disk & node.committed == node.committed;
        let may =
            node.mode() == Some(Mode::Held) && node.is_settled() && node.known.is_alone(name) && has_all;
        if may {
            (node.role, node.is_told) = (Role::Serves(Mode::Alone), false);
        }
        may
    }

    /// Somebody else has the configuration: writes its log out, and waits to be told to follow.
    pub(crate) fn step_down(&mut self, name: Name) -> bool {
        let node = &mut self[name];
        let may = node.mode().is_some() && node.is_settled() && node.known.primary != name;
        if may {
            (node.disk, node.role) = (node.log, Role::Undecided);
        }
        may
    }

    /// The peer says that it serves nothing while the lease is live.
    pub(crate) fn grant(&mut self, by: Name) -> bool {
        let name = by.other();
        let has_member = matches!(self[name].mode(), Some(Mode::SettingIn | Mode::Mirrored | Mode::Held));
        let may = has_member && self[by].session && self[by].known.primary == name && !self[name].lease;
        self[name].lease |= may;
        may
    }
}
