//! The way of a shared lane to the peer's disk. A sync is a round trip and an `fdatasync`: the lane is free meanwhile,
//! and all who wait share syncs (see `sync_group`).

use super::given_up::GivenUp;
use super::sync_group::{Asking, Turn};
use super::{SharedLane, WaitError};
use crate::base::{Deadline, Level, Sequence};

impl SharedLane {
    /// Brings `target` to the peer's disk; by a sync that begins after the call when `afresh`.
    pub(super) fn reach_durable(
        &self,
        target: Sequence,
        afresh: bool,
        deadline: &mut Deadline,
    ) -> Result<(), WaitError> {
        if !afresh && self.lock().watermarks().durable >= target {
            return Ok(());
        }
        self.lock().capabilities().check(Level::Durable)?;
        self.reach(target, Level::Visible, deadline)?;
        let number = self.shared.syncs.next();
        loop {
            let Some(left) = deadline.remaining() else { return Err(self.not_durable(target)) };
            match self.shared.syncs.join(number, left) {
                Turn::Done => return Ok(()),
                Turn::Look => {}
                Turn::Ask(asking) => {
                    if self.sync(target, asking, deadline)?.is_some_and(|ended| ended >= number) {
                        return Ok(());
                    }
                }
            }
            // One that was begun too early for whoever came now may have covered this store.
            if !afresh && self.lock().watermarks().durable >= target {
                return Ok(());
            }
        }
    }

    /// One sync for all: the one that was given up, or a new one. The number of one that succeeded; `None` when the lane
    /// was put on another link meanwhile, which says nothing.
    fn sync(
        &self,
        target: Sequence,
        mut asking: Asking<'_, GivenUp>,
        deadline: &mut Deadline,
    ) -> Result<Option<u64>, WaitError> {
        let (peer, visible, stream) = {
            let lane = self.lock();
            let peer = lane.core.peer_sync().ok_or_else(|| lane.wait_lost())?;
            (peer, lane.watermarks().visible, lane.stream)
        };
        let begun = match asking.given_up().filter(|given_up| given_up.stream == stream) {
            Some(given_up) => Ok(given_up),
            None => peer.begin(deadline).map(|sync| GivenUp { sync, visible, stream }),
        };
        let result = begun.and_then(|mut under_way| Ok((under_way.sync.wait(deadline)?, under_way)));
        let mut lane = self.lock();
        match result {
            Ok((true, under_way)) => {
                lane.make_durable(under_way.visible);
                drop(lane);
                Ok(Some(asking.succeeded()))
            }
            Ok((false, under_way)) => {
                drop(lane);
                asking.give_up(under_way);
                Err(self.not_durable(target))
            }
            Err(_) if lane.core.lost() => Err(lane.wait_lost()),
            Err(_) if lane.stream != stream => Ok(None),
            Err(why) => Err(WaitError::SyncFailed(why)),
        }
    }

    fn not_durable(&self, wanted: Sequence) -> WaitError {
        WaitError::Deadline { level: Level::Durable, wanted, reached: self.lock().watermarks().durable }
    }
}

#[cfg(all(test, not(loom), not(miri)))]
#[path = "shared_durable_tests.rs"]
mod tests;
