//! What this node does because somebody says so: the peer's questions, and the operator's word.

use std::sync::PoisonError;
use std::time::Duration;

use super::Pair;
use super::hello::{Answer, Hello, Question, RoleWord};
use crate::base::Lsn;
use crate::node::{Attaching, HolderGate};
use crate::store::checkpoint::Snapshot;
use crate::store::config::{CommandError, OpenError};
use crate::store::error::IoError;
use crate::store::follower::{Secondary, Stage};
use crate::store::medium::Holder;
use crate::store::recover::{Recovered, recover, start_before};
use crate::store::register::{Configuration, Fork, Position, Register, newer};
use crate::store::state::{Reason, Role};
#[cfg(test)]
use crate::store::world::{Defect, breaks};

/// How long the peer's question waits for a move of this node to end.
pub(super) const MOVES_TIME: Duration = Duration::from_secs(1);

/// The gate at this node's holder.
#[derive(Debug)]
pub(in crate::store) struct PairGate(pub(in crate::store) std::sync::Weak<Pair>);

impl HolderGate for PairGate {
    fn may_attach(&self, attaching: Attaching) -> Result<(), String> {
        let Some(pair) = self.0.upgrade() else { return Err("the node is stopping".into()) };
        let state = pair.engine.shared.lock();
        match &state.role {
            Role::Secondary(secondary) => match (attaching, &secondary.stage) {
                (Attaching::Push { .. }, Stage::Waiting) | (Attaching::Resume, Stage::Following(_)) => Ok(()),
                (Attaching::Push { .. }, Stage::Following(_)) => {
                    Err("this node follows a primary: ask it to follow first".into())
                }
                (Attaching::Resume, Stage::Waiting) => Err("this node follows nobody any more".into()),
                (Attaching::Pull | Attaching::Equal, _) => Err("a ring is pushed or resumed".into()),
            },
            Role::Undecided => Err("this node follows nobody: ask it to follow first".into()),
            Role::Primary(_) => Err("this node serves".into()),
            Role::Failed { why } => Err(format!("this node is out of service: {why}")),
        }
    }

    fn answer(&self, request: &[u8]) -> Vec<u8> {
        if let (Some(json), Some(pair)) = (super::compare::question(request), self.0.upgrade()) {
            return pair.compare(json);
        }
        let answer = match (self.0.upgrade(), serde_json::from_slice::<Question>(request)) {
            (None, _) => refused("stopping", "the node is stopping".into()),
            (_, Err(error)) => refused("unclear", error.to_string()),
            (Some(pair), Ok(question)) => pair.answer(question),
        };
        serde_json::to_vec(&answer).expect("names and numbers")
    }
}

pub(super) fn refused(code: &str, text: String) -> Answer {
    Answer::Refused { code: code.to_owned(), text }
}

impl Pair {
    fn answer(&self, question: Question) -> Answer {
        match &question {
            // Who asks is told who this is, even if it is nobody of this pair: it says why itself.
            Question::Hello(_) => {}
            Question::Follow { from, .. }
            | Question::Note { from, .. }
            | Question::Renounce { from, .. }
            | Question::BeResynced { from, .. }
            | Question::TakeOver { from, .. }
            | Question::GoOn { from } => {
                if let Some((code, text)) = self.hello().refuse(from) {
                    return refused(code, text);
                }
            }
            // Its session was told to the peer alone.
            Question::Resync { .. } | Question::Lease { .. } | Question::Alive { .. } => {}
        }
        match question {
            Question::Hello(_) => Answer::Hello(Box::new(self.hello())),
            Question::Follow { from, configuration, fork, history } => {
                self.follow(&from, configuration, Lsn(fork), &history)
            }
            Question::Note { configuration, .. } => self.take_note(configuration),
            Question::Lease { node, turn } => self.grant(&node, turn),
            Question::Alive { node, turn } => self.hear_alive(&node, turn),
            Question::TakeOver { from, id, turn } => self.answer_take_over(&from, id, turn),
            Question::Renounce { from, configuration } => self.renounce(&from, configuration),
            Question::GoOn { .. } => self.answer_go_on(),
            Question::BeResynced { from, session } => self.be_resynced(&from, session),
            Question::Resync { session, total, left, ask } => {
                match self.answer_resync(session, (total, left), &ask) {
                    Ok(reply) => Answer::Resync(reply),
                    Err((code, text)) => refused(code, text),
                }
            }
        }
    }

    fn take_note(&self, configuration: Configuration) -> Answer {
        let id = configuration.id;
        self.hear_of(&configuration);
        match self.note_configuration(|last| newer(last, configuration)) {
            Ok(kept) if kept.id == id => {
                self.be_named(&kept);
                Answer::Noted
            }
            Ok(kept) => refused("older", format!("the configuration here is {}, later than {id}", kept.id)),
            Err(error) => refused("register", error.to_string()),
        }
    }

    /// Becomes, or stays, a node that follows `from`: what it has is made durable, and what lies behind `fork` set aside.
    fn follow(&self, from: &Hello, configuration: Configuration, fork: Lsn, history: &[Fork]) -> Answer {
        // The peer may wait for an answer of this very thread's node: it asks again.
        let Some(_moves) = self.moves.try_lock_for(MOVES_TIME) else {
            return refused("busy", "this node is making a move of its own".into());
        };
        {
            let state = self.engine.shared.lock();
            if let Role::Primary(_) = &state.role {
                return refused("serving", "this node serves".into());
            }
            if let Role::Failed { why } = &state.role {
                return refused("failed", why.clone());
            }
            let end = super::position(&state).end();
            if end > fork && self.served_alone() {
                let text = format!(
                    "this node served alone, and acknowledged what lies between {fork} and {end} of its log, which {} does not have: decide \
                     which of the two copies counts, and empty the directory of the other",
                    from.node
                );
                return refused("diverged", text);
            }
        }
        if !history.is_sorted_by(|a, b| a.generation < b.generation) {
            return refused("unclear", "the generations of the history do not rise".into());
        }
        let id = configuration.id;
        let older = |kept| refused("older", format!("the configuration here is {kept}, later than {id}"));
        let kept = self.register().id();
        if kept > id {
            return older(kept);
        }
        if let Err(error) = self.drain() {
            return refused("cannot-follow", error.to_string());
        }
        // What came out of the memory was not in this node's hello yet: then it is this one that goes first, and is asked again.
        let ours = super::position(&self.engine.shared.lock());
        // What this node has beyond the only member never was acknowledged.
        let is_void = from.role == RoleWord::Primary || from.goes_by_floor(&self.hello());
        if !is_void && (ours.generation, ours.end) > (from.position.generation, from.position.end) {
            return refused("has-more", format!("this node has the log to {}", ours.end()));
        }
        if !is_void && let Some(why) = self.lacks_beyond(from.position.end()) {
            return refused("ring-damaged", why);
        }
        // Only now: the peer does not know of a configuration in which this node refused to follow it.
        self.hear_of(&configuration);
        match self.note_configuration(|last| newer(last, configuration)) {
            Ok(kept) if kept.id != id => return older(kept.id),
            Ok(_) => {}
            Err(error) => return refused("register", error.to_string()),
        }
        self.grant_again();
        match self.truncate(from, fork).and_then(|end| self.adopt(history).map(|()| end)) {
            Ok(end) => Answer::Following { end: end.0 },
            Err(error) => refused("cannot-follow", error.to_string()),
        }
    }

    /// What this node has is the first part of the other's log from now on, so the history of that is its own.
    fn adopt(&self, history: &[Fork]) -> Result<(), CommandError> {
        let mut register = self.register();
        let next = register.contents().with_history(history);
        if next != *register.contents() {
            let id = register.id();
            register.compare_and_set(id, next)?;
        }
        Ok(())
    }

    /// Makes durable all that came, with nobody left who could change it.
    pub(super) fn drain(&self) -> Result<(), CommandError> {
        let Some(holder) = self.holder() else {
            return Err(CommandError::Refused("this node does not listen yet".into()));
        };
        match &self.engine.shared.lock().role {
            Role::Secondary(_) => {}
            Role::Failed { why } => return Err(CommandError::Refused(format!("out of service: {why}"))),
            Role::Undecided | Role::Primary(_) => return Ok(()),
        }
        super::race::revoke(holder)?;
        // The copy may lie elsewhere than when it was looked at last: a session's end may have moved it.
        self.read_where_it_lies(holder);
        #[cfg(test)]
        if breaks(Defect::TakesOverWithoutItsMemory)
            && let Role::Secondary(secondary) = &mut self.engine.shared.lock().role
        {
            secondary.part(holder.status().generation);
            return Ok(());
        }
        loop {
            if self.give_up_resync(holder) {
                self.engine.wait_for_turn();
                break;
            }
            let moved = self.engine.follow_step()?;
            let mut state = self.engine.shared.lock();
            let secondary = match &mut state.role {
                Role::Secondary(secondary) => secondary,
                // Of what it followed nobody knows what the disk has.
                Role::Failed { why } => {
                    return Err(CommandError::Refused(format!("out of service: {why}")));
                }
                Role::Undecided | Role::Primary(_) => return Ok(()),
            };
            if !moved {
                // Nothing more comes. Earlier the primary would not have ended its block here.
                secondary.pad();
            }
            if !moved && secondary.is_stuck {
                // What is in the memory alone must not be given up.
                let path = self.engine.config.directory.display();
                let why =
                    format!("this node's disk has no room for what it has in memory: free some at {path}");
                return Err(IoError::NoSpace(why).into());
            }
            if !moved && secondary.durable >= secondary.applied {
                secondary.part(holder.status().generation);
                break;
            }
            drop(state);
            self.engine.destage_round(crate::store::engine::Sluggish::No)?;
            self.engine.finish_renewal()?;
        }
        self.engine.abandon_renewals().map_err(|error| OpenError::from(error).into())
    }

    /// What came for maps that are not whole is void, all of it; whether there was such. A resync whose checkpoint is being written ends
    /// first: given up between the checkpoint and the end of its note, it would leave both, and the next one would be taken for whole.
    fn give_up_resync(&self, holder: &Holder) -> bool {
        let _filling = self.filling();
        let mut state = self.engine.shared.lock();
        let Role::Secondary(secondary) = &mut state.role else { return false };
        let gives_up = secondary.give_up_resync();
        if gives_up {
            secondary.stage = Stage::Waiting;
            secondary.since = holder.status().generation;
        }
        gives_up
    }

    /// Sets aside what lies behind the fork; where the log ends then.
    fn truncate(&self, from: &Hello, fork: Lsn) -> Result<Lsn, CommandError> {
        let engine = &self.engine;
        let _filling = self.filling();
        let mut position = super::position(&engine.shared.lock());
        #[cfg(test)]
        let fork = if breaks(Defect::KeepsWhatIsVoid) { fork.max(position.end()) } else { fork };
        if position.end() > fork {
            log::warn!("{}: what lies between {fork} and {} is void", engine.config.name, position.end());
            let (found, back) = self.recover_to(fork)?;
            let kept: Vec<_> = found.heads.iter().map(|head| head.base).collect();
            let highest = position.highest.max(found.position.highest);
            position = Position { highest, ..found.position };
            // From here on the log ends at the fork, whatever of the rest is still there after a crash.
            self.note().write(position, &engine.mark)?;
            if let Err(error) = self.cut(back.as_ref(), &kept) {
                // It would go on with a log that its files do not have any more.
                let why = format!("the log could not be cut to {fork}: {error}; restart this node");
                engine.shared.lock().fail("cut-failed", why);
                return Err(error);
            }
            engine.shared.lock().volumes = found.volumes;
        }
        // What a later generation made void may still be there, and would count again without that one's head.
        let mut note = self.note();
        if note.from().is_none() {
            note.write(position, &engine.mark)?;
            self.set_aside(&mut note)?;
        }
        drop(note);
        let mut state = engine.shared.lock();
        state.still_in_service()?;
        state.position = position;
        let (end, generation, highest) = (position.end(), position.generation(), Lsn(position.highest));
        let since = self.holder().map_or_else(Default::default, |holder| holder.status().generation);
        let secondary = Secondary::new(end, generation, highest, since);
        state.role = Role::Secondary(Box::new(secondary));
        state.epoch += 1;
        state.reason = Reason::new("following", format!("follows {}", from.node));
        Ok(end)
    }

    /// What this node has of the log to `fork`, and the marker if that is where the checkpoint has to go back to, since it has more.
    fn recover_to(&self, fork: Lsn) -> Result<(Recovered, Option<Snapshot>), OpenError> {
        let engine = &self.engine;
        let checkpoint = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner).snapshot().clone();
        let marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner).snapshot().cloned();
        let start = start_before(&checkpoint, marker.as_ref(), fork)?;
        let found =
            recover(&engine.files, engine.config.id, engine.layout(), start.clone(), Some(fork), None);
        let (checkpoint, marker) = (checkpoint.position, start.position);
        if checkpoint <= fork {
            return Ok((found?, None));
        }
        let found = found.map_err(Box::new);
        let found = found.map_err(|error| OpenError::NoWayBack { checkpoint, fork, marker, error })?;
        Ok((found, Some(start)))
    }

    /// The checkpoint says what the marker says.
    pub(super) fn go_back(&self, marker: &Snapshot) -> Result<(), OpenError> {
        let engine = &self.engine;
        let mut checkpoint = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = (checkpoint.snapshot().position, marker.position);
        log::warn!("{}: the checkpoint at {from} goes back to the marker at {to}", engine.config.name);
        let path = engine.config.directory.join("checkpoint.redb");
        checkpoint.go_back(marker).map_err(|error| OpenError::Checkpoint { path, error })?;
        engine.shared.lock().checkpoint = to;
        Ok(())
    }

    /// Whether nobody has told this node to follow, ever: what is empty here may be empty everywhere.
    fn has_never_followed(&self) -> bool {
        let node = &self.engine.config.node;
        let is_ours =
            self.register().contents().configuration.as_ref().is_none_or(|last| last.primary == *node);
        is_ours && self.note().from().is_none()
    }

    /// Serves from what this node has, because the operator vouches that the peer does not.
    ///
    /// With `flushed_only` also after a restart, which lost what was in memory only.
    pub(in crate::store) fn promote(&self, flushed_only: bool) -> Result<(), CommandError> {
        if let Ok((_, theirs)) = self.ask_hello()
            && theirs.role == RoleWord::Primary
        {
            let text = format!("{} serves: stop it first", theirs.node);
            return Err(CommandError::Refused(text));
        }
        let _moves = self.moves();
        let (has_never_followed, is_member) = (self.has_never_followed(), self.is_member());
        {
            let state = self.engine.shared.lock();
            let is_new = state.position.end == 0 && has_never_followed;
            match &state.role {
                Role::Primary(_) => return Ok(()),
                Role::Failed { why } => return Err(CommandError::Refused(format!("out of service: {why}"))),
                Role::Secondary(_) if flushed_only || is_new || is_member => {}
                Role::Secondary(_) => {
                    let text = "this node is not yet one of those that have every acknowledged write, and the peer may have some that it \
                                lacks: start the peer, or say --flushed-only to serve from what is here";
                    return Err(CommandError::Refused(text.into()));
                }
                Role::Undecided if flushed_only || is_new => {}
                Role::Undecided => {
                    let text = "this node restarted, so what was in its memory only is gone, and the peer may have it: start the peer, \
                                or say --flushed-only to serve from what was durable here";
                    return Err(CommandError::Refused(text.into()));
                }
            }
        }
        self.take_over(flushed_only)
    }
}

impl Pair {
    /// Whether this node is one of those that have every acknowledged write, in the life in which it came to be, and has not left it to the
    /// other to go on.
    pub(super) fn is_member(&self) -> bool {
        let is_named =
            self.configuration().is_some_and(|known| known.members.contains(&self.engine.config.node));
        let is_member = match &self.engine.shared.lock().role {
            Role::Secondary(secondary) => secondary.is_member,
            Role::Undecided | Role::Primary(_) | Role::Failed { .. } => false,
        };
        is_named && is_member && !self.has_renounced()
    }

    /// Whether the register still has anything to say about this node: for status.
    pub(in crate::store) fn configuration(&self) -> Option<Configuration> {
        self.register().contents().configuration.clone()
    }
}
