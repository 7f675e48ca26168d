//! Whether service can be reached: the graph of all states, looked at backwards.
//!
//! "From each state, by steps that are no faults, some state is reached in which …" is what a scheduler that is fair makes of it: if from wherever
//! one is there is a way, one gets there. The explorer's own `eventually` cannot be used, since it takes a cycle for an end.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use stateright::Model;

use crate::model::Failover;
use crate::state::State;
use crate::step::Step;

/// All states that can be reached, and the steps between them.
#[derive(Debug)]
pub struct Graph {
    states: Vec<State>,
    /// By what the state was found first, and where.
    found_by: Vec<Option<(u32, Step)>>,
    /// Where the steps of each begin, and of one more.
    begins: Vec<usize>,
    steps: Vec<(Step, u32)>,
}

impl Graph {
    /// Explores.
    ///
    /// # Panics
    /// There are more states than four billion.
    #[must_use]
    pub fn explore(model: &Failover) -> Self {
        let first = model.init_states();
        let number = |at: usize| u32::try_from(at).expect("memory ends before");
        let mut numbers: HashMap<State, u32, BuildHasherDefault<Mixer>> =
            first.iter().enumerate().map(|(at, state)| (*state, number(at))).collect();
        let found_by = vec![None; first.len()];
        let mut graph = Self { states: first, found_by, begins: vec![0], steps: Vec::new() };
        let mut at = 0;
        while let Some(state) = graph.states.get(at).copied() {
            for step in Step::candidates(&state) {
                let Some(next) = step.apply(&state, model) else { continue };
                let new = number(graph.states.len());
                let to = *numbers.entry(next).or_insert(new);
                if to == new {
                    graph.states.push(next);
                    graph.found_by.push(Some((number(at), step)));
                }
                graph.steps.push((step, to));
            }
            graph.begins.push(graph.steps.len());
            at += 1;
        }
        graph
    }

    /// The states.
    #[must_use]
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// The steps between them.
    #[must_use]
    pub fn steps(&self) -> &[(Step, u32)] {
        &self.steps
    }

    fn from(&self, at: usize) -> &[(Step, u32)] {
        &self.steps[self.begins[at]..self.begins[at + 1]]
    }

    /// A shortest way to a state.
    #[must_use]
    pub fn way_to(&self, at: usize) -> Vec<Step> {
        let found = |(at, _): &(u32, Step)| self.found_by[*at as usize];
        let mut way: Vec<_> = std::iter::successors(self.found_by[at], found).map(|(_, step)| step).collect();
        way.reverse();
        way
    }

    /// For each state whether one of `goal` can be reached from it by steps of `may`.
    pub fn reach(&self, may: impl Fn(&State, Step) -> bool, goal: impl Fn(&State) -> bool) -> Vec<bool> {
        let mut reaches: Vec<_> = self.states.iter().map(goal).collect();
        loop {
            let mut found = false;
            for at in (0..self.states.len()).rev().filter(|at| !reaches[*at]).collect::<Vec<_>>() {
                let state = &self.states[at];
                reaches[at] =
                    self.from(at).iter().any(|(step, to)| reaches[*to as usize] && may(state, *step));
                found |= reaches[at];
            }
            if !found {
                return reaches;
            }
        }
    }

    /// For each state whether it can be reached from one of `start` by steps of `may`.
    pub fn reached(&self, start: impl Fn(&State) -> bool, may: impl Fn(&State, Step) -> bool) -> Vec<bool> {
        let mut reached: Vec<_> = self.states.iter().map(start).collect();
        let mut left: Vec<_> = (0..reached.len()).filter(|at| reached[*at]).collect();
        while let Some(at) = left.pop() {
            for (step, to) in self.from(at) {
                let to = *to as usize;
                if !reached[to] && may(&self.states[at], *step) {
                    reached[to] = true;
                    left.push(to);
                }
            }
        }
        reached
    }
}

/// Mixes the bytes of a state: fast, and nobody chooses them to collide.
#[derive(Debug, Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}
