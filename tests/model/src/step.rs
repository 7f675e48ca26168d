//! The steps, whom each needs, and which are faults.

use crate::config::Name;
use crate::model::{Failover, Rule};
use crate::state::{Mode, Request, Role, State, Word};

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is a function of a state, where it is told")]
pub enum Step {
    Write(Name),
    Place(Name),
    Commit(Name),
    Destage(Name),
    Lose(Name),
    Reconnect(Name),
    Invite(Name),
    InviteUnheard(Name),
    SetIn(Name),
    Join(Name),
    Note(Name),
    NoteLate(Name),
    HearNote(Name),
    Leave(Name),
    BeAlone(Name),
    StepDown(Name),
    Grant(Name),
    Look(Name),
    GoOn(Name),
    GoFirst(Name),
    GoFirstUnheard(Name),
    Race(Name),
    RaceUnsent(Name),
    Again(Name),
    Serve(Name),
    Decide(Name),
    DecideLate(Name),
    DecideForDead(Name, Request),
    Hear(Name),
    TimeOut(Name),
    Crash(Name),
    Elect(Name),
    ElectUnheard(Name),
    EndElection(Name),
    EndElectionLate(Name),
    HearFreed(Name),
    GoAlone(Name),
    GoOnElected(Name),
    Confirm(Name),
    InviteLate(Name),
    GoFirstLate(Name),
    FollowLate(Name),
}

/// Writes that are told apart.
const WRITES_MAX: u8 = 4;

/// Both nodes, among those whom a step needs.
const BOTH: u8 = 3;

/// The mediator, among those whom a step needs.
pub const MEDIATOR: u8 = 4;

impl Step {
    /// Those that may be possible; each of the others is not.
    pub(crate) fn candidates(state: &State) -> impl Iterator<Item = Self> {
        let of_nodes = Name::ALL.into_iter().flat_map(|name| {
            let role = if state[name].mode().is_some() { SERVING } else { WAITING };
            role.iter().chain(ANY).map(move |kind| kind(name))
        });
        let late = Name::ALL.into_iter().filter(|name| state[*name].late != 0).flat_map(|name| {
            let requests = [Request::Join].into_iter().chain((0..=WRITES_MAX).map(Request::Alone));
            requests.map(move |request| Self::DecideForDead(name, request))
        });
        of_nodes.chain(late)
    }

    /// Of whom.
    #[must_use]
    pub const fn name(self) -> Name {
        match self {
            Self::Write(name) | Self::Place(name) | Self::Commit(name) | Self::Destage(name) => name,
            Self::Lose(name) | Self::Reconnect(name) | Self::Invite(name) | Self::InviteUnheard(name) => name,
            Self::SetIn(name) | Self::Join(name) | Self::Note(name) | Self::NoteLate(name) => name,
            Self::HearNote(name) | Self::Leave(name) | Self::BeAlone(name) | Self::StepDown(name) => name,
            Self::Grant(name) | Self::Look(name) | Self::GoOn(name) | Self::GoFirst(name) => name,
            Self::GoFirstUnheard(name) | Self::Race(name) | Self::RaceUnsent(name) | Self::Again(name) => {
                name
            }
            Self::Serve(name) | Self::Decide(name) | Self::DecideLate(name) => name,
            Self::Elect(name) | Self::ElectUnheard(name) | Self::EndElection(name) => name,
            Self::EndElectionLate(name) | Self::HearFreed(name) | Self::GoAlone(name) => name,
            Self::GoOnElected(name) | Self::Confirm(name) => name,
            Self::InviteLate(name) | Self::GoFirstLate(name) | Self::FollowLate(name) => name,
            Self::DecideForDead(name, _) | Self::Hear(name) | Self::TimeOut(name) | Self::Crash(name) => name,
        }
    }

    /// Whom it needs, as a set: [`Name`] by its bit, and [`MEDIATOR`].
    #[must_use]
    pub fn needs(self, model: &Failover) -> u8 {
        let name = self.name().bit();
        match self {
            Self::Place(_)
            | Self::Commit(_)
            | Self::Reconnect(_)
            | Self::Invite(_)
            | Self::InviteUnheard(_) => BOTH,
            Self::SetIn(_) | Self::Note(_) | Self::Grant(_) | Self::GoFirst(_) | Self::GoFirstUnheard(_) => {
                BOTH
            }
            Self::Elect(_) | Self::ElectUnheard(_) | Self::EndElection(_) => BOTH,
            Self::DecideLate(_) | Self::DecideForDead(..) => MEDIATOR,
            Self::RaceUnsent(_) if model.lacks(Rule::LookFirst) => name,
            Self::Look(_) | Self::Race(_) | Self::RaceUnsent(_) | Self::Decide(_) | Self::Hear(_) => {
                name | MEDIATOR
            }
            _ => name,
        }
    }

    /// Whether a message is lost or late, or a node crashes.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        let is_unheard = matches!(self, Self::InviteUnheard(_) | Self::NoteLate(_) | Self::GoFirstUnheard(_));
        let is_of_election = matches!(
            self,
            Self::ElectUnheard(_) | Self::EndElectionLate(_) | Self::InviteLate(_) | Self::GoFirstLate(_)
        );
        is_unheard
            || is_of_election
            || matches!(self, Self::RaceUnsent(_) | Self::TimeOut(_) | Self::Crash(_))
    }

    /// Whether a node takes the other for lost that is there, and linked.
    #[must_use]
    pub fn is_false_alarm(self, state: &State) -> bool {
        match self {
            Self::Lose(name) => state.is_attached(name.other()),
            Self::Race(name) => state.is_attached(name),
            Self::Leave(name) => state[name].role == Role::Serves(Mode::SettingIn),
            _ => false,
        }
    }

    /// What is so then; nothing where it cannot happen, or changes nothing.
    pub(crate) fn apply(self, before: &State, model: &Failover) -> Option<State> {
        let mut state = *before;
        let happens = match self {
            Self::Write(name) => state.write(name, model),
            Self::Place(name) => state.place(name),
            Self::Commit(name) => state.commit(name, model),
            Self::Destage(name) => state.destage(name),
            Self::Lose(name) => state.lose(name),
            Self::Reconnect(name) => state.reconnect(name),
            Self::Invite(name) => state.invite(name, Word::Heard, model),
            Self::InviteUnheard(name) => state.invite(name, Word::Unheard, model),
            Self::SetIn(name) => state.set_in(name),
            Self::Join(name) => state.join(name, model),
            Self::Note(name) => state.note(name, true, model),
            Self::NoteLate(name) => state.note(name, false, model),
            Self::HearNote(name) => state.hear_note(name, model),
            Self::Leave(name) => state.leave(name, model),
            Self::BeAlone(name) => state.be_alone(name),
            Self::StepDown(name) => state.step_down(name),
            Self::Grant(name) => state.grant(name),
            Self::Look(name) => state.look(name, model),
            Self::GoOn(name) => state.go_on(name, model),
            Self::GoFirst(name) => state.go_first(name, Word::Heard, model),
            Self::GoFirstUnheard(name) => state.go_first(name, Word::Unheard, model),
            Self::Race(name) => state.race(name, true, model),
            Self::RaceUnsent(name) => state.race(name, false, model),
            Self::Again(name) => state.again(name),
            Self::Serve(name) => state.serve(name, model),
            Self::Decide(name) => state.decide(name, model),
            Self::DecideLate(name) => state.decide_late(name),
            Self::DecideForDead(name, request) => state.decide_for_dead(name, request),
            Self::Hear(name) => state.hear(name),
            Self::TimeOut(name) => state.time_out(name),
            Self::Crash(name) => state.crash(name, model),
            Self::Elect(name) => state.elect(name, true, model),
            Self::ElectUnheard(name) => state.elect(name, false, model),
            Self::EndElection(name) => state.end_election(name, true, model),
            Self::EndElectionLate(name) => state.end_election(name, false, model),
            Self::HearFreed(name) => state.hear_freed(name),
            Self::GoAlone(name) => state.go_alone(name, model),
            Self::GoOnElected(name) => state.go_on_elected(name, model),
            Self::Confirm(name) => state.confirm(name),
            Self::InviteLate(name) => model.late_words && state.invite(name, Word::Late, model),
            Self::GoFirstLate(name) => model.late_words && state.go_first(name, Word::Late, model),
            Self::FollowLate(name) => state.follow_late(name, model),
        };
        if !happens {
            return None;
        }
        state.tidy(model);
        (state != *before).then_some(state)
    }
}

/// What only a node does that serves.
const SERVING: &[fn(Name) -> Step] = &[
    Step::Write,
    Step::Place,
    Step::Commit,
    Step::Lose,
    Step::Reconnect,
    Step::Invite,
    Step::InviteUnheard,
    Step::SetIn,
    Step::Join,
    Step::Note,
    Step::NoteLate,
    Step::Leave,
    Step::BeAlone,
    Step::StepDown,
    Step::Elect,
    Step::ElectUnheard,
    Step::EndElection,
    Step::EndElectionLate,
    Step::GoAlone,
    Step::Confirm,
    Step::InviteLate,
];

/// What only one does that does not.
const WAITING: &[fn(Name) -> Step] = &[
    Step::Grant,
    Step::GoOn,
    Step::GoFirst,
    Step::GoFirstUnheard,
    Step::Race,
    Step::RaceUnsent,
    Step::Serve,
    Step::GoOnElected,
    Step::GoFirstLate,
    Step::FollowLate,
];

/// What both do.
const ANY: &[fn(Name) -> Step] = &[
    Step::Destage,
    Step::HearNote,
    Step::Look,
    Step::Again,
    Step::Decide,
    Step::DecideLate,
    Step::Hear,
    Step::TimeOut,
    Step::Crash,
    Step::HearFreed,
];
