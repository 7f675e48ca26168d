//! The mediator is lost first: while the two nodes still have each other they agree which of them goes on without it.
//!
//! ```text
//!  primary    mediator lost ── renounce X? ─▶ elected under X ── link lost ─▶ own disk has all ─▶ noted here: alone, under X ─▶ serves
//!  secondary                  ◀─ renounced X, on its disk                        (does not take over under X)        │
//!  mediator back:  not elected any more ─▶ compare-and-set X to X+1, the same members                  compare-and-set X to X+1, alone
//! ```
//!
//! Under the configuration X two nodes could go on: the members. One that has renounced it, durably, does not, whatever it restarts as, so the other
//! needs nobody's leave: when the mediator is back it finds X there, and nobody else asks for a change of it. A later configuration ends the
//! renunciation. Before the elected node asks for one that names the other it gives up its election.
//!
//! The election is in memory only: a node that restarts has none, and serves by the mediator's word, as ever.

use std::sync::atomic::Ordering;

use super::arbiter::{Arbiter, Wanted};
use super::hello::{Answer, Hello, Question};
use super::meet::alone;
use super::obey::{MOVES_TIME, refused};
use super::{ANSWER_TIME, Pair};
use crate::base::Lsn;
use crate::base::clock::Instant;
use crate::cluster::{Configuration, LOOK_STEP};
use crate::store::config::CommandError;
use crate::store::follower::Stage;
use crate::store::primary::{HandOver, Mode};
use crate::store::register::{Register, newer};
use crate::store::state::{Reason, Role, State};
#[cfg(test)]
use crate::store::world::{Defect, breaks};

/// The word of a primary that was elected, and has its peer.
const ELECTED: &str = "elected";

impl Pair {
    /// Looks whether the mediator is there, and has one of the two elected when it is not.
    pub(in crate::store) fn run_looks(&self) {
        let Some(arbiter) = &self.arbiter else { return };
        while !self.stopping.load(Ordering::SeqCst) {
            let known = self.configuration().map_or(0, |known| known.id);
            let (sight, found) = arbiter.look(known);
            if let Some(found) = found.filter(|found| found.id > known) {
                self.learn_as_follower(&found);
            }
            let now = Instant::now();
            if sight.is_lost(now) {
                self.ask_to_be_elected(arbiter);
            } else if sight.is_reliable(now) {
                self.end_election(arbiter);
            }
            self.looks.nap(LOOK_STEP);
        }
    }

    /// Of a change that it was not told of, since the word was lost, a node that follows hears so.
    fn learn_as_follower(&self, found: &Configuration) {
        let Some(_moves) = self.moves.try_lock() else { return };
        if matches!(self.engine.shared.lock().role, Role::Secondary(_))
            && let Err(error) = self.learn(found)
        {
            log::warn!("{}: {error}", self.engine.config.name);
        }
    }

    /// The configuration under which this node serves with the other beside it, or is held for its loss.
    fn served_with_peer(&self) -> Option<Configuration> {
        let serves = match &self.engine.shared.lock().role {
            // One that is handed over is the peer's to change.
            Role::Primary(primary) if primary.hand_over != HandOver::No => false,
            Role::Primary(primary) => matches!(primary.mode, Mode::Mirrored | Mode::Held { .. }),
            Role::Undecided | Role::Secondary(_) | Role::Failed { .. } => false,
        };
        let node = &self.engine.config.node;
        self.configuration().filter(|known| serves && known.primary == *node && known.members.len() > 1)
    }

    fn ask_to_be_elected(&self, arbiter: &Arbiter) {
        // While a peer may or may not be named by a later one, to renounce this one says too little.
        if arbiter.may_become_shared() || self.is_ending() {
            return;
        }
        let Some(known) = self.served_with_peer().filter(|known| !arbiter.is_elected(known.id)) else {
            return;
        };
        // It may have renounced, whatever becomes of the answer.
        arbiter.ask_under(known.id);
        #[cfg(test)]
        if breaks(Defect::ElectsItself) {
            return self.be_elected(arbiter, &known);
        }
        let question = Question::Renounce { from: self.hello(), configuration: known.clone() };
        match self.ask(&question, ANSWER_TIME) {
            Ok(Answer::Noted) => self.be_elected(arbiter, &known),
            Ok(Answer::Refused { code, text }) => {
                log::info!("{}: the peer does not renounce ({code}): {text}", self.engine.config.name);
            }
            Ok(Answer::Hello(_) | Answer::Following { .. } | Answer::Granted | Answer::Resync(_))
            | Err(_) => {}
        }
    }

    fn be_elected(&self, arbiter: &Arbiter, known: &Configuration) {
        let _moves = self.moves();
        // Meanwhile a change may have been asked for that names the peer.
        if arbiter.may_become_shared() || self.served_with_peer().as_ref() != Some(known) {
            return;
        }
        arbiter.elect(known.id);
        let mut state = self.engine.shared.lock();
        if let State { role: Role::Primary(primary), reason, .. } = &mut *state
            && primary.mode == Mode::Mirrored
        {
            let why = arbiter.why_mute().unwrap_or_default();
            let text = format!(
                "mirrored; the peer has agreed that this node goes on when they lose each other: {why}"
            );
            *reason = Reason::new(ELECTED, text);
        }
        drop(state);
        log::warn!(
            "{}: the mediator is lost: this node goes on if the peer is lost too",
            self.engine.config.name
        );
        self.bell.ring();
    }

    /// The mediator is back: it decides again.
    fn end_election(&self, arbiter: &Arbiter) {
        let is_due = |known: &Configuration| arbiter.is_to_renew(known.id);
        if self.served_with_peer().is_none_or(|known| !is_due(&known)) {
            return;
        }
        let moves = self.moves();
        let is_mirrored = match &self.engine.shared.lock().role {
            Role::Primary(primary) => primary.mode == Mode::Mirrored,
            Role::Undecided | Role::Secondary(_) | Role::Failed { .. } => false,
        };
        let Some(known) = self.served_with_peer().filter(|known| is_mirrored && is_due(known)) else {
            return;
        };
        arbiter.end_election();
        let renewed = self.decide(&Wanted::Renewed, |last| {
            let last = last.unwrap_or(&known);
            Configuration { id: last.id + 1, ..last.clone() }
        });
        drop(moves);
        if let Err(error) = &renewed {
            log::warn!("{}: the election cannot be ended yet: {error}", self.engine.config.name);
        }
        // What was asked for before may have been taken, if this was not.
        let Some(configuration) = self.configuration().filter(|now| now.id > known.id) else { return };
        // One that does not hear it finds it at the mediator, before it gives up.
        let noted = self.ask(&Question::Note { from: self.hello(), configuration }, ANSWER_TIME);
        if !matches!(noted, Ok(Answer::Noted)) {
            log::warn!("{}: the peer was not told that the mediator decides again", self.engine.config.name);
        }
        let mut state = self.engine.shared.lock();
        if renewed.is_ok() && state.reason.code == ELECTED {
            state.reason = Reason::new("mirrored", "mirrored; the mediator is back");
        }
    }

    /// This node does not take over under this configuration any more, whatever happens: that is on its disk before it is answered.
    pub(super) fn renounce(&self, from: &Hello, configuration: Configuration) -> Answer {
        let Some(arbiter) = &self.arbiter else {
            return refused("no-mediator", "the operator decides here who serves".into());
        };
        // Behind this nothing is taken over.
        let Some(_moves) = self.moves.try_lock_for(MOVES_TIME) else {
            return refused("busy", "this node is making a move of its own".into());
        };
        if arbiter.sight().answers() {
            return refused("mediator-answers", "the mediator answers this node: it decides".into());
        }
        if arbiter.is_undetermined() {
            return refused("undetermined", "this node may have taken over already".into());
        }
        let is_followed = match &self.engine.shared.lock().role {
            Role::Secondary(secondary) => matches!(secondary.stage, Stage::Following(_)),
            Role::Undecided | Role::Primary(_) | Role::Failed { .. } => false,
        };
        if !is_followed || configuration.primary != from.node {
            return refused("not-following", format!("this node does not follow {}", from.node));
        }
        let id = configuration.id;
        let mut register = self.register();
        let mut contents = register.contents().clone();
        let next = newer(contents.configuration.as_ref(), configuration);
        if next.id != id {
            return refused("older", format!("the configuration here is {}, later than {id}", next.id));
        }
        (contents.configuration, contents.renounced) = (Some(next), Some(id));
        let known = register.id();
        match register.compare_and_set(known, contents) {
            Ok(()) => Answer::Noted,
            Err(error) => refused("register", error.to_string()),
        }
    }

    /// Whether this node has agreed that the other one goes on, under the configuration that it knows.
    pub(super) fn has_renounced(&self) -> bool {
        #[cfg(test)]
        if breaks(Defect::ForgetsThatItRenounced) {
            return false;
        }
        let register = self.register();
        let contents = register.contents();
        contents.renounced.is_some() && contents.renounced == Some(register.id())
    }

    /// A primary that was lost its peer and goes on: by the election if there is one, else by the mediator's word. Whoever calls this holds `moves`.
    pub(super) fn decide_to_leave(&self, floor: Lsn) -> Result<Configuration, CommandError> {
        let node = &self.engine.config.node;
        if let Some(arbiter) = &self.arbiter
            && let Some(known) = self.configuration().filter(|known| arbiter.is_elected(known.id))
        {
            // From here on what this node has the other need not have: that is known to it after a restart too.
            arbiter.differ(known.id);
            let floor = floor.0;
            return self.note_configuration(|_| Configuration {
                id: known.id,
                members: vec![node.clone()],
                primary: node.clone(),
                floor,
            });
        }
        #[cfg(test)]
        if breaks(Defect::LeavesUnasked) {
            return self.note_configuration(|last| alone(node, last, 0, floor));
        }
        self.decide(&Wanted::Serving, |last| alone(node, last, 0, floor))
    }

    /// Whether this node may have left the peer already: what was asked for, or noted, may count.
    pub(super) fn may_have_left(&self) -> bool {
        let Some(arbiter) = &self.arbiter else { return false };
        let is_noted = |known: Configuration| arbiter.is_elected(known.id) && arbiter.differs(known.id);
        arbiter.is_undetermined() || self.configuration().is_some_and(is_noted)
    }

    /// Whether the mediator can be asked to name a peer a member that has everything, or has named it. To have asked one that does not answer would be one
    /// more thing that is not known; and before it, it has to know that this node was alone.
    pub(super) fn may_ask_to_join(&self) -> bool {
        let (Some(arbiter), Some(known)) = (&self.arbiter, self.configuration()) else { return true };
        if known.members.len() > 1 && !arbiter.differs(known.id) {
            return true;
        }
        if let Some(why) = arbiter.why_mute() {
            let text =
                format!("the peer has everything, and becomes a member when the mediator answers: {why}");
            self.explain(Reason::new("cannot-set-in", text));
            return false;
        }
        if !self.confirm_alone(arbiter, &known) {
            return false;
        }
        !(self.served_alone() && self.configuration().is_some_and(|known| arbiter.differs(known.id)))
    }

    /// A node that went on by an election has the mediator say so. Whether it still serves.
    pub(super) fn confirm_alone(&self, arbiter: &Arbiter, known: &Configuration) -> bool {
        if !arbiter.differs(known.id) || !self.served_alone() || !arbiter.sight().answers() {
            return true;
        }
        let moves = self.moves();
        let committed = match &self.engine.shared.lock().role {
            Role::Primary(primary) => primary.committed(),
            Role::Undecided | Role::Secondary(_) | Role::Failed { .. } => return true,
        };
        let (node, floor) = (&self.engine.config.node, self.floor(committed));
        let decided = self.decide(&Wanted::Serving, |last| alone(node, last, 0, floor));
        drop(moves);
        match decided {
            Ok(_) => true,
            Err(CommandError::Overtaken { found, .. }) => {
                self.be_overtaken(found.as_ref());
                false
            }
            // Whether it was taken or not: nobody else goes on.
            Err(error) => {
                log::info!("{}: goes on without the mediator: {error}", self.engine.config.name);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::config::{ArbiterConfig, ArbiterKind};
    use crate::store::pair::rig;
    use crate::store::register::Contents;

    const ID: u64 = 7;

    /// A node that has a mediator which nobody has looked for, and knows one configuration, of itself and the peer that serves.
    fn mediated(directory: &std::path::Path) -> Pair {
        let kind = ArbiterKind::Mediator {
            url: format!("shm:{}/mediator.sock", directory.display()).parse().unwrap(),
            keys: crate::node::KeySet::from_bytes(&[[7; 32]]).unwrap(),
        };
        let pair = rig::pair_with(directory, Some(ArbiterConfig { kind, preferred: None }));
        let members = vec!["alpha".to_owned(), "beta".to_owned()];
        let configuration = Configuration { id: ID, members, primary: "beta".into(), floor: 0 };
        let contents = Contents { configuration: Some(configuration), ..Contents::default() };
        pair.register().compare_and_set(0, contents).unwrap();
        pair
    }

    #[test]
    fn what_is_renounced_outlasts_a_restart_and_ends_with_a_later_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let pair = mediated(directory.path());
        assert!(!pair.has_renounced());
        let renounced = Contents { renounced: Some(ID), ..pair.register().contents().clone() };
        pair.register().compare_and_set(ID, renounced).unwrap();
        assert!(pair.has_renounced());
        let path = pair.engine.config.directory.clone();
        let read = crate::store::register::LocalRegister::open(&path).unwrap();
        assert_eq!(read.contents().renounced, Some(ID), "it is on the disk");
        pair.note_configuration(|last| Configuration { id: ID + 1, ..last.unwrap().clone() }).unwrap();
        assert!(!pair.has_renounced());
    }

    #[test]
    fn whoever_may_take_over_does_not_renounce() {
        let directory = tempfile::tempdir().unwrap();
        let code = |answer: Answer| match answer {
            Answer::Refused { code, .. } => code,
            other => panic!("{other:?}"),
        };
        let alone = rig::pair(&directory.path().join("alone"));
        let known = |pair: &Pair| pair.configuration().unwrap();
        let pair = mediated(&directory.path().join("mediated"));
        let from = Hello { node: "beta".into(), ..pair.hello() };
        assert_eq!(code(alone.renounce(&from, known(&pair))), "no-mediator");
        assert_eq!(code(pair.renounce(&from, known(&pair))), "mediator-answers", "as far as it knows");
        let arbiter = pair.arbiter.as_ref().unwrap();
        arbiter.sight().note(false, Instant::now());
        assert_eq!(
            code(pair.renounce(&from, known(&pair))),
            "not-following",
            "it has no session with anybody"
        );
        // What it asks the mediator now, which is not there, is sent to nobody.
        assert!(pair.decide(&Wanted::Anew, |last| alone_of(&pair, last)).is_err());
        assert_eq!(code(pair.renounce(&from, known(&pair))), "not-following");
        let moves = pair.moves();
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| code(pair.renounce(&from, known(&pair))));
            assert_eq!(busy.join().unwrap(), "busy");
        });
        drop(moves);
        assert!(!pair.has_renounced());
    }

    fn alone_of(pair: &Pair, last: Option<&Configuration>) -> Configuration {
        alone(&pair.engine.config.node, last, 0, Lsn::ZERO)
    }
}
