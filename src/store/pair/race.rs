//! With a mediator: each node that has lost the other asks it for the configuration, and the one that comes first goes on.
//!
//! ```text
//!  primary    link lost ─▶ reconnect ─▶ its delay ─▶ own disk has all ─▶ compare-and-set ─┬─ taken ──▶ alone
//!                                                                                         └─ changed ▶ steps down, follows
//!  secondary  not heard ─▶ its delay ─▶ mediator is there? ─▶ grants no lease, fence, drain ─▶ compare-and-set ─┬─ taken ──▶ the
//!                                                                            last lease is over ▶ serves        └─ changed ▶ waits
//! ```
//!
//! A secondary takes over only if the register names it, and only in the life in which it came to be a member: after a restart its memory
//! lacks what was on no disk. It looks whether the mediator answers before it takes the primary's access away, since that cannot be undone: without
//! a mediator a link that comes back is better than none.

use std::time::Duration;

use super::arbiter::{Arbiter, Wanted};
use super::hello::Hello;
use super::meet::alone;
use super::{Pair, STEP_TIME, STEP_TIME_BUSY};
use crate::base::{Deadline, Lsn};
use crate::cluster::{Configuration, delay};
use crate::store::config::CommandError;
use crate::store::medium::{Holder, is_vacant};
use crate::store::primary::{HandOver, Mode};
use crate::store::register::Position;
use crate::store::state::{Reason, Role, State};
#[cfg(test)]
use crate::store::world::{Defect, breaks};

/// How long the other node's machine has to say that nobody listens there.
const VACANT_TIME: Duration = Duration::from_millis(20);
/// How long taking the primary's access away may take.
const FENCE_TIME: Duration = Duration::from_secs(5);
/// How long one attempt to reconnect may take, while the mediator can be asked.
const RECONNECT_TIME: Duration = Duration::from_millis(100);
/// Between two steps while all is well: so long it takes at most until a broken connection is seen.
pub(super) const STEP_TIME_MEDIATED: Duration = Duration::from_millis(10);
/// Between two attempts to reach the mediator.
const STEP_TIME_HELD: Duration = Duration::from_millis(50);

/// Takes the primary's access away.
pub(super) fn revoke(holder: &Holder) -> Result<(), CommandError> {
    #[cfg(test)]
    if breaks(Defect::SkipsTheRevoke) {
        return Ok(());
    }
    let fenced = holder.fence(Deadline::within(FENCE_TIME)).map(|_| ());
    fenced.map_err(|error| CommandError::Refused(format!("the primary's access stands: {error}")))
}

impl Pair {
    /// A primary that has lost its peer: tries to have it back, then asks to go on alone.
    pub(super) fn hold(&self) -> Duration {
        let Some(arbiter) = &self.arbiter else {
            self.reconnect(super::link::RECONNECT_TIME);
            return STEP_TIME;
        };
        if self.is_ending() {
            return STEP_TIME;
        }
        let missed = arbiter.miss();
        if !arbiter.is_undetermined() {
            self.reconnect(RECONNECT_TIME);
        }
        match &self.engine.shared.lock().role {
            Role::Primary(primary) if matches!(primary.mode, Mode::Held { .. }) => {}
            Role::Undecided | Role::Secondary(_) | Role::Primary(_) | Role::Failed { .. } => {
                return STEP_TIME_BUSY;
            }
        }
        let is_elected = self.configuration().is_some_and(|known| arbiter.is_elected(known.id));
        if !is_elected && self.gives_way(arbiter, missed, true) {
            return STEP_TIME_BUSY;
        }
        let reason = if is_elected {
            let text = "serves alone: the peer was lost, and had agreed to that while the mediator was";
            Reason::new("alone", text)
        } else {
            Reason::new("alone", "serves alone: the peer was lost, and the arbiter has set it out")
        };
        match self.leave(reason) {
            Ok(()) => arbiter.find(),
            Err(CommandError::Overtaken { found, .. }) => self.be_overtaken(found.as_ref()),
            Err(error) => {
                let text = format!("the peer is lost and requests are held: {error}");
                self.explain(Reason::new("held", text));
            }
        }
        STEP_TIME_HELD
    }

    /// A node that follows: looks whether the one that serves is still there, and takes over if not. How long to rest then; `None` where this node may
    /// not take over.
    pub(super) fn guard(&self, attached: bool) -> Option<Duration> {
        let arbiter = self.arbiter.as_ref()?;
        if !self.is_member() && !arbiter.is_undetermined() {
            return None;
        }
        if self.is_ending() {
            return Some(STEP_TIME);
        }
        if attached && arbiter.silence() < self.silence() {
            arbiter.find();
            return Some(STEP_TIME_MEDIATED);
        }
        let missed = arbiter.miss();
        if self.gives_way(arbiter, missed, false) {
            return Some(STEP_TIME_BUSY);
        }
        let _moves = self.moves();
        // It may have been told to follow meanwhile, by one that has gone on alone since.
        let may_race = self.is_member() || arbiter.is_undetermined();
        if !may_race || self.is_ending() || !matches!(self.engine.shared.lock().role, Role::Secondary(_)) {
            return Some(STEP_TIME_BUSY);
        }
        match self.race(arbiter) {
            Ok(()) => {
                arbiter.find();
                let text = "serves alone: it took over from the peer, which was lost";
                self.explain(Reason::new("took-over", text));
            }
            Err(reason) => {
                self.explain(reason);
                return Some(STEP_TIME);
            }
        }
        Some(STEP_TIME_HELD)
    }

    /// Whether the other node is to be heard first by the mediator: not when its process has ended.
    fn gives_way(&self, arbiter: &Arbiter, missed: Duration, serves: bool) -> bool {
        let config = &self.engine.config;
        missed < delay(&config.node, serves, arbiter.preferred.as_deref())
            && !is_vacant(&config.peer, VACANT_TIME)
    }

    pub(super) fn race(&self, arbiter: &Arbiter) -> Result<(), Reason> {
        let held = |error: &dyn std::fmt::Display| {
            Reason::new(
                "held",
                format!("the node that serves is not heard, and this one does not take over: {error}"),
            )
        };
        let _quiet = self.quiet();
        let known = self.configuration();
        if !arbiter.is_undetermined() {
            let found =
                arbiter.read(known.as_ref().map_or(0, |known| known.id)).map_err(|error| held(&error))?;
            if let Some(found) = found.filter(|found| known.as_ref().is_none_or(|known| known.id < found.id))
            {
                self.learn(&found).map_err(|error| held(&error))?;
                return Err(lost_to(&found));
            }
        }
        match self.take_over(false) {
            Err(CommandError::Overtaken { found: Some(found), .. }) => Err(lost_to(&found)),
            Err(error) => Err(held(&error)),
            Ok(()) => Ok(()),
        }
    }

    /// Takes the peer's access away, then the configuration, and serves when nobody holds a lease of this node any more. Whoever calls this holds
    /// `moves`.
    pub(super) fn take_over(&self, flushed_only: bool) -> Result<(), CommandError> {
        let Some(arbiter) = &self.arbiter else { return self.succeed(flushed_only) };
        arbiter.grants().refuse();
        let taken = self.succeed(flushed_only);
        if taken.is_err() && !arbiter.is_undetermined() {
            arbiter.grants().allow();
        }
        taken
    }

    fn succeed(&self, flushed_only: bool) -> Result<(), CommandError> {
        // What may not be had is got before anything is done that cannot be undone.
        let spare = self.spare().take();
        let memory = spare.map_or_else(|| self.new_ring(), |(_, memory)| Ok(memory))?;
        self.drain()?;
        if !flushed_only && let Some(why) = self.lacks_beyond(Lsn::ZERO) {
            return Err(CommandError::Refused(why));
        }
        let end = {
            let mut state = self.engine.shared.lock();
            state.position = super::position(&state);
            state.position.end()
        };
        let (node, floor) = (&self.engine.config.node, self.floor(end));
        self.decide(&Wanted::Anew, |last| alone(node, last, 0, floor))?;
        let begun = self.become_primary_in(memory, None);
        // Of a primary that died meanwhile no copy had to move.
        if let Some(holder) = self.holder() {
            holder.forget_fence();
        }
        begun
    }

    /// Somebody else has the configuration.
    pub(super) fn be_overtaken(&self, found: Option<&Configuration>) {
        let node = &self.engine.config.node;
        if found.is_some_and(|found| found.primary == *node) {
            return; // of an earlier request of this node's; the next one goes by what was found
        }
        let by = found.map_or("nobody".into(), |found| found.primary.clone());
        if self.served_alone() {
            let text = format!(
                "the arbiter lets {by} serve, though this node served alone and acknowledged what the other does not have: decide which \
                 of the two copies counts, and empty the directory of the other"
            );
            let _moves = self.moves();
            self.engine.shared.lock().fail("diverged", text);
            self.engine.shared.tell();
            return;
        }
        if let Err(error) = self.step_down(&by) {
            self.explain(Reason::new(
                "held",
                format!("{by} serves now, and this node cannot step down: {error}"),
            ));
        }
    }

    /// Whether this node serves since it took over from the peer, which holds: it has not heard of that, and does not before a mediator that
    /// forgot it is seeded.
    pub(super) fn took_over_from(&self, known: &Configuration, theirs: &Hello) -> bool {
        let serves = matches!(self.engine.shared.lock().role, Role::Primary(_));
        let holds = |before: &Configuration| before.id < known.id && !before.is_alone(&theirs.node);
        serves && known.primary == self.engine.config.node && theirs.configuration.as_ref().is_some_and(holds)
    }

    /// Serves no more: its clients are hung up on. What is in the log is written out first, acknowledged or not: what of it the other does not have is
    /// void when this node is told to follow.
    pub(super) fn step_down(&self, by: &str) -> Result<(), CommandError> {
        let _moves = self.moves();
        loop {
            let (epoch, end, before) = {
                let mut state = self.engine.shared.lock();
                let epoch = state.epoch;
                let Role::Primary(primary) = &mut state.role else { return Ok(()) };
                let before = std::mem::replace(&mut primary.hand_over, HandOver::Done);
                primary.log.set_frozen(true);
                primary.write_out();
                (epoch, primary.log.pad(), before)
            };
            self.engine.shared.tell();
            let is_written = self.engine.destage_to(epoch, end).inspect_err(|_| {
                // Whoever found that it is overtaken finds that again.
                if let Role::Primary(primary) = &mut self.engine.shared.lock().role {
                    primary.hand_over = before;
                }
            })?;
            let mut state = self.engine.shared.lock();
            if state.epoch != epoch {
                return Ok(());
            }
            let State { role: Role::Primary(primary), .. } = &mut *state else { return Ok(()) };
            if !is_written || primary.log.end() != end {
                continue;
            }
            let position = super::position(&state);
            state.position = Position { end: end.0, ..position };
            let served = std::mem::replace(&mut state.role, Role::Undecided);
            state.epoch += 1;
            state.reason = Reason::new("stepped-down", format!("{by} serves now: waits for it to attach"));
            drop(state);
            self.engine.shared.tell();
            self.end_carrier();
            log::warn!("{}: steps down: {by} serves now", self.engine.config.name);
            drop(served); // its links are closed, which takes time
            return Ok(());
        }
    }

    /// A node that serves alone shows the mediator its configuration now and then; whether it still serves.
    pub(super) fn refresh(&self) -> bool {
        let Some(arbiter) = self.arbiter.as_ref().filter(|arbiter| arbiter.is_to_refresh()) else {
            return true;
        };
        let Some(known) = self.configuration() else { return true };
        if !self.confirm_alone(arbiter, &known) {
            return false;
        }
        match arbiter.read(known.id) {
            Ok(Some(found)) if found.id > known.id && found.primary != self.engine.config.node => {
                self.be_overtaken(Some(&found));
                false
            }
            Ok(_) => true,
            Err(error) => {
                log::warn!("{}: {error}", self.engine.config.name);
                true
            }
        }
    }
}

fn lost_to(found: &Configuration) -> Reason {
    Reason::new("lost-race", format!("{} goes on alone: waits for it to attach", found.primary))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use crate::store::engine::tests::serve;
    use crate::store::pair::rig::pair;
    use crate::store::state::Role;

    #[test]
    fn who_is_overtaken_hangs_up_before_its_log_is_written_out() {
        let directory = tempfile::tempdir().unwrap();
        let pair = pair(directory.path());
        let engine = &pair.engine;
        serve(engine);
        engine.shared.lock().primary(1).unwrap().lose("a test".into());
        let ((begin, begun), (end, ended)) = (channel(), channel::<()>());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                engine.in_turn(|| {
                    begin.send(()).unwrap();
                    ended.recv().unwrap();
                });
            });
            begun.recv().unwrap();
            let stepping = scope.spawn(|| pair.step_down("beta"));
            while engine.shared.lock().serving(1).is_ok() {
                std::thread::yield_now();
            }
            assert!(matches!(engine.shared.lock().role, Role::Primary(_)), "nothing is written meanwhile");
            end.send(()).unwrap();
            stepping.join().unwrap().unwrap();
        });
        assert!(matches!(engine.shared.lock().role, Role::Undecided));
    }
}
