//! A node that serves: its log, and the link by which what is appended reaches the peer's memory.
//!
//! ```text
//!              meet                caught up                 the peer took note              link lost
//!   Alone ────────────▶ CatchingUp ────────────▶ SettingIn ─────────────────────▶ Mirrored ───────────────▶ Held
//!     ▲                      │ link lost             │ link lost                     ▲        reconnected      │
//!     ├──────────────────────┘                       └───────────────────────────────┼────────────────────────▶┤
//!     │                                                                              └─────────────────────────┤
//!     └──────────────────────────────── the register says so ──────────────────────────────────────────────────┘
//! ```
//!
//! *Committed* is what may be acknowledged: with the peer a member, what is in its memory; without, what is durable on the own disk.
//! While it is not certain whether the peer knows that it is one, both: it may be promoted, or this node may go on from its disk.
//! It never goes back. While the link is lost and the register still names the peer a member, nothing more is committed: requests are
//! held, not answered.

use std::collections::VecDeque;

use super::log::{Log, Post};
use super::resync::Source;
use super::ring_memory::{FLUSH_AT, OWN_DURABLE_AT, SECONDARY_AT, SECONDARY_BYTES, SecondaryWords, Trouble};
use crate::base::{LogGeneration, Lsn, Sequence};
use crate::mirror::{Lane, StoreError, WaitError};
use crate::node::Region;
use crate::segment::Node;

/// The own durable position is told to the peer when it moved so far, or at a flush: it needs it to reclaim only.
const TELL_BYTES: u64 = 4 << 20;

/// Who a primary serves with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nobody: what is durable here is committed.
    Alone,
    /// The peer follows, but lacks what was written before this position.
    CatchingUp {
        /// Where the log ended when it attached.
        until: Lsn,
    },
    /// The peer has everything, and is told that it is a member: what is in its memory and on the own disk is committed.
    SettingIn,
    /// The peer: what is in its memory is committed.
    Mirrored,
    /// The peer, which is not reached: nothing more is committed.
    Held {
        /// What became of the link.
        why: String,
    },
}

/// The way to the peer's memory.
pub(super) struct Link {
    pub(super) region: Region,
    pub(super) lane: Lane,
    /// Stores under way behind which the log is complete to a position.
    in_flight: VecDeque<(Sequence, Lsn)>,
    told_flush: Lsn,
    told_durable: Lsn,
    is_fetching: bool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("lane", &self.lane).field("in_flight", &self.in_flight.len()).finish()
    }
}

impl Link {
    pub(super) const fn new(region: Region, lane: Lane) -> Self {
        Self {
            region,
            lane,
            in_flight: VecDeque::new(),
            told_flush: Lsn::ZERO,
            told_durable: Lsn::ZERO,
            is_fetching: false,
        }
    }

    /// After a reconnection everything that was handed over is with the peer.
    pub(super) fn reconnected(&mut self) -> Option<Lsn> {
        self.is_fetching = false;
        self.in_flight.drain(..).next_back().map(|(_, end)| end)
    }

    /// Hands over a range of the region as it is; false when there is no room now.
    fn post(&mut self, post: Post) -> Result<bool, StoreError> {
        let hole = match self.lane.try_reserve(post.offset, post.len) {
            Ok(hole) => hole,
            Err(StoreError::WouldBlock { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let ticket = self.lane.seal(hole)?;
        if let Some(end) = post.end {
            self.in_flight.push_back((ticket.sequence(), end));
        }
        Ok(true)
    }

    /// Stores one of the primary's words.
    fn tell(&mut self, offset: usize, lsn: Lsn) -> Result<bool, StoreError> {
        match self.lane.try_store(offset, &lsn.0.to_le_bytes()) {
            Ok(_) => Ok(true),
            Err(StoreError::WouldBlock { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The last position with all before it in the peer's memory, if one came since.
    fn placed(&mut self) -> Result<Option<Lsn>, WaitError> {
        let acked = self.lane.poll()?.acked;
        let mut placed = None;
        while let Some((sequence, end)) = self.in_flight.front() {
            if *sequence > acked {
                break;
            }
            placed = Some(*end);
            self.in_flight.pop_front();
        }
        Ok(placed)
    }
}

/// The state of a serving node.
#[derive(Debug)]
pub(super) struct Primary {
    pub(super) log: Log,
    pub(super) mode: Mode,
    /// Taken out while it reconnects.
    pub(super) link: Option<Link>,
    pub(super) generation: LogGeneration,
    /// What the peer said of itself last.
    pub(super) peer: SecondaryWords,
    committed: Lsn,
    placed: Lsn,
    /// The next segment's file cannot be made: why.
    pub(super) no_file: Option<String>,
    /// The peer took note that it is a member.
    is_told: bool,
    /// The peer is brought up to date: it lacks more than the ring has.
    pub(super) resync: Option<Box<Source>>,
    /// To where the peer was durable when it was last there.
    peer_had: Lsn,
    /// Links that are done with, to be closed by whoever holds no lock: that takes time.
    pub(super) done: Vec<Link>,
}

impl Primary {
    /// Alone with a log that begins.
    pub(super) const fn new(log: Log, generation: LogGeneration, durable: Lsn) -> Self {
        Self {
            log,
            mode: Mode::Alone,
            link: None,
            generation,
            peer: SecondaryWords { durable: Lsn::ZERO, end: Lsn::ZERO, trouble: Trouble::None },
            committed: durable,
            placed: Lsn::ZERO,
            no_file: None,
            is_told: false,
            resync: None,
            peer_had: Lsn::ZERO,
            done: Vec::new(),
        }
    }

    /// What is before may be acknowledged.
    pub(super) const fn committed(&self) -> Lsn {
        self.committed
    }

    /// Whether the own disk is among what decides what is acknowledged.
    pub(super) const fn writes_through(&self) -> bool {
        matches!(self.mode, Mode::Alone | Mode::CatchingUp { .. } | Mode::SettingIn)
    }

    /// Whether the peer is one of those who must have a write.
    pub(super) const fn has_member(&self) -> bool {
        matches!(self.mode, Mode::SettingIn | Mode::Mirrored | Mode::Held { .. })
    }

    /// From which position on the peer lacks what is in the log, as far as is known; `None` while it has all of it.
    /// `marker`: it had all before that once.
    pub(super) fn peer_lacks_from(&self, marker: Option<Lsn>) -> Option<Lsn> {
        match self.mode {
            Mode::Alone => Some(self.peer_had.max(marker.unwrap_or_default())),
            Mode::CatchingUp { .. } => match &self.resync {
                Some(source) => Some(source.roots.since.position),
                None => Some(self.log.peer_durable()),
            },
            Mode::SettingIn => Some(self.placed.max(self.log.peer_durable())),
            Mode::Held { .. } => Some(self.committed),
            Mode::Mirrored => None,
        }
    }

    /// Whether the peer is to have every write, and said that it has no room for more.
    pub(super) fn peer_is_full(&self) -> bool {
        self.has_member() && self.peer.trouble == Trouble::NoSpace
    }

    /// Whether a disk of the pair has no room for more.
    pub(super) fn is_full(&self) -> bool {
        self.no_file.is_some() || self.peer_is_full()
    }

    /// Hands over what was appended, and takes note of what arrived. Never waits.
    pub(super) fn push(&mut self) {
        self.log.gather();
        if let Some(link) = &mut self.link
            && let Err(why) = push(&mut self.log, link, &mut self.placed)
        {
            self.lose(why);
        }
        self.settle();
    }

    /// What became committed.
    pub(super) fn settle(&mut self) {
        let committed = match &self.mode {
            Mode::Alone | Mode::CatchingUp { .. } => {
                let end = self.log.end();
                self.log.commit(end);
                self.log.own_durable()
            }
            Mode::SettingIn => {
                let end = self.log.end();
                self.log.commit(end);
                self.log.own_durable().min(self.placed)
            }
            Mode::Mirrored => {
                self.log.commit(self.placed);
                self.placed
            }
            Mode::Held { .. } => self.committed,
        };
        self.committed = self.committed.max(committed);
    }

    /// The link is gone.
    pub(super) fn lose(&mut self, why: String) {
        match self.mode {
            Mode::SettingIn | Mode::Mirrored => self.mode = Mode::Held { why },
            Mode::CatchingUp { .. } => self.be_alone(),
            Mode::Alone | Mode::Held { .. } => {}
        }
    }

    /// From now on without the peer.
    pub(super) fn be_alone(&mut self) {
        // What a resync has moved does not count before all of it is there.
        if self.mode != Mode::Alone && self.resync.is_none() {
            self.peer_had = self.log.peer_durable();
        }
        self.mode = Mode::Alone;
        self.is_told = false;
        self.resync = None;
        self.done.extend(self.link.take());
        self.placed = Lsn::ZERO;
        self.log.part();
        self.settle();
    }

    /// The peer attached, with the ring as it is now.
    pub(super) fn attach(&mut self, link: Link) {
        self.link = Some(link);
        // What another, or this one, said of itself before is of no interest.
        self.peer = SecondaryWords { durable: Lsn::ZERO, end: Lsn::ZERO, trouble: Trouble::None };
        self.mode = Mode::CatchingUp { until: self.log.end() };
    }

    /// Whether the peer has all that it lacked.
    pub(super) fn is_caught_up(&self) -> bool {
        match self.mode {
            Mode::CatchingUp { until } => self.resync.is_none() && self.log.peer_durable() >= until,
            Mode::SettingIn => true,
            Mode::Alone | Mode::Mirrored | Mode::Held { .. } => false,
        }
    }

    /// The peer is about to be told that it is a member: nothing is acknowledged from now on that it does not have. False when it
    /// is away.
    pub(super) fn begin_to_set_in(&mut self) -> bool {
        self.push();
        if self.is_caught_up() {
            self.mode = Mode::SettingIn;
        }
        self.mode == Mode::SettingIn
    }

    /// The peer took note that it is a member; whether it is there.
    pub(super) fn be_mirrored(&mut self) -> bool {
        if !self.has_member() {
            return false; // the operator has set it out meanwhile
        }
        self.is_told = true;
        self.push();
        if self.mode == Mode::SettingIn {
            self.mode = Mode::Mirrored;
            self.settle();
        }
        self.mode == Mode::Mirrored
    }

    /// The peer did not take note, and the register does not name it any more.
    pub(super) fn be_set_out(&mut self) {
        match self.mode {
            Mode::SettingIn => self.mode = Mode::CatchingUp { until: Lsn::ZERO },
            Mode::Held { .. } => self.be_alone(),
            Mode::Alone | Mode::CatchingUp { .. } | Mode::Mirrored => {}
        }
        self.settle();
    }

    /// The link is back.
    pub(super) fn be_reconnected(&mut self, mut link: Link) {
        if let Some(placed) = link.reconnected() {
            self.placed = self.placed.max(placed);
        }
        self.link = Some(link);
        if matches!(self.mode, Mode::Held { .. }) {
            self.mode = if self.is_told { Mode::Mirrored } else { Mode::SettingIn };
        }
        self.push();
    }

    /// Asks the peer how far it is, and takes note of the last answer. Never waits.
    pub(super) fn ask_peer(&mut self) {
        let Some(link) = &mut self.link else { return };
        match link.ask() {
            Ok(false) => {}
            Ok(true) => {
                if let Some(peer) = self.log.memory().secondary() {
                    self.peer = peer;
                    self.log.set_durable(Node::Peer, peer.durable);
                }
            }
            Err(why) => self.lose(why),
        }
    }
}

impl Link {
    /// Whether an answer came. Has one question under way at most, always.
    fn ask(&mut self) -> Result<bool, String> {
        let mut came = false;
        if self.is_fetching {
            came = self.lane.fetch_done().map_err(|error| error.to_string())?;
            self.is_fetching = !came;
        }
        if !self.is_fetching {
            match self.lane.try_fetch(SECONDARY_AT, SECONDARY_BYTES) {
                Ok(()) => self.is_fetching = true,
                Err(StoreError::WouldBlock { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(came)
    }
}

fn push(log: &mut Log, link: &mut Link, placed: &mut Lsn) -> Result<(), String> {
    let failed = |error: StoreError| error.to_string();
    while let Some(post) = log.next_post() {
        if !link.post(post).map_err(failed)? {
            break;
        }
        log.posted();
    }
    let (flush, durable) = (log.padded(), log.own_durable());
    // Behind the records that it is about.
    if log.next_post().is_none() && flush > link.told_flush && link.tell(FLUSH_AT, flush).map_err(failed)? {
        link.told_flush = flush;
    }
    let tells =
        durable.0 >= link.told_durable.0 + TELL_BYTES || (flush <= durable && durable > link.told_durable);
    if tells && link.tell(OWN_DURABLE_AT, durable).map_err(failed)? {
        link.told_durable = durable;
    }
    if let Some(end) = link.placed().map_err(|error| error.to_string())? {
        *placed = end.max(*placed);
    }
    Ok(())
}
