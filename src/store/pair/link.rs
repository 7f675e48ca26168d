//! The link of a primary: the peer is set in when it has everything, and let in again after the link was lost.

use std::time::Duration;

use super::arbiter::Wanted;
use super::hello::{Answer, Question, RoleWord};
use super::meet::alone;
use super::race::STEP_TIME_MEDIATED;
use super::{Pair, STEP_TIME, STEP_TIME_BUSY};
use crate::base::{Deadline, Lsn};
use crate::node::{CallError, LinkStatus, ReconnectError, RefusalCode};
use crate::store::config::CommandError;
use crate::store::link::Link;
use crate::store::primary::Mode;
use crate::store::register::Configuration;
use crate::store::ring_memory::Trouble;
use crate::store::state::{Reason, Role, State};
#[cfg(test)]
use crate::store::world::{Defect, breaks};

/// Between two looks whether a peer is up to date that lacked more than the ring has.
const STEP_TIME_RESYNC: Duration = Duration::from_millis(50);
/// How long one attempt to reconnect may take.
pub(super) const RECONNECT_TIME: Duration = Duration::from_secs(2);

impl Pair {
    /// Whether the peer has everything; else when to look again.
    fn has_caught_up(&self) -> Result<(), Duration> {
        let (is_ready, is_resynced) = {
            let mut state = self.engine.shared.lock();
            let Role::Primary(primary) = &mut state.role else { return Err(STEP_TIME_BUSY) };
            let is_resynced = primary.resync.is_some();
            // One that is brought up to date is asked by the tender.
            if !is_resynced {
                primary.push();
                primary.ask_peer();
            }
            let cannot_begin = primary.peer.end == Lsn::ZERO;
            if (is_resynced || cannot_begin) && primary.peer.trouble != Trouble::None {
                let is_setting_in = primary.mode == Mode::SettingIn;
                drop(state);
                self.give_up_peer(is_setting_in);
                return Err(STEP_TIME);
            }
            let waits = primary.mode == Mode::SettingIn && !primary.may_join();
            (primary.is_caught_up() && !waits, is_resynced)
        };
        if is_ready {
            return Ok(());
        }
        self.refresh();
        Err(if is_resynced { STEP_TIME_RESYNC } else { STEP_TIME_BUSY })
    }

    /// Sets the peer in when it has everything.
    pub(super) fn catch_up(&self) -> Duration {
        if let Err(rest) = self.has_caught_up() {
            return rest;
        }
        if !self.may_ask_to_join() {
            return STEP_TIME;
        }
        let moves = self.moves();
        let Ok((ours, theirs)) = self.ask_hello() else { return STEP_TIME };
        let is_setting_in = match &mut self.engine.shared.lock().role {
            Role::Primary(primary) => primary.begin_to_set_in() && primary.may_join(),
            Role::Undecided | Role::Secondary(_) | Role::Failed { .. } => false,
        };
        if !is_setting_in {
            return STEP_TIME_BUSY;
        }
        let joined = self.decide(&Wanted::Serving, |last| {
            let id = last.map_or(0, |last| last.id) + 1;
            let members = vec![ours.node.clone(), theirs.node.clone()];
            Configuration { id, members, primary: ours.node.clone(), floor: 0 }
        });
        let configuration = match joined {
            Ok(configuration) => configuration,
            Err(error) => {
                self.not_set_in(error, moves);
                return STEP_TIME;
            }
        };
        // It has to know that it is a member before anything is acknowledged that is on no disk.
        match self.ask(&Question::Note { from: ours, configuration }, super::ANSWER_TIME) {
            Ok(Answer::Noted) => {
                let mut state = self.engine.shared.lock();
                let State { role: Role::Primary(primary), reason, .. } = &mut *state else {
                    return STEP_TIME;
                };
                if primary.be_mirrored() {
                    *reason = Reason::new("mirrored", format!("mirrored with {}", theirs.node));
                }
                drop(state);
                self.engine.shared.tell();
            }
            Ok(Answer::Refused { code, text }) => {
                self.set_out(Reason::new("peer-refuses", format!("the peer is no member ({code}): {text}")));
            }
            // Whether it heard is not known: it is asked again, and nothing is acknowledged without it meanwhile.
            Ok(Answer::Hello(_) | Answer::Following { .. } | Answer::Granted | Answer::Resync(_)) => {
                self.explain(Reason::new("peer-unclear", "the peer answers something else"));
            }
            Err(reason) => self.explain(reason),
        }
        STEP_TIME
    }

    /// The peer will not get what it lacks: it must not keep this node's ring.
    fn give_up_peer(&self, is_setting_in: bool) {
        let text = "the peer cannot be brought up to date: its disk is full, or it failed: see its status";
        let reason = Reason::new("peer-no-space", text);
        if is_setting_in {
            // It may be named a member already.
            let _moves = self.moves();
            self.set_out(reason);
            return;
        }
        if let Role::Primary(primary) = &mut self.engine.shared.lock().role
            && matches!(primary.mode, Mode::CatchingUp { .. })
        {
            primary.be_alone();
        }
        self.leave_alone(reason);
    }

    /// The configuration does not name the peer, or may or may not.
    fn not_set_in(&self, error: CommandError, moves: crate::base::locks::MutexGuard<'_, ()>) {
        let reason = Reason::new("cannot-set-in", error.to_string());
        if self.arbiter.is_none() {
            self.set_out(reason);
            return;
        }
        if let CommandError::Overtaken { found, .. } = error {
            drop(moves);
            self.be_overtaken(found.as_ref());
            return;
        }
        // Unless the register says for certain that the peer is none, nothing is acknowledged without it, nor without the own disk.
        if self.served_alone()
            && let Role::Primary(primary) = &mut self.engine.shared.lock().role
        {
            primary.be_set_out();
        }
        self.engine.shared.tell();
        self.explain(reason);
    }

    /// The peer is no member, for certain: the register says so again, and then the own disk alone decides.
    fn set_out(&self, reason: Reason) {
        let node = self.engine.config.node.clone();
        let durable = match &self.engine.shared.lock().role {
            Role::Primary(primary) => primary.committed(),
            Role::Undecided | Role::Secondary(_) | Role::Failed { .. } => return,
        };
        let floor = self.floor(durable);
        if let Err(error) = self.decide(&Wanted::Serving, |last| alone(&node, last, 0, floor)) {
            self.explain(Reason::new("cannot-set-out", error.to_string()));
            return;
        }
        if let Role::Primary(primary) = &mut self.engine.shared.lock().role {
            primary.be_set_out();
        }
        self.engine.shared.tell();
        self.explain(reason);
    }

    /// Looks whether the link still stands while nothing is written; how long to rest.
    pub(super) fn watch(&self) -> Duration {
        let rest = if self.arbiter.is_some() { STEP_TIME_MEDIATED } else { STEP_TIME };
        let mut state = self.engine.shared.lock();
        let State { role: Role::Primary(primary), reason, .. } = &mut *state else { return rest };
        if let Some(LinkStatus::Lost(why)) = primary.link.as_ref().map(|link| link.region.link()) {
            primary.lose(why.to_string());
        }
        if let Mode::Held { why } = &primary.mode {
            let text = format!("the link is lost ({why}): requests are held; {}", self.way_out());
            *reason = Reason::new("link-lost", text);
            return if self.arbiter.is_some() { Duration::ZERO } else { STEP_TIME };
        }
        if let Some(arbiter) = &self.arbiter {
            arbiter.find();
        }
        rest
    }

    /// Out of a link that is lost.
    const fn way_out(&self) -> &'static str {
        match self.arbiter {
            None => "`mirrorbus alone` if the peer does not serve",
            Some(_) => "the arbiter is asked which node goes on",
        }
    }

    /// Goes on without the peer, because the operator vouches that it does not serve.
    pub(in crate::store) fn go_alone(&self) -> Result<(), CommandError> {
        if let Ok((ours, theirs)) = self.ask_hello() {
            if theirs.role == RoleWord::Primary {
                return Err(CommandError::Refused(format!("{} serves: this node must not", theirs.node)));
            }
            let id = ours.configuration.map_or(0, |known| known.id);
            if theirs.configuration.is_some_and(|known| known.primary == theirs.node && known.id > id) {
                return Err(CommandError::Refused(format!(
                    "{} has served since, and may have acknowledged what this node lacks: restart it, or stop it to give that up",
                    theirs.node
                )));
            }
        }
        self.leave(Reason::new("alone", "serves alone, by the operator's word"))
    }

    /// Goes on without the peer, and says so as `told`. On return what was acknowledged is durable here, and the configuration names this node only.
    pub(super) fn leave(&self, told: Reason) -> Result<(), CommandError> {
        let _moves = self.moves();
        let (epoch, committed) = {
            let mut state = self.engine.shared.lock();
            let epoch = state.epoch;
            match &mut state.role {
                Role::Primary(primary) if primary.mode == Mode::Alone => return Ok(()),
                Role::Primary(primary) => (epoch, primary.begin_to_leave()),
                Role::Undecided | Role::Secondary(_) | Role::Failed { .. } => {
                    let text = "this node does not serve: `mirrorbus promote` makes it";
                    return Err(CommandError::Refused(text.into()));
                }
            }
        };
        // What was acknowledged from two memories is lost with this one alone, once the peer's does not count any more.
        let written = match self.engine.destage_to(epoch, committed) {
            #[cfg(test)]
            _ if breaks(Defect::LeavesBeforeItsDisk) => Ok(()),
            Ok(true) => Ok(()),
            Ok(false) => {
                let text = format!("not all before {committed} is on this node's disk yet: say it again");
                Err(CommandError::Refused(text))
            }
            Err(error) => Err(error.into()),
        };
        self.engine.mark_own();
        let floor = self.floor(committed);
        let decided = written.and_then(|()| self.decide_to_leave(floor));
        let may_be = self.may_have_left();
        let mut state = self.engine.shared.lock();
        if let State { role: Role::Primary(primary), reason, .. } = &mut *state {
            if decided.is_ok() {
                primary.be_alone();
                *reason = told;
            } else if !may_be {
                primary.stay();
            }
        }
        drop(state);
        self.engine.shared.tell();
        decided.map(|_| ())
    }

    /// Tries to go on over a new link. The peer must be as it was: one that restarted is set out first, by the operator's word.
    pub(super) fn reconnect(&self, within: Duration) {
        let (mut link, epoch) = {
            let mut state = self.engine.shared.lock();
            let epoch = state.epoch;
            let Role::Primary(primary) = &mut state.role else { return };
            if primary.leaves() {
                return;
            }
            let Some(link) = primary.link.take() else { return };
            (link, epoch)
        };
        let Link { region, lane, .. } = &mut link;
        let result = region.reconnect(&mut [lane], Deadline::within(within));
        let lost = result.as_ref().err().map(|error| self.explain_lost(error));
        let mut state = self.engine.shared.lock();
        let is_same = state.epoch == epoch;
        let State { role: Role::Primary(primary), reason, .. } = &mut *state else { return };
        if !is_same || primary.writes_through() {
            drop(state);
            return; // the operator has decided meanwhile; the link ends here, without the lock
        }
        match lost {
            // It is being set out: what is acknowledged from two memories now would be in one only.
            None if primary.leaves() => primary.link = Some(link),
            None => {
                primary.be_reconnected(link);
                *reason = Reason::new("mirrored", "mirrored, after the link was lost");
            }
            Some(lost) => {
                primary.link = Some(link);
                *reason = lost;
            }
        }
        drop(state);
        self.engine.shared.tell();
    }

    /// Why the link is not back, and the way out.
    fn explain_lost(&self, error: &ReconnectError) -> Reason {
        const RESTARTED: &str =
            "the peer restarted: requests are held; `mirrorbus alone` sets it out, and it is let in again";
        let lost = || {
            let text = format!("the link is lost ({error}): requests are held; {}", self.way_out());
            Reason::new("link-lost", text)
        };
        let ReconnectError::Call(CallError::Refused { code, .. }) = error else { return lost() };
        match code {
            RefusalCode::NotResumable => Reason::new("peer-restarted", RESTARTED),
            // It says itself why it lets nobody in.
            RefusalCode::NotNow => match self.ask_hello().map(|(_, theirs)| theirs.role) {
                Ok(RoleWord::Undecided) => Reason::new("peer-restarted", RESTARTED),
                Ok(RoleWord::Primary) => {
                    let text = "the peer serves too, by an operator's word: stop one of the two; requests are held here";
                    Reason::new("two-primaries", text)
                }
                Ok(RoleWord::Failed) => {
                    let text = format!("the peer is out of service: requests are held; {}", self.way_out());
                    Reason::new("peer-failed", text)
                }
                Ok(RoleWord::Secondary { .. }) | Err(_) => lost(),
            },
            _ => lost(),
        }
    }
}
