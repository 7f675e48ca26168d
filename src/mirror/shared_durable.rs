//! The way of a shared lane to the peer's disk. A sync is a round trip and an `fdatasync`: the lane is free meanwhile,
//! and all who wait share syncs (see `sync_group`).

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
                    if self.sync(target, asking, deadline)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// One sync for all; `false` when the lane was put on another link meanwhile, which says nothing.
    fn sync(&self, target: Sequence, asking: Asking<'_>, deadline: &mut Deadline) -> Result<bool, WaitError> {
        let (sync, visible, stream) = {
            let lane = self.lock();
            let sync = lane.core.peer_sync().ok_or_else(|| lane.wait_lost())?;
            (sync, lane.watermarks().visible, lane.stream)
        };
        let result = sync.sync(deadline);
        let mut lane = self.lock();
        match result {
            Ok(true) => {
                lane.make_durable(visible);
                drop(lane);
                asking.succeeded();
                Ok(true)
            }
            Ok(false) => {
                drop(lane);
                Err(self.not_durable(target))
            }
            Err(_) if lane.core.lost() => Err(lane.wait_lost()),
            Err(_) if lane.stream != stream => Ok(false),
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
