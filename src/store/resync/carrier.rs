//! The way of answers into the peer's memory: step by step, as clients let them.

use std::time::Duration;

use super::source::Session;
use crate::base::clock::Instant;
use crate::base::{Deadline, Level, Lsn};
use crate::replica::Throttle;
use crate::store::engine::Engine;
use crate::store::medium::Lane;
use crate::store::ring_memory::{RingMemory, WINDOW_BYTES};

/// How long a piece may be on its way to the peer's memory.
const PLACE_TIME: Duration = Duration::from_secs(10);
/// How long an answer is put off at most, for the sake of clients: whoever asked gives up after three times that.
const PUT_OFF_TIME: Duration = Duration::from_secs(3);
/// How long is rested at once.
const NAP_MAX: Duration = Duration::from_millis(20);

/// What a resync's answers go by, and how much of them goes at once.
#[derive(Debug)]
pub(in crate::store) struct Carrier {
    pub(super) session: u64,
    lane: Lane,
    memory: RingMemory,
    pub(super) began: Instant,
    pub(super) throttle: Throttle,
    /// The table that was asked for last: a long one is asked for in parts.
    pub(super) table: Option<(Lsn, Vec<u8>)>,
}

/// Why something is not answered: a word for machines, and a sentence.
pub(in crate::store) type Refusal = (&'static str, String);

pub(super) fn refuse(code: &'static str, text: impl Into<String>) -> Refusal {
    (code, text.into())
}

impl Carrier {
    pub(in crate::store) fn new(engine: &Engine, session: u64, lane: Lane, memory: RingMemory) -> Self {
        let counts = engine.commits.counts();
        let throttle = Throttle::new(Duration::ZERO, engine.usual.p99(), counts);
        Self { session, lane, memory, began: Instant::now(), throttle, table: None }
    }

    /// Puts bytes into the window, from `start` of it on; they are as far as `level` says on return, and so are those before.
    pub(super) fn place(&mut self, start: usize, bytes: &[u8], level: Level) -> Result<usize, Refusal> {
        assert!(start + bytes.len() <= WINDOW_BYTES, "{} bytes at {start} of the window", bytes.len());
        if bytes.is_empty() {
            return Ok(0);
        }
        let failed = |error: &dyn std::fmt::Display| refuse("link-lost", error.to_string());
        let (at, _) = self.memory.window();
        self.lane.store(at + start, bytes).map_err(|error| failed(&error))?;
        let placed = self.lane.flush(level, Deadline::within(PLACE_TIME));
        placed.map_err(|error| failed(&error))?;
        Ok(bytes.len())
    }

    /// Waits until more of what was `asked` for may go without clients feeling it; when that began.
    pub(super) fn begin_step(&mut self, asked: Instant, session: &Session<'_>) -> Result<Duration, Refusal> {
        while asked.elapsed() < PUT_OFF_TIME {
            let wait = self.throttle.wait(self.began.elapsed(), &session.engine.commits.counts());
            if wait.is_zero() {
                break;
            }
            session.bell.nap(wait.min(NAP_MAX));
            if session.is_over(self.session) {
                return Err(refuse("no-session", "the resync was over before all was sent"));
            }
        }
        Ok(self.began.elapsed())
    }

    /// Puts into the window what was read since the step `began`; when it is the last one, all of the answer is visible on return.
    pub(super) fn end_step(
        &mut self,
        began: Duration,
        at: usize,
        bytes: &[u8],
        is_last: bool,
    ) -> Result<usize, Refusal> {
        let level = if is_last { Level::Visible } else { Level::Acked };
        let placed = self.place(at, bytes, level)?;
        self.throttle.moved(began, self.began.elapsed(), placed as u64);
        Ok(placed)
    }
}
