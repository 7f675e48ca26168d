//! What the two nodes of a pair say to each other, besides the log: one question, one answer, as JSON over the control connection.

use serde::{Deserialize, Serialize};

use crate::base::Lsn;
use crate::cluster::is_only_member;
use crate::store::register::{Configuration, Fork, Position};
use crate::store::resync::{Ask, Reply};

/// The number of this language.
pub(super) const VERSION: u32 = 1;

/// What a node is for the dataset, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RoleWord {
    Undecided,
    /// Told to follow; whether a primary is attached just now.
    Secondary {
        attached: bool,
    },
    Primary,
    Failed,
}

/// Who a node is, and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) dataset: String,
    pub(super) node: String,
    pub(super) role: RoleWord,
    pub(super) position: Position,
    /// How its generation began, as far as it knows: two of one number need not be one.
    pub(super) begun: Option<Fork>,
    pub(super) configuration: Option<Configuration>,
    pub(super) segment_bytes: u64,
    pub(super) device_block_bytes: u64,
    pub(super) places: u64,
    pub(super) window_bytes: u64,
    /// Whether an arbiter decides who serves.
    #[serde(default)]
    pub(super) is_mediated: bool,
    /// If that is etcd, what the keys of its registers begin with.
    #[serde(default)]
    pub(super) etcd_prefix: Option<String>,
    /// The node that goes on when each could.
    #[serde(default)]
    pub(super) preferred: Option<String>,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Who are you? This is who asks.
    Hello(Hello),
    /// Follow the log of whoever asks: it serves, under this configuration, and its log and yours are the same to `fork`. What you have
    /// behind that is void. The history is that of its log, as far as it is told.
    Follow { from: Hello, configuration: Configuration, fork: u64, history: Vec<Fork> },
    /// The configuration is this now.
    Note { from: Hello, configuration: Configuration },
    /// The ring does not reach back to what you have: keep that until you have been given the rest, in the session of this number.
    BeResynced { from: Hello, session: u64 },
    /// May whoever asks answer its clients for the length of a lease, since you serve nothing meanwhile?
    /// The turn ends when whoever asks gives up its lease to hand the service over.
    Lease {
        node: String,
        #[serde(default)]
        turn: u64,
    },
    /// Whoever asks is alive, serves, and needs no lease in this turn.
    Alive { node: String, turn: u64 },
    /// Take over, from whoever asks and serves under the configuration of this id: it answers nothing any more, and has given up what was granted in
    /// turns before this one. Without a turn: make yourself ready for that.
    TakeOver { from: Hello, id: u64, turn: Option<u64> },
    /// The mediator is lost, and the configuration is this. Do not take over under it, whatever happens, so that whoever asks may go on alone.
    Renounce { from: Hello, configuration: Configuration },
    /// Would you go on, if whoever asks ended now?
    GoOn { from: Hello },
    /// Of a node that is being resynced: how much there was to do, how much is left, and what it wants next.
    Resync { session: u64, total: u64, left: u64, ask: Ask },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Hello(Box<Hello>),
    /// It follows, and has the log to there.
    Following {
        end: u64,
    },
    Noted,
    /// It may.
    Granted,
    /// To a node that is being resynced.
    Resync(Reply),
    /// It does not, and why: a word for machines, and a sentence.
    Refused {
        code: String,
        text: String,
    },
}

impl Hello {
    /// Whether `other` is the other node of this pair: why not.
    pub(super) fn refuse(&self, other: &Self) -> Option<(&'static str, String)> {
        let differs = |what: &str, ours: &dyn std::fmt::Display, theirs: &dyn std::fmt::Display| {
            Some(("configuration-differs", format!("{what}: {ours} here, {theirs} at {}", other.node)))
        };
        if other.version != self.version {
            return differs("version of the pair's language", &self.version, &other.version);
        }
        if other.dataset != self.dataset {
            let text = format!(
                "this is dataset {}, the peer has {}: one of the two addresses is wrong",
                self.dataset, other.dataset
            );
            return Some(("wrong-dataset", text));
        }
        if other.node == self.node {
            let text = format!("both nodes are named {:?}: give one another name", self.node);
            return Some(("same-node", text));
        }
        if other.segment_bytes != self.segment_bytes {
            return differs("bytes of a segment", &self.segment_bytes, &other.segment_bytes);
        }
        if other.device_block_bytes != self.device_block_bytes {
            return differs("bytes of a device block", &self.device_block_bytes, &other.device_block_bytes);
        }
        if other.places != self.places {
            return differs("segments in the ring", &self.places, &other.places);
        }
        if other.window_bytes != self.window_bytes {
            return differs("bytes of the window of a resync", &self.window_bytes, &other.window_bytes);
        }
        if (other.is_mediated, &other.etcd_prefix) != (self.is_mediated, &self.etcd_prefix) {
            let arbiter = |hello: &Self| match &hello.etcd_prefix {
                Some(prefix) => format!("etcd, at {prefix}"),
                None if hello.is_mediated => "a mediator".into(),
                None => "the operator".into(),
            };
            return differs("who decides which serves", &arbiter(self), &arbiter(other));
        }
        if other.preferred != self.preferred {
            let name = |hello: &Self| hello.preferred.clone().unwrap_or_else(|| "none".into());
            return differs("the preferred node", &name(self), &name(other));
        }
        None
    }

    /// Whether this node is the one to serve, of two that do not: with a mediator the only member of the last configuration, if one is; the one
    /// with more; of equals the one that served last; then the one whose name comes first. Both nodes come to the same.
    pub(super) fn goes_first(&self, other: &Self) -> bool {
        if let Some(is_first) = self.is_only_member(other) {
            return is_first;
        }
        let had = |hello: &Self| (hello.position.generation, hello.position.end);
        if had(self) != had(other) {
            return had(self) > had(other);
        }
        let newest = [self, other].into_iter().filter_map(|hello| hello.configuration.as_ref());
        match newest.max_by_key(|configuration| configuration.id) {
            Some(last) if last.primary == self.node => true,
            Some(last) if last.primary == other.node => false,
            _ => self.node < other.node,
        }
    }

    /// Whether this node is the only member, and has what it acknowledged when it came to be.
    pub(super) fn goes_by_floor(&self, other: &Self) -> bool {
        self.is_only_member(other) == Some(true) && self.lacks_floor(other).is_none()
    }

    /// To where this node had the log when it came to be the only member, if it has less now.
    pub(super) fn lacks_floor(&self, other: &Self) -> Option<Lsn> {
        let floor = self.last(other).filter(|_| self.is_only_member(other) == Some(true))?.floor;
        (self.position.end < floor).then_some(Lsn(floor))
    }

    /// Whether the later of the two configurations lets one of the two nodes alone go on: whether this one. `None` where both may, or the operator
    /// decides.
    pub(super) fn is_only_member(&self, other: &Self) -> Option<bool> {
        is_only_member(self.last(other)?, &self.node, &other.node).filter(|_| self.is_mediated)
    }

    /// The later of the two configurations that they know. Of one id are what the mediator holds, and what a node was told that agreed to follow: it
    /// does not go first any more.
    fn last<'a>(&'a self, other: &'a Self) -> Option<&'a Configuration> {
        let known = [self, other].into_iter().filter_map(|hello| hello.configuration.as_ref());
        known.max_by_key(|known| (known.id, std::cmp::Reverse(known.members.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: &str, generation: u64, end: u64) -> Hello {
        Hello {
            version: VERSION,
            dataset: "d".into(),
            node: node.into(),
            role: RoleWord::Undecided,
            position: Position { generation, end, highest: end },
            begun: None,
            configuration: None,
            segment_bytes: 1,
            device_block_bytes: 2,
            places: 3,
            window_bytes: 4,
            is_mediated: false,
            etcd_prefix: None,
            preferred: None,
        }
    }

    fn configuration(id: u64, primary: &str) -> Option<Configuration> {
        Some(Configuration { id, members: Vec::new(), primary: primary.into(), floor: 0 })
    }

    #[test]
    fn exactly_one_goes_first() {
        let mut nodes = Vec::new();
        for node in ["a", "b"] {
            for (generation, end) in [(0, 0), (1, 10), (1, 20), (2, 5)] {
                for last in [None, configuration(3, "a"), configuration(4, "b"), configuration(5, "c")] {
                    nodes.push(Hello { configuration: last, ..hello(node, generation, end) });
                }
            }
        }
        for a in nodes.iter().filter(|hello| hello.node == "a") {
            for b in nodes.iter().filter(|hello| hello.node == "b") {
                assert_ne!(a.goes_first(b), b.goes_first(a), "{a:?} {b:?}");
            }
        }
        assert!(hello("b", 1, 20).goes_first(&hello("a", 1, 10)));
        assert!(hello("b", 2, 5).goes_first(&hello("a", 1, 10)), "a later generation has what counts");
    }

    #[test]
    fn with_a_mediator_the_only_member_goes_first() {
        let members = |id, members: &[&str]| {
            let members = members.iter().map(ToString::to_string).collect();
            Some(Configuration { id, members, primary: "a".into(), floor: 0 })
        };
        let mut nodes = Vec::new();
        for node in ["a", "b"] {
            for (generation, end) in [(1, 10), (1, 20)] {
                for known in [None, members(3, &["a", "b"]), members(3, &["a"]), members(4, &["b"])] {
                    let node = hello(node, generation, end);
                    nodes.push(Hello { configuration: known, is_mediated: true, ..node });
                }
            }
        }
        for a in nodes.iter().filter(|hello| hello.node == "a") {
            for b in nodes.iter().filter(|hello| hello.node == "b") {
                assert_ne!(a.goes_first(b), b.goes_first(a), "{a:?} {b:?}");
                let is_at =
                    |hello: &Hello, id| hello.configuration.as_ref().is_some_and(|known| known.id == id);
                if is_at(a, 4) || is_at(b, 4) {
                    assert!(b.goes_first(a), "what a has beyond was never acknowledged: {a:?} {b:?}");
                }
            }
        }
        let (a, b) = (hello("a", 1, 1), Hello { is_mediated: true, ..hello("b", 1, 1) });
        assert_eq!(a.refuse(&b).map(|(code, _)| code), Some("configuration-differs"));
        let c = Hello { is_mediated: true, preferred: Some("b".into()), ..hello("c", 1, 1) };
        assert_eq!(b.refuse(&c).map(|(code, _)| code), Some("configuration-differs"));
        let by_etcd = |node: &str, prefix: &str| Hello {
            is_mediated: true,
            etcd_prefix: Some(prefix.into()),
            ..hello(node, 1, 1)
        };
        let (d, e) = (by_etcd("d", "/one/"), by_etcd("e", "/two/"));
        let told = |one: &Hello, other: &Hello| one.refuse(other).map(|(_, text)| text);
        assert_eq!(told(&b, &d).unwrap(), "who decides which serves: a mediator here, etcd, at /one/ at d");
        assert_eq!(
            told(&d, &e).unwrap(),
            "who decides which serves: etcd, at /one/ here, etcd, at /two/ at e"
        );
        assert_eq!(told(&d, &by_etcd("f", "/one/")), None);
    }

    #[test]
    fn strangers_are_told_what_differs() {
        let ours = hello("a", 0, 0);
        assert_eq!(ours.refuse(&hello("b", 7, 7)), None);
        let code = |other: Hello| ours.refuse(&other).map(|(code, _)| code);
        assert_eq!(code(hello("a", 0, 0)), Some("same-node"));
        assert_eq!(code(Hello { dataset: "e".into(), ..hello("b", 0, 0) }), Some("wrong-dataset"));
        assert_eq!(code(Hello { places: 4, ..hello("b", 0, 0) }), Some("configuration-differs"));
    }
}
