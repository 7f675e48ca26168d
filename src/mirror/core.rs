//! What the lanes of one region share: the local memory, the state of the link, the way to ask for a sync.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{ByteRange, merge_ranges};
use crate::base::Deadline;
use crate::fabric::QueueError;
use crate::memory::Mapping;

/// Why the link to the peer is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostReason {
    /// A queue failed.
    Queue(QueueError),
    /// The control connection ended, or the peer was silent for too long.
    Control(String),
    /// The peer revoked this owner's access.
    Revoked(String),
    /// This side closed the region.
    Closed,
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(error) => error.fmt(f),
            Self::Control(why) | Self::Revoked(why) => f.write_str(why),
            Self::Closed => f.write_str("closed by this side"),
        }
    }
}

/// Asks the peer to bring its copy to stable storage.
pub trait PeerSync: Send + Sync {
    /// Asks for a sync of everything that is visible to the peer by now, and does not wait for it.
    ///
    /// # Errors
    /// Text when it cannot be asked; that may be told only at the deadline, for the end of a link to be seen first.
    fn begin(&self, deadline: &mut Deadline) -> Result<Box<dyn PendingSync>, String>;
}

/// A sync that was asked for. Dropped, it goes on, and nobody hears of its end.
pub trait PendingSync: Send {
    /// Waits until it succeeded; `false` when the deadline passed first, after which it may be waited for again.
    ///
    /// # Errors
    /// Text when the peer's sync failed or the link is lost.
    fn wait(&mut self, deadline: &mut Deadline) -> Result<bool, String>;
}

/// State shared by the lanes of a region. Lanes read the `lost` flag on each operation; it is set once per link and
/// cleared only by a reconnection, which holds every lane exclusively.
pub struct RegionCore {
    memory: Arc<Mapping>,
    lost: AtomicBool,
    reason: Mutex<Option<LostReason>>,
    /// Readable from the moment the link is lost, so that sleeping waiters see it. Replaced at a reconnection.
    wake: OwnedFd,
    sync: Mutex<Option<Arc<dyn PeerSync>>>,
    lanes: AtomicUsize,
    /// Unknown ranges of lanes that ended before their stores were acknowledged.
    orphans: Mutex<Vec<ByteRange>>,
}

impl fmt::Debug for RegionCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionCore").field("size", &self.memory.len()).field("lost", &self.lost()).finish()
    }
}

impl RegionCore {
    /// The shared state of a region over `memory`.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new(memory: Arc<Mapping>) -> std::io::Result<Arc<Self>> {
        let wake = rustix::event::eventfd(
            0,
            rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
        )?;
        Ok(Arc::new(Self {
            memory,
            lost: AtomicBool::new(false),
            reason: Mutex::new(None),
            wake,
            sync: Mutex::new(None),
            lanes: AtomicUsize::new(0),
            orphans: Mutex::new(Vec::new()),
        }))
    }

    /// The local memory.
    #[inline]
    #[must_use]
    pub fn memory(&self) -> &Arc<Mapping> {
        &self.memory
    }

    /// Whether the link is lost.
    #[inline]
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Why the link is lost, if it is.
    #[must_use]
    pub fn lost_reason(&self) -> Option<LostReason> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Marks the link as lost and wakes all waiters. The first reason stays, but for a revocation: the holder cuts a
    /// revoked owner off, and that may be seen before the message that says why.
    pub fn lose(&self, reason: LostReason) {
        let mut slot = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let symptom = matches!(*slot, Some(LostReason::Queue(_) | LostReason::Control(_)));
        if slot.is_none() || (symptom && matches!(reason, LostReason::Revoked(_))) {
            log::info!("link lost: {reason}");
            *slot = Some(reason);
        }
        self.lost.store(true, Ordering::Release);
        // The counter cannot overflow: it is written once per loss.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The link is up again, with this way to sync. Called while no lane is in use.
    pub fn restore(&self, sync: Arc<dyn PeerSync>) {
        *self.sync.lock().unwrap_or_else(PoisonError::into_inner) = Some(sync);
        // Reason, flag and event change under one lock, as in `lose`: a loss of the new link comes before or after.
        let mut slot = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut counter);
        *slot = None;
        self.lost.store(false, Ordering::Release);
    }

    /// What becomes readable when the link is lost.
    #[must_use]
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    pub(super) fn peer_sync(&self) -> Option<Arc<dyn PeerSync>> {
        self.sync.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A number that no other lane of this process has: a ticket or hole of another region's lane is not taken for one
    /// of this.
    pub(super) fn enter_lane(&self) -> u32 {
        static NEXT_LANE: AtomicU32 = AtomicU32::new(1);
        self.lanes.fetch_add(1, Ordering::Relaxed);
        NEXT_LANE.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn leave_lane(&self) {
        self.lanes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Lanes that exist.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.load(Ordering::Relaxed)
    }

    /// Drops the way to sync, at the end of the region.
    pub fn forget_sync(&self) {
        *self.sync.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn leave_orphans(&self, ranges: Vec<ByteRange>) {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        orphans.extend(ranges);
        merge_ranges(&mut orphans);
    }

    /// Takes the unknown ranges of lanes that ended.
    #[must_use]
    pub fn take_orphans(&self) -> Vec<ByteRange> {
        std::mem::take(&mut self.orphans.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts back what a reconnection that failed had taken.
    pub fn return_orphans(&self, ranges: Vec<ByteRange>) {
        self.leave_orphans(ranges);
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;
    use crate::memory::MapOptions;

    #[test]
    fn a_revocation_takes_the_place_of_what_it_brings_about_and_of_nothing_else() {
        let memory = Arc::new(Mapping::anonymous(4096, MapOptions::default()).unwrap());
        let gone = || LostReason::Queue(QueueError::PeerGone { why: "it closed the connection".into() });
        let cut = || LostReason::Control("it ended".into());
        let revoked = || LostReason::Revoked("fenced".into());
        for (first, second, stays) in [
            (gone(), revoked(), revoked()),
            (cut(), revoked(), revoked()),
            (revoked(), gone(), revoked()),
            (revoked(), cut(), revoked()),
            (gone(), cut(), gone()),
            (LostReason::Closed, revoked(), LostReason::Closed),
        ] {
            let core = RegionCore::new(memory.clone()).unwrap();
            core.lose(first);
            core.lose(second);
            assert_eq!(core.lost_reason(), Some(stays));
        }
    }

    fn core() -> Arc<RegionCore> {
        RegionCore::new(Arc::new(Mapping::anonymous(4096, MapOptions::default()).unwrap())).unwrap()
    }

    struct NoSync;

    impl PeerSync for NoSync {
        fn begin(&self, _deadline: &mut Deadline) -> Result<Box<dyn PendingSync>, String> {
            Err("nobody syncs".into())
        }
    }

    #[test]
    fn no_two_lanes_have_the_same_number() {
        let (one, other) = (core(), core());
        let numbers = [one.enter_lane(), other.enter_lane(), one.enter_lane(), other.enter_lane()];
        let distinct: std::collections::HashSet<_> = numbers.iter().collect();
        assert_eq!(
            distinct.len(),
            numbers.len(),
            "{numbers:?}: tickets and holes would be taken for another's"
        );
    }

    fn readable(fd: BorrowedFd<'_>) -> bool {
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&now)) == Ok(1)
    }

    #[test]
    fn a_loss_that_meets_a_restoration_is_seen_whole_or_not_at_all() {
        let core = core();
        for _ in 0..2000 {
            let both = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    core.lose(LostReason::Closed);
                });
                both.wait();
                core.restore(Arc::new(NoSync));
            });
            let seen = (core.lost(), core.lost_reason().is_some(), readable(core.wake_fd()));
            assert!(seen == (true, true, true) || seen == (false, false, false), "{seen:?}");
        }
    }
}
