//! A region as its owner has it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::attach::{Attachment, attach};
use super::call::CallError;
use super::data_stream::Reach;
use super::session::Session;
use super::{OpenError, RegionConfig};
use crate::base::{Deadline, RegionId, SessionId};
use crate::control::KeySet;
use crate::memory::{MapOptions, Mapping, VolatileSlice};
use crate::mirror::{Lane, LaneConfig, LostReason, RegionCore};
use crate::node::REGION_WINDOW;

/// State of the link to the holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStatus {
    /// The holder is heard.
    Up,
    /// The holder has not been heard for this long beyond its time; where the medium needs no processor of its, stores
    /// still reach its memory.
    Silent(Duration),
    /// Lost: reconnect.
    Lost(LostReason),
}

/// A mirrored region: a local memory whose every store, made through a [`Lane`], reaches the holder's.
///
/// Dropping it closes the link in good order; the holder keeps its copy.
#[derive(Debug)]
pub struct Region {
    pub(super) core: Arc<RegionCore>,
    pub(super) config: RegionConfig,
    pub(super) keys: KeySet,
    pub(super) attachment: Mutex<Attachment>,
    /// That of the attachment, for those who must not wait until a reconnection or a new lane lets go of it.
    pub(super) session: Mutex<Arc<Session>>,
    /// The session to resume: the last in which the copies were known to agree but for the lanes' unknown ranges.
    pub(super) resumable: Mutex<SessionId>,
}

impl Region {
    /// Maps the local memory, connects to the holder and brings the copies together as `config.attach` says.
    ///
    /// On return both sides hold the same bytes.
    ///
    /// # Errors
    /// Nothing is left behind here. A push that failed half-way leaves the holder with a copy that it calls partial
    /// and gives to nobody.
    pub fn open(config: RegionConfig, keys: KeySet) -> Result<Self, OpenError> {
        let options = MapOptions { huge_pages: config.huge_pages };
        let memory = Mapping::anonymous(config.size, options)?;
        memory.lock(config.lock)?;
        Self::open_over(config, keys, Arc::new(memory))
    }

    /// [`open`](Self::open) over memory that the caller mapped, of `config.size` bytes: to push what it holds.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn open_over(config: RegionConfig, keys: KeySet, memory: Arc<Mapping>) -> Result<Self, OpenError> {
        assert_eq!(memory.len(), config.size, "the memory has the region's size");
        let core = RegionCore::new(memory)?;
        let mut deadline = Deadline::within(config.timeout);
        let (heartbeat, silence) = (config.heartbeat, config.silence);
        let link = Arc::downgrade(&core);
        let session = Session::connect(&config.url, &keys, heartbeat, silence, link, &mut deadline)?;
        let session = Arc::new(session);
        let attachment = attach(&core, &config, session.clone())?;
        session.put_up(&core);
        if let Some(reason) = attachment.dialer.failure() {
            core.lose(reason);
        }
        Ok(Self {
            core,
            config,
            keys,
            resumable: Mutex::new(session.id()),
            attachment: Mutex::new(attachment),
            session: Mutex::new(session),
        })
    }

    pub(super) fn attachment(&self) -> MutexGuard<'_, Attachment> {
        self.attachment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The local copy, to read. Writing into it other than through a lane is not mirrored.
    #[must_use]
    pub fn memory(&self) -> VolatileSlice<'_> {
        self.core.memory().slice()
    }

    /// The local memory itself, to keep beyond the region: when the holder cannot resume (`NotResumable`), drop this
    /// region with its lanes and holes, and [`open_over`](Self::open_over) pushes what the memory holds.
    #[must_use]
    pub fn mapping(&self) -> &Arc<Mapping> {
        self.core.memory()
    }

    /// The region's name.
    #[must_use]
    pub fn id(&self) -> RegionId {
        self.attachment().region
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.core.memory().len()
    }

    /// State of the link.
    #[must_use]
    pub fn link(&self) -> LinkStatus {
        if let Some(reason) = self.core.lost_reason() {
            return LinkStatus::Lost(reason);
        }
        match self.attachment().session.silent_for() {
            Some(silent) => LinkStatus::Silent(silent),
            None => LinkStatus::Up,
        }
    }

    /// One more lane: an independent ordered stream of stores.
    ///
    /// # Errors
    /// The link is lost, or the holder gives no queue.
    ///
    /// # Panics
    /// When `config.depth` is out of bounds.
    pub fn lane(&self, config: LaneConfig) -> Result<Lane, CallError> {
        // Held until the lane counts: a reconnection passes every lane or refuses.
        let attachment = self.attachment();
        if let Some(reason) = self.core.lost_reason() {
            return Err(CallError::Ended(reason.to_string()));
        }
        let mut deadline = Deadline::within(self.config.timeout);
        let queue = attachment.dialer.queue(
            &attachment.session,
            Reach::Region,
            queue_depth(config),
            &mut deadline,
        )?;
        Ok(Lane::new(self.core.clone(), queue, REGION_WINDOW, config))
    }

    /// Closes the link in good order. Lanes that still exist find it lost. What was not acknowledged before may or may
    /// not be at the holder: flush first.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.core.lose(LostReason::Closed);
        self.core.forget_sync();
        self.attachment().session.close(Duration::from_millis(500));
    }
}

/// Requests that a lane may have outstanding: its stores, and the pieces of a long one.
pub(super) fn queue_depth(config: LaneConfig) -> usize {
    (config.depth * 2).max(64)
}
