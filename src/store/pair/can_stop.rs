//! Whether this node may end now: whether the other one would go on without it. Asked, never promised: nothing is changed by the question.
//!
//! ```text
//!  primary    its peer is a member ─▶ "would you go on without me?" ─▶ a member, and the mediator answers it
//!  secondary                       ─▶ the same ─▶ it serves, and needs this node no more, or the mediator answers it
//! ```

use super::hello::{Answer, Question};
use super::obey::refused;
use super::{ANSWER_TIME, Pair};
use crate::store::follower::Stage;
use crate::store::primary::{HandOver, Mode};
use crate::store::resync::ResyncStatus;
use crate::store::ring_memory::Trouble;
use crate::store::state::{Role, State};

/// Whether a node may be stopped, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanStop {
    /// The volumes lose neither service nor data by it, as far as is known now.
    pub is_safe: bool,
    /// Why, for machines.
    pub code: String,
    /// And for people.
    pub text: String,
    /// How far a resync is, while there is one.
    pub resync: Option<ResyncStatus>,
}

/// Why something may not be: a word for machines, and a sentence.
pub(super) type Doubt = (&'static str, String);

/// What the end of this node would take away.
enum Part {
    Service,
    Copy { is_filled: bool },
    Nothing,
}

impl Pair {
    /// Whether this node may be stopped now. Asks the peer, which asks the mediator; within two seconds.
    pub(in crate::store) fn can_stop(&self) -> CanStop {
        let (part, resync) = {
            let mut state = self.engine.shared.lock();
            (part(&mut state), resync(&mut state))
        };
        let (code, text) = match self.judge_stop(part) {
            Ok(text) => return CanStop { is_safe: true, code: "may-stop".into(), text, resync },
            Err((code, text)) => (code, text),
        };
        let text = match resync {
            Some(resync) => format!("{text}; {}", far(&resync)),
            None => text,
        };
        CanStop { is_safe: false, code, text, resync }
    }

    fn judge_stop(&self, part: Result<Part, Doubt>) -> Result<String, (String, String)> {
        let part = part.map_err(|(code, text)| (code.to_owned(), text))?;
        let question = Question::GoOn { from: self.hello() };
        match self.ask(&question, ANSWER_TIME) {
            Ok(Answer::Noted) => Ok(match part {
                Part::Service => "the peer has every acknowledged write, and takes over when this node ends",
                Part::Copy { is_filled: false } => "the peer serves, and goes on alone when this node ends",
                Part::Copy { is_filled: true } => {
                    "the peer serves without this node, which it brings up to date: that takes longer then"
                }
                Part::Nothing => "the peer serves without this node",
            }
            .into()),
            Ok(Answer::Refused { code, text }) => {
                Err((code, format!("the peer would not go on without this node: {text}")))
            }
            Ok(Answer::Hello(_) | Answer::Following { .. } | Answer::Granted | Answer::Resync(_)) => {
                Err(("peer-unclear".into(), "the peer answers something else".into()))
            }
            Err(reason) => Err((reason.code.into(), reason.text)),
        }
    }

    /// The other one asks whether this node would go on without it.
    pub(super) fn answer_go_on(&self) -> Answer {
        match self.would_go_on() {
            Ok(()) => Answer::Noted,
            Err((code, text)) => refused(code, text),
        }
    }

    /// Why this node would not serve, or not go on to, if the other one ended now.
    pub(super) fn would_go_on(&self) -> Result<(), Doubt> {
        if self.is_ending() {
            return Err(("stopping", "it is about to end itself".into()));
        }
        let is_member = self.is_member();
        let goes_on_anyway = alone_or_ready(&mut self.engine.shared.lock(), is_member)?;
        if goes_on_anyway { Ok(()) } else { self.would_decide() }
    }

    /// Why the configuration would not be changed by this node now.
    pub(super) fn would_decide(&self) -> Result<(), Doubt> {
        let node = &self.engine.config.node;
        let Some(arbiter) = &self.arbiter else {
            let text = "there is no mediator, so nobody goes on before the operator says `mirrorbus alone` or `mirrorbus promote`";
            return Err(("needs-operator", text.into()));
        };
        if arbiter.is_undetermined() {
            let text = format!("{node} does not know yet what became of its last request to the mediator");
            return Err(("undetermined", text));
        }
        let known = self.configuration().map_or(0, |known| known.id);
        match arbiter.read(known) {
            Ok(Some(found)) if found.id == known => Ok(()),
            Ok(_) => {
                let text = format!("the mediator has another configuration than {node} knows, {known}");
                Err(("configuration-differs", text))
            }
            Err(error) => Err(("no-mediator", format!("{node} asks the mediator in vain: {error}"))),
        }
    }
}

/// What the end of this node would take away, unless that is more than there may be.
fn part(state: &mut State) -> Result<Part, Doubt> {
    match &state.role {
        Role::Undecided | Role::Failed { .. } => Ok(Part::Nothing),
        Role::Secondary(secondary) => Ok(Part::Copy { is_filled: secondary.resync.is_some() }),
        Role::Primary(primary) if primary.hand_over != HandOver::No => {
            Err(("switching", "this node hands the service over just now".into()))
        }
        Role::Primary(primary) => match &primary.mode {
            Mode::Mirrored => Ok(Part::Service),
            Mode::CatchingUp { .. } if primary.resync.is_some() => {
                Err(("resyncing", "this node serves alone: the peer is being brought up to date".into()))
            }
            Mode::CatchingUp { .. } | Mode::SettingIn => {
                Err(("catching-up", "this node serves alone: the peer follows, and is not set in yet".into()))
            }
            Mode::Alone => Err(("alone", format!("this node serves alone: {}", state.reason.text))),
            Mode::Held { why } => {
                Err(("held", format!("the peer is lost ({why}), and nothing is decided yet")))
            }
        },
    }
}

fn resync(state: &mut State) -> Option<ResyncStatus> {
    match &mut state.role {
        Role::Primary(primary) => primary.resync.as_mut().map(|source| source.status()),
        Role::Secondary(secondary) => secondary.resync.as_mut().map(|staging| staging.status()),
        Role::Undecided | Role::Failed { .. } => None,
    }
}

/// Whether a node goes on whatever the mediator says; an error where it does not in any case.
fn alone_or_ready(state: &mut State, is_member: bool) -> Result<bool, Doubt> {
    let resync = resync(state);
    match &state.role {
        Role::Primary(primary) if primary.hand_over != HandOver::No => {
            Err(("switching", "it hands the service over just now".into()))
        }
        Role::Primary(primary) => match &primary.mode {
            Mode::Alone | Mode::CatchingUp { .. } => Ok(true),
            Mode::Mirrored => Ok(false),
            Mode::SettingIn => Err(("setting-in", "it is about to set the other node in".into())),
            Mode::Held { why } => Err(("held", format!("it holds its requests ({why})"))),
        },
        Role::Secondary(secondary) => {
            if let Some(resync) = resync {
                return Err(("resyncing", format!("it is being brought up to date: {}", far(&resync))));
            }
            if !is_member || !matches!(secondary.stage, Stage::Following(_)) {
                return Err(("not-member", "it does not have every acknowledged write".into()));
            }
            if secondary.trouble != Trouble::None {
                return Err(("no-space", "its disk is full, or failed".into()));
            }
            Ok(false)
        }
        Role::Undecided => Err(("undecided", format!("it does not serve: {}", state.reason.text))),
        Role::Failed { why } => Err(("failed", format!("it is out of service: {why}"))),
    }
}

/// How far a resync is, in words.
fn far(resync: &ResyncStatus) -> String {
    let (whole, hundredths) = (resync.hundredths / 100, resync.hundredths % 100);
    let left = crate::base::format_bytes(resync.left_bytes);
    let rest = resync.seconds_left.map_or(String::new(), |seconds| format!(", about {seconds} s"));
    format!("{whole}.{hundredths:02} % are in sync, {left} are left{rest}")
}
