//! The pair: which of the two nodes serves, how the other comes to follow it, and what the operator may say to that.
//!
//! ```text
//!  both started:  hello ⇄ hello ─▶ the one with more: follow! ─▶ serves alone ─▶ ring pushed ─▶ caught up ─▶ set in ─▶ mirrored
//!                 the ring does not reach back:  be resynced! ─▶ ring pushed, maps and data pulled ─▶ caught up ─▶ …
//!  link lost:     held ─▶ reconnected, or `alone` by the operator
//!  primary gone:  `promote` by the operator at the secondary: fence, drain, serve alone
//!  planned:       `switch` at the primary: holds, its member takes over at once, it steps down
//!  with a mediator both nodes do that by themselves, and the one that comes first goes on: held ─▶ alone, or steps down and follows
//! ```
//!
//! One thread makes the moves of this node, a step at a time ([`Pair::tick`]); questions of the peer and commands of the operator come
//! from others. Whoever changes the role holds `moves`.
//!
//! Every decision who may serve goes through the register. Its arbiter is the mediator, where there is one, or the operator: this node's copy
//! says what it was told.

mod arbiter;
mod aside;
mod can_stop;
pub(super) mod compare;
mod elect;
#[cfg(test)]
pub(in crate::store) mod glance;
mod hello;
mod lease;
mod link;
mod meet;
mod obey;
mod race;
mod replace;
mod resync;
#[cfg(test)]
pub(in crate::store) mod rig;
mod serve;
mod switch;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use super::checkpoint::Checkpoint;
use super::config::ArbiterConfig;
use super::engine::Engine;
use super::marker::Marker;
use super::medium::{Holder, ask};
use super::primary::{HandOver, Mode};
use super::register::{LocalRegister, Position, Register};
use super::resync::{Carrier, Note};
use super::ring_memory::{RingMemory, WINDOW_BYTES};
use super::state::{Bell, Reason, Role, State};
use crate::base::Lsn;
use crate::base::clock::Instant;
use crate::base::locks::poisoning::{Mutex, MutexGuard};
use crate::base::locks::{self, MutexGuard as Held};
use crate::node::KeySet;
use arbiter::Arbiter;
pub use can_stop::CanStop;
use hello::{Answer, Hello, Question, RoleWord, VERSION};
pub(super) use obey::PairGate;
use race::STEP_TIME_MEDIATED;
pub use switch::Switched;

/// How long the peer has to answer a question. Following may mean to destage a whole ring.
const ANSWER_TIME: Duration = Duration::from_secs(2);
const FOLLOW_TIME: Duration = Duration::from_secs(60);
/// Between two steps, while nothing is under way.
const STEP_TIME: Duration = Duration::from_millis(200);
/// And while something is.
const STEP_TIME_BUSY: Duration = Duration::from_millis(5);

/// This node's half of the pair.
pub(super) struct Pair {
    pub(super) engine: Arc<Engine>,
    keys: KeySet,
    register: Mutex<LocalRegister>,
    /// The mediator, if one decides who serves.
    arbiter: Option<Arbiter>,
    /// Whoever changes the role.
    moves: locks::Mutex<()>,
    holder: OnceLock<Holder>,
    pub(super) checkpoint: Mutex<Checkpoint>,
    /// Locked behind the checkpoint, by whoever locks both.
    pub(super) marker: Mutex<Marker>,
    /// Whoever fills in files of a resync, makes an end of it, or sets aside what files have. Taken after `moves`.
    filling: locks::Mutex<()>,
    /// That this node is being resynced, and from where. Taken after `filling`.
    note: Mutex<Note>,
    /// Segments of which this node was found to have all that it needs, in this resync.
    verified: Mutex<BTreeSet<Lsn>>,
    /// What brings the other one up to date. Taken after `moves`, before the state.
    carrier: Mutex<Option<Carrier>>,
    /// Whoever hands the service over; nobody waits for it.
    switching: locks::Mutex<()>,
    /// That the service is handed over, or taken over.
    is_quiet: AtomicBool,
    /// A ring to take over with, and since when it is there.
    spare: Mutex<Option<(Instant, RingMemory)>>,
    /// The peer said that it cannot follow now: it is left alone until then.
    rests_until: Mutex<Option<Instant>>,
    /// How often in a row the peer could not be attached while clients waited.
    vain_freezes: AtomicU32,
    /// Wakes the pair's thread.
    pub(super) bell: Arc<Bell>,
    /// Wakes whoever asks for leases, or waits for the end of one.
    pub(super) leases: Bell,
    /// Wakes whoever looks whether the mediator is there.
    pub(super) looks: Bell,
    /// Wakes the keeper.
    pub(super) keeper: Bell,
    /// Wakes whoever pulls what a resync lacks.
    pub(super) puller: Bell,
    pub(super) stopping: AtomicBool,
    /// It ends in good order: nothing is taken over any more, nor the peer set out.
    pub(super) ending: AtomicBool,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("node", &self.engine.config.node).finish_non_exhaustive()
    }
}

impl Pair {
    pub(super) fn new(
        engine: Arc<Engine>,
        keys: KeySet,
        register: LocalRegister,
        checkpoint: Checkpoint,
        marker: Marker,
        note: Note,
    ) -> Self {
        let arbiter = Arbiter::of(&engine.config);
        Self {
            engine,
            keys,
            register: Mutex::new(register),
            arbiter,
            moves: locks::Mutex::new(()),
            holder: OnceLock::new(),
            checkpoint: Mutex::new(checkpoint),
            marker: Mutex::new(marker),
            filling: locks::Mutex::new(()),
            note: Mutex::new(note),
            verified: Mutex::default(),
            carrier: Mutex::default(),
            switching: locks::Mutex::new(()),
            is_quiet: AtomicBool::new(false),
            spare: Mutex::default(),
            rests_until: Mutex::default(),
            vain_freezes: AtomicU32::new(0),
            bell: Arc::default(),
            leases: Bell::default(),
            looks: Bell::default(),
            keeper: Bell::default(),
            puller: Bell::default(),
            stopping: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        }
    }

    /// The holder, once it listens.
    pub(super) fn holder(&self) -> Option<&Holder> {
        self.holder.get()
    }

    pub(super) fn set_holder(&self, holder: Holder) {
        assert!(self.holder.set(holder).is_ok(), "it listens once");
    }

    pub(super) fn register(&self) -> MutexGuard<'_, LocalRegister> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> MutexGuard<'_, Option<(Instant, RingMemory)>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst) || self.stopping.load(Ordering::SeqCst)
    }

    fn moves(&self) -> Held<'_, ()> {
        self.moves.lock()
    }

    /// One step; how long to rest before the next.
    pub(super) fn tick(&self) -> Duration {
        enum Now {
            Meet,
            Guard { attached: bool },
            Invite,
            CatchUp,
            Watch,
            Hold,
            Rest,
        }
        self.drop_spare();
        // Before the state is locked: it waits while somebody's access is taken away.
        let attached = self.holder().is_some_and(|holder| holder.status().connected);
        let now = {
            let mut state = self.engine.shared.lock();
            let epoch = state.epoch;
            if let Role::Primary(primary) = &state.role {
                self.engine.holding.status(epoch, primary);
            }
            match &mut state.role {
                Role::Undecided => Now::Meet,
                Role::Secondary(_) => Now::Guard { attached },
                // Whoever switches makes the moves.
                Role::Primary(primary) if primary.hand_over != HandOver::No => Now::Rest,
                Role::Primary(primary) => match primary.mode {
                    Mode::Alone => Now::Invite,
                    Mode::CatchingUp { .. } | Mode::SettingIn => Now::CatchUp,
                    Mode::Mirrored => Now::Watch,
                    Mode::Held { .. } => Now::Hold,
                },
                Role::Failed { .. } => Now::Rest,
            }
        };
        match now {
            Now::Guard { attached } => match self.guard(attached) {
                Some(rest) => return rest,
                // It may be named a member at any moment, and has to take over from then on.
                None if attached && self.arbiter.is_some() => return STEP_TIME_MEDIATED,
                None if attached => {}
                None => self.meet(),
            },
            Now::Meet => self.meet(),
            Now::Invite => self.invite(),
            Now::CatchUp => return self.catch_up(),
            Now::Watch => return self.watch(),
            Now::Hold => return self.hold(),
            Now::Rest => {}
        }
        STEP_TIME
    }

    /// Who this node is.
    fn hello(&self) -> Hello {
        let config = &self.engine.config;
        let contents = self.register().contents().clone();
        let attached = self.holder().is_some_and(|holder| holder.status().connected);
        let state = self.engine.shared.lock();
        let (role, position) = (role_word(&state, attached), position(&state));
        let begun = contents.begun(position.generation()).cloned();
        Hello {
            version: VERSION,
            dataset: config.id.to_string(),
            node: config.node.clone(),
            role,
            position,
            begun,
            configuration: contents.configuration,
            segment_bytes: config.layout.segment_bytes(),
            device_block_bytes: config.layout.device_block_bytes(),
            places: config.places,
            window_bytes: WINDOW_BYTES as u64,
            is_mediated: self.arbiter.is_some(),
            etcd_prefix: config.arbiter.as_ref().and_then(ArbiterConfig::etcd_prefix),
            preferred: self.arbiter.as_ref().and_then(|arbiter| arbiter.preferred.clone()),
        }
    }

    /// Asks the peer; why there is no answer.
    fn ask(&self, question: &Question, within: Duration) -> Result<Answer, Reason> {
        let body = serde_json::to_vec(question).expect("names and numbers");
        let answer = ask(&self.engine.config.peer, &self.keys, &body, within)
            .map_err(|error| Reason::new("peer-unreachable", format!("the peer does not answer: {error}")))?;
        serde_json::from_slice(&answer)
            .map_err(|error| Reason::new("peer-unclear", format!("the peer's answer: {error}")))
    }

    /// Asks who the peer is; refuses it when it is none of this pair.
    fn ask_hello(&self) -> Result<(Hello, Hello), Reason> {
        let ours = self.hello();
        let theirs = match self.ask(&Question::Hello(ours.clone()), ANSWER_TIME)? {
            Answer::Hello(theirs) => *theirs,
            Answer::Refused { code, text } => {
                return Err(Reason::new("peer-refuses", format!("the peer refuses ({code}): {text}")));
            }
            Answer::Following { .. } | Answer::Noted | Answer::Granted | Answer::Resync(_) => {
                return Err(Reason::new("peer-unclear", "the peer answers something else"));
            }
        };
        match ours.refuse(&theirs) {
            Some((code, text)) => Err(Reason::new(code, text)),
            None => Ok((ours, theirs)),
        }
    }

    pub(super) const fn keys(&self) -> &KeySet {
        &self.keys
    }

    pub(super) fn explain(&self, reason: Reason) {
        let mut state = self.engine.shared.lock();
        let (code, text) = (reason.code, reason.text.clone());
        if state.explain(reason) {
            log::info!("{}: {text} ({code})", self.engine.config.name);
        }
    }
}

fn role_word(state: &State, attached: bool) -> RoleWord {
    match &state.role {
        Role::Undecided => RoleWord::Undecided,
        Role::Secondary(_) => RoleWord::Secondary { attached },
        // It serves nobody any more, and is about to say so.
        Role::Primary(primary) if primary.hand_over == HandOver::Done => RoleWord::Undecided,
        Role::Primary(_) => RoleWord::Primary,
        Role::Failed { .. } => RoleWord::Failed,
    }
}

/// What the node has now.
pub(super) fn position(state: &State) -> Position {
    match &state.role {
        Role::Undecided | Role::Failed { .. } => state.position,
        Role::Secondary(secondary) => {
            let highest = secondary.highest.0.max(state.position.highest);
            match &secondary.resync {
                // Until all is here it has what it had.
                Some(staging) => Position { highest, ..staging.old },
                None => Position { generation: secondary.generation.0, end: secondary.applied.0, highest },
            }
        }
        Role::Primary(primary) => Position {
            generation: primary.generation.0,
            end: primary.log.end().0,
            highest: primary.log.head().end().0.max(state.position.highest),
        },
    }
}
