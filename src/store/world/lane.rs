//! Stores from one memory into another, one behind the other; the last may come in part.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::net::{self, GIVE_UP_TIME};
use super::region::{RegionCore, Session, lock};
use super::rules::{self, Defect};
use crate::base::{Deadline, Level, Sequence};
use crate::mirror::{Arrivals, Watch};
use crate::sim::scheduler;
use crate::store::link::Wire;

thread_local! {
    /// Somebody waits for a store to be on its way.
    static IS_AWAITED: Cell<bool> = const { Cell::new(false) };
    static IS_ON_ITS_WAY: Cell<bool> = const { Cell::new(false) };
}

/// Waits from now on for a store to be on its way, or no more.
pub(super) fn await_store(is_awaited: bool) {
    IS_AWAITED.set(is_awaited);
    IS_ON_ITS_WAY.set(false);
}

/// Whether one that was waited for is.
pub(super) fn is_on_its_way() -> bool {
    IS_ON_ITS_WAY.get()
}

/// Bytes that a way takes in a microsecond.
const BYTES_PER_MICRO: usize = 4000;
/// Between two tries of a device.
const RETRY_TIME: Duration = Duration::from_millis(20);

#[derive(Debug)]
enum Message {
    Store { offset: usize, bytes: Vec<u8> },
    Fetch { offset: usize, len: usize },
}

/// What a lane has under way over one session.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) session: Arc<Session>,
    state: Mutex<WayState>,
}

#[derive(Debug, Default)]
struct WayState {
    /// By number.
    messages: VecDeque<(u64, Message)>,
    runs: bool,
    /// Since when the first of them does not get through.
    stuck: Option<Duration>,
    /// Numbers that were acknowledged, and when that is heard here.
    acks: VecDeque<(Duration, u64)>,
    acked: u64,
    fetched: Option<(Duration, usize, Vec<u64>)>,
    /// What has fallen into place, of the store that comes next.
    torn: bool,
}

/// A lane of a simulated region.
#[derive(Debug)]
pub(in crate::store) struct Simulated {
    core: Arc<RegionCore>,
    way: Arc<Way>,
    depth: usize,
    next: u64,
    acked: u64,
    /// What is not acknowledged: its number, and where it lies.
    under_way: VecDeque<(u64, usize, usize)>,
    is_fetching: bool,
}

/// A lane, real or simulated.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there are a few in a test")]
pub(in crate::store) enum Lane {
    Real(crate::mirror::Lane),
    Simulated(Simulated),
}

impl Way {
    fn new(session: Arc<Session>) -> Arc<Self> {
        Arc::new(Self { session, state: Mutex::default() })
    }

    fn post(self: &Arc<Self>, number: u64, message: Message) {
        let mut state = lock(&self.state);
        let bytes = match &message {
            Message::Store { bytes, .. } => bytes.len(),
            Message::Fetch { len, .. } => *len,
        };
        state.messages.push_back((number, message));
        if !std::mem::replace(&mut state.runs, true) {
            drop(state);
            self.pump_after(self.transit(bytes));
        }
    }

    fn transit(&self, bytes: usize) -> Duration {
        let (from, to) = self.session().machines();
        let way = net::delay(from, to).unwrap_or(RETRY_TIME);
        way + Duration::from_micros((bytes / BYTES_PER_MICRO) as u64)
    }

    fn pump_after(self: &Arc<Self>, after: Duration) {
        let way = self.clone();
        scheduler::call_after(after, move || way.pump());
    }

    /// The first of what is under way arrives, if it can.
    fn pump(self: &Arc<Self>) {
        let session = self.session();
        let (from, to) = session.machines();
        let is_over = session.lost().is_some() || scheduler::is_dead(session.owner);
        let mut state = lock(&self.state);
        if is_over {
            self.tear(&mut state);
            state.messages.clear();
            state.runs = false;
            return;
        }
        let is_open = net::delay(from, to).is_ok() && !scheduler::is_dead(session.server);
        let back = net::delay(to, from);
        let (true, Ok(back)) = (is_open, back) else {
            if is_open {
                // It comes, and nobody hears of it.
                self.tear(&mut state);
            }
            let now = scheduler::time();
            let since = *state.stuck.get_or_insert(now);
            drop(state);
            if now - since >= GIVE_UP_TIME {
                session.lose("the device gave up");
            }
            self.pump_after(RETRY_TIME);
            return;
        };
        if !session.holder.is_owner(session.number) {
            drop(state);
            session.lose("access was revoked");
            self.pump_after(Duration::ZERO);
            return;
        }
        state.stuck = None;
        // Longer ones come piece by piece.
        if !state.torn && scheduler::random(|random| random.chance(15)) {
            self.tear(&mut state);
            drop(state);
            self.pump_after(Duration::from_micros(scheduler::random(|random| random.below(40))));
            return;
        }
        self.arrive(&mut state, back);
        let next = state.messages.front().map(|(_, message)| match message {
            Message::Store { bytes, .. } => bytes.len(),
            Message::Fetch { len, .. } => *len,
        });
        state.runs = next.is_some();
        drop(state);
        if let Some(bytes) = next {
            // They are sent one behind the other, so the next is on its way already.
            let micros = (bytes / BYTES_PER_MICRO) as u64;
            let nanos = scheduler::random(|random| random.below(2000));
            self.pump_after(Duration::from_micros(micros) + Duration::from_nanos(nanos));
        }
    }

    fn arrive(&self, state: &mut WayState, back: Duration) {
        let Some((number, message)) = state.messages.pop_front() else { return };
        state.torn = false;
        let there = self.session().holder.memory.slice();
        let heard = scheduler::time() + back;
        match message {
            Message::Store { offset, bytes } => {
                there.write(offset, &bytes);
                state.acks.push_back((heard, number));
            }
            Message::Fetch { offset, len } => {
                let words = (offset..offset + len).step_by(8).map(|at| there.load_word(at)).collect();
                state.fetched = Some((heard, offset, words));
            }
        }
    }

    /// A part of what comes next falls into place, from its beginning, its end or its middle.
    fn tear(&self, state: &mut WayState) {
        let session = self.session();
        if state.torn || scheduler::is_dead(session.server) || !session.holder.is_owner(session.number) {
            return;
        }
        state.torn = true;
        let Some((_, Message::Store { offset, bytes })) = state.messages.front() else { return };
        let len = bytes.len();
        if len <= 8 {
            return;
        }
        let (cut, from) = scheduler::random(|random| {
            (usize::try_from(random.below(len as u64)).expect("a length"), random.below(3))
        });
        let there = session.holder.memory.slice();
        match from {
            0 => there.write(*offset, &bytes[..cut]),
            1 => there.write(offset + cut, &bytes[cut..]),
            _ => there.write(offset + cut / 2, &bytes[cut / 2..cut]),
        }
    }
}

impl Simulated {
    pub(super) fn new(core: Arc<RegionCore>, session: Arc<Session>, depth: usize) -> Self {
        let way = Way::new(session);
        Self { core, way, depth, next: 0, acked: 0, under_way: VecDeque::new(), is_fetching: false }
    }

    /// Ranges of which it is not known whether they are there.
    pub(super) fn unknown(&self) -> Vec<(usize, usize)> {
        self.under_way.iter().map(|(_, offset, len)| (*offset, *len)).filter(|(_, len)| *len > 0).collect()
    }

    pub(super) fn resume(&mut self, session: Arc<Session>) {
        self.way = Way::new(session);
        self.under_way.clear();
        self.acked = self.next;
        self.is_fetching = false;
    }

    fn check(&self) -> Result<(), String> {
        self.way.session().lost().map_or(Ok(()), |why| Err(why.to_string()))
    }

    fn post(&mut self, offset: usize, len: usize) -> Option<u64> {
        if self.under_way.len() >= self.depth {
            return None;
        }
        let mut bytes = vec![0; len];
        self.core.memory.slice().read(offset, &mut bytes);
        self.next += 1;
        self.under_way.push_back((self.next, offset, len));
        self.way.post(self.next, Message::Store { offset, bytes });
        IS_ON_ITS_WAY.set(IS_AWAITED.get());
        Some(self.next)
    }

    /// What was heard until now.
    fn poll(&mut self) {
        let now = scheduler::time();
        let mut state = lock(&self.way.state);
        while let Some((at, number)) = state.acks.front().copied()
            && at <= now
        {
            state.acks.pop_front();
            state.acked = number;
        }
        self.acked = self.acked.max(state.acked);
        if let Some((_, offset, words)) = state.fetched.take_if(|(at, ..)| *at <= now) {
            let here = self.core.memory.slice();
            (0..).zip(words).for_each(|(number, word)| here.store_word(offset + number * 8, word));
            self.is_fetching = false;
        }
        drop(state);
        while self.under_way.front().is_some_and(|(number, ..)| *number <= self.acked) {
            self.under_way.pop_front();
        }
    }
}

impl Wire for Simulated {
    fn hand_over(&mut self, offset: usize, len: usize) -> Result<Option<Sequence>, String> {
        self.check()?;
        self.poll();
        Ok(self.post(offset, len).map(Sequence))
    }

    fn store(&mut self, offset: usize, bytes: &[u8]) -> Result<bool, String> {
        self.check()?;
        self.poll();
        if self.under_way.len() >= self.depth {
            return Ok(false);
        }
        self.core.memory.slice().write(offset, bytes);
        Ok(self.post(offset, bytes.len()).is_some())
    }

    fn acked(&mut self) -> Result<Sequence, String> {
        self.poll();
        self.check()?;
        let early = rules::breaks(Defect::AckEarly);
        Ok(Sequence(if early { self.next } else { self.acked }))
    }

    fn fetch(&mut self, offset: usize, len: usize) -> Result<bool, String> {
        self.check()?;
        self.is_fetching = true;
        self.way.post(self.next, Message::Fetch { offset, len });
        Ok(true)
    }

    fn has_fetched(&mut self) -> Result<bool, String> {
        self.check()?;
        self.poll();
        Ok(!self.is_fetching)
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.core.lanes.fetch_sub(1, Ordering::SeqCst);
        lock(&self.core.orphans).extend(self.unknown());
    }
}

impl Lane {
    pub(in crate::store) fn store(&mut self, offset: usize, bytes: &[u8]) -> Result<(), String> {
        let lane = match self {
            Self::Real(lane) => {
                return lane.store(offset, bytes).map(|_| ()).map_err(|error| error.to_string());
            }
            Self::Simulated(lane) => lane,
        };
        while !Wire::store(lane, offset, bytes)? {
            scheduler::sleep(Duration::from_micros(50));
        }
        Ok(())
    }

    pub(in crate::store) fn flush(&mut self, level: Level, mut deadline: Deadline) -> Result<(), String> {
        let lane = match self {
            Self::Real(lane) => {
                return lane.flush(level, deadline).map(|_| ()).map_err(|error| error.to_string());
            }
            Self::Simulated(lane) => lane,
        };
        while lane.acked()?.0 < lane.next {
            deadline.remaining().ok_or("not there in time")?;
            scheduler::sleep(Duration::from_micros(20));
        }
        Ok(())
    }

    fn wire(&mut self) -> &mut dyn Wire {
        match self {
            Self::Real(lane) => lane,
            Self::Simulated(lane) => lane,
        }
    }
}

impl Wire for Lane {
    fn hand_over(&mut self, offset: usize, len: usize) -> Result<Option<Sequence>, String> {
        self.wire().hand_over(offset, len)
    }

    fn store(&mut self, offset: usize, bytes: &[u8]) -> Result<bool, String> {
        self.wire().store(offset, bytes)
    }

    fn acked(&mut self) -> Result<Sequence, String> {
        self.wire().acked()
    }

    fn fetch(&mut self, offset: usize, len: usize) -> Result<bool, String> {
        self.wire().fetch(offset, len)
    }

    fn has_fetched(&mut self) -> Result<bool, String> {
        self.wire().has_fetched()
    }

    fn arrivals(&self) -> Option<Arc<Arrivals>> {
        match self {
            Self::Real(lane) => lane.arrivals(),
            Self::Simulated(_) => None,
        }
    }

    fn arm(&mut self, watch: &mut Watch) -> Result<bool, String> {
        self.wire().arm(watch)
    }
}
