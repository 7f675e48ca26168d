//! What clients asked for and were told, and whether one copy of the data could have told them that.
//!
//! Each *cell* of the volume is a register. Values are written once, so what a read gives says which write it saw; only zeroes, which a trim leaves,
//! come more than once. A history is *linearizable* if each operation can be given a moment between when it was asked for and when it was answered
//! so that each read gives what was written last before it. One of unknown outcome has such a moment at any time from when it was asked for, or
//! none.

use std::collections::HashSet;
use std::time::Duration;

/// What a cell has.
pub(super) type Value = u64;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    Read,
}

/// One operation of one cell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) kind: Kind,
    pub(super) value: Value,
    pub(super) asked: Duration,
    /// `None`: its outcome is not known.
    pub(super) answered: Option<Duration>,
    /// A number of who asked, for people.
    pub(super) client: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct History {
    cells: Vec<Vec<Operation>>,
    /// What a cell may have had before the first of its operations.
    first: Vec<Vec<Value>>,
    /// When flushes were asked for that were answered.
    flushes: Vec<Duration>,
    /// Counts how often both nodes lost their memory.
    epoch: u64,
    pub(super) count: u64,
    pub(super) unknown: u64,
    pub(super) reads: u64,
}

/// An operation that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    epoch: u64,
    cell: usize,
    number: usize,
}

/// States that are looked at for one cell, at most.
const STATES_MAX: usize = 400_000;

impl History {
    pub(super) fn new(cells: usize) -> Self {
        Self { cells: vec![Vec::new(); cells], first: vec![vec![0]; cells], ..Self::default() }
    }

    pub(super) fn ask(
        &mut self,
        client: usize,
        cell: usize,
        kind: Kind,
        value: Value,
        asked: Duration,
    ) -> Token {
        self.count += 1;
        self.reads += u64::from(kind == Kind::Read);
        self.cells[cell].push(Operation { kind, value, asked, answered: None, client });
        Token { epoch: self.epoch, cell, number: self.cells[cell].len() - 1 }
    }

    /// It was done; a read gave `value`.
    pub(super) fn answer(&mut self, token: Token, value: Value, answered: Duration) {
        let Token { epoch, cell, number } = token;
        // An answer that was on its way when both nodes lost their memory was heard by nobody before.
        if epoch != self.epoch {
            return;
        }
        let operation = &mut self.cells[cell][number];
        operation.answered = Some(answered);
        if operation.kind == Kind::Read {
            operation.value = value;
        }
    }

    /// What the last operation of a cell gave.
    pub(super) fn last(&self, cell: usize) -> Value {
        self.cells[cell].last().map_or(0, |one| one.value)
    }

    /// A flush that was asked for then was answered.
    pub(super) fn flushed(&mut self, asked: Duration) {
        if self.flushes.first().is_none_or(|first| *first < asked) {
            self.flushes.push(asked);
        }
    }

    /// Both nodes lost their memory at this moment: what was flushed is there, and of the rest anything may be.
    ///
    /// # Errors
    /// What came before cannot be.
    pub(super) fn lose_memory(&mut self, now: Duration) -> Result<(), String> {
        self.check()?;
        let flushed = self.flushes.iter().max().copied().unwrap_or_default();
        for (cell, operations) in self.cells.iter_mut().enumerate() {
            let writes: Vec<_> = operations.iter().filter(|one| one.kind == Kind::Write).copied().collect();
            // What was written anew before the flush that counts is gone.
            let is_over = |answered: Duration| {
                writes.iter().any(|later| {
                    later.asked > answered && later.answered.is_some_and(|answered| answered < flushed)
                })
            };
            let mut left: Vec<Value> =
                self.first[cell].iter().copied().filter(|_| !is_over(Duration::ZERO)).collect();
            left.extend(
                writes.iter().filter(|one| one.answered.is_none_or(|at| !is_over(at))).map(|one| one.value),
            );
            left.sort_unstable();
            left.dedup();
            self.first[cell] = left;
            // Who still waits for an answer will get none that counts.
            operations.clear();
        }
        self.flushes = vec![now];
        self.epoch += 1;
        Ok(())
    }

    /// # Errors
    /// Which cell's cannot be, and what was done to it.
    pub(super) fn check(&self) -> Result<(), String> {
        for (cell, operations) in self.cells.iter().enumerate() {
            let relevant = relevant(operations);
            if !self.first[cell].iter().any(|first| is_linearizable(&relevant, *first)) {
                return Err(format!("cell {cell} is not linearizable:\n{}", self.tell(cell)));
            }
        }
        Ok(())
    }

    fn tell(&self, cell: usize) -> String {
        let mut lines = vec![format!("  first {:?}", self.first[cell])];
        let mut operations = self.cells[cell].clone();
        operations.sort_by_key(|one| one.asked);
        for one in operations {
            let answered = one.answered.map_or("?".into(), |at| format!("{:.6}", at.as_secs_f64()));
            let kind = if one.kind == Kind::Write { "writes" } else { "reads" };
            let asked = one.asked.as_secs_f64();
            if one.kind == Kind::Write || one.answered.is_some() {
                lines
                    .push(format!("  {asked:.6} to {answered} client {} {kind} {:x}", one.client, one.value));
            }
        }
        lines.join("\n")
    }
}

/// Those that say something, as they may be: a read without an answer says nothing, nor does a write of unknown outcome whose value nobody read.
fn relevant(operations: &[Operation]) -> Vec<Operation> {
    let first_read = |value: Value| {
        let reads = operations.iter().filter(|one| one.kind == Kind::Read && one.value == value);
        reads.filter_map(|one| one.answered).min()
    };
    let mut relevant: Vec<_> = operations
        .iter()
        .filter_map(|one| match (one.kind, one.answered) {
            (Kind::Read, None) => None,
            (Kind::Write, None) if one.value != 0 => {
                // It was done before it was read.
                first_read(one.value).map(|read| Operation { answered: Some(read), ..*one })
            }
            _ => Some(*one),
        })
        .collect();
    relevant.sort_by_key(|one| one.asked);
    relevant
}

/// Of Wing and Gong, with what Lowe remembers: each operation that may come next is tried, and no state twice.
fn is_linearizable(operations: &[Operation], first: Value) -> bool {
    let words = operations.len().div_ceil(64);
    let mut seen: HashSet<(Vec<u64>, Value)> = HashSet::new();
    let mut stack = vec![(vec![0_u64; words], first, 0_usize)];
    while let Some((done, value, from)) = stack.pop() {
        let is_done = |number: usize| done[number / 64] >> (number % 64) & 1 == 1;
        let mut from = from;
        while from < operations.len() && is_done(from) {
            from += 1;
        }
        let left = || (from..operations.len()).filter(|number| !is_done(*number));
        if left().all(|number| operations[number].answered.is_none()) {
            return true;
        }
        // Nothing comes behind one that was answered before it was asked for.
        let end = left().filter_map(|number| operations[number].answered).min().expect("one was answered");
        for number in left().take_while(|number| operations[*number].asked <= end) {
            let one = operations[number];
            if one.kind == Kind::Read && one.value != value {
                continue;
            }
            let mut next = done.clone();
            next[number / 64] |= 1 << (number % 64);
            let value = if one.kind == Kind::Write { one.value } else { value };
            if seen.insert((next.clone(), value)) {
                stack.push((next, value, from));
            }
        }
        assert!(seen.len() < STATES_MAX, "too many operations at once");
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(moment: u64) -> Duration {
        Duration::from_millis(moment)
    }

    /// Writes and reads of one cell: when, until when, what.
    fn can_be(operations: &[(Kind, u64, Option<u64>, Value)]) -> bool {
        let mut history = History::new(1);
        for (kind, asked, answered, value) in operations {
            let token = history.ask(0, 0, *kind, *value, at(*asked));
            if let Some(answered) = answered {
                history.answer(token, *value, at(*answered));
            }
        }
        history.check().is_ok()
    }

    #[test]
    fn one_copy_or_not() {
        use Kind::{Read, Write};
        assert!(can_be(&[(Write, 0, Some(1), 7), (Read, 2, Some(3), 7)]));
        assert!(!can_be(&[(Write, 0, Some(1), 7), (Read, 2, Some(3), 0)]), "it is lost");
        assert!(!can_be(&[(Read, 2, Some(3), 9)]), "nobody wrote it");
        let both = |first, second| {
            can_be(&[(Write, 0, Some(9), 7), (Read, 1, Some(2), first), (Read, 3, Some(4), second)])
        };
        assert!(both(0, 0) && both(0, 7) && both(7, 7));
        assert!(!both(7, 0), "it was there, and went");
        let unknown = |read, then| {
            can_be(&[
                (Write, 0, Some(1), 7),
                (Write, 2, None, 8),
                (Write, 3, Some(4), 9),
                (Read, 5, Some(6), read),
                (Read, 7, Some(8), then),
            ])
        };
        assert!(unknown(9, 9) && unknown(8, 8) && unknown(9, 8));
        assert!(!unknown(8, 9) && !unknown(7, 9));
        // Zeroes come twice.
        assert!(can_be(&[
            (Write, 0, Some(1), 7),
            (Write, 2, None, 0),
            (Read, 3, Some(4), 7),
            (Read, 5, Some(6), 0)
        ]));
    }

    #[test]
    fn what_was_flushed_outlasts_a_loss_of_both_memories() {
        let lost = |read: Value| {
            let mut history = History::new(1);
            for (value, asked) in [(7, 0), (8, 2), (9, 6)] {
                let token = history.ask(0, 0, Kind::Write, value, at(asked));
                history.answer(token, value, at(asked + 1));
            }
            history.flushed(at(4));
            history.lose_memory(at(8)).unwrap();
            let token = history.ask(0, 0, Kind::Read, 0, at(9));
            history.answer(token, read, at(10));
            history.check().is_ok()
        };
        assert!(lost(8) && lost(9));
        assert!(!lost(7) && !lost(0));
    }
}
