//! The read lease between the two nodes, which is also how each hears that the other is alive: the one that serves asks for it all the time. One that
//! needs no lease, since it confirms its answers, says that it is alive, and is heard.

use std::time::Duration;

use super::Pair;
use super::hello::{Answer, Question};
use super::obey::refused;
use crate::base::clock::Instant;
use crate::cluster::{Grants, LEASE};
use crate::store::config::DatasetConfig;
use crate::store::follower::Stage;
use crate::store::medium::Inquirer;
use crate::store::primary::{HandOver, Mode};
use crate::store::read_lease::now;
use crate::store::state::Role;

/// Between two questions: a lease is renewed several times before it ends.
const STEP: Duration = LEASE.checked_div(4).expect("four is not zero");
/// Words that one is alive, in the time after which one is missed.
const WORDS_PER_SILENCE: u32 = 10;
/// Between two of them at most, whatever that time is here: the other node may have a shorter one.
const ALIVE_STEP_MAX: Duration =
    DatasetConfig::SILENCE.checked_div(WORDS_PER_SILENCE).expect("ten is not zero");
/// How long an answer is waited for at most: a node that ends does not wait for longer.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);
/// Between two looks whether there is anybody to ask.
const REST: Duration = Duration::from_millis(10);

/// Nobody granted a lease, or was heard.
struct NotGranted;

impl Pair {
    /// Asks for the lease while this node serves with a member beside it.
    pub(in crate::store) fn run_lease(&self) {
        let mut connection = None;
        let silence = self.silence();
        let mut heard = Instant::now();
        while !self.stopping.load(std::sync::atomic::Ordering::SeqCst) {
            if self.turn().is_none() {
                (connection, heard) = (None, Instant::now());
                self.leases.nap(REST);
                continue;
            }
            let began = Instant::now();
            match self.ask_for_lease(&mut connection) {
                Ok(()) => heard = Instant::now(),
                Err(NotGranted) => connection = None,
            }
            if heard.elapsed() >= silence {
                self.miss_peer();
            }
            let alive_step = (silence / WORDS_PER_SILENCE).min(ALIVE_STEP_MAX);
            let step = if self.engine.confirms() { alive_step } else { STEP };
            self.leases.nap(step.saturating_sub(began.elapsed()));
        }
    }

    /// The other node is missed when it was not heard for so long.
    pub(super) fn silence(&self) -> Duration {
        self.engine.config.silence
    }

    /// The turn in which a lease is asked for, if one is.
    fn turn(&self) -> Option<u64> {
        match &self.engine.shared.lock().role {
            Role::Primary(primary) if primary.has_member() && primary.hand_over == HandOver::No => {
                Some(primary.turn)
            }
            Role::Undecided | Role::Secondary(_) | Role::Primary(_) | Role::Failed { .. } => None,
        }
    }

    fn ask_for_lease(&self, connection: &mut Option<Inquirer>) -> Result<(), NotGranted> {
        let engine = &self.engine;
        let ask_time = self.silence().min(ASK_TIME_MAX);
        if connection.is_none() {
            // A handshake takes longer than an answer, and a peer that was not reached yet is not given up any sooner by a short silence.
            let connect_time = ask_time.max(DatasetConfig::SILENCE);
            let made = Inquirer::connect(&engine.config.peer, &self.keys, connect_time);
            *connection = Some(made.map_err(|_| NotGranted)?);
        }
        let Some(connection) = connection else { return Err(NotGranted) };
        // Before the turn is looked at: what was sent in one that is over was sent before its end.
        let sent = now();
        let Some(turn) = self.turn() else { return Err(NotGranted) };
        let (node, confirms) = (engine.config.node.clone(), engine.confirms());
        let question = if confirms { Question::Alive { node, turn } } else { Question::Lease { node, turn } };
        let question = serde_json::to_vec(&question).expect("names and numbers");
        let answer = connection.ask(&question, ask_time).map_err(|_| NotGranted)?;
        match serde_json::from_slice(&answer) {
            Ok(Answer::Noted) if confirms => return Ok(()),
            Ok(Answer::Granted) if !confirms => {}
            Ok(_) | Err(_) => return Err(NotGranted),
        }
        let had_run_out = !engine.lease.is_live();
        engine.lease.extend(sent);
        if had_run_out {
            engine.shared.tell();
        }
        Ok(())
    }

    /// The peer was not heard for too long: whatever its memory takes, it does not answer.
    fn miss_peer(&self) {
        let mut state = self.engine.shared.lock();
        let Role::Primary(primary) = &mut state.role else { return };
        if matches!(primary.mode, Mode::Held { .. }) {
            return;
        }
        primary.lose(format!("the peer has not been heard for {:?}", self.silence()));
        drop(state);
        self.bell.ring();
    }

    /// Grants no lease any more, and returns when nobody holds one.
    pub(super) fn outlast_leases(&self) {
        #[cfg(test)]
        if crate::store::world::breaks(crate::store::world::Defect::DoesNotOutlastLeases) {
            return;
        }
        if let Some(arbiter) = &self.arbiter {
            let over = arbiter.grants().refuse();
            while now() < over {
                self.leases.nap(over.0.saturating_sub(now().0));
            }
        }
    }

    /// Grants a lease to the one that this node follows.
    pub(super) fn grant(&self, node: &str, turn: u64) -> Answer {
        self.hear_from(node, Answer::Granted, |grants| grants.grant(now(), turn))
    }

    /// Hears that the one that this node follows is alive, and grants it nothing.
    pub(super) fn hear_alive(&self, node: &str, turn: u64) -> Answer {
        self.hear_from(node, Answer::Noted, |grants| grants.hear(turn))
    }

    fn hear_from(&self, node: &str, yes: Answer, take: impl FnOnce(&mut Grants) -> bool) -> Answer {
        let Some(arbiter) = &self.arbiter else {
            return refused("no-mediator", "the operator decides here who serves".into());
        };
        let is_followed = match &self.engine.shared.lock().role {
            Role::Secondary(secondary) => matches!(secondary.stage, Stage::Following(_)),
            Role::Undecided | Role::Primary(_) | Role::Failed { .. } => false,
        };
        let serves = self.configuration().is_some_and(|known| known.primary == node);
        if !is_followed || !serves {
            return refused("not-following", format!("this node does not follow {node}"));
        }
        arbiter.hear();
        if take(&mut arbiter.grants()) {
            yes
        } else {
            refused("takes-over", "this node is about to take over".into())
        }
    }
}
