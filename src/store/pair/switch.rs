//! A planned switch: the service moves to the member that follows, and no request fails.
//!
//! ```text
//!  primary                                                     its member
//!   who is to take over? ───────────────────────────────────▶  a member, and the mediator answers: makes a ring ready
//!   both disks have nearly all; appends nothing more; answers what is under way
//!   GATE CLOSED: nothing is answered any more, the lease is given up
//!   take over! ─────────────────────────────────────────────▶  grants no lease, fence, drain, compare-and-set ─▶ serves
//!   ends its clients' connections ◀── done ──────────────────
//!   steps down, and follows
//! ```
//!
//! The member takes over as it does when the primary is lost, only at once: nobody else changes the configuration, so what is known of two that ask
//! holds here too. It need not wait for the end of the lease, because the primary gave that up before it asked. Each lease is asked for in a *turn*,
//! which ends when the gate is closed; a lease of a turn before is worth nothing to the primary, and a member that has granted one of this turn, or
//! a later one, does not take over by this word: it comes late, and the primary has gone back to its clients.
//!
//! Whatever becomes of it, the primary only ever opens the gate again. It answers when the member has a write, and granted a lease since: the
//! member, if it has taken over, gives it neither. Then the link is lost, and the mediator is asked as ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::hello::{Answer, Hello, Question};
use super::obey::refused;
use super::{Pair, RoleWord};
use crate::base::Lsn;
use crate::base::clock::Instant;
use crate::store::config::CommandError;
use crate::store::medium::{Holder, Inquirer};
use crate::store::primary::{HandOver, Mode};
use crate::store::state::{Bell, Reason, Role, State};

/// How long the peer has to make itself ready: it may fill a ring with zeroes.
const PREPARE_TIME: Duration = Duration::from_secs(20);
/// How long what is ready is kept.
const SPARE_TIME: Duration = Duration::from_secs(40);
/// How long both disks have to get what is in memory only.
const EVEN_TIME: Duration = Duration::from_secs(10);
/// Rounds of that: each leaves what was written in the one before.
const EVEN_ROUNDS: u32 = 2;
const EVEN_NAP: Duration = Duration::from_millis(1);
/// How long the last requests have to reach the peer.
const LAST_TIME: Duration = Duration::from_millis(200);
const LAST_NAP: Duration = Duration::from_micros(200);
/// For those who wait for that to find it.
const ANSWER_NAP: Duration = Duration::from_millis(1);
/// How long the member has to take over.
const TAKE_OVER_TIME: Duration = Duration::from_secs(5);
/// How long it waits for a move of its own to end.
const TURN_TIME: Duration = Duration::from_millis(200);

/// What became of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switched {
    /// The node that serves now.
    pub to: String,
    /// How long requests were held, until their connections were ended.
    pub held: Duration,
}

fn refuse<T>(why: impl Into<String>) -> Result<T, CommandError> {
    Err(CommandError::Refused(why.into()))
}

impl Pair {
    /// Hands the service over to the member that follows.
    pub(in crate::store) fn switch(&self) -> Result<Switched, CommandError> {
        if self.arbiter.is_none() {
            return refuse(
                "without a mediator nobody but the operator says who serves: stop this node, then `mirrorbus promote` at the other one",
            );
        }
        let Some(_switching) = self.switching.try_lock() else { return refuse("a switch is under way") };
        let _quiet = self.quiet();
        let epoch = self.may_switch()?;
        if let Err((code, text)) = self.would_decide() {
            return refuse(format!("{text} ({code})"));
        }
        let (ours, theirs) = self.ask_hello().map_err(|reason| CommandError::Refused(reason.text))?;
        if theirs.role != (RoleWord::Secondary { attached: true }) {
            return refuse(format!("{} does not follow this node", theirs.node));
        }
        let id = self.configuration().map_or(0, |known| known.id);
        let line = Inquirer::connect(&self.engine.config.peer, &self.keys, super::ANSWER_TIME)?;
        let prepare = Question::TakeOver { from: ours.clone(), id, turn: None };
        ask(&line, &prepare, PREPARE_TIME).map_err(CommandError::Refused)?;
        for _ in 0..EVEN_ROUNDS {
            self.even_out(epoch)?;
        }
        let began = Instant::now();
        let (turn, reason) = match self.close_gate(epoch, &theirs.node) {
            Ok(closed) => closed,
            Err(error) => {
                self.keep_service(epoch, None);
                return Err(error);
            }
        };
        match ask(&line, &Question::TakeOver { from: ours, id, turn: Some(turn) }, TAKE_OVER_TIME) {
            Ok(()) => {
                self.hang_up(epoch);
                let held = began.elapsed();
                self.end_service(epoch);
                log::info!("{}: {} serves now, after {held:?}", self.engine.config.name, theirs.node);
                let stepped = self.step_down(&theirs.node);
                self.bell.ring();
                stepped?;
                Ok(Switched { to: theirs.node, held })
            }
            Err(why) => {
                self.keep_service(epoch, Some(reason));
                refuse(format!("{} did not take over: {why}", theirs.node))
            }
        }
    }

    /// The epoch in which this node serves with a member beside it.
    fn may_switch(&self) -> Result<u64, CommandError> {
        if self.is_ending() {
            return refuse("this node is stopping");
        }
        let state = self.engine.shared.lock();
        match &state.role {
            Role::Primary(primary) => match (&primary.mode, primary.hand_over) {
                (Mode::Mirrored, HandOver::No) => Ok(state.epoch),
                (_, HandOver::Holds | HandOver::Done) => refuse("a switch is under way"),
                (
                    Mode::Alone | Mode::CatchingUp { .. } | Mode::SettingIn | Mode::Held { .. },
                    HandOver::No,
                ) => {
                    refuse(format!("the peer does not have every acknowledged write: {}", state.reason.text))
                }
            },
            Role::Failed { why } => refuse(format!("out of service: {why}")),
            Role::Undecided | Role::Secondary(_) => {
                refuse("this node does not serve: say it at the one that does")
            }
        }
    }

    /// Both disks get what has been appended until now, so that little is left for when requests are held.
    fn even_out(&self, epoch: u64) -> Result<(), CommandError> {
        let end = {
            let mut state = self.engine.shared.lock();
            let primary = state.primary(epoch)?;
            let end = primary.log.pad();
            primary.push();
            end
        };
        let deadline = Instant::now() + EVEN_TIME;
        loop {
            let is_here = self.engine.destage_to(epoch, end)?;
            let mut state = self.engine.shared.lock();
            let primary = state.primary(epoch)?;
            primary.push();
            primary.ask_peer();
            let durable = primary.log.peer_durable();
            if is_here && durable >= end {
                return Ok(());
            }
            if primary.mode != Mode::Mirrored {
                return refuse("the link was lost meanwhile");
            }
            if Instant::now() >= deadline {
                let behind = crate::base::format_bytes(end.0.saturating_sub(durable.0));
                return refuse(format!("after {EVEN_TIME:?} the peer's disk is still {behind} behind"));
            }
            self.engine.shared.wait(&mut state, EVEN_NAP);
        }
    }

    /// Takes no more writes, answers those under way, then nothing; the turn that is over, and the reason until now.
    fn close_gate(&self, epoch: u64, to: &str) -> Result<(u64, Reason), CommandError> {
        let engine = &self.engine;
        let deadline = Instant::now() + LAST_TIME;
        let mut end = Lsn::MAX;
        loop {
            let mut state = engine.shared.lock();
            let primary = state.primary(epoch)?;
            if primary.mode != Mode::Mirrored {
                return refuse("the link was lost meanwhile");
            }
            primary.log.set_frozen(true);
            primary.push();
            if primary.committed() >= end {
                primary.close_gate();
                let turn = primary.turn;
                engine.lease.give_up();
                let text = format!("hands the service over to {to}: requests are held");
                let reason = std::mem::replace(&mut state.reason, Reason::new("switching", text));
                return Ok((turn, reason));
            }
            if primary.committed() >= primary.log.end() {
                end = primary.log.end();
                drop(state);
                engine.shared.tell();
                Bell::default().nap(ANSWER_NAP);
            } else if Instant::now() >= deadline {
                return refuse(format!("the peer did not take the last writes within {LAST_TIME:?}"));
            } else {
                engine.shared.wait(&mut state, LAST_NAP);
            }
        }
    }

    /// The other one serves: this node does not any more. What it has in memory only is still to be written out.
    fn end_service(&self, epoch: u64) {
        #[cfg(test)]
        if crate::store::world::breaks(crate::store::world::Defect::EndsServiceAtOnce) {
            return self.end_service_in_turn(epoch);
        }
        // Nobody writes or syncs meanwhile: what is under way for one epoch is not noted in the next, and this log is still to be written out.
        self.engine.in_turn(|| self.end_service_in_turn(epoch));
    }

    /// Whoever waits for an answer gets none, at once.
    fn hang_up(&self, epoch: u64) {
        let mut state = self.engine.shared.lock();
        if state.epoch == epoch
            && let Role::Primary(primary) = &mut state.role
        {
            primary.hand_over = HandOver::Done;
        }
        drop(state);
        self.engine.shared.tell();
    }

    fn end_service_in_turn(&self, epoch: u64) {
        let mut state = self.engine.shared.lock();
        if state.epoch == epoch && matches!(state.role, Role::Primary(_)) {
            state.epoch += 1;
        }
        drop(state);
        self.engine.shared.tell();
    }

    /// The gate is opened: what is answered is up to the peer's memory and its lease, as ever.
    fn keep_service(&self, epoch: u64, reason_before: Option<Reason>) {
        let mut state = self.engine.shared.lock();
        if state.epoch == epoch
            && let State { role: Role::Primary(primary), reason, .. } = &mut *state
        {
            primary.hand_over = HandOver::No;
            primary.log.set_frozen(false);
            if let Some(before) = reason_before.filter(|_| reason.code == "switching") {
                *reason = before;
            }
        }
        drop(state);
        self.engine.shared.tell();
        self.leases.ring();
        self.bell.ring();
    }

    /// The one that serves wants this node to: without a turn, to make itself ready, changing nothing.
    pub(super) fn answer_take_over(&self, from: &Hello, id: u64, turn: Option<u64>) -> Answer {
        if self.configuration().is_none_or(|known| known.id != id || known.primary != from.node) {
            return refused("older", format!("this node knows another configuration than {id}"));
        }
        let Some(turn) = turn else { return self.make_ready() };
        match self.take_over_at_once(id, turn) {
            Ok(()) => Answer::Noted,
            Err((code, text)) => refused(code, text),
        }
    }

    fn make_ready(&self) -> Answer {
        if let Err((code, text)) = self.would_go_on() {
            return refused(code, text);
        }
        if let Some(Err(error)) = self.holder().map(Holder::prepare_fence) {
            return refused("no-memory", error.to_string());
        }
        match self.new_ring() {
            Ok(memory) => {
                *self.spare() = Some((Instant::now(), memory));
                Answer::Noted
            }
            Err(error) => refused("no-ring", error.to_string()),
        }
    }

    /// Until it is dropped the service is being handed over, or taken over.
    pub(super) fn quiet(&self) -> Quiet<'_> {
        self.is_quiet.store(true, Ordering::Relaxed);
        Quiet(&self.is_quiet)
    }

    /// Whether it is: what can be done later is, for the sake of those whose requests are held.
    pub(in crate::store) fn hands_over(&self) -> bool {
        self.is_quiet.load(Ordering::Relaxed) || self.spare().is_some()
    }

    fn take_over_at_once(&self, id: u64, turn: u64) -> Result<(), super::can_stop::Doubt> {
        let Some(arbiter) = &self.arbiter else { return Err(("no-mediator", "there is no mediator".into())) };
        let Some(_moves) = self.moves.try_lock_for(TURN_TIME) else {
            return Err(("busy", "this node is making a move of its own".into()));
        };
        // It may have been told to follow meanwhile, or have taken over.
        let is_same = self.configuration().is_some_and(|known| known.id == id);
        if !is_same || !self.is_member() || arbiter.is_undetermined() || self.is_ending() {
            return Err(("not-member", "this node is not the member any more that was asked".into()));
        }
        if !arbiter.grants().take_over(turn) {
            return Err(("late", "this node has granted a lease since that was asked".into()));
        }
        let taken = self.race(arbiter);
        if taken.is_err() && !arbiter.is_undetermined() {
            arbiter.grants().allow();
        }
        self.bell.ring();
        match taken {
            Ok(()) => {
                arbiter.find();
                self.explain(Reason::new("took-over", "serves alone: the peer handed the service over"));
                Ok(())
            }
            Err(reason) => {
                self.explain(reason.clone());
                Err((reason.code, reason.text))
            }
        }
    }

    /// What was made ready is not kept for long.
    pub(super) fn drop_spare(&self) {
        let old = self.spare().take_if(|(made, _)| made.elapsed() >= SPARE_TIME);
        if old.is_some()
            && let Some(holder) = self.holder()
        {
            holder.forget_fence();
        }
        drop(old);
    }
}

/// See [`Pair::quiet`].
pub(super) struct Quiet<'a>(&'a AtomicBool);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Asks the peer for what it has to do; why it does not.
fn ask(line: &Inquirer, question: &Question, within: Duration) -> Result<(), String> {
    let body = serde_json::to_vec(question).expect("names and numbers");
    let answer = line.ask(&body, within).map_err(|error| format!("the peer does not answer: {error}"))?;
    match serde_json::from_slice(&answer) {
        Ok(Answer::Noted) => Ok(()),
        Ok(Answer::Refused { code, text }) => Err(format!("{text} ({code})")),
        Ok(_) => Err("the peer answers something else".into()),
        Err(error) => Err(format!("the peer's answer: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::store::engine::tests::serve;
    use crate::store::pair::rig::pair;

    #[test]
    fn the_service_ends_while_nobody_destages() {
        let directory = tempfile::tempdir().unwrap();
        let pair = pair(directory.path());
        let engine = &pair.engine;
        serve(engine);
        let ((begin, begun), (end, ended)) = (channel(), channel());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                engine.in_turn(|| {
                    begin.send(()).unwrap();
                    ended.recv_timeout(Duration::from_secs(60)).unwrap();
                });
            });
            begun.recv().unwrap();
            let ending = scope.spawn(|| {
                pair.hang_up(1);
                pair.end_service(1);
            });
            while engine.shared.lock().serving(1).is_ok() {
                std::thread::yield_now();
            }
            // Time for what it must not do.
            std::thread::sleep(Duration::from_millis(50));
            assert!(engine.shared.lock().primary(1).is_ok(), "what was begun in it is not done");
            end.send(()).unwrap();
            ending.join().unwrap();
        });
        assert_eq!(engine.shared.lock().epoch, 2);
    }
}
