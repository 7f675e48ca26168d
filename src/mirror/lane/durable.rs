//! The way of an exclusive lane to the peer's disk.

use super::Lane;
use crate::base::{Deadline, Level, Sequence};
use crate::mirror::WaitError;
use crate::mirror::given_up::GivenUp;

impl Lane {
    /// Brings `target` to the peer's disk; by a sync that is asked for here when `afresh`.
    pub(super) fn reach_durable(
        &mut self,
        target: Sequence,
        afresh: bool,
        deadline: &mut Deadline,
    ) -> Result<(), WaitError> {
        self.capabilities().check(Level::Durable)?;
        self.reach(target, Level::Visible, deadline)?;
        // One that an earlier wait gave up is in the way of the next; it may be all that is needed.
        if let Some(given_up) = self.given_up.take() {
            self.wait_for_sync(given_up, target, deadline)?;
            if !afresh && self.marks.durable() >= target {
                return Ok(());
            }
        }
        let (visible, stream) = (self.marks.visible(), self.stream);
        let peer = self.core.peer_sync().ok_or_else(|| self.wait_lost())?;
        let sync = peer.begin(deadline).map_err(|why| self.sync_failed(why))?;
        self.wait_for_sync(GivenUp { sync, visible, stream }, target, deadline)
    }

    fn wait_for_sync(
        &mut self,
        mut under_way: GivenUp,
        wanted: Sequence,
        deadline: &mut Deadline,
    ) -> Result<(), WaitError> {
        match under_way.sync.wait(deadline) {
            Ok(true) => {
                self.marks.make_durable(under_way.visible);
                Ok(())
            }
            Ok(false) => {
                self.given_up = Some(under_way);
                Err(WaitError::Deadline { level: Level::Durable, wanted, reached: self.marks.durable() })
            }
            Err(why) => Err(self.sync_failed(why)),
        }
    }

    fn sync_failed(&self, why: String) -> WaitError {
        if self.core.lost() { self.wait_lost() } else { WaitError::SyncFailed(why) }
    }

    /// Takes note that every store to `visible`, which a sync covered, is durable.
    pub(in crate::mirror) fn make_durable(&mut self, visible: Sequence) {
        self.marks.make_durable(visible);
    }
}
