//! Harm: faults come one by one or close to each other, some of them at moments that matter.

use std::time::Duration;

use super::aims::Aim;
use super::faults::Fault;
use super::finish::primary;
use super::lane;
use super::run::{FAULTS, OPERATIONS, World};
use super::trace::{fail, tell};
use crate::sim::scheduler;

/// How long one waits for a moment in which to do harm, and between two looks whether it is that.
const AIM_TIME: Duration = Duration::from_millis(300);
const AIM_STEP: Duration = Duration::from_micros(400);

impl World {
    /// Faults come and go until there were enough of them, and clients did enough.
    pub(super) fn harm(&mut self) {
        match self.random.below(8) {
            0 => _ = self.faults.inject(&self.clients, Fault::MediatorThenLink),
            1 => _ = self.faults.inject(&self.clients, Fault::OldMediator),
            _ => {}
        }
        while !self.is_over() {
            let injected: u64 = self.faults.counts.values().sum();
            if injected >= FAULTS && self.clients.history.borrow().count >= OPERATIONS {
                return;
            }
            if scheduler::time() > Duration::from_secs(300) {
                return fail("clients get nothing done".into());
            }
            let gap = if self.random.chance(10) { self.random.below(1200) } else { self.random.below(150) };
            self.advance(Duration::from_millis(gap));
            if self.faults.under_way.len() > 3 || self.faults.is_seeding() {
                continue;
            }
            // Most is to be seen of what happens to a pair that is whole.
            if self.random.chance(30) {
                let clients = self.clients.clone();
                self.advance_until(Duration::from_millis(1500), &|| primary(&clients).is_some());
            }
            let hit = if self.random.chance(60) { self.aim() } else { None };
            self.inject(hit.map(Aim::faults));
            // One more in the midst of what comes of it.
            while self.random.chance(45)
                && self.faults.under_way.len() < 5
                && !self.faults.is_seeding()
                && !self.is_over()
            {
                let soon = self.random.below(60_000);
                self.advance(Duration::from_micros(soon));
                self.inject(Some(Aim::Answered.faults()));
            }
        }
    }

    fn inject(&mut self, aimed: Option<&[Fault]>) {
        for _ in 0..4 {
            let kinds = match aimed {
                Some(kinds) => kinds,
                None if self.random.chance(40) => &Fault::FREQUENT,
                None => &Fault::ALL,
            };
            let kind = self.random.below(kinds.len() as u64);
            let kind = kinds[usize::try_from(kind).expect("one of them")];
            if self.faults.inject(&self.clients, kind) {
                return;
            }
        }
    }

    /// Waits for a moment that matters, for a while; which came.
    fn aim(&mut self) -> Option<Aim> {
        let aim = Aim::ALL[usize::try_from(self.random.below(Aim::ALL.len() as u64)).expect("one of them")];
        match aim {
            Aim::Switches => _ = self.faults.inject(&self.clients, Fault::Switch),
            // Without one that sets the other out, a link that ends is taken up again.
            Aim::Placing if self.random.chance(60) => {
                self.faults.inject(&self.clients, Fault::KillMediator);
            }
            _ => {}
        }
        lane::await_store(aim == Aim::Placing);
        let came = self.wait_for(aim);
        lane::await_store(false);
        came
    }

    fn wait_for(&mut self, aim: Aim) -> Option<Aim> {
        let one = [aim];
        let wanted = if aim != Aim::Placing && self.random.chance(40) { &Aim::CHANGES[..] } else { &one[..] };
        let answered = self.clients.answered.get();
        let end = scheduler::time() + AIM_TIME;
        while !self.is_over() && scheduler::time() < end {
            if let Some(aim) = Aim::now(wanted, &self.clients, answered) {
                tell(|| format!("it is the moment: {aim:?}"));
                *self.aims.entry(aim).or_default() += 1;
                lane::await_store(false);
                if aim != Aim::Placing && self.random.chance(50) {
                    let later = self.random.below(2000);
                    self.advance(Duration::from_micros(later));
                }
                return Some(aim);
            }
            self.advance(AIM_STEP);
        }
        None
    }
}
