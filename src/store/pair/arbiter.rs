//! Changes of the configuration: by the mediator or by etcd where there is one, else by the operator's word, in this node's own register.
//!
//! With an arbiter this node's register is what it was told last. A change counts when the arbiter took it. Until its outcome is known it
//! may have been taken, or be yet: whoever asked for it acknowledges nothing that the other outcome would lose, and asks for the same again,
//! word by word, before it asks for anything else.

use std::sync::PoisonError;
use std::time::Duration;

use super::Pair;
use super::hello::RoleWord;
use crate::base::clock::Instant;
use crate::base::locks::poisoning::{Mutex, MutexGuard};
use crate::cluster::{ArbiterClient, ArbiterError, Configuration, Grants, Request, Sight, Verdict};
use crate::mediator;
use crate::node::random_bytes;
use crate::store::config::{ArbiterKind, CommandError, DatasetConfig};
use crate::store::medium::Inquirer;
use crate::store::read_lease::now;
use crate::store::register::Register;
use crate::store::state::Role;
#[cfg(test)]
use crate::store::world::{Defect, breaks};

/// How long the arbiter has to answer.
pub(super) const MEDIATOR_TIME: Duration = Duration::from_secs(1);
/// And to a command of the operator.
const SEED_TIME: Duration = Duration::from_secs(5);
/// How often a node that serves alone shows the mediator the id under which it does: one that was restored from an old copy hears of it before
/// it grants anything to the other node.
const REFRESH_TIME: Duration = Duration::from_secs(1);

/// A node's side of the arbiter.
#[derive(Debug)]
pub(super) struct Arbiter {
    client: Mutex<Box<dyn ArbiterClient>>,
    /// A change that may have been taken, or may yet be.
    pending: Mutex<Option<Request>>,
    /// The id of the configuration in this node's register if that is not the mediator's of this id: it names a peer for which that was only
    /// asked, or this node alone, by an election.
    differs: Mutex<Option<u64>>,
    /// The id of the configuration under which the other node was asked to renounce, and may have.
    asked: Mutex<Option<u64>>,
    /// That under which it has.
    elected: Mutex<Option<u64>>,
    /// How the mediator was found.
    sight: Mutex<Sight>,
    /// Why it was not, if so.
    why_mute: Mutex<String>,
    /// What this node granted to the one that serves.
    grants: Mutex<Grants>,
    /// When that was last heard.
    heard: Mutex<Instant>,
    /// Since when the other one is missed.
    missed: Mutex<Option<Instant>>,
    /// When the mediator last said what it holds, to a node that serves alone.
    refreshed: Mutex<Option<Instant>>,
    /// The node that goes on when each could.
    pub(super) preferred: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arbiter {
    pub(super) fn of(config: &DatasetConfig) -> Option<Self> {
        let arbiter = config.arbiter.as_ref()?;
        let (id, node) = (config.id, &config.node);
        let client: Box<dyn ArbiterClient> = match &arbiter.kind {
            ArbiterKind::Mediator { url, keys } => {
                Box::new(mediator::Client::<Inquirer>::over(url.clone(), keys.clone(), id, node))
            }
            #[cfg(feature = "etcd")]
            ArbiterKind::Etcd(gateway) => {
                Box::new(crate::etcd::Client::new(gateway.clone(), id, node, REFRESH_TIME))
            }
        };
        Some(Self {
            client: Mutex::new(client),
            pending: Mutex::default(),
            differs: Mutex::default(),
            asked: Mutex::default(),
            elected: Mutex::default(),
            why_mute: Mutex::default(),
            sight: Mutex::new(Sight::new(Instant::now())),
            grants: Mutex::new(Grants::new(now())),
            heard: Mutex::new(Instant::now()),
            missed: Mutex::default(),
            refreshed: Mutex::default(),
            preferred: arbiter.preferred.clone(),
        })
    }

    /// Whether a change may have been taken of which nothing is known.
    pub(super) fn is_undetermined(&self) -> bool {
        lock(&self.pending).is_some()
    }

    /// Whether a change may have been taken, or be yet, that names the other node too.
    pub(super) fn may_become_shared(&self) -> bool {
        lock(&self.pending).as_ref().is_some_and(|pending| pending.next.members.len() > 1)
    }

    /// Whether the configuration of this id, in this node's register, is not the mediator's.
    pub(super) fn differs(&self, id: u64) -> bool {
        *lock(&self.differs) == Some(id)
    }

    /// It is about not to be.
    pub(super) fn differ(&self, id: u64) {
        *lock(&self.differs) = Some(id);
    }

    /// Whether the other node has renounced under the configuration of this id.
    pub(super) fn is_elected(&self, id: u64) -> bool {
        *lock(&self.elected) == Some(id)
    }

    /// It is about to be asked to.
    pub(super) fn ask_under(&self, id: u64) {
        *lock(&self.asked) = Some(id);
    }

    /// Whether the mediator is to give out a new id, so that nothing is renounced any more: it may be under this one, or an attempt failed.
    pub(super) fn is_to_renew(&self, id: u64) -> bool {
        *lock(&self.asked) == Some(id) || self.differs(id) || self.may_become_shared()
    }

    pub(super) fn elect(&self, id: u64) {
        *lock(&self.elected) = Some(id);
    }

    /// Nothing is done any more because the other node has renounced.
    pub(super) fn end_election(&self) {
        *lock(&self.elected) = None;
    }

    pub(super) fn sight(&self) -> MutexGuard<'_, Sight> {
        lock(&self.sight)
    }

    /// Looks whether the mediator is there, and what it holds.
    pub(super) fn look(&self, known: u64) -> (Sight, Option<Configuration>) {
        let found = self.read(known);
        let mut sight = self.sight();
        sight.note(found.is_ok(), Instant::now());
        if let Err(error) = &found {
            *lock(&self.why_mute) = error.to_string();
        }
        (*sight, found.ok().flatten())
    }

    /// Why the mediator does not answer, as far as it does not.
    pub(super) fn why_mute(&self) -> Option<String> {
        (!self.sight().answers()).then(|| lock(&self.why_mute).clone())
    }

    pub(super) fn grants(&self) -> MutexGuard<'_, Grants> {
        lock(&self.grants)
    }

    /// The one that serves was heard.
    pub(super) fn hear(&self) {
        *lock(&self.heard) = Instant::now();
    }

    /// For how long it has not been.
    pub(super) fn silence(&self) -> Duration {
        lock(&self.heard).elapsed()
    }

    /// The other one is missed; for how long.
    pub(super) fn miss(&self) -> Duration {
        lock(&self.missed).get_or_insert_with(Instant::now).elapsed()
    }

    /// It is there.
    pub(super) fn find(&self) {
        *lock(&self.missed) = None;
    }

    /// Whether it is time to ask the mediator again what it holds.
    pub(super) fn is_to_refresh(&self) -> bool {
        let mut refreshed = lock(&self.refreshed);
        let is_time = refreshed.is_none_or(|last| last.elapsed() >= REFRESH_TIME);
        if is_time {
            *refreshed = Some(Instant::now());
        }
        is_time
    }

    /// What the register holds. `known` is the id that this node knows.
    pub(super) fn read(&self, known: u64) -> Result<Option<Configuration>, ArbiterError> {
        lock(&self.client).read(known, MEDIATOR_TIME)
    }
}

/// What a change is asked for by.
pub(super) enum Wanted {
    /// A node that serves: only if it does by the configuration too, and nothing where that is so already.
    Serving,
    /// The same, under a new id.
    Renewed,
    /// One that is to: under a new id, so that what was asked for in an earlier life finds that one, and is void.
    Anew,
}

impl Pair {
    /// Changes the configuration to what `change` makes of it. On return it counts, and is noted here.
    ///
    /// # Errors
    /// It is not changed, or not for certain: see [`Arbiter::is_undetermined`]. `Overtaken`: somebody else has changed it.
    pub(super) fn decide(
        &self,
        wanted: &Wanted,
        change: impl Fn(Option<&Configuration>) -> Configuration,
    ) -> Result<Configuration, CommandError> {
        let Some(arbiter) = &self.arbiter else { return self.note_configuration(change) };
        let pending = lock(&arbiter.pending).clone();
        if let Some(pending) = pending {
            self.request(arbiter, pending)?;
        }
        let known = self.configuration();
        let expected = known.as_ref().map_or(0, |known| known.id);
        let next = change(known.as_ref());
        if let (Wanted::Serving | Wanted::Renewed, Some(known)) = (wanted, &known) {
            if known.primary != self.engine.config.node {
                // It was learned since that another one serves: that must not be taken from it again.
                return Err(CommandError::Overtaken { expected, found: Some(known.clone()) });
            }
            let is_so = (&known.members, &known.primary) == (&next.members, &next.primary);
            if is_so && !arbiter.differs(expected) && matches!(wanted, Wanted::Serving) {
                return Ok(known.clone());
            }
        }
        let nonce = u64::from_le_bytes(random_bytes().map_err(crate::store::config::OpenError::from)?);
        let request = Request { expected, next, nonce };
        if request.next.members.len() == 1 {
            return self.request(arbiter, request);
        }
        self.ask_to_join(arbiter, known, request)
    }

    /// Asks for a peer to become a member. From before it is asked this node does not count as one that served alone: the peer has all that was
    /// acknowledged, and may be the one that goes on.
    fn ask_to_join(
        &self,
        arbiter: &Arbiter,
        known: Option<Configuration>,
        request: Request,
    ) -> Result<Configuration, CommandError> {
        // It may take over under this one.
        arbiter.end_election();
        arbiter.differ(request.expected);
        self.note_configuration(|_| Configuration { id: request.expected, ..request.next.clone() })?;
        let asked = self.request(arbiter, request);
        if let (Err(error), Some(known)) = (&asked, known)
            && !matches!(error, CommandError::Overtaken { .. })
            && !arbiter.is_undetermined()
        {
            self.note_configuration(|_| known)?;
        }
        asked
    }

    fn request(&self, arbiter: &Arbiter, request: Request) -> Result<Configuration, CommandError> {
        let verdict = lock(&arbiter.client).compare_and_set(&request, MEDIATOR_TIME);
        match verdict {
            Ok(Verdict::Taken) => {
                // Until it is noted here it is asked for again.
                *lock(&arbiter.pending) = Some(request.clone());
                let noted = self.note_configuration(|_| request.next)?;
                *lock(&arbiter.pending) = None;
                Ok(noted)
            }
            Ok(Verdict::Changed(found)) => {
                *lock(&arbiter.pending) = None;
                if let Some(found) = &found
                    && let Err(error) = self.learn(found)
                {
                    log::warn!("{}: {error}", self.engine.config.name);
                }
                Err(CommandError::Overtaken { expected: request.expected, found })
            }
            #[cfg(test)]
            Err(error @ ArbiterError::Unknown(_)) if breaks(Defect::ForgetsWhatItAskedFor) => {
                Err(error.into())
            }
            Err(ArbiterError::Unknown(why)) => {
                *lock(&arbiter.pending) = Some(request);
                Err(ArbiterError::Unknown(why).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes note of a configuration that counts, unless a later one is known. One that does not name this node, which has served alone, is
    /// left aside: what it acknowledged then nobody else has, and it must not come to follow as though it had been a member.
    pub(super) fn learn(&self, found: &Configuration) -> Result<(), CommandError> {
        self.settle_by(found);
        if self.served_alone() && !found.members.contains(&self.engine.config.node) {
            return Ok(());
        }
        let kept = self.note_configuration(|last| match last {
            // What this node has noted under the mediator's id says more: that it was asked for a peer to join, or that it went on alone.
            Some(last) if last.id >= found.id => last.clone(),
            Some(_) | None => found.clone(),
        })?;
        self.be_named(&kept);
        Ok(())
    }

    /// A node that has followed in the session that stands, and is named by a configuration that counts, is a member: it was asked for when this node had
    /// all that was acknowledged, and nothing was acknowledged without it since.
    pub(super) fn be_named(&self, found: &Configuration) {
        if let Role::Secondary(secondary) = &mut self.engine.shared.lock().role {
            let is_named = found.members.contains(&self.engine.config.node);
            secondary.is_member = secondary.is_whole() && is_named;
        }
    }

    /// The one that serves says what the configuration is.
    pub(super) fn hear_of(&self, configuration: &Configuration) {
        self.settle_by(configuration);
        if let Some(arbiter) = &self.arbiter {
            arbiter.hear();
            arbiter.find();
        }
    }

    /// This node follows from now on, and grants leases again unless it may have the configuration already. Whoever calls this holds `moves`, so that
    /// it is not just taking over.
    pub(super) fn grant_again(&self) {
        if let Some(arbiter) = self.arbiter.as_ref().filter(|arbiter| !arbiter.is_undetermined()) {
            arbiter.grants().begin_anew();
            arbiter.find();
        }
    }

    /// Of a request that was made for an earlier configuration than this nothing is left to be known: it was taken, or never will be.
    fn settle_by(&self, configuration: &Configuration) {
        if let Some(arbiter) = &self.arbiter {
            lock(&arbiter.pending).take_if(|pending| configuration.id > pending.expected);
        }
    }

    /// Gives the mediator the configuration that this node knows, because the operator vouches for it.
    pub(in crate::store) fn seed(&self) -> Result<(), CommandError> {
        let refuse = |why: String| Err(CommandError::Refused(why));
        let Some(arbiter) = &self.arbiter else {
            let why = "there is no arbiter in this node's configuration: `mirrorbus promote` and `mirrorbus alone` say who serves";
            return refuse(why.into());
        };
        let Some(known) = self.configuration() else {
            return refuse(
                "this node was never told who serves: say it at the node that has the data".into(),
            );
        };
        let node = &self.engine.config.node;
        if !known.members.contains(node) {
            return refuse(format!("this node was set out: say it at {}, which served since", known.primary));
        }
        if let Ok((_, theirs)) = self.ask_hello() {
            if theirs.role == RoleWord::Primary && !self.took_over_from(&known, &theirs) {
                // If that one finds a register where it asks, and this one none, they do not ask the same arbiter.
                return refuse(format!("{} serves: say it there", theirs.node));
            }
            if let Some(later) = theirs.configuration.filter(|theirs| theirs.id > known.id) {
                let (ours, theirs_id) = (known.id, later.id);
                let text = format!(
                    "{} knows configuration {theirs_id}, this node {ours}: say it there",
                    theirs.node
                );
                return refuse(text);
            }
        }
        lock(&arbiter.client).seed(&known, SEED_TIME)?;
        self.bell.ring();
        Ok(())
    }

    /// Notes a configuration in this node's own register.
    pub(super) fn note_configuration(
        &self,
        change: impl FnOnce(Option<&Configuration>) -> Configuration,
    ) -> Result<Configuration, CommandError> {
        let mut register = self.register();
        let mut contents = register.contents().clone();
        let (id, next) = (register.id(), change(contents.configuration.as_ref()));
        contents.configuration = Some(next.clone());
        register.compare_and_set(id, contents)?;
        Ok(next)
    }
}
