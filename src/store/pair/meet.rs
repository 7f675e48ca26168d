//! Two nodes that do not serve meet: the one with more goes on, and tells the other to follow.

use std::time::Duration;

use super::arbiter::Wanted;
use super::hello::{Answer, Hello, Question, RoleWord};
use super::{FOLLOW_TIME, Pair};
use crate::base::Lsn;
use crate::store::config::CommandError;
use crate::store::register::Configuration;
use crate::store::state::{Reason, Role};
#[cfg(test)]
use crate::store::world::{Defect, breaks};

/// Generations that a peer is told at most: what is asked has a greatest length.
const HISTORY_TOLD_MAX: usize = 64;

impl Pair {
    /// Looks for the peer, and decides with it who serves. Without it nothing is decided here, unless the register names this node the
    /// only member: then somebody has vouched for it before.
    pub(super) fn meet(&self) {
        let met = self.ask_hello();
        let _moves = self.moves();
        // Somebody else may have moved while the peer was asked.
        if matches!(self.engine.shared.lock().role, Role::Primary(_) | Role::Failed { .. }) {
            return;
        }
        match met {
            Err(reason) => {
                let found = self.ask_mediator();
                if let Some(floor) = self.floor_alone(found.as_ref()) {
                    self.go_on_alone(floor);
                } else if self.has_renounced() {
                    let text = "the other node is not heard, and this one agreed, while the mediator was lost, that the other goes on: start \
                                it, or say promote --flushed-only if it is gone for good";
                    self.explain(Reason::new("renounced", text));
                } else {
                    self.explain(reason);
                }
            }
            Ok((_, theirs)) => {
                // As it is now, under the lock of moves.
                let ours = self.hello();
                match theirs.role {
                    RoleWord::Primary => {
                        let text = format!("{} serves: waits for it to attach", theirs.node);
                        self.explain(Reason::new("waiting-for-primary", text));
                    }
                    RoleWord::Failed => {
                        let text =
                            format!("{} is out of service; promote this node to serve from it", theirs.node);
                        self.explain(Reason::new("peer-failed", text));
                    }
                    RoleWord::Secondary { attached: true } => {
                        let text = format!("{} follows another primary", theirs.node);
                        self.explain(Reason::new("peer-follows", text));
                    }
                    RoleWord::Undecided | RoleWord::Secondary { attached: false } => {
                        if ours.goes_first(&theirs) {
                            self.go_first(&theirs);
                        } else {
                            let text =
                                format!("{} has more, or goes first: waits for it to attach", theirs.node);
                            self.explain(Reason::new("waiting-for-primary", text));
                        }
                    }
                }
            }
        }
    }

    /// Whether the register names this node alone: what it acknowledged then the peer need not have.
    pub(super) fn served_alone(&self) -> bool {
        self.configuration().is_some_and(|known| known.is_alone(&self.engine.config.node))
    }

    /// What the mediator holds, if it answers: it may be later than what this node knows, as the reply to its own request was lost.
    fn ask_mediator(&self) -> Option<Configuration> {
        let arbiter = self.arbiter.as_ref()?;
        let known = self.configuration().map_or(0, |known| known.id);
        let found = arbiter.read(known).ok().flatten()?;
        if let Err(error) = self.learn(&found) {
            log::warn!("{}: {error}", self.engine.config.name);
        }
        Some(found)
    }

    /// To where this node had the log when it came to be the only member, if it may ask to go on as that: by its own register, or because the peer that
    /// it asked for before its restart has not become one yet. That may still come about: what is asked for then finds another id.
    fn floor_alone(&self, found: Option<&Configuration>) -> Option<Lsn> {
        let known = self.configuration()?;
        let node = &self.engine.config.node;
        #[cfg(test)]
        if breaks(Defect::ServesUnaskedAfterRestart) && known.primary == *node {
            return Some(Lsn(known.floor));
        }
        let alone = found.filter(|found| found.id == known.id && found.is_alone(node));
        let alone = alone.or_else(|| Some(&known).filter(|known| known.is_alone(node)))?;
        Some(Lsn(alone.floor))
    }

    /// This node served alone, and it restarted: a fresh id, then it goes on.
    fn go_on_alone(&self, floor: Lsn) {
        let node = self.engine.config.node.clone();
        let end = super::position(&self.engine.shared.lock()).end();
        if self.arbiter.is_some() && end < floor {
            self.explain(below_floor(end, floor));
            return;
        }
        #[cfg(test)]
        if breaks(Defect::ServesUnaskedAfterRestart) {
            let _ = self.note_configuration(|last| alone(&node, last, 0, floor));
            let _ = self.become_primary(None);
            return;
        }
        let decided = self.decide(&Wanted::Anew, |last| alone(&node, last, 0, floor));
        let result = decided.and_then(|_| self.become_primary(None));
        if let Err(error) = result {
            self.explain(Reason::new("cannot-serve", error.to_string()));
        }
    }

    /// To where a node has the log that begins to serve alone: what a mediator keeps of it.
    pub(super) fn floor(&self, end: Lsn) -> Lsn {
        if self.arbiter.is_some() { end } else { Lsn::ZERO }
    }

    /// Makes the peer follow, then serves. Until the peer agreed nothing is served: it might have been told to serve itself.
    fn go_first(&self, theirs: &Hello) {
        if let Err(reason) = self.try_to_go_first(theirs) {
            self.explain(reason);
        }
    }

    fn try_to_go_first(&self, theirs: &Hello) -> Result<(), Reason> {
        let failed = |error: CommandError| Reason::new("cannot-serve", error.to_string());
        if let Some(reason) = self.refuse_empty(theirs) {
            return Err(reason);
        }
        // A node that followed has some in its memory only, which ends with that role.
        self.drain().map_err(failed)?;
        if let Some(why) = self.lacks_beyond(Lsn::ZERO) {
            return Err(Reason::new("ring-damaged", why));
        }
        let ours = self.hello();
        let fork = self.common(theirs).ok_or_else(|| diverged(theirs))?;
        let end = ours.position.end();
        if let Some(floor) = ours.lacks_floor(theirs) {
            return Err(below_floor(end, floor));
        }
        let floor = self.floor(end);
        let least = theirs.configuration.as_ref().map_or(0, |theirs| theirs.id);
        let next = |last: Option<&Configuration>| match self.arbiter {
            None => alone(&ours.node, last, least, floor),
            // It counts when the mediator has taken it, under the id that this one knows.
            Some(_) => alone(&ours.node, last, 0, floor),
        };
        // What the peer is told is what the register will say; if it is not changed here the peer waits, and is asked again.
        let mut configuration = next(ours.configuration.as_ref());
        if self.arbiter.is_some() {
            // An id that no mediator has given out must not be known to anybody: it would be taken for one that lost it.
            configuration.id = ours.configuration.as_ref().map_or(0, |ours| ours.id).max(least);
        }
        let question = self.follow_question(ours.clone(), configuration, fork);
        self.ask_to_follow(&question, FOLLOW_TIME)?;
        self.decide(&Wanted::Anew, next).map_err(failed)?;
        self.become_primary(Some(theirs.position)).map_err(failed)
    }

    /// How far the peer's log and this one are the same.
    pub(super) fn common(&self, theirs: &Hello) -> Option<Lsn> {
        let generation = super::position(&self.engine.shared.lock()).generation();
        let register = self.register();
        let contents = crate::store::register::Register::contents(&*register);
        // Both may have begun a generation of one number, each by an operator's word.
        if let (Some(theirs), Some(ours)) = (&theirs.begun, contents.begun(theirs.position.generation()))
            && theirs != ours
        {
            return None;
        }
        contents.common(&theirs.position, generation)
    }

    /// What a peer is asked that is to follow.
    pub(super) fn follow_question(&self, from: Hello, configuration: Configuration, fork: Lsn) -> Question {
        let register = self.register();
        let history = &crate::store::register::Register::contents(&*register).history;
        let told = history.len().min(HISTORY_TOLD_MAX);
        let history = history[history.len() - told..].to_vec();
        Question::Follow { from, configuration, fork: fork.0, history }
    }

    /// Tells the peer to follow; how far its log goes then.
    pub(super) fn ask_to_follow(&self, question: &Question, within: Duration) -> Result<Lsn, Reason> {
        match self.ask(question, within)? {
            Answer::Following { end } => Ok(Lsn(end.min(Lsn::MAX.0))),
            Answer::Refused { code, text } => {
                Err(Reason::new("peer-refuses", format!("the peer does not follow ({code}): {text}")))
            }
            Answer::Hello(_) | Answer::Noted | Answer::Granted | Answer::Resync(_) => {
                Err(Reason::new("peer-unclear", "the peer answers something else"))
            }
        }
    }

    /// Why this node must not serve, nor follow one that has the log to `end` and does not serve: the ring had more than both, and maybe of what
    /// was acknowledged.
    pub(super) fn lacks_beyond(&self, end: Lsn) -> Option<String> {
        let state = self.engine.shared.lock();
        let Role::Secondary(secondary) = &state.role else { return None };
        let lost = secondary.lost.filter(|lost| *lost > end)?;
        let (node, applied) = (&self.engine.config.node, secondary.applied);
        Some(format!(
            "{node} has the log to {applied}, and its memory had it to {lost}, but what lies between is damaged there, and may have been \
             acknowledged: start its peer if that has it, or promote the one of the two that has more with --flushed-only"
        ))
    }
}

/// This node alone, which has the log to `floor` on its disk.
pub(super) fn alone(node: &str, last: Option<&Configuration>, least: u64, floor: Lsn) -> Configuration {
    let id = last.map_or(0, |last| last.id).max(least) + 1;
    Configuration { id, members: vec![node.to_owned()], primary: node.to_owned(), floor: floor.0 }
}

/// A node that was the only member does not go on: it had more when it came to be.
fn below_floor(end: Lsn, floor: Lsn) -> Reason {
    let text = format!(
        "this node has the log to {end}, but everything before {floor} was acknowledged when it began to serve alone: put the missing \
         segments back, or promote the node that has more with --flushed-only"
    );
    Reason::new("below-floor", text)
}

/// The peer has a generation that this node's log does not continue.
pub(super) fn diverged(theirs: &Hello) -> Reason {
    Reason::new(
        "diverged",
        format!(
            "{} has a log of generation {} that this node's does not continue: decide which of the two copies counts, and empty \
             the directory of the other",
            theirs.node, theirs.position.generation
        ),
    )
}
