//! What the mediator decides, and what a node decides for itself on a register that others keep as it is (etcd). Pure: it is given what the register of a dataset holds and what is asked, and gives the answer, and what has
//! to be durable before that is sent.
//!
//! A mediator that was restored from an old copy, or lost what it knew, is the one thing that compare-and-set does not protect from: it
//! would take a change that follows on a configuration which was followed by another long ago. So every question says which id whoever
//! asks knows of. A higher one than the register's locks the dataset until the operator says which configuration it has.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Asked, Configuration, Question, Request, Told};
#[cfg(test)]
use crate::store::world::{Defect, breaks};

/// Datasets of one mediator, at most.
pub const DATASETS_MAX: usize = 65_536;
/// Bytes of a node's name, at most.
pub const NAME_BYTES_MAX: usize = 255;
/// Refresh periods after its start in which a mediator waits to hear of a newer id.
pub const GRACE_PERIODS: u32 = 3;
/// Members of a configuration, at most.
const MEMBERS_MAX: usize = 2;
/// Digits of a dataset's id.
const DATASET_DIGITS: usize = 32;

/// What the register of a dataset holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Entry {
    /// `None`: none was ever taken here, or it is lost.
    pub configuration: Option<Configuration>,
    /// Of the request that made it; `None`: the operator gave it.
    pub nonce: Option<u64>,
    /// Why nothing is taken until the operator gives it a configuration.
    pub locked: Option<String>,
}

/// An answer, and what must be so before it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// To be sent.
    pub told: Told,
    /// To be durable first, in place of what there is.
    pub write: Option<Entry>,
}

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arbiter {
    grace: Duration,
    /// Who keeps the registers, in refusals.
    keeper: &'static str,
}

impl Arbiter {
    /// For nodes of which each asks at least once in `refresh` while it serves alone.
    #[must_use]
    pub const fn new(refresh: Duration) -> Self {
        Self::kept_by(refresh, "this mediator")
    }

    /// The same where somebody else keeps the registers.
    #[must_use]
    pub const fn kept_by(refresh: Duration, keeper: &'static str) -> Self {
        Self { grace: refresh.saturating_mul(GRACE_PERIODS), keeper }
    }

    /// What is answered to `question`, `uptime` after the start of whoever keeps the registers, where the register holds `entry`, one of `datasets`.
    #[must_use]
    pub fn decide(
        &self,
        entry: Option<&Entry>,
        datasets: usize,
        question: &Question,
        uptime: Duration,
    ) -> Decision {
        let decided = check(question).and_then(|()| match &question.asked {
            Asked::Read { known } => self.read(entry, question, *known),
            Asked::CompareAndSet(request) => self.compare_and_set(entry, question, request, uptime),
            Asked::Seed(configuration) => self.seed(entry, configuration),
        });
        let decision = decided.unwrap_or_else(|told| Decision { told, write: None });
        if entry.is_none() && decision.write.is_some() && datasets >= DATASETS_MAX {
            let text = format!(
                "{} has {DATASETS_MAX} datasets, which is the limit: stop it, remove the files of datasets that are no more, \
                 start it",
                self.keeper
            );
            return Decision { told: refused("too-many", text), write: None };
        }
        decision
    }

    fn compare_and_set(
        &self,
        entry: Option<&Entry>,
        question: &Question,
        request: &Request,
        uptime: Duration,
    ) -> Result<Decision, Told> {
        let Request { expected, next, nonce } = request;
        check_configuration(next)?;
        if next.id <= *expected {
            let text = format!("the id {} does not follow on {expected}", next.id);
            return Err(refused("unclear", text));
        }
        if next.primary != question.node {
            let text = format!(
                "{:?} asks for a configuration with the primary {:?}: each node asks for itself",
                question.node, next.primary
            );
            return Err(refused("not-yours", text));
        }
        // Before the retry: who has a newer one may have left this node out.
        self.check_lock(entry, &question.dataset)?;
        let found = entry.and_then(|entry| entry.configuration.as_ref());
        let is_retry = entry.is_some_and(|entry| entry.nonce == Some(*nonce)) && found == Some(next);
        if is_retry {
            return Ok(Decision { told: Told::Taken, write: None });
        }
        let id = id_of(entry);
        if *expected > id {
            return Ok(self.behind(entry, question, *expected));
        }
        #[cfg(test)]
        let id = if breaks(Defect::MediatorTakesAll) { *expected } else { id };
        if *expected < id {
            return Ok(Decision { told: Told::Holds(found.cloned()), write: None });
        }
        let left = self.grace.saturating_sub(uptime);
        #[cfg(test)]
        let left = if breaks(Defect::MediatorTakesChangesAtOnce) { Duration::ZERO } else { left };
        if !left.is_zero() && found.is_some_and(|found| found.primary != question.node) {
            let text = format!(
                "{} has just started, and {} ms more are left to a node that serves alone to say what it knows: ask again",
                self.keeper,
                left.as_millis() + 1
            );
            return Err(refused("starting", text));
        }
        let taken = Entry { configuration: Some(next.clone()), nonce: Some(*nonce), locked: None };
        Ok(Decision { told: Told::Taken, write: Some(taken) })
    }

    fn read(&self, entry: Option<&Entry>, question: &Question, known: u64) -> Result<Decision, Told> {
        self.check_lock(entry, &question.dataset)?;
        #[cfg(test)]
        let known = if breaks(Defect::MediatorNeverLocks) { 0 } else { known };
        if known > id_of(entry) {
            return Ok(self.behind(entry, question, known));
        }
        let found = entry.and_then(|entry| entry.configuration.clone());
        Ok(Decision { told: Told::Holds(found), write: None })
    }

    fn seed(&self, entry: Option<&Entry>, configuration: &Configuration) -> Result<Decision, Told> {
        check_configuration(configuration)?;
        let seeded = Entry { configuration: Some(configuration.clone()), nonce: None, locked: None };
        match entry {
            // Seeded again, because the answer was lost.
            Some(found) if *found == seeded => Ok(Decision { told: Told::Taken, write: None }),
            Some(Entry { locked: None, configuration: Some(found), .. }) => {
                let text = format!(
                    "{} has configuration {} of it, primary {:?}, and knows of none newer: that one counts",
                    self.keeper, found.id, found.primary
                );
                Err(refused("not-locked", text))
            }
            _ => Ok(Decision { told: Told::Taken, write: Some(seeded) }),
        }
    }

    /// What is kept is older than what somebody who asks knows.
    fn behind(&self, entry: Option<&Entry>, question: &Question, known: u64) -> Decision {
        let id = id_of(entry);
        let has = if id == 0 { "has no configuration".to_owned() } else { format!("has configuration {id}") };
        let why = format!("it {has}, {:?} knows of {known}", question.node);
        let text = format!(
            "{} has lost its state or was restored from an old copy: {why}. {}",
            self.keeper,
            way_out(&question.dataset)
        );
        let locked = Entry { locked: Some(why), ..entry.cloned().unwrap_or_default() };
        Decision { told: refused("mediator-behind", text), write: Some(locked) }
    }

    fn check_lock(&self, entry: Option<&Entry>, dataset: &str) -> Result<(), Told> {
        let Some(why) = entry.and_then(|entry| entry.locked.as_ref()) else { return Ok(()) };
        let text = format!(
            "{} is behind: {why}; nothing is taken for this dataset. {}",
            self.keeper,
            way_out(dataset)
        );
        Err(refused("locked", text))
    }
}

fn way_out(dataset: &str) -> String {
    format!(
        "At the node that serves dataset {dataset}, or, if none does, at the one that is to, say `mirrorbus seed NAME`"
    )
}

fn check(question: &Question) -> Result<(), Told> {
    if !is_dataset(&question.dataset) {
        return Err(refused("unclear", format!("a dataset's id is {DATASET_DIGITS} hexadecimal digits")));
    }
    check_name(&question.node)
}

/// Whether this is the id of a dataset, in the one way to write it.
#[must_use]
pub fn is_dataset(text: &str) -> bool {
    text.len() == DATASET_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_name(name: &str) -> Result<(), Told> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(refused("unclear", format!("{} bytes of a node's name: 1 to {NAME_BYTES_MAX}", name.len())))
}

fn check_configuration(configuration: &Configuration) -> Result<(), Told> {
    let unclear = |text: &str| Err(refused("unclear", text.to_owned()));
    let Configuration { id, members, primary, floor: _ } = configuration;
    if *id == 0 {
        return unclear("the id 0 is that of no configuration");
    }
    if !(1..=MEMBERS_MAX).contains(&members.len()) {
        return unclear(&format!("{} members of a configuration: 1 to {MEMBERS_MAX}", members.len()));
    }
    members.iter().try_for_each(|member| check_name(member))?;
    if let [one, other] = members.as_slice()
        && one == other
    {
        return unclear(&format!("{one:?} is a member twice"));
    }
    if !members.contains(primary) {
        return unclear("the primary is no member");
    }
    Ok(())
}

fn id_of(entry: Option<&Entry>) -> u64 {
    entry.and_then(|entry| entry.configuration.as_ref()).map_or(0, |configuration| configuration.id)
}

/// A refusal.
pub(crate) fn refused(code: &str, text: String) -> Told {
    Told::Refused { code: code.to_owned(), text }
}

#[cfg(test)]
#[path = "arbiter_tests.rs"]
mod tests;
