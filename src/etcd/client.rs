//! A node's way to etcd for one dataset: the rules are carried out here, on what etcd holds, and what they write goes there only if that is what it
//! still holds.
//!
//! **One at most.** A register is read with the revision of its last write, and written by a txn that compares this revision. etcd carries
//! txns out one after the other, and revisions rise: of any number of writes that were decided on one state of the register one takes effect, whoever
//! sent them, however late they arrive, and however often.
//!
//! **Asked again.** A txn whose answer did not come may have been carried out, or may yet be. It is not sent elsewhere as a new one. What
//! was asked for is asked again as it was, with its nonce, by whoever asked, which begins with a read: the register has the nonce, and it was
//! taken; or it does not, and a further txn compares the same revision as the first, so that one of the two writes, and both write the same.
//!
//! **Changed.** That a request will never be taken is said when the register has a later id. It was written since the request's txns were
//! decided, so their revision is not that of the register any more, and will not be again.
//!
//! **A start.** Nobody tells a node that etcd was started from an old copy of what it knew. A node that sees another cluster, another term, or a
//! revision that went down takes it for one that has just started, and asks for nothing that a mediator would not grant then. See
//! `docs/failover.md` for what that does not find.

use std::time::{Duration, Instant};

use super::gateway::{Failure, Gateway, NOT_IN_THIS_STATE};
use super::language::{self, Found, Header, Unreadable};
use crate::base::DatasetId;
use crate::cluster::{Arbiter, ArbiterClient, ArbiterError, Asked, Entry, Question, Told};

/// How often a register is read again because somebody else has written it meanwhile.
const RACES_MAX: usize = 8;
const RANGE: &str = "/v3/kv/range";
const TXN: &str = "/v3/kv/txn";
const AUTHENTICATE: &str = "/v3/auth/authenticate";
/// Of gRPC: the token is not valid.
const UNAUTHENTICATED: u32 = 16;
/// Of gRPC, in a text that says so: the token is of before a change of users or roles.
const INVALID: u32 = 3;
const OLD_TOKEN: &str = "auth store is old";

/// The way to etcd, for one dataset of one node.
#[derive(Debug)]
pub struct Client {
    gateway: Gateway,
    key: String,
    dataset: String,
    node: String,
    rules: Arbiter,
    /// The endpoint that answered last.
    first: usize,
    token: Option<Token>,
    seen: Option<Seen>,
}

struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// As which etcd was seen, and since when.
#[derive(Debug, Clone, Copy)]
struct Seen {
    header: Header,
    since: Instant,
}

impl Client {
    /// Connects when it is needed. A node that serves alone asks once in `refresh` at least.
    #[must_use]
    pub fn new(gateway: Gateway, dataset: DatasetId, node: &str, refresh: Duration) -> Self {
        let dataset = dataset.to_string();
        Self {
            key: format!("{}{dataset}", gateway.prefix()),
            gateway,
            dataset,
            node: node.to_owned(),
            rules: Arbiter::kept_by(refresh, "etcd"),
            first: 0,
            token: None,
            seen: None,
        }
    }

    /// The register, from the first endpoint that has it. That one is the first from then on. Whatever goes wrong, nothing was asked for.
    fn range(&mut self, until: Instant) -> Result<Found, ArbiterError> {
        let count = self.gateway.endpoints.len();
        let (mut reasons, mut refused) = (Vec::new(), None);
        for turn in 0..count {
            let at = (self.first + turn) % count;
            let share = u32::try_from(count - turn).unwrap_or(u32::MAX);
            let until = Instant::now() + until.saturating_duration_since(Instant::now()) / share;
            match self.range_at(at, until) {
                Ok(found) => {
                    self.first = at;
                    return Ok(found);
                }
                Err(error @ ArbiterError::Refused { .. }) => refused = Some(error),
                Err(ArbiterError::NotSent(why) | ArbiterError::Unknown(why)) => reasons.push(why),
            }
        }
        Err(refused.unwrap_or_else(|| ArbiterError::NotSent(format!("etcd: {}", reasons.join("; ")))))
    }

    fn range_at(&mut self, at: usize, until: Instant) -> Result<Found, ArbiterError> {
        let endpoint = self.gateway.endpoints[at].clone();
        let body =
            self.post(&endpoint, RANGE, &language::range(&self.key), until).map_err(
                |failure| match failure {
                    Failure::NotSent(why) | Failure::Unknown(why) => ArbiterError::NotSent(why),
                    Failure::Refused { text, .. } => refusal(text),
                },
            )?;
        language::read_range(&body, &self.key, &self.dataset).map_err(|unreadable| match unreadable {
            Unreadable::Answer(why) => ArbiterError::NotSent(format!("{endpoint}: this is not what etcd says: {why}")),
            Unreadable::Register(why) => ArbiterError::Refused {
                code: "damaged".into(),
                text: format!(
                    "etcd has at the key {:?} what is no register of this dataset: {why}. Look who writes there. `etcdctl del {}`, then say \
                     `mirrorbus seed NAME` at the node that serves dataset {}, or, if none does, at the one that is to",
                    self.key, self.key, self.dataset
                ),
            },
        })
    }

    /// Writes the register if it is as it was found; whether it was.
    fn txn(&mut self, found: &Found, entry: &Entry, until: Instant) -> Result<bool, ArbiterError> {
        let at = self.first;
        let endpoint = self.gateway.endpoints[at].clone();
        let txn = language::txn(&self.key, &self.dataset, entry, found.revision);
        let failure = match self.post(&endpoint, TXN, &txn, until) {
            Ok(body) => match language::read_txn(&body) {
                Ok((header, written)) => {
                    self.see(header);
                    return Ok(written);
                }
                Err(why) => Failure::Unknown(format!("{endpoint}: this is not what etcd says: {why}")),
            },
            Err(failure) => failure,
        };
        // The next question goes elsewhere first.
        self.first = (at + 1) % self.gateway.endpoints.len();
        Err(match failure {
            Failure::NotSent(why) => ArbiterError::NotSent(format!("etcd: {why}")),
            Failure::Unknown(why) => ArbiterError::Unknown(format!("etcd: {why}")),
            Failure::Refused { text, .. } => refusal(text),
        })
    }

    /// Asks as the user, if there is one. A token that is not valid any more is had again, once: nothing was done with that.
    fn post(
        &mut self,
        endpoint: &str,
        path: &str,
        question: &serde_json::Value,
        until: Instant,
    ) -> Result<Vec<u8>, Failure> {
        if self.token.is_none() {
            self.token = self.log_in(endpoint, until)?;
        }
        let asked = self.ask_once(endpoint, path, question, until);
        match &asked {
            Err(Failure::Refused { code, text })
                if self.gateway.login.is_some()
                    && (*code == UNAUTHENTICATED || *code == INVALID && text.contains(OLD_TOKEN)) =>
            {
                self.token = self.log_in(endpoint, until)?;
                self.ask_once(endpoint, path, question, until)
            }
            _ => asked,
        }
    }

    fn ask_once(
        &self,
        endpoint: &str,
        path: &str,
        question: &serde_json::Value,
        until: Instant,
    ) -> Result<Vec<u8>, Failure> {
        let token = self.token.as_ref().map(|token| token.0.as_str());
        self.gateway.post(endpoint, path, question, token, until)
    }

    /// A token, where this node has a name and etcd asks for one. Whatever goes wrong, nothing was asked for.
    fn log_in(&self, endpoint: &str, until: Instant) -> Result<Option<Token>, Failure> {
        let Some(login) = &self.gateway.login else { return Ok(None) };
        let question = language::authenticate(&login.user, &login.password);
        match self.gateway.post(endpoint, AUTHENTICATE, &question, None, until) {
            Ok(body) => match language::read_token(&body) {
                Ok(token) => Ok(Some(Token(token))),
                Err(why) => Err(Failure::NotSent(format!("{endpoint}: no token: {why}"))),
            },
            // Whoever turned users off lets everybody in.
            Err(Failure::Refused { code: NOT_IN_THIS_STATE, .. }) => Ok(None),
            Err(Failure::Unknown(why)) => Err(Failure::NotSent(format!("{why} (asked for a token)"))),
            Err(failure) => Err(failure),
        }
    }

    /// Takes note of an etcd that was asked, and for how long it is this one.
    fn see(&mut self, header: Header) -> Duration {
        let since = match &self.seen {
            Some(Seen { header: last, since })
                if last.cluster_id == header.cluster_id
                    && last.raft_term == header.raft_term
                    && last.revision <= header.revision =>
            {
                *since
            }
            Some(_) | None => Instant::now(),
        };
        self.seen = Some(Seen { header, since });
        since.elapsed()
    }
}

impl ArbiterClient for Client {
    fn ask(&mut self, asked: Asked, within: Duration) -> Result<Told, ArbiterError> {
        let until = Instant::now() + within;
        let question = Question { dataset: self.dataset.clone(), node: self.node.clone(), asked };
        for race in 0..RACES_MAX {
            let found = self.range(until).map_err(|error| if race == 0 { error } else { unknown(error) })?;
            let age = self.see(found.header);
            let decision = self.rules.decide(found.entry.as_ref(), 0, &question, age);
            let Some(entry) = decision.write else { return Ok(decision.told) };
            match (self.txn(&found, &entry, until), decision.told) {
                (Ok(true), told) => return Ok(told),
                // Somebody else was quicker.
                (Ok(false), _) => {}
                // The lock is not there for certain. This node was refused all the same, and will see the same next time.
                (Err(error), told @ Told::Refused { .. }) => {
                    log::warn!("dataset {}: it is not locked in etcd: {error}", self.dataset);
                    return Ok(told);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Err(ArbiterError::Unknown(format!(
            "etcd: others have written the register {RACES_MAX} times meanwhile"
        )))
    }
}

/// A write that found another revision was sent: something on the way that sends what it was given twice may have had it taken.
fn unknown(error: ArbiterError) -> ArbiterError {
    ArbiterError::Unknown(error.to_string())
}

/// etcd does not let this node.
fn refusal(text: String) -> ArbiterError {
    let way_out = "the log of etcd says more; `user` and `password` of [dataset.etcd] are for an etcd with users, whose role must have \
                   read and write at the prefix";
    ArbiterError::Refused { code: "etcd".into(), text: format!("{text}: {way_out}") }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
