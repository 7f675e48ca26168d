//! Going on after the link was lost.
//!
//! What lanes had in flight may be at the holder in part. The unknown ranges are sent again with what the local copy
//! holds now, the effect of *all* stores taken: so they must become visible together, or a crash in between would
//! leave a later store without an earlier one. They go to staging memory first; one `Apply` makes the holder copy
//! them into the region. Then every lane is acknowledged to its last store.

use super::Region;
use super::attach::{Attachment, BULK_DEPTH};
use super::call::CallError;
use super::data_stream::Reach;
use super::region::queue_depth;
use super::session::Session;
use super::transfer::{Piece, transfer};
use crate::base::{Deadline, FabricUrl};
use crate::fabric::Operation;
use crate::mirror::{ByteRange, Lane, LostReason, merge_ranges};
use crate::node::message::{APPLY_RANGES_MAX, AttachMode, AttachRequest, Message};
use crate::node::{REGION_WINDOW, STAGING_WINDOW};
use std::sync::{Arc, PoisonError};

/// What a reconnection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnected {
    /// Ranges sent again.
    pub ranges: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// Why the region is not connected again. The lanes are as they were; trying again is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReconnectError {
    /// A lane of the region was not passed: its unknown stores would be lost from sight.
    #[error("{passed} lanes were passed, {exist} exist: pass or drop every lane of the region")]
    LanesMissing {
        /// Lanes passed.
        passed: usize,
        /// Lanes of the region.
        exist: usize,
    },
    /// The holder cannot be reached, or refused. With [`RefusalCode::NotResumable`](crate::node::RefusalCode) it has
    /// restarted or was fenced: open the region anew, over its [`mapping`](Region::mapping) to push what it holds.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Region {
    /// Connects again, sends what the lanes' unknown stores wrote, and puts every lane on a new queue. `lanes` must be
    /// all lanes of this region.
    ///
    /// On return every store taken before is `Visible` at the holder, and tickets from before are stale.
    ///
    /// # Errors
    /// The lanes are as they were.
    pub fn reconnect(
        &self,
        lanes: &mut [&mut Lane],
        mut deadline: Deadline,
    ) -> Result<Reconnected, ReconnectError> {
        // Whoever makes a lane holds this too: none is made of the old link once the lanes were counted.
        let mut attachment = self.attachment();
        let exist = self.core.lanes();
        if lanes.len() != exist {
            return Err(ReconnectError::LanesMissing { passed: lanes.len(), exist });
        }
        self.core.lose(LostReason::Control("reconnecting".into()));
        // Nothing of the old link may reach the region once the new one is up.
        attachment.session.abort();
        attachment.dialer.stop();
        let orphans = self.core.take_orphans();
        let mut ranges = orphans.clone();
        lanes.iter().for_each(|lane| ranges.extend(lane.unknown().ranges));
        merge_ranges(&mut ranges);
        let result = self.resume(&attachment, &ranges, lanes, &mut deadline);
        match result {
            Ok(next) => {
                *self.resumable.lock().unwrap_or_else(PoisonError::into_inner) = next.session.id();
                *self.session.lock().unwrap_or_else(PoisonError::into_inner) = next.session.clone();
                *attachment = next;
                Ok(Reconnected { ranges: ranges.len(), bytes: ranges.iter().map(|range| range.len).sum() })
            }
            Err(error) => {
                self.core.return_orphans(orphans);
                self.core.lose(LostReason::Control(format!("reconnecting failed: {error}")));
                Err(error.into())
            }
        }
    }

    fn resume(
        &self,
        prior: &Attachment,
        ranges: &[ByteRange],
        lanes: &mut [&mut Lane],
        deadline: &mut Deadline,
    ) -> Result<Attachment, CallError> {
        let config = &self.config;
        // The link is up for the transfer's sake; lanes are held exclusively until it is whole.
        let transfer_core = crate::mirror::RegionCore::new(self.core.memory().clone())
            .map_err(|error| CallError::Ended(error.to_string()))?;
        let session = Session::connect(
            &config.url,
            &self.keys,
            config.heartbeat,
            config.silence,
            Arc::downgrade(&self.core),
            deadline,
        )?;
        let session = Arc::new(session);
        let staged = !matches!(config.url, FabricUrl::ShmDevice { .. });
        let bytes: usize = ranges.iter().map(|range| range.len).sum();
        let request = AttachRequest {
            mode: AttachMode::Resume,
            region: prior.region.to_bytes(),
            size: config.size as u64,
            prior_session: self.resumable.lock().unwrap_or_else(PoisonError::into_inner).to_bytes(),
            life: prior.life.to_bytes(),
            generation: prior.generation.0,
            staging: if staged { bytes as u64 } else { 0 },
        };
        let granted =
            match session.call(deadline, |number| Message::Attach { request: number, attach: request })? {
                Message::Granted { granted, .. } => granted,
                other => return Err(CallError::Confused(format!("{other:?}"))),
            };
        let next = Attachment::new(session.clone(), &config.url, &self.core, &granted)?;
        if bytes > 0 {
            let mut queue = next.dialer.queue(&session, Reach::All, BULK_DEPTH, deadline)?;
            let mut staging_offset = 0;
            let pieces = ranges.iter().map(|range| {
                let remote_offset = if staged { staging_offset } else { range.offset };
                staging_offset += range.len;
                Piece { local_offset: range.offset, remote_offset, len: range.len }
            });
            let window = if staged { STAGING_WINDOW } else { REGION_WINDOW };
            transfer(&transfer_core, &mut *queue, Operation::Write, window, pieces, config.timeout)?;
        }
        if staged && bytes > 0 {
            apply(&session, ranges, deadline)?;
        }
        session.done(deadline, |request| Message::Complete { request })?;
        let mut queues = Vec::with_capacity(lanes.len());
        for lane in lanes.iter() {
            queues.push(next.dialer.queue(&session, Reach::Region, queue_depth(lane.config()), deadline)?);
        }
        session.put_up(&self.core);
        if let Some(reason) = next.dialer.failure() {
            self.core.lose(reason);
        }
        for (lane, queue) in lanes.iter_mut().zip(queues) {
            lane.resume(queue, REGION_WINDOW);
        }
        Ok(next)
    }
}

fn apply(session: &Session, ranges: &[ByteRange], deadline: &mut Deadline) -> Result<(), CallError> {
    let mut parts = ranges.chunks(APPLY_RANGES_MAX).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        session.done(deadline, |request| Message::Apply { request, last, ranges: part.to_vec() })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::KeySet;
    use crate::memory::LockPolicy;
    use crate::mirror::LaneConfig;
    use crate::node::{Attach, Holder, HolderConfig, RegionConfig};

    #[test]
    fn a_lane_that_is_being_made_is_counted() {
        let keys = KeySet::from_bytes(&[[7; 32]]).unwrap();
        let mut config = HolderConfig::new("tcp://127.0.0.1:0".parse().unwrap(), 4096);
        config.lock = LockPolicy::Off;
        let holder = Holder::start(config, keys.clone()).unwrap();
        let mut config = RegionConfig::new(holder.url().clone(), 4096, Attach::Push { replace: false });
        config.lock = LockPolicy::Off;
        let region = Region::open(config, keys).unwrap();
        let soon = || Deadline::within(Duration::from_secs(10));
        std::thread::scope(|scope| {
            // As `Region::lane` does.
            let attachment = region.attachment();
            let reconnecting = scope.spawn(|| region.reconnect(&mut [], soon()));
            std::thread::sleep(Duration::from_millis(200));
            let queue = attachment.dialer.queue(&attachment.session, Reach::Region, 64, &mut soon());
            let lane = Lane::new(region.core.clone(), queue.unwrap(), REGION_WINDOW, LaneConfig::default());
            drop(attachment);
            let missing = ReconnectError::LanesMissing { passed: 0, exist: 1 };
            assert_eq!(reconnecting.join().unwrap(), Err(missing));
            assert!(!region.core.lost(), "the lane would have the queue of a link that is gone");
            drop(lane);
        });
    }
}
