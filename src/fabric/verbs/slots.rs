//! Places in a send queue.
//!
//! ```text
//!  retired ≤ newest signaled that completed + 1        places free: capacity − (posted − retired)
//!  ──────────┬───────────────┬─────────────┬────────▶
//!         retired         signaled       posted
//! ```
//!
//! A place is free again when a signaled request at or behind it completed: an unsignaled one tells nothing. So requests
//! that nobody wants to hear of would fill the queue for ever; one is signaled all the same whenever half of the places
//! were taken since the last, and its completion is kept here.

use std::collections::VecDeque;

use crate::fabric::Completion;

/// A signaled request in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signaled {
    /// Its number among all requests.
    number: u64,
    wr_id: u64,
    /// Whether the poster wants to hear of it.
    wanted: bool,
}

/// The accounting of one send queue.
#[derive(Debug)]
pub(super) struct Slots {
    capacity: usize,
    posted: u64,
    retired: u64,
    /// Posted since the last signaled one.
    silent: usize,
    signaled: VecDeque<Signaled>,
}

impl Slots {
    /// Of a queue with `capacity` places.
    pub(super) fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a send queue has a place");
        let signaled = VecDeque::with_capacity(capacity);
        Self { capacity, posted: 0, retired: 0, silent: 0, signaled }
    }

    /// Places that are free.
    #[inline]
    pub(super) fn free(&self) -> usize {
        self.capacity - self.outstanding()
    }

    /// Requests that may still complete.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "it is at most the capacity")]
    pub(super) const fn outstanding(&self) -> usize {
        (self.posted - self.retired) as usize
    }

    /// Whether the request of this number is complete.
    pub(super) const fn is_retired(&self, number: u64) -> bool {
        number < self.retired
    }

    /// Takes a place; returns the request's number and whether it is to be signaled.
    ///
    /// # Panics
    /// When none is free.
    #[inline]
    pub(super) fn take(&mut self, wr_id: u64, wanted: bool) -> (u64, bool) {
        assert!(self.free() > 0, "no place is free of {}", self.capacity);
        let number = self.posted;
        self.posted += 1;
        let signaled = wanted || self.silent + 1 >= self.capacity.div_ceil(2);
        if signaled {
            self.silent = 0;
            self.signaled.push_back(Signaled { number, wr_id, wanted });
        } else {
            self.silent += 1;
        }
        (number, signaled)
    }

    /// A completion of request `number` came. `Ok(None)` when nobody wants to hear of it.
    ///
    /// # Errors
    /// It is not the next signaled one: the number that is.
    #[inline]
    pub(super) fn complete(&mut self, number: u64) -> Result<Option<Completion>, Option<u64>> {
        let next = self.signaled.front().copied();
        match next {
            Some(request) if request.number == number => {
                self.signaled.pop_front();
                self.retired = number + 1;
                Ok(request.wanted.then_some(Completion { wr_id: request.wr_id }))
            }
            other => Err(other.map(|request| request.number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_that_nobody_wants_to_hear_of_do_not_fill_the_queue() {
        let mut slots = Slots::new(8);
        let mut pending = VecDeque::new();
        for id in 0..1000 {
            if slots.free() == 0 {
                let number = pending.pop_front().expect("one of a full queue is signaled");
                assert_eq!(slots.complete(number), Ok(None), "nobody wants to hear of it");
            }
            let (number, signaled) = slots.take(id, false);
            if signaled {
                pending.push_back(number);
            }
        }
        assert!(slots.outstanding() <= 8);
    }

    #[test]
    fn a_completion_out_of_turn_is_found() {
        let mut slots = Slots::new(4);
        assert_eq!(slots.take(7, true), (0, true));
        assert_eq!(slots.complete(1), Err(Some(0)));
        assert_eq!(slots.complete(0), Ok(Some(Completion { wr_id: 7 })));
        assert_eq!(slots.complete(0), Err(None));
    }

    proptest! {
        #[test]
        fn no_place_is_lost_and_none_is_used_twice(
            capacity in 1usize..40, steps in prop::collection::vec((any::<bool>(), any::<bool>()), 0..400)
        ) {
            let mut slots = Slots::new(capacity);
            let mut signaled = VecDeque::new();
            let mut wanted_ids = VecDeque::new();
            let mut id = 0;
            for (post, wanted) in steps {
                if post && slots.free() > 0 {
                    let (number, signal) = slots.take(id, wanted);
                    prop_assert!(signal || !wanted);
                    if signal { signaled.push_back(number); }
                    if wanted { wanted_ids.push_back(id); }
                    id += 1;
                } else if let Some(number) = signaled.pop_front() {
                    if let Some(completion) = slots.complete(number).unwrap() {
                        prop_assert_eq!(Some(completion.wr_id), wanted_ids.pop_front());
                    }
                    prop_assert!(slots.is_retired(number));
                }
                prop_assert!(slots.outstanding() <= capacity);
                prop_assert!(slots.free() > 0 || !signaled.is_empty(), "a full queue that nothing will empty");
            }
        }
    }
}
