//! The owner's side: a memory that the application stores into through a pointer, mirrored epoch by epoch.
//!
//! ```text
//!             cut                                 ship
//!  pages ──────────────▶ staging (what differs) ───────────▶ the peer's ring ─▶ (the holder applies it)
//!    ▲ found, protected    │  compared with the twin
//!    └─ again, copied once └▶ twin
//! ```
//!
//! Invariants:
//! - The twin (the image in the region's local memory) is what the peer holds once every epoch that was cut is applied.
//! - A page that differs from the twin was stored to since it was last collected, or is among `carried`, or `everything` is set.
//! - An epoch's stores are taken by the lane in order, its commit record last.

use std::ops::Range;
use std::sync::Arc;

use super::applied::Applied;
use super::body::Body;
use super::config::{Cut, EpochConfig, Reconnected};
use super::layout::{LogId, words};
use super::link::{Link, check_url, pull, push};
use super::record::COMMIT_BYTES;
use super::ship::{Shipment, look};
use super::{EpochError, log};
use crate::base::{Deadline, Level};
use crate::memory::{Mapping, Runs, TrackedMemory, TrackingMethod};
use crate::mirror::LaneStats;
use crate::node::{Attach, CallError, KeySet, ReconnectError, RefusalCode, Region, random_bytes};

/// A memory whose ordinary stores are found and mirrored, atomically by epoch.
///
/// Any thread may store through [`pointer`](Self::pointer) at any time. An epoch is what the pages held when
/// [`cut`](Self::cut) copied them, page by page: a store that happened before the cut is in it, one that happens meanwhile may be in
/// this one or the next. **A consistent cut exists only where the application holds its own writers until `cut` returns**; while
/// the epoch is shipped they may go on.
pub struct EpochRegion {
    memory: Arc<TrackedMemory>,
    why: String,
    /// Before the region, which is closed when no lane is left.
    link: Link,
    config: EpochConfig,
    keys: KeySet,
    log: LogId,
    /// The last epoch that was cut, and where the next goes.
    last: Applied,
    /// Of the epochs from here on.
    incarnation: u64,
    /// The last epoch of each incarnation before that of `last`.
    lineage: Vec<Applied>,
    shipment: Option<Shipment>,
    /// The last epoch that was cut and that the holder was found not to have, until the next is.
    dropped: Option<u64>,
    /// The room of the last one.
    spare: Body,
    /// Pages that were collected and are not in an epoch yet.
    carried: Runs,
    /// Whether any page may differ from the twin.
    everything: bool,
}

impl EpochRegion {
    /// Maps a memory of zeroes and opens the region as `config` says.
    ///
    /// On return the holder has the memory's content as a whole epoch, or the memory has the holder's.
    ///
    /// # Errors
    /// Nothing is left behind here; a push that failed half-way leaves the holder with nothing that it gives to anybody.
    pub fn open(config: EpochConfig, keys: KeySet) -> Result<Self, EpochError> {
        let (method, why) = match config.method {
            Some(method) => (method, format!("{method}: it was asked for")),
            None => TrackingMethod::choose()?,
        };
        let mapping = Mapping::apart(config.layout.image_bytes())?;
        mapping.lock(config.region.lock)?;
        let memory = TrackedMemory::over(mapping, method)?;
        Self::begin(config, keys, Arc::new(memory), why)
    }

    /// [`open`](Self::open) over a memory that the application tracks already: a push makes what it holds epoch 0, without the ring; a
    /// pull overwrites it.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When the memory has not the layout's size.
    pub fn open_over(
        config: EpochConfig,
        keys: KeySet,
        memory: Arc<TrackedMemory>,
    ) -> Result<Self, EpochError> {
        assert_eq!(memory.len(), config.layout.image_bytes(), "the memory has the layout's size");
        let why = format!("{}: the memory that was given is tracked so", memory.method());
        Self::begin(config, keys, memory, why)
    }

    fn begin(
        mut config: EpochConfig,
        keys: KeySet,
        memory: Arc<TrackedMemory>,
        why: String,
    ) -> Result<Self, EpochError> {
        check_url(&config.region.url)?;
        config.region.size = config.layout.region_bytes();
        if config.region.attach == Attach::Equal {
            config.region.attach = Attach::Pull;
        }
        let mut carried = Runs::new(memory.page_bytes());
        // Before its bytes are copied: what is stored from here on is found.
        memory.collect(&mut carried)?;
        carried.clear();
        let pulls = config.region.attach == Attach::Pull;
        let link = if pulls { pull(&config, &keys)? } else { push(&config, &keys, memory.slice())? };
        let (log, last) = log::recover(link.region.memory(), config.layout).map_err(EpochError::Content)?;
        if pulls {
            // What was stored before is overwritten; what is stored meanwhile is found by the first cut, which looks at all of it.
            memory.slice().copy_from(0, link.image(&config));
        }
        let incarnation = incarnation()?;
        Ok(Self {
            memory,
            why,
            link,
            config,
            keys,
            log,
            last,
            incarnation,
            lineage: Vec::new(),
            shipment: None,
            dropped: None,
            spare: Body::default(),
            carried,
            everything: false,
        })
    }

    /// The memory: its pointer, its size, [`prepare`](TrackedMemory::prepare) for system calls that store into it. Its bytes stay as
    /// long as somebody keeps it. Nobody else may collect its pages, or the epochs lack them.
    #[must_use]
    pub const fn memory(&self) -> &Arc<TrackedMemory> {
        &self.memory
    }

    /// Where the memory begins: see [`TrackedMemory::pointer`].
    #[must_use]
    pub fn pointer(&self) -> std::ptr::NonNull<u8> {
        self.memory.pointer()
    }

    /// How stores are found, and why so.
    #[must_use]
    pub fn method(&self) -> (TrackingMethod, &str) {
        (self.memory.method(), &self.why)
    }

    /// The last epoch that was cut; that of the content at first.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.last.number
    }

    /// The epoch that is cut and not shipped, if there is one.
    #[must_use]
    pub fn unshipped(&self) -> Option<u64> {
        self.shipment.as_ref().map(|shipment| shipment.commit.number)
    }

    /// The last epoch that the holder has applied, as of a look now.
    ///
    /// # Errors
    /// The link is lost.
    pub fn applied(&mut self, mut deadline: Deadline) -> Result<u64, EpochError> {
        let epoch = self.last.number;
        look(&mut self.link.lane, &mut deadline).map_err(|error| EpochError::Wait {
            epoch,
            level: Level::Posted,
            error,
        })?;
        Ok(self.link.region.memory().load_word(words::NUMBER))
    }

    /// The region below: its link, its name.
    #[must_use]
    pub const fn region(&self) -> &Region {
        &self.link.region
    }

    /// Counts of what the lane did.
    #[must_use]
    pub fn lane_stats(&self) -> LaneStats {
        self.link.lane.stats()
    }

    /// [`cut`](Self::cut) and [`ship`](Self::ship): on return the peer has the whole epoch at `level`, with all that was stored before
    /// the call. One that an earlier call left unshipped goes first.
    ///
    /// # Errors
    /// As theirs. What was stored is in this epoch or found again by the next; nothing is forgotten.
    pub fn commit(&mut self, level: Level, mut deadline: Deadline) -> Result<Cut, EpochError> {
        if self.shipment.is_some() {
            self.ship(Level::Posted, Deadline::at(deadline.instant()))?;
        }
        let cut = self.cut()?;
        self.ship(level, deadline)?;
        Ok(cut)
    }

    /// Closes the epoch: finds the pages that were stored to, copies each once, keeps what differs from the twin. Nothing is sent; the
    /// application's writers need be held no longer than this. When nothing changed no epoch is made.
    ///
    /// # Errors
    /// [`EpochError::Unshipped`], [`EpochError::TooLarge`], or the kernel's: nothing was cut, and what changed is found again.
    pub fn cut(&mut self) -> Result<Cut, EpochError> {
        if let Some(epoch) = self.unshipped() {
            return Err(EpochError::Unshipped(epoch));
        }
        self.collect()?;
        let mut body = std::mem::take(&mut self.spare);
        body.clear();
        let result = self.compare(&mut body);
        let pages = self.carried.pages();
        if result.is_err() || body.len() == 0 {
            self.spare = body;
            result?;
            self.carried.clear();
            self.dropped = None;
            return Ok(Cut { epoch: self.last.number, pages, ..Cut::default() });
        }
        body.apply(self.link.image(&self.config));
        self.carried.clear();
        self.dropped = None;
        let cut = Cut {
            epoch: self.last.number + 1,
            pages,
            ranges: body.ranges() as usize,
            runs: body.runs() as usize,
            changed_bytes: body.changed(),
            shipped_bytes: body.len() + COMMIT_BYTES,
        };
        let shipment = Shipment::new(self.last, self.incarnation, body);
        self.go_on_from(shipment.commit.applied());
        self.shipment = Some(shipment);
        Ok(cut)
    }

    /// Makes `last` the last epoch, and keeps in mind which ones were this owner's.
    fn go_on_from(&mut self, last: Applied) {
        /// Incarnations that are remembered.
        const LINEAGE_MAX: usize = 64;
        if self.last.incarnation != last.incarnation {
            if self.lineage.len() == LINEAGE_MAX {
                self.lineage.remove(0);
            }
            self.lineage.push(self.last);
        }
        self.last = last;
    }

    /// Whether the epoch of `found` is one that this owner made or went on from.
    fn knows(&self, log: LogId, found: Applied) -> bool {
        let made = |own: &Applied| {
            own.incarnation == found.incarnation
                && found.number <= own.number
                && found.position <= own.position
        };
        log == self.log && (made(&self.last) || self.lineage.iter().any(made))
    }

    /// Adds what was stored to since the last time to the pages to look at.
    fn collect(&mut self) -> Result<(), EpochError> {
        let collected = self.memory.collect(&mut self.carried);
        if collected.is_err() {
            // What was found and what was not is one: all of it is looked at next time.
            self.everything = true;
        }
        collected?;
        if std::mem::take(&mut self.everything) {
            self.carried.add_pages(0..self.memory.len().div_ceil(self.memory.page_bytes()));
        }
        Ok(())
    }

    /// Puts what differs in the carried pages into `body`.
    fn compare(&self, body: &mut Body) -> Result<(), EpochError> {
        let (page, ring) = (self.carried.page_bytes(), self.config.layout.ring_bytes());
        let (memory, twin) = (self.memory.slice(), self.link.image(&self.config));
        let offsets = self.carried.ranges().iter().cloned().flat_map(|run: Range<usize>| run.step_by(page));
        for (before, offset) in offsets.enumerate() {
            body.add_page(offset, page.min(memory.len() - offset), memory, twin);
            if !body.fits(ring) {
                let (bytes, looked, pages) = (body.len(), before + 1, self.carried.pages());
                return Err(EpochError::TooLarge { bytes, looked, pages, ring });
            }
        }
        Ok(())
    }

    /// Ships the epoch that was cut, and waits until the peer has all epochs at `level`. `Acked` and `Visible` are of the peer's memory,
    /// where a take-over applies it; `Durable` of its disk.
    ///
    /// # Errors
    /// The epoch stays cut, and the next call goes on with it. After [`EpochError::Wait`] it may be whole at the peer all the same.
    /// [`EpochError::Dropped`] when [`reconnect`](Self::reconnect) dropped the last one: cut again.
    pub fn ship(&mut self, level: Level, mut deadline: Deadline) -> Result<(), EpochError> {
        if let Some(epoch) = self.dropped {
            return Err(EpochError::Dropped(epoch));
        }
        let Self { link, shipment, config, log, last, .. } = self;
        let Some(cut) = shipment else {
            let waited = link.lane.flush(level, deadline);
            let epoch = last.number;
            return waited.map(|_| ()).map_err(|error| EpochError::Wait { epoch, level, error });
        };
        let local = link.region.memory();
        cut.ship(&mut link.lane, local, config.layout, *log, level, &mut deadline)?;
        if let Some(done) = shipment.take() {
            self.spare = done.body;
        }
        Ok(())
    }

    /// Connects again after the link was lost. Where the holder knows this owner still, the epoch under way goes on. Where it does not (it
    /// was restarted, fenced, or had another owner), the region is opened anew with what the holder has, its last whole epoch, and
    /// the next commit ships all in which the memory differs from that, in one epoch. Which of the two it was is the answer.
    ///
    /// # Errors
    /// It is as it was: try again. [`EpochError::Superseded`] when another owner made what the holder has: nothing of that is
    /// overwritten, and trying again leads to the same.
    pub fn reconnect(&mut self, deadline: Deadline) -> Result<Reconnected, EpochError> {
        match self.link.region.reconnect(&mut [&mut self.link.lane], deadline) {
            Ok(_) => return Ok(Reconnected::Resumed),
            Err(ReconnectError::Call(CallError::Refused { code: RefusalCode::NotResumable, .. })) => {}
            Err(error) => return Err(error.into()),
        }
        self.config.region.attach = Attach::Pull;
        self.config.region.id = Some(self.link.region.id());
        let link = pull(&self.config, &self.keys)?;
        let (log, found) =
            log::recover(link.region.memory(), self.config.layout).map_err(EpochError::Content)?;
        let own = self.last;
        if !self.knows(log, found) {
            return Err(EpochError::Superseded { own: own.number, found: found.number });
        }
        self.incarnation = incarnation()?;
        self.link = link;
        self.go_on_from(found);
        self.shipment = None;
        self.everything = true;
        self.dropped = (found != own).then_some(own.number);
        Ok(Reconnected::Anew { dropped: self.dropped })
    }
}

impl std::fmt::Debug for EpochRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EpochRegion({:?}, epoch {})", self.memory, self.epoch())
    }
}

/// A new one.
fn incarnation() -> Result<u64, EpochError> {
    Ok(u64::from_le_bytes(random_bytes()?))
}
