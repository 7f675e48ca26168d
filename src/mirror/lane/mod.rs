//! The exclusive lane: stores, in order, without a lock and without a locked instruction.
//!
//! ```text
//!            try_store                close                 doorbell            completion
//!  (nothing) ─────────▶ open run ─────────────▶ in flight ────────────▶ (moves) ───────────▶ (retired)
//!                        ▲     │ a store that continues it joins
//!                        └─────┘
//! ```
//!
//! At most one run is open. It is closed, that is handed to the queue, before any store that does not simply
//! continue it touches the local memory; so what the queue reads is what was stored, and coalescing never moves
//! bytes across a store in between. On media where a post costs no more than the copy, each store is posted at once.

use std::sync::Arc;
use std::time::Duration;

mod durable;
mod fetch;
mod marks;
mod post;
mod store;
mod wait;

pub(super) use self::wait::sleep_on;

use self::fetch::Fetch;
use self::marks::Marks;
use super::given_up::GivenUp;
use super::recent::Recent;
use super::ticket::Stream;
use super::window::{InFlight, Run};
use super::{ByteRange, LaneStats, RegionCore, Unknown, Watermarks};
use crate::base::Sequence;
use crate::fabric::shm::PlainWay;
use crate::fabric::{Capabilities, Queue, SourceUse, WindowId};

/// How a waiting lane waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polling {
    /// Keeps a processor busy: the shortest latency.
    Spin,
    /// Sleeps at once.
    Block,
    /// Spins for this long, then sleeps.
    Adaptive(Duration),
}

/// How a lane is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneConfig {
    /// Stores in flight at most: 1 to [`Lane::DEPTH_MAX`].
    pub depth: usize,
    /// How it waits.
    pub polling: Polling,
    /// How long [`Lane::store`] waits for room.
    pub store_timeout: Duration,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            depth: 256,
            polling: Polling::Adaptive(Duration::from_micros(50)),
            store_timeout: Duration::from_secs(10),
        }
    }
}

/// An ordered stream of stores into a region. Used by one thread at a time; see
/// [`into_shared`](Lane::into_shared) for more.
pub struct Lane {
    pub(super) core: Arc<RegionCore>,
    pub(super) queue: Box<dyn Queue>,
    pub(super) config: LaneConfig,
    pub(super) stream: Stream,
    /// The peer's window that mirrors the region.
    window: WindowId,
    capabilities: Capabilities,
    /// The plain way (see `store`); leads nowhere on media that have none.
    way: PlainWay,
    /// Whether the medium has one.
    has_way: bool,
    marks: Marks,
    /// The open run; meaningful while `has_open`.
    open: Run,
    has_open: bool,
    /// Bytes of the open run already handed to the queue. A run partly handed over takes no more stores.
    open_posted: usize,
    /// The runs in flight, where stores are gathered; the newest stores, where each is posted at once.
    in_flight: InFlight,
    recent: Recent,
    /// Stores that start a batch on their own: half of the depth, so that two batches are under way.
    batch: u64,
    /// The last store of which a completion was asked for.
    pub(super) signaled: Sequence,
    /// The last store before the last doorbell.
    pub(super) rung: Sequence,
    /// Requests posted since the last signaled one, and how many are allowed: unsignaled requests hold their places
    /// in the queue until a later signaled one completes.
    unsignaled: usize,
    unsignaled_max: usize,
    /// The last store that a posted flush covers, for media where a completion is not yet visibility.
    pub(super) flush_posted: Sequence,
    holes: Vec<ByteRange>,
    fetch: Fetch,
    /// A sync that a waiter gave up.
    given_up: Option<GivenUp>,
    pub(super) stats: LaneStats,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("stream", &self.stream).field("marks", &self.marks).finish()
    }
}

impl Lane {
    /// Most stores in flight.
    pub const DEPTH_MAX: usize = 4096;

    /// A lane over `queue`, whose peer grants `window` for the region.
    ///
    /// # Panics
    /// When `config.depth` is 0 or above [`DEPTH_MAX`](Self::DEPTH_MAX).
    #[must_use]
    pub fn new(core: Arc<RegionCore>, queue: Box<dyn Queue>, window: WindowId, config: LaneConfig) -> Self {
        assert!(
            (1..=Self::DEPTH_MAX).contains(&config.depth),
            "a lane's depth is 1 to 4096, not {}",
            config.depth
        );
        let capabilities = queue.capabilities().clone();
        let mut lane = Self {
            stream: Stream::new(core.enter_lane(), 1),
            core,
            config,
            window,
            marks: Marks::new(capabilities.visible_on_completion),
            open: Run::default(),
            has_open: false,
            open_posted: 0,
            in_flight: InFlight::new(config.depth + 1, capabilities.source == SourceUse::UntilCompleted),
            recent: Recent::new(capabilities.coalesce_bytes_max == 0),
            batch: batch_of(config.depth, &capabilities),
            signaled: Sequence(0),
            rung: Sequence(0),
            unsignaled: 0,
            unsignaled_max: (capabilities.depth_max / 4).max(1),
            has_way: false,
            way: PlainWay::nowhere(),
            flush_posted: Sequence(0),
            holes: Vec::with_capacity(crate::mirror::hole::HOLES_MAX),
            fetch: Fetch::Idle,
            given_up: None,
            stats: LaneStats { sessions: 1, syscalls: Some(0), ..LaneStats::default() },
            capabilities,
            queue,
        };
        lane.find_way();
        lane
    }

    /// What the medium gives.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// How it was made.
    #[must_use]
    pub const fn config(&self) -> LaneConfig {
        self.config
    }

    /// How far the stores have come, as of the last call that looked.
    #[inline]
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        self.marks.all()
    }

    /// Counts of what it did.
    #[must_use]
    pub fn stats(&self) -> LaneStats {
        let mut stats = self.stats;
        // Of this queue, and of those before.
        stats.syscalls = stats.syscalls.zip(self.queue.syscalls()).map(|(before, now)| before + now);
        stats.stores = self.marks.last().0;
        stats.bytes = self.marks.bytes();
        if self.at_once() {
            // Every store is a request of its own, and each is signaled.
            stats.requests = self.marks.posted().0;
            stats.signaled = self.marks.posted().0;
            stats.completions = self.marks.acked().0;
        }
        stats
    }

    /// Takes the plain way of the queue, if it is all that a store needs.
    fn find_way(&mut self) {
        let enough = self.at_once()
            && self.capabilities.source == SourceUse::AtPost
            && self.capabilities.visible_on_completion;
        let way = if enough { self.queue.plain_way() } else { None };
        self.has_way = way.is_some();
        self.way = way.unwrap_or_else(PlainWay::nowhere);
        self.plan();
    }

    /// Opens or closes the plain way, after anything that it depends on changed.
    #[inline]
    fn plan(&mut self) {
        let open = self.has_way && !self.has_open && self.holes.is_empty();
        self.marks.allow_plainly(if open { self.config.depth as u64 } else { 0 });
    }

    /// Whether a post costs no more than the copy, so that each store is posted by itself.
    #[inline]
    pub(super) const fn at_once(&self) -> bool {
        self.capabilities.coalesce_bytes_max == 0
    }

    /// Whether a request in flight has bytes of `range`.
    fn overlaps(&self, range: ByteRange) -> bool {
        let recent = || self.recent.between(self.marks.acked(), self.marks.posted());
        self.in_flight.overlaps(range) || (self.at_once() && recent().any(|store| store.overlaps(range)))
    }

    /// The range of every hole that is neither sealed nor void.
    #[must_use]
    pub fn open_holes(&self) -> &[ByteRange] {
        &self.holes
    }

    /// What is known of the stores: everything to `acked` is at the peer; the ranges after it may be. Complete in
    /// itself only after the link was lost; reconnecting re-sends the ranges.
    #[must_use]
    pub fn unknown(&self) -> Unknown {
        let (acked, last) = (self.marks.acked(), self.marks.last());
        let mut ranges = self.in_flight.ranges();
        if self.at_once() {
            ranges.extend(self.recent.between(acked, last));
        } else if self.has_open {
            ranges.push(ByteRange { offset: self.open.offset, len: self.open.len });
        }
        super::merge_ranges(&mut ranges);
        Unknown { acked, last, ranges }
    }

    /// Goes on over a new queue, after the ranges in [`unknown`](Self::unknown) were placed at the peer: everything
    /// taken so far is acknowledged then. Tickets from before are stale.
    pub fn resume(&mut self, queue: Box<dyn Queue>, window: WindowId) {
        self.capabilities = queue.capabilities().clone();
        self.stats.syscalls = self.stats.syscalls.zip(self.queue.syscalls()).map(|(sum, last)| sum + last);
        self.queue = queue;
        self.window = window;
        self.stream = self.stream.next();
        self.stats.sessions += 1;
        self.in_flight.clear();
        self.has_open = false;
        self.open_posted = 0;
        self.unsignaled = 0;
        self.marks.place_all(self.capabilities.visible_on_completion);
        let last = self.marks.last();
        self.signaled = last;
        self.rung = last;
        self.flush_posted = last;
        self.fetch = self.fetch.again();
        self.given_up = None;
        // Nothing is in flight, so nothing of the ring is needed.
        self.recent = Recent::new(self.at_once());
        self.find_way();
    }
}

#[cfg(all(test, not(loom), not(miri)))]
#[path = "late_source_tests.rs"]
mod late_source_tests;

#[cfg(all(test, not(loom), not(miri)))]
#[path = "fetch_tests.rs"]
mod fetch_tests;

#[cfg(all(test, not(loom), not(miri)))]
#[path = "plain_tests.rs"]
mod plain_tests;

/// Stores that make a doorbell ring by themselves: half of the depth. Where visibility takes a request of its own, one store
/// alone waits for whoever asks for it: store and flush then go together.
fn batch_of(depth: usize, capabilities: &Capabilities) -> u64 {
    let least = if capabilities.visible_on_completion { 1 } else { 2 };
    (depth as u64 / 2).max(least)
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Through memory one look mostly shows that nothing is unknown.
        if self.has_way && !self.core.lost() {
            self.complete_plainly();
        }
        let unknown = self.unknown();
        let mut ranges = unknown.ranges;
        ranges.extend_from_slice(&self.holes);
        if !ranges.is_empty() {
            self.core.leave_orphans(ranges);
        }
        self.core.leave_lane();
    }
}
