//! Answers that no clock allows: before they leave, the primary makes sure that its member has not taken over.
//!
//! ```text
//!  primary   request came ─▶ data looked at ─▶ look begins ─────────────▶ done: the answer leaves
//!                                                      ╲             ╱
//!  member                                               access stands        access taken away ─▶ takes over ─▶ serves
//! ```
//!
//! The look is a one-sided read of the member's words over the link by which it is mirrored. The member takes the primary's access away before it
//! asks to serve, and from then on no look is done, on no medium: so when one is done that was begun behind a request, there was a moment behind
//! the request's coming at which nobody else served. What the primary had then was the newest, and it has looked at its data by then.
//!
//! *By placing.* What was appended and not handed over to the medium yet needs no look of its own: the medium says of it that it lies in the member's
//! memory, which it also does only as long as the access stands, and for something that was sent behind the request. What was handed over earlier,
//! by another thread maybe, says nothing of a read that came since.
//!
//! *Held.* While the link counts as lost nothing is confirmed, even if the member's memory can be read: then it is out of reach for one more reason, and
//! requests are held.

use super::link::Wire;
use super::primary::{Mode, Primary};
use crate::base::Lsn;

/// What confirms the answers of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// That they are committed: their newest write is in nobody's hands but this node's.
    Placing,
    /// The look of this number, or a later one.
    Look(u64),
}

impl<R, W: Wire> Primary<R, W> {
    /// What is to confirm answers that depend on all before `mark`, the data being looked at. Before anything is handed over.
    pub(super) fn proof(&self, mark: Lsn) -> Proof {
        let handed = self.link.as_ref().map_or(Lsn::MAX, |link| link.handed().max(self.placed));
        if self.mode == Mode::Mirrored && mark > handed.max(self.committed()) {
            return Proof::Placing;
        }
        Proof::Look(self.looks.begun + 1)
    }

    /// Whether the proof is there; asks for it. Never waits. One look serves all that were waiting when it began.
    pub(super) fn is_confirmed(&mut self, proof: Proof) -> bool {
        #[cfg(test)]
        if super::world::breaks(super::world::Defect::ConfirmsWithoutLooking) {
            return true;
        }
        let Proof::Look(wanted) = proof else { return true };
        if self.looks.done >= wanted {
            return true;
        }
        if matches!(self.mode, Mode::Held { .. }) {
            return false;
        }
        let Some(link) = &mut self.link else { return false };
        let came = link.look(&mut self.looks, wanted);
        self.take_answer(came);
        self.looks.done >= wanted
    }
}

#[cfg(test)]
#[path = "confirm_tests.rs"]
pub(super) mod tests;
