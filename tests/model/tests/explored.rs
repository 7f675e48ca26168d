//! With all rules nothing breaks, and service is reached from wherever it can be.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Instant;

use mirrorbus_model::{Ask, Failover, Graph, MEDIATOR, Mode, Name, Node, Role, Rule, State, Step};
use stateright::{Checker, HasDiscoveries, Model};

/// Whether this is to be the long version.
fn is_full() -> bool {
    std::env::var_os("MIRRORBUS_FULL").is_some_and(|value| value == "1")
}

/// Explores all states, and returns how many there are.
fn explore(model: Failover) -> usize {
    let start = Instant::now();
    let explored = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, depth) = (explored.unique_state_count(), explored.max_depth());
    let what = if model.elects { "electing, " } else { "" };
    let late = if model.late_words { "words late, " } else { "" };
    let (writes, crashes) = (model.bounds.writes, model.bounds.crashes);
    println!(
        "{what}{late}{writes} writes, {crashes} crashes: {states} states, {depth} steps deep, {:.1?}",
        start.elapsed()
    );
    if let Some((name, path)) = explored.discoveries().into_iter().next() {
        panic!("not so: {name}: {:?}", path.into_actions());
    }
    states
}

#[test]
fn nothing_breaks() {
    // The numbers stand in the documentation.
    assert_eq!(explore(Failover::new(1, 1).with_late_words()), 529_252);
    assert_eq!(explore(Failover::new(1, 1).electing()), 328_232);
    assert_eq!(explore(Failover::new(1, 2)), 456_062);
    assert_eq!(explore(Failover::new(2, 1)), 1_326_674);
    if is_full() {
        assert_eq!(explore(Failover::new(2, 2)), 2_528_634);
        assert_eq!(explore(Failover::new(2, 2).with_late_words()), 8_193_506);
        assert_eq!(explore(Failover::new(2, 2).electing()), 3_462_530);
        assert_eq!(explore(Failover::new(1, 2).electing().with_late_words()), 1_766_506);
    }
}

/// Whether the register lets this node go on, which has what a member has: it has not lost its memory since it became one of two, nor agreed to
/// follow the other anew.
fn is_whole(state: &State, name: Name) -> bool {
    let node = &state[name];
    let is_there = node.mode().is_some() || node.has_followed;
    state.register.is_alone(name) || (state.register.has(name) && is_there)
}

fn serves(state: &State) -> bool {
    state.nodes.iter().any(Node::may_answer)
}

/// Asserts that each state of `of` is in `good`.
fn assert_each(graph: &Graph, what: &str, good: &[bool], of: impl Fn(&State) -> bool) {
    let of = |at: &usize| of(&graph.states()[*at]);
    let all = (0..good.len()).filter(of);
    let bad = all.clone().find(|at| !good[*at]);
    println!("{what}: from {} states", all.count());
    if let Some(at) = bad {
        panic!("{what}: not from {:#?}, by {:?}", graph.states()[at], graph.way_to(at));
    }
}

fn graph_electing() -> &'static Graph {
    static GRAPH: LazyLock<Graph> = LazyLock::new(|| graph(&to_reach().electing()));
    &GRAPH
}

/// All states of a model.
fn graph(model: &Failover) -> Graph {
    let start = Instant::now();
    let graph = Graph::explore(model);
    println!("{} states, {} steps, {:.1?}", graph.states().len(), graph.steps().len(), start.elapsed());
    graph
}

/// In which it is looked whether something is reached.
fn to_reach() -> Failover {
    if is_full() { Failover::new(2, 2) } else { Failover::new(1, 1) }
}

/// Its graph, for all who look.
fn graph_to_reach() -> &'static Graph {
    static GRAPH: LazyLock<Graph> = LazyLock::new(|| graph(&to_reach()));
    &GRAPH
}

#[test]
fn each_step_is_taken_somewhere() {
    let kind = |step: &Step| format!("{step:?}").split('(').next().map(str::to_owned);
    let taken = |graph: &Graph| graph.steps().iter().map(|(step, _)| kind(step)).collect::<BTreeSet<_>>();
    let late = graph(&Failover::new(0, 1).with_late_words());
    let all = [graph_to_reach(), graph_electing(), &late].map(taken);
    let numbers = all.each_ref().map(BTreeSet::len);
    assert_eq!(all.into_iter().flatten().collect::<BTreeSet<_>>().len(), 42, "{numbers:?}");
}

#[test]
fn a_member_and_the_mediator_get_to_serve() {
    let (model, graph) = (to_reach(), graph_to_reach());
    for name in Name::ALL {
        let there = MEDIATOR | 1 << name as u8;
        // The other one is down or cut off; what it has sent may come or not.
        let may = |_: &State, step: Step| step.needs(&model) & !there == 0 && !step.is_failure();
        let good = graph.reach(may, |state| state[name].may_answer());
        let what = format!("{name:?} and the mediator");
        assert_each(graph, &what, &good, |state| is_whole(state, name));
    }
    let good = graph.reach(is_calm, serves);
    assert_each(graph, "all three", &good, |_| true);
}

/// Nothing fails, and nobody thinks so.
fn is_calm(state: &State, step: Step) -> bool {
    !step.is_failure() && !step.is_false_alarm(state)
}

/// A primary and its member, with nothing undetermined, and a session that stands at the member.
fn is_pair(state: &State) -> bool {
    let is_settled = |node: &Node| node.request.is_none() && node.ask == Ask::Nothing;
    let has_member = |node: &Node| matches!(node.mode(), Some(Mode::SettingIn | Mode::Mirrored | Mode::Held));
    let of = |name: Name| has_member(&state[name]) && state[name.other()].session;
    state.nodes.iter().all(is_settled) && Name::ALL.into_iter().any(of)
}

/// The states that a pair gets into from when the mediator is gone, crashes aside, and from which it does not come to serve.
fn stuck_pairs(model: &Failover, graph: &Graph) -> usize {
    let without_mediator = |step: Step| step.needs(model) & MEDIATOR == 0;
    let may = |_: &State, step: Step| without_mediator(step) && !matches!(step, Step::Crash(_));
    let from = graph.reached(is_pair, may);
    let good = graph.reach(|state, step| without_mediator(step) && is_calm(state, step), serves);
    println!("a pair whose mediator is gone: {} states", from.iter().filter(|from| **from).count());
    from.iter().zip(&good).filter(|(from, good)| **from && !**good).count()
}

#[test]
fn a_pair_serves_on_without_its_mediator() {
    assert_eq!(stuck_pairs(&to_reach(), graph_to_reach()), 0);
    let hasty = Failover::new(1, 1).without(Rule::LookFirst);
    assert_ne!(stuck_pairs(&hasty, &graph(&hasty)), 0);
}

/// It takes itself for one that acknowledged alone, and the register does not.
fn is_left_out(state: &State, name: Name) -> bool {
    state[name].known.is_alone(name) && !state.register.has(name)
}

#[test]
fn the_pair_is_mirrored_again() {
    let is_mirrored = |node: &Node| node.role == Role::Serves(Mode::Mirrored) && node.lease;
    let good = |graph: &Graph| graph.reach(is_calm, |state| state.nodes.iter().any(is_mirrored));
    assert_each(graph_to_reach(), "mirrored", &good(graph_to_reach()), |_| true);
    // Where a look ends a note, whoever asked for a join that comes late takes itself for one that acknowledged alone.
    let graph = graph(&Failover { join_stays_noted: false, ..to_reach() });
    let is_late = |state: &State| Name::ALL.into_iter().any(|name| is_left_out(state, name));
    let reached = good(&graph);
    assert_each(&graph, "mirrored, a join does not stay noted", &reached, |state| !is_late(state));
    assert!(reached.contains(&false));
}

#[test]
fn an_election_in_advance_lets_the_elected_one_serve() {
    let (model, graph) = (to_reach().electing(), graph_electing());
    let all_three = graph.reach(is_calm, serves);
    assert_each(graph, "electing, all three", &all_three, |_| true);
    for name in Name::ALL {
        let with = |there: u8| {
            // Who hears nothing waits no longer.
            let may = |_: &State, step: Step| {
                step.needs(&model) & !there == 0 && (!step.is_failure() || matches!(step, Step::TimeOut(_)))
            };
            graph.reach(may, |state| state[name].may_answer())
        };
        let good = with(1 << name as u8 | MEDIATOR);
        let is_free = |state: &State| is_whole(state, name) && !state[name].has_renounced;
        assert_each(graph, &format!("electing, {name:?} and the mediator"), &good, is_free);
        let good = with(1 << name as u8);
        let is_elected = |state: &State| state[name].is_elected || state[name].by_election;
        assert_each(graph, &format!("{name:?}, elected"), &good, is_elected);
    }
    let model = Failover::new(1, 1).electing().without(Rule::RenouncedMeets);
    assert!(Graph::explore(&model).reach(is_calm, serves).contains(&false));
}
