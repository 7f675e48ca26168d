//! How a primary lets its peer in: from what the ring keeps for it to where it is a member, and back when the register does not name it.
//!
//! [`Primary`] has the states, and the steps that lead out of them.

use super::link::{Link, Wire};
use super::primary::{Mode, Primary};
use super::ring_memory::{PrimaryWords, SecondaryWords, Trouble};
#[cfg(test)]
use super::world::{Defect, breaks};
use crate::base::{DatasetId, Lsn};

impl<R, W: Wire> Primary<R, W> {
    /// Keeps in the ring what a peer lacks that has the log to `end`, to `durable` on its disk, and says so in the ring's words; false when it
    /// does not reach back so far.
    pub(super) fn meet(&mut self, dataset: DatasetId, end: Lsn, durable: Lsn) -> bool {
        if !self.log.meet(end, durable) {
            return false;
        }
        self.log.memory().write_primary(&PrimaryWords {
            dataset,
            generation: self.generation,
            start: end,
            flush: self.log.padded(),
            own_durable: self.log.own_durable(),
        });
        true
    }

    /// The peer attached, with the ring as it is now.
    pub(super) fn attach(&mut self, link: Link<R, W>) {
        self.link = Some(link);
        // All of it is in the peer's memory or on its disk: who waits for what was appended before need not wait for more to come.
        self.placed = self.log.end();
        // What another, or this one, said of itself before is of no interest.
        self.peer = SecondaryWords { durable: Lsn::ZERO, end: Lsn::ZERO, trouble: Trouble::None };
        self.mode = Mode::CatchingUp { until: self.log.end() };
    }

    /// Whether the peer has all that it lacked.
    pub(super) fn is_caught_up(&self) -> bool {
        match self.mode {
            #[cfg(test)]
            Mode::CatchingUp { .. } if breaks(Defect::JoinsTooSoon) => true,
            Mode::CatchingUp { until } => self.resync.is_none() && self.log.peer_durable() >= until,
            Mode::SettingIn => true,
            Mode::Alone | Mode::Mirrored | Mode::Held { .. } => false,
        }
    }

    /// The peer is about to be told that it is a member: nothing is acknowledged from now on that it does not have. False when it
    /// is away.
    pub(super) fn begin_to_set_in(&mut self) -> bool {
        self.push();
        if self.mode != Mode::SettingIn && self.is_caught_up() {
            (self.mode, self.joins_at) = (Mode::SettingIn, self.committed());
        }
        self.mode == Mode::SettingIn
    }

    /// Whether the peer has all that was acknowledged, so that it may be named a member: up to here the own disk decided, and what is
    /// acknowledged since is with both.
    pub(super) fn may_join(&self) -> bool {
        #[cfg(test)]
        if breaks(Defect::JoinsTooSoon) {
            return true;
        }
        self.placed.min(self.log.peer_durable()) >= self.joins_at
    }

    /// The peer took note that it is a member; whether it is there.
    pub(super) fn be_mirrored(&mut self) -> bool {
        if !self.has_member() {
            return false; // the operator has set it out meanwhile
        }
        self.is_told = true;
        self.push();
        if self.mode == Mode::SettingIn {
            self.mode = Mode::Mirrored;
            self.settle();
        }
        self.mode == Mode::Mirrored
    }

    /// The peer did not take note, and the register does not name it any more.
    pub(super) fn be_set_out(&mut self) {
        match self.mode {
            Mode::SettingIn => self.mode = Mode::CatchingUp { until: Lsn::ZERO },
            Mode::Held { .. } => self.be_alone(),
            Mode::Alone | Mode::CatchingUp { .. } | Mode::Mirrored => {}
        }
        self.settle();
    }

    /// The link is back.
    pub(super) fn be_reconnected(&mut self, mut link: Link<R, W>) {
        if let Some(placed) = link.reconnected() {
            self.placed = self.placed.max(placed);
        }
        self.link = Some(link);
        if matches!(self.mode, Mode::Held { .. }) {
            self.mode = if self.is_told { Mode::Mirrored } else { Mode::SettingIn };
        }
        self.push();
    }
}
