//! What a node does that does not serve: meets the other, follows, takes over.

use crate::config::{Config, Name, Writes, common, end};
use crate::model::{Failover, Rule};
use crate::state::{Ask, Mode, Node, Request, Role, State, Told, Word};

impl State {
    /// What the node says to the other one that is to follow it.
    pub(crate) fn told(&self, name: Name, by_primary: bool) -> Told {
        let (node, peer) = (self[name], self[name.other()]);
        let fork = match common(node.log, peer.log) {
            // Of one generation, as far as anybody knows: a new one is begun behind its end.
            fork if fork == node.log && !by_primary => peer.log,
            fork => fork,
        };
        let behind = if by_primary { node.behind } else { node.behind.min(peer.behind) };
        let floor = if by_primary { node.known.floor } else { end(node.log) };
        let known = (node.behind == behind).then_some(node.known);
        Told { behind, floor, fork, log: node.log, by_primary, known }
    }

    /// What is told to follow does; `name` says so. Whether it does, whatever of it was done.
    pub(crate) fn follow(&mut self, name: Name, told: &Told, model: &Failover) -> bool {
        let Told { behind, floor, fork, log, by_primary, known } = *told;
        let peer = self[name.other()];
        let has_more = peer.log & !fork != 0;
        if peer.mode().is_some() || peer.ask != Ask::Nothing || has_more && peer.known.is_alone(name.other())
        {
            return false;
        }
        if peer.behind < behind && !model.lacks(Rule::OlderIsRefused) {
            return false;
        }
        let its = (peer.behind == behind).then_some(peer.known);
        let last = [its, known].into_iter().flatten().min_by_key(|known| known.members.count_ones());
        let may_go_on = |last: Config| last.is_alone(name) && end(log) >= last.floor;
        let is_void = by_primary || last.is_some_and(may_go_on);
        self.drain(name.other());
        if !is_void && peer.log > log {
            return false;
        }
        let peer = &mut self[name.other()];
        if behind < peer.behind {
            peer.request = None;
            peer.renew();
        }
        (peer.known, peer.behind) = (Config::alone(name, floor), behind);
        let kept = peer.log & fork;
        (peer.log, peer.disk, peer.role) = (kept, kept, Role::Follows);
        (peer.session, peer.has_followed, peer.is_member) = (false, false, false);
        true
    }

    /// What the node was told comes late.
    pub(crate) fn follow_late(&mut self, name: Name, model: &Failover) -> bool {
        let told = self[name].told.take();
        told.is_some_and(|told| {
            self.follow(name.other(), &told, model);
            true
        })
    }

    /// It is under way, and nobody waits for the answer any more.
    pub(crate) fn tell_late(&mut self, name: Name, by_primary: bool) {
        let told = self.told(name, by_primary);
        self[name.other()].told = Some(told);
    }

    /// Nobody writes to the node's memory any more, and all that came is on its disk.
    fn drain(&mut self, name: Name) {
        let node = &mut self[name];
        (node.session, node.disk) = (false, node.log);
    }

    /// The later of the two configurations that the nodes know; of equals the other one's.
    fn last(&self, name: Name) -> Config {
        let (node, peer) = (&self[name], &self[name.other()]);
        let rank = |node: &Node| (node.behind, node.known.members.count_ones());
        if rank(node) < rank(peer) { node.known } else { peer.known }
    }

    /// Whether that lets one of the two alone go on: whether this one.
    fn is_only_member(&self, name: Name) -> Option<bool> {
        let last = self.last(name);
        (last.members != 3).then(|| last.has(name))
    }

    /// Whether it had more when it came to be the only member.
    fn lacks_floor(&self, name: Name) -> bool {
        self.is_only_member(name) == Some(true) && end(self[name].log) < self.last(name).floor
    }

    /// Of two that do not serve, whether this one is to.
    fn goes_first(&self, name: Name) -> bool {
        let had = |name: Name| -> Writes { self[name].log };
        match self.is_only_member(name) {
            Some(is_first) => is_first,
            _ if had(name) != had(name.other()) => had(name) > had(name.other()),
            _ => self.last(name).primary == name,
        }
    }

    /// Whether it looks for the other one, and has nothing of its own under way.
    fn meets(&self, name: Name, model: &Failover) -> bool {
        let node = &self[name];
        match node.role {
            Role::Undecided => node.ask == Ask::Nothing,
            Role::Follows => {
                let has_renounced = node.has_renounced && !model.lacks(Rule::RenouncedMeets);
                node.is_settled() && (has_renounced || !self.is_guard(name))
            }
            Role::Serves(_) => false,
        }
    }

    /// Whether it may take over.
    fn is_guard(&self, name: Name) -> bool {
        let node = &self[name];
        node.role == Role::Follows && node.is_member && node.known.has(name)
    }

    /// Asks the mediator what it holds.
    pub(crate) fn look(&mut self, name: Name, model: &Failover) -> bool {
        if self.meets(name, model) || (self.is_guard(name) && self[name].is_settled()) {
            self.learn(name, model);
            return true;
        }
        let node = &mut self[name];
        let is_as_before = node.behind == 0 && node.is_undetermined();
        if let (true, true, Some(request)) =
            (model.lacks(Rule::OnlyAnswersSettle), is_as_before, node.request)
        {
            // It is on its way all the same.
            (node.request, node.late) = (None, node.late | request.bit());
            return true;
        }
        false
    }

    /// The other one is not there, and this node was the only member: under a fresh id it goes on.
    pub(crate) fn go_on(&mut self, name: Name, model: &Failover) -> bool {
        let node = self[name];
        // The mediator was just asked, and holds what was before the join.
        let is_not_joined = || {
            let is_noted = node.known == Request::Join.config(name) && node.behind == 0;
            model.join_stays_noted && is_noted && self.register.is_alone(name)
        };
        let is_only_member = node.known.is_alone(name) || is_not_joined();
        if !self.meets(name, model) || !is_only_member || end(node.disk) < node.known.floor {
            return false;
        }
        if model.lacks(Rule::FreshId) {
            self[name].ask = Ask::Won;
            return true;
        }
        self.ask_again_or_for(name, Request::Alone(node.known.floor));
        true
    }

    /// Neither serves: tells the other one to follow, and asks for a fresh id when it hears that it does.
    pub(crate) fn go_first(&mut self, name: Name, word: Word, model: &Failover) -> bool {
        let peer = name.other();
        let meets = self.meets(name, model) && self[peer].mode().is_none() && !self.is_attached(peer);
        if !meets || !self.goes_first(name) {
            return false;
        }
        self.drain(name);
        if self.lacks_floor(name) {
            return true;
        }
        let told = self.told(name, false);
        match word {
            Word::Late => self.tell_late(name, false),
            Word::Unheard => _ = self.follow(name, &told, model),
            Word::Heard => {
                if self.follow(name, &told, model) {
                    self.ask_again_or_for(name, Request::Alone(told.floor));
                }
            }
        }
        true
    }

    /// A member that does not hear the other one takes its access away, writes out what came, and asks; or does not, if the mediator is gone
    /// since it was looked for.
    pub(crate) fn race(&mut self, name: Name, is_sent: bool, model: &Failover) -> bool {
        let has_renounced = self[name].has_renounced && !model.lacks(Rule::RenouncedStays);
        let may = self.is_guard(name) && self[name].is_settled() && self[name].behind == 0 && !has_renounced;
        if may {
            let node = &mut self[name];
            node.session &= model.lacks(Rule::Fence);
            if !model.lacks(Rule::Drain) {
                node.disk = node.log;
            }
            if is_sent {
                self.ask_again_or_for(name, Request::Alone(end(self[name].log)));
            }
        }
        may
    }

    /// Asks for what is undetermined once more.
    pub(crate) fn again(&mut self, name: Name) -> bool {
        let node = self[name];
        let may = match node.role {
            Role::Undecided => false,
            Role::Serves(mode) => mode != Mode::Held || node.disk & node.committed == node.committed,
            Role::Follows => true,
        };
        if may && node.is_undetermined() {
            if node.role == Role::Follows {
                self.drain(name);
            }
            (self[name].ask, self[name].again) = (Ask::Sent, true);
            return true;
        }
        false
    }

    fn ask_again_or_for(&mut self, name: Name, request: Request) {
        let node = &mut self[name];
        node.again = node.request.is_some();
        node.request.get_or_insert(request);
        node.ask = Ask::Sent;
    }

    /// Has the configuration, waits until nobody holds a lease of its, and serves.
    pub(crate) fn serve(&mut self, name: Name, model: &Failover) -> bool {
        if self[name].ask != Ask::Won {
            return false;
        }
        let is_new = self[name].role == Role::Undecided;
        if !(model.lacks(Rule::OutlastLease) || model.lacks(Rule::OutlastAfterRestart) && is_new) {
            self[name.other()].lease = false;
        }
        let node = &mut self[name];
        (node.ask, node.log) = (Ask::Nothing, node.disk);
        node.role = Role::Serves(Mode::Alone);
        true
    }
}
