//! The way from a primary to the peer's memory: what is handed over, and what is known to be there.
//!
//! What goes over is a lane of the mirrored region ([`Wire`]); simulations put another in its place.

use std::collections::VecDeque;
use std::sync::Arc;

use super::log::{Log, Post};
use super::medium::{Lane as Way, Region};
use super::ring_memory::{FLUSH_AT, OWN_DURABLE_AT, SECONDARY_AT, SECONDARY_BYTES};
use crate::base::{Lsn, Sequence};
use crate::fabric::Armed;
use crate::mirror::{Arrivals, Lane, StoreError, Watch};

/// The own durable position is told to the peer when it moved so far, or at a flush: it needs it to reclaim only.
const TELL_BYTES: u64 = 4 << 20;

/// One-sided stores into the peer's memory, in order, and looks at it. None of them waits.
pub(super) trait Wire: std::fmt::Debug {
    /// Hands over a range of the region as it is; its number, or `None` when there is no room now.
    fn hand_over(&mut self, offset: usize, len: usize) -> Result<Option<Sequence>, String>;

    /// Stores bytes; false when there is no room now.
    fn store(&mut self, offset: usize, bytes: &[u8]) -> Result<bool, String>;

    /// All with this number and lower ones are in the peer's memory.
    fn acked(&mut self) -> Result<Sequence, String>;

    /// Begins to fetch words of the peer's to the same place here; false when there is no room now.
    fn fetch(&mut self, offset: usize, len: usize) -> Result<bool, String>;

    /// Whether they are here.
    fn has_fetched(&mut self) -> Result<bool, String>;

    /// Where one sleeps until something comes; `None` on a medium that is looked at, again and again.
    fn arrivals(&self) -> Option<Arc<Arrivals>> {
        None
    }

    /// Prepares for a sleep there: false when something may have come already.
    fn arm(&mut self, _watch: &mut Watch) -> Result<bool, String> {
        Ok(false)
    }
}

/// Looks at the peer's words over all links, in their order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Looks {
    /// How many were begun.
    pub(super) begun: u64,
    /// The number of the last that is done.
    pub(super) done: u64,
}

/// How one passes the time until something comes from the peer.
#[derive(Debug)]
pub(super) enum Wait {
    /// By a sleep here, which ends when it comes.
    Watch(Watch),
    /// By another look at once.
    Look,
    /// Another watches, or nobody can.
    Other,
}

/// What became of an operation that may find no room.
fn room<T>(result: Result<T, StoreError>) -> Result<Option<T>, String> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(StoreError::WouldBlock { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

impl Wire for Lane {
    fn hand_over(&mut self, offset: usize, len: usize) -> Result<Option<Sequence>, String> {
        let Some(hole) = room(self.try_reserve(offset, len))? else { return Ok(None) };
        let ticket = self.seal(hole).map_err(|error| error.to_string())?;
        Ok(Some(ticket.sequence()))
    }

    fn store(&mut self, offset: usize, bytes: &[u8]) -> Result<bool, String> {
        Ok(room(self.try_store(offset, bytes))?.is_some())
    }

    fn acked(&mut self) -> Result<Sequence, String> {
        Ok(self.poll().map_err(|error| error.to_string())?.acked)
    }

    fn fetch(&mut self, offset: usize, len: usize) -> Result<bool, String> {
        Ok(room(self.try_fetch(offset, len))?.is_some())
    }

    fn has_fetched(&mut self) -> Result<bool, String> {
        self.fetch_done().map_err(|error| error.to_string())
    }

    fn arrivals(&self) -> Option<Arc<Arrivals>> {
        Arrivals::of(self)
            .inspect_err(|error| log::warn!("who waits for the peer looks now and then: {error}"))
            .ok()?
            .map(Arc::new)
    }

    fn arm(&mut self, watch: &mut Watch) -> Result<bool, String> {
        let armed = Self::arm(self).map_err(|error| error.to_string())?;
        watch.wants_write = self.wants_write();
        Ok(armed == Armed::Sleep)
    }
}

/// The way to the peer's memory.
pub(super) struct Link<R = Region, W = Way> {
    pub(super) region: R,
    pub(super) lane: W,
    /// Stores under way behind which the log is complete to a position.
    in_flight: VecDeque<(Sequence, Lsn)>,
    told_flush: Lsn,
    told_durable: Lsn,
    /// To where the log was handed over.
    handed: Lsn,
    is_fetching: bool,
    arrivals: Option<Arc<Arrivals>>,
}

impl<R, W: std::fmt::Debug> std::fmt::Debug for Link<R, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("lane", &self.lane).field("in_flight", &self.in_flight.len()).finish()
    }
}

impl<R, W: Wire> Link<R, W> {
    pub(super) fn new(region: R, lane: W) -> Self {
        Self {
            arrivals: lane.arrivals(),
            region,
            lane,
            in_flight: VecDeque::new(),
            told_flush: Lsn::ZERO,
            told_durable: Lsn::ZERO,
            handed: Lsn::ZERO,
            is_fetching: false,
        }
    }

    /// After a reconnection everything that was handed over is with the peer.
    pub(super) fn reconnected(&mut self) -> Option<Lsn> {
        self.is_fetching = false;
        self.arrivals = self.lane.arrivals();
        self.in_flight.drain(..).next_back().map(|(_, end)| end)
    }

    /// Hands over a range of the region as it is; false when there is no room now.
    fn post(&mut self, post: Post) -> Result<bool, String> {
        let Some(sequence) = self.lane.hand_over(post.offset, post.len)? else { return Ok(false) };
        if let Some(end) = post.end {
            self.in_flight.push_back((sequence, end));
            self.handed = end;
        }
        Ok(true)
    }

    /// To where the log was handed over, to this link.
    pub(super) const fn handed(&self) -> Lsn {
        self.handed
    }

    /// The last position with all before it in the peer's memory, if one came since.
    fn placed(&mut self) -> Result<Option<Lsn>, String> {
        let acked = self.lane.acked()?;
        let mut placed = None;
        while let Some((sequence, end)) = self.in_flight.front() {
            if *sequence > acked {
                break;
            }
            placed = Some(*end);
            self.in_flight.pop_front();
        }
        if placed.is_some() {
            self.note_arrival();
        }
        Ok(placed)
    }

    /// What came was taken: the one who sleeps would not hear of it.
    fn note_arrival(&self) {
        if let Some(arrivals) = &self.arrivals {
            arrivals.note();
        }
    }

    /// How to wait for what is under way, after a look.
    pub(super) fn wait(&mut self) -> Result<Wait, String> {
        let Some(arrivals) = &self.arrivals else { return Ok(Wait::Other) };
        let Some(mut watch) = arrivals.watch() else { return Ok(Wait::Other) };
        Ok(if self.lane.arm(&mut watch)? { Wait::Watch(watch) } else { Wait::Look })
    }

    /// Asks the peer how far it is; whether an answer came. Has one question under way at most, always.
    pub(super) fn ask(&mut self, looks: &mut Looks) -> Result<bool, String> {
        let came = self.is_fetching && self.has_come(looks)?;
        self.begin_to_ask(looks)?;
        Ok(came)
    }

    /// Whether the look of this number, or a later one, is done, if need be by asking for it; whether an answer came.
    pub(super) fn look(&mut self, looks: &mut Looks, wanted: u64) -> Result<bool, String> {
        let before = looks.done;
        while looks.done < wanted {
            // One that is under way may have been begun too early.
            let goes_on = if self.is_fetching { self.has_come(looks)? } else { self.begin_to_ask(looks)? };
            if !goes_on {
                break;
            }
        }
        Ok(looks.done > before)
    }

    /// Whether the look under way is done.
    fn has_come(&mut self, looks: &mut Looks) -> Result<bool, String> {
        if self.lane.has_fetched()? {
            self.is_fetching = false;
            looks.done = looks.begun;
        }
        // The look took what had come, of whatever.
        if !self.is_fetching || !self.in_flight.is_empty() {
            self.note_arrival();
        }
        Ok(!self.is_fetching)
    }

    /// Begins a look, unless one is under way; whether there is room.
    fn begin_to_ask(&mut self, looks: &mut Looks) -> Result<bool, String> {
        if !self.is_fetching {
            self.is_fetching = self.lane.fetch(SECONDARY_AT, SECONDARY_BYTES)?;
            looks.begun += u64::from(self.is_fetching);
        }
        Ok(self.is_fetching)
    }

    /// Hands over what was appended to the log, and takes note of what arrived.
    pub(super) fn push(&mut self, log: &mut Log, placed: &mut Lsn) -> Result<(), String> {
        while let Some(post) = log.next_post() {
            if !self.post(post)? {
                break;
            }
            log.posted();
        }
        self.reap(placed)
    }

    /// Tells the peer what of that is to become durable, and what is durable here.
    pub(super) fn tell_positions(&mut self, log: &Log) -> Result<(), String> {
        let (flush, durable) = (log.padded(), log.own_durable());
        // Behind the records that it is about.
        if log.next_post().is_none() && flush > self.told_flush && self.tell(FLUSH_AT, flush)? {
            self.told_flush = flush;
        }
        let tells = durable.0 >= self.told_durable.0 + TELL_BYTES
            || (flush <= durable && durable > self.told_durable);
        if tells && self.tell(OWN_DURABLE_AT, durable)? {
            self.told_durable = durable;
        }
        Ok(())
    }

    /// Takes note of what arrived.
    pub(super) fn reap(&mut self, placed: &mut Lsn) -> Result<(), String> {
        if let Some(end) = self.placed()? {
            *placed = end.max(*placed);
        }
        Ok(())
    }

    /// Stores one of the primary's words.
    fn tell(&mut self, offset: usize, lsn: Lsn) -> Result<bool, String> {
        self.lane.store(offset, &lsn.0.to_le_bytes())
    }
}
