//! What must be so at every moment, whoever is told anything: both nodes and the mediator are looked at at once, as nobody in the world can.
//!
//! | When | What |
//! |---|---|
//! | an answer leaves | no other node serves by itself; whoever may serve next has all that the answer depends on, or the own disk has it |
//! | the mediator takes a change | whom it names has all that was answered: the only one on its disk, the second of two in its memory |
//! | a block is read | it is what its record says, since no disk damages any |
//! | at each step | at most one serves by itself; who serves has its memory for itself; no position of the log is used twice; a member has all that was answered |

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::trace::{fail, tell};
use crate::base::Lsn;
use crate::cluster::{Asked, Configuration, Question, Told, decode};
use crate::sim::scheduler::ProcessId;
use crate::store::dataset::Dataset;
use crate::store::io::Mark;
use crate::store::pair::glance::{Follows, Glance, Serves, Stand};

pub(super) type Opened = Rc<RefCell<Option<Arc<Dataset>>>>;

#[derive(Default)]
struct Oracle {
    /// The process of each node, and what it opened.
    nodes: [Option<(ProcessId, Opened)>; 2],
    /// To where the log was answered for.
    answered: Lsn,
    /// What the mediator holds, as far as it is known.
    held: Option<Configuration>,
    /// It has forgotten something.
    is_void: bool,
    /// Positions that were given out, by generation.
    given: BTreeMap<u64, (Lsn, Lsn)>,
    /// Answers are confirmed by looks: whoever was looked at may have taken over since.
    confirms: bool,
}

thread_local! {
    static ORACLE: RefCell<Oracle> = RefCell::new(Oracle::default());
}

const NAMES: [&str; 2] = super::node::NAMES;

pub(super) fn begin(confirms: bool) {
    ORACLE.set(Oracle { confirms, ..Oracle::default() });
}

/// A process of a node begins, or ends.
pub(super) fn place(machine: usize, node: Option<(ProcessId, Opened)>) {
    ORACLE.with_borrow_mut(|oracle| oracle.nodes[machine] = node);
}

/// Both nodes lost what was on no disk.
pub(super) fn lose_memory() {
    ORACLE.with_borrow_mut(|oracle| oracle.answered = Lsn::ZERO);
}

/// What the mediator holds is not known: it ended, maybe while it wrote. `forgets`: nor does that count, until the operator says what does.
pub(super) fn lose_sight(forgets: bool) {
    ORACLE.with_borrow_mut(|oracle| {
        oracle.held = None;
        oracle.is_void |= forgets;
    });
}

/// How a node stands, if it can be seen.
fn glance(machine: usize) -> Option<Glance> {
    look_at(machine, true)
}

/// The same, and how far its memory goes only where somebody needs to know.
pub(super) fn look_at(machine: usize, closely: bool) -> Option<Glance> {
    let opened = ORACLE.with_borrow(|oracle| oracle.nodes[machine].clone().map(|(_, opened)| opened));
    let dataset = opened?.try_borrow().ok()?.clone()?;
    dataset.pair.glance(closely)
}

/// What the mediator holds.
pub(super) fn held() -> Option<Configuration> {
    ORACLE.with_borrow(|oracle| oracle.held.clone())
}

fn machine_of(process: ProcessId) -> Option<usize> {
    let is_of =
        |node: &Option<(ProcessId, Opened)>| node.as_ref().is_some_and(|(other, _)| *other == process);
    ORACLE.with_borrow(|oracle| oracle.nodes.iter().position(is_of))
}

/// A node is about to answer what depends on all before `mark`.
pub(super) fn answers(process: ProcessId, mark: Mark) {
    let mark = Lsn(mark.0);
    let Some(here) = machine_of(process) else { return };
    let Some(Glance { stand: Stand::Primary(serves), .. }) = glance(here) else { return };
    ORACLE.with_borrow_mut(|oracle| oracle.answered = oracle.answered.max(mark));
    let (there, held) = (glance(1 - here), held());
    // By another configuration than that which counts it does not take over.
    let counts = held.is_some() && there.as_ref().is_some_and(|there| there.configuration == held);
    match there.map(|there| there.stand) {
        Some(Stand::Primary(other)) => check_other(here, &serves, &other, mark),
        Some(Stand::Secondary(follows)) if follows.is_member && counts => check_member(here, &follows, mark),
        Some(_) => {
            let is_alone = held.is_some_and(|held| held.is_alone(NAMES[here]));
            if (is_alone || serves.is_by_itself()) && serves.durable < mark {
                fail(format!("{} answers for {mark} alone, and its disk lacks it: {serves:?}", NAMES[here]));
            }
        }
        None => {}
    }
}

/// The other one is a member.
fn check_member(here: usize, follows: &Follows, mark: Lsn) {
    if follows.is_resynced || follows.reach < mark {
        fail(format!("{} answers for {mark}, and its member lacks it: {follows:?}", NAMES[here]));
    }
}

/// The other one serves too.
fn check_other(here: usize, serves: &Serves, other: &Serves, mark: Lsn) {
    let confirms = ORACLE.with_borrow(|oracle| oracle.confirms);
    if other.is_by_itself() && !confirms {
        fail(format!("{} answers, and the other one serves by itself: {serves:?} {other:?}", NAMES[here]));
    }
    if other.generation > serves.generation && other.fork < mark {
        fail(format!("{} answers for {mark}, which the other one took over without: {other:?}", NAMES[here]));
    }
}

/// To where the log was answered for.
pub(super) fn answered() -> Lsn {
    ORACLE.with_borrow(|oracle| oracle.answered)
}

/// A node is about to answer a flush of all that was answered to `until`.
pub(super) fn flushes(process: ProcessId, until: Lsn) {
    let Some(here) = machine_of(process) else { return };
    let Some(Glance { stand: Stand::Primary(serves), .. }) = glance(here) else { return };
    let lacks = match glance(1 - here).map(|there| there.stand) {
        Some(Stand::Secondary(follows)) if !serves.is_by_itself() => {
            follows.is_whole && follows.durable < until
        }
        _ => false,
    };
    if serves.durable < until || lacks {
        fail(format!("{} answers a flush of {until}, and not each disk has it: {serves:?}", NAMES[here]));
    }
}

/// What the mediator answered to a question.
pub(super) fn told(question: &[u8], answer: &[u8]) {
    let (Ok(question), Ok(told)) = (decode::<Question>(question), decode::<Told>(answer)) else { return };
    let taken = match (question.asked, told) {
        (Asked::CompareAndSet(request), Told::Taken) => Some(request.next),
        (Asked::Seed(configuration), Told::Taken) => {
            ORACLE.with_borrow_mut(|oracle| oracle.is_void = false);
            Some(configuration)
        }
        (Asked::Read { .. } | Asked::CompareAndSet(_), Told::Holds(found)) => {
            return ORACLE.with_borrow_mut(|oracle| oracle.held = found.filter(|_| !oracle.is_void));
        }
        _ => None,
    };
    let Some(taken) = taken else { return };
    tell(|| format!("the mediator holds {taken:?}"));
    let answered = ORACLE.with_borrow_mut(|oracle| {
        oracle.held = Some(taken.clone());
        oracle.answered
    });
    check_named(&taken, answered);
}

/// Whom a configuration names has what was answered.
fn check_named(taken: &Configuration, answered: Lsn) {
    let Some(primary) = NAMES.iter().position(|name| *name == taken.primary) else { return };
    if taken.is_alone(&taken.primary) {
        let stand = glance(primary).map(|glance| glance.stand);
        // One that is by itself already names a floor from before.
        let takes_over = matches!(&stand, Some(Stand::Secondary(_)));
        let durable = match stand {
            Some(Stand::Primary(serves)) => serves.durable,
            Some(Stand::Secondary(Follows { durable, .. })) => durable,
            Some(Stand::Undecided { end }) => end,
            // What it asked for comes later than its end.
            Some(Stand::Failed) | None => return,
        };
        if durable < answered || takes_over && taken.floor < answered.0 {
            fail(format!(
                "{taken:?} is taken, whose only member has {durable} on its disk, and {answered} was answered for"
            ));
        }
    } else if let Some(Stand::Secondary(follows)) = glance(1 - primary).map(|glance| glance.stand)
        && follows.is_whole
        && follows.reach < answered
    {
        fail(format!("{taken:?} is taken, and the second member lacks some before {answered}: {follows:?}"));
    }
}

/// Reads of a node's that found damage which the other one mended.
fn damaged_reads(machine: usize) -> u64 {
    let opened = ORACLE.with_borrow(|oracle| oracle.nodes[machine].clone().map(|(_, opened)| opened));
    let dataset = opened.and_then(|opened| opened.try_borrow().ok().and_then(|dataset| dataset.clone()));
    dataset.map_or(0, |dataset| dataset.pair.engine.shared.counters.masked_reads.load(Ordering::Relaxed))
}

/// What must be so at any moment.
pub(super) fn look() {
    for (_, name) in NAMES.iter().enumerate().filter(|(machine, _)| damaged_reads(*machine) > 0) {
        fail(format!("{name} reads what is damaged, and no disk does any damage"));
    }
    let nodes = [0, 1].map(glance);
    let serves = |node: &Option<Glance>| match node {
        Some(Glance { stand: Stand::Primary(serves), .. }) => Some(serves.clone()),
        _ => None,
    };
    if let (Some(one), Some(other)) = (serves(&nodes[0]), serves(&nodes[1]))
        && one.is_by_itself()
        && other.is_by_itself()
    {
        fail(format!("both serve by themselves: {one:?} {other:?}"));
    }
    let answered = ORACLE.with_borrow(|oracle| oracle.answered);
    for (node, name) in nodes.iter().zip(NAMES) {
        match node {
            Some(Glance { stand: Stand::Primary(serves), is_attached, .. }) => {
                if *is_attached {
                    fail(format!("{name} serves while the other one may write its memory: {serves:?}"));
                }
                give_out(name, serves);
            }
            Some(Glance { stand: Stand::Secondary(follows), configuration, .. }) => {
                let counts = follows.is_member && *configuration == held();
                if counts && (follows.is_resynced || !follows.is_whole || follows.reach < answered) {
                    fail(format!("{name} is a member, and lacks some before {answered}: {follows:?}"));
                }
            }
            Some(_) | None => {}
        }
    }
}

/// No position is given out in two generations, if anything was acknowledged in the first of them: one that loses its power before may begin the next
/// at the same place, as no file tells of it, and whoever has some of the first goes back to where both begin.
fn give_out(name: &str, serves: &Serves) {
    let (base, end) = serves.segment;
    let overlaps = ORACLE.with_borrow_mut(|oracle| {
        let before = oracle.given.get(&serves.generation).copied();
        let (base, end) = before.map_or((base, end), |of| (of.0.min(base), of.1.max(end)));
        if before.is_some() || serves.committed > base {
            oracle.given.insert(serves.generation, (base, end));
        }
        oracle
            .given
            .iter()
            .find(|(generation, (other, other_end))| {
                **generation != serves.generation && *other < end && base < *other_end
            })
            .map(|(generation, _)| *generation)
    });
    if let Some(other) = overlaps {
        fail(format!("{name} uses positions of generation {other} again: {serves:?}"));
    }
}
