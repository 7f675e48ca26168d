//! The thread that tends a dataset's log: on a primary it destages, prepares files and asks the peer how far it is; on a secondary it
//! follows the ring too.
//!
//! It rests between two rounds, shortly while something happens, longer when nothing does; nobody needs it to be woken but those who
//! wait for room.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::engine::{Engine, KEPT_FREE_BYTES, Sluggish};
use super::error::IoError;
use super::follower::{Stage, begin_to_follow, publish};
use super::pair::Pair;
use super::primary::{Mode, Primary};
use super::ring_memory::Trouble;
use super::segment_files::SegmentFileError;
use super::state::{Bell, Role};
use crate::base::Lsn;
use crate::base::clock::Instant;

/// Rest of a follower while the primary flushes.
const REST_HURRIED: Duration = Duration::from_micros(200);
/// So long after a flush the next is expected.
const HURRIED_TIME: Duration = Duration::from_millis(100);
/// Rest while the log moves.
const REST: Duration = Duration::from_millis(1);
/// While nobody waits for a round, one comes when the fastest writer may have filled such a part of the ring, at so many bytes a second, but
/// within these bounds: each takes time from those who write, and costs less for what came in five milliseconds than in one.
const ROUND_PART: u64 = 16;
const ROUND_RATE: u64 = 1 << 30;
const ROUND_TIME_MIN: Duration = REST;
const ROUND_TIME_MAX: Duration = Duration::from_millis(5);
/// Where less than such a part of the ring came, the next round of a primary comes twice as late, up to so late: it holds the lock that
/// each write takes. Whoever writes faster all at once, and fills the ring before, asks for one.
const LITTLE_PART: u64 = 64;
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// The same of a follower, of whose disk nobody wanted anything for so long: nobody can ask it for a round.
const FOLLOWER_PAUSE_MAX: Duration = Duration::from_millis(5);
const UNWANTED_TIME: Duration = Duration::from_secs(1);
/// Rest when it has not moved for a while.
const REST_IDLE: Duration = Duration::from_millis(2);
/// Rounds without a change until then.
const CALM_ROUNDS: u32 = 50;
/// A peer that is no member before it has caught up is asked how far it is so often.
const ASK_TIME_SOON: Duration = Duration::from_millis(2);
/// One that is, while nobody waits for it and there is room: to ask costs both machines work that clients wait for.
const ASK_TIME: Duration = Duration::from_millis(20);
/// And one that is brought up to date, and will be for a while.
const ASK_TIME_RESYNC: Duration = Duration::from_millis(100);
/// And one that has all there is.
const ASK_TIME_IDLE: Duration = Duration::from_millis(50);
/// Steps that a follower takes between two looks at what is to be destaged: what came in a burst is written as one, without a rest in
/// between.
const STEPS_AT_ONCE: u32 = 16;
/// What lies in a device block that is not full becomes durable when nothing came for so long.
const IDLE_PAD_TIME: Duration = Duration::from_secs(1);
/// A disk that was full is tried again so often.
const FULL_TIME: Duration = Duration::from_millis(200);

/// What the tender remembers between rounds.
#[derive(Debug)]
pub(super) struct Tender {
    quiet_rounds: u32,
    last_end: Lsn,
    last_change: Instant,
    /// When the last round of a follower began.
    followed: Instant,
    /// Between two rounds for which nobody waits: when as much comes as can, and now on a primary.
    round_time: Duration,
    pause: Duration,
    tried_file: Option<Instant>,
    asked: Instant,
    /// When the primary last waited for this node's disk.
    wanted: Option<Instant>,
}

impl Tender {
    pub(super) fn new(ring_bytes: u64) -> Self {
        let now = Instant::now();
        let part = (ring_bytes / ROUND_PART).saturating_mul(1_000_000_000);
        let round_time = Duration::from_nanos(part / ROUND_RATE).clamp(ROUND_TIME_MIN, ROUND_TIME_MAX);
        Self {
            quiet_rounds: 0,
            last_end: Lsn::ZERO,
            last_change: now,
            followed: now,
            round_time,
            pause: round_time,
            tried_file: None,
            asked: now,
            wanted: None,
        }
    }

    /// Rounds until the dataset ends.
    pub(super) fn run(&mut self, pair: &Pair) {
        let mut was_rung = false;
        while !pair.stopping.load(Ordering::SeqCst) {
            let moved = match self.round(pair, was_rung) {
                Ok(moved) => moved,
                Err(error) => {
                    log::warn!("{}: {error}", pair.engine.config.name);
                    false
                }
            };
            self.quiet_rounds = if moved { 0 } else { self.quiet_rounds.saturating_add(1) };
            let engine = &pair.engine;
            if moved && engine.shared.lock().behind() >= engine.layout().segment_bytes() {
                continue;
            }
            if was_rung && !moved {
                // Whoever waits for room is told of each round, and rings again at once if it found none.
                Bell::default().nap(REST);
            }
            was_rung = engine.shared.bell().is_rung_within(self.rest(engine));
        }
    }

    fn rest(&self, engine: &Engine) -> Duration {
        let is_hurried = self.wanted.is_some_and(|wanted| wanted.elapsed() < HURRIED_TIME);
        // Who waits for room wakes the tender, and who flushes destages by himself.
        let is_unwanted = self.wanted.is_none_or(|wanted| wanted.elapsed() >= UNWANTED_TIME);
        let is_calm = || match &engine.shared.lock().role {
            Role::Primary(primary) => is_calm(primary),
            Role::Secondary(secondary) => is_unwanted && matches!(secondary.stage, Stage::Following(_)),
            Role::Undecided | Role::Failed { .. } => false,
        };
        match self.quiet_rounds {
            _ if is_hurried => REST_HURRIED,
            _ if is_calm() => self.pause,
            ..CALM_ROUNDS => REST,
            CALM_ROUNDS.. => REST_IDLE,
        }
    }

    fn round(&mut self, pair: &Pair, is_wanted: bool) -> Result<bool, IoError> {
        let engine = &pair.engine;
        let is_secondary = match &engine.shared.lock().role {
            Role::Secondary(_) => Some(true),
            Role::Undecided | Role::Primary(_) => Some(false),
            Role::Failed { .. } => None,
        };
        let Some(is_secondary) = is_secondary else {
            publish(pair);
            return Ok(false);
        };
        if is_secondary { self.tend_secondary(pair) } else { self.tend_primary(engine, is_wanted) }
    }

    fn tend_primary(&mut self, engine: &Engine, is_wanted: bool) -> Result<bool, IoError> {
        let ring_bytes = engine.config.ring_bytes();
        let (to_prepare, done, moved) = {
            let mut state = engine.shared.lock();
            let Role::Primary(primary) = &mut state.role else { return Ok(false) };
            let is_calm = is_calm(primary);
            let end = primary.log.end();
            let lag = end.0.saturating_sub(primary.log.peer_durable().0);
            let is_due = match lag {
                0 => self.asked.elapsed() >= ASK_TIME_IDLE,
                _ if is_wanted => true,
                _ if primary.resync.is_some() => self.asked.elapsed() >= ASK_TIME_RESYNC,
                _ if lag >= ring_bytes / 4 => true,
                _ if is_calm => self.asked.elapsed() >= ASK_TIME,
                _ => self.asked.elapsed() >= ASK_TIME_SOON,
            };
            if is_due {
                // Also what nobody waits for: a node at rest is told what is durable here.
                primary.push_and_tell();
                primary.ask_peer();
                self.asked = Instant::now();
            } else if is_calm && primary.has_handed(self.last_end) {
                // What came since the last round is handed over by those who wait for it.
                primary.reap();
            } else {
                primary.push();
            }
            let moved = end != self.last_end;
            self.pace(end, ring_bytes, PAUSE_MAX, primary.log.to_prepare().is_some());
            if moved {
                (self.last_end, self.last_change) = (end, Instant::now());
            } else if primary.log.padded() < end && self.last_change.elapsed() >= IDLE_PAD_TIME {
                primary.log.pad();
                primary.push();
            }
            (primary.log.to_prepare(), std::mem::take(&mut primary.done), moved)
        };
        drop(done);
        if let Some(base) = to_prepare {
            self.prepare(engine, base)?;
        }
        engine.usual.turn();
        let wrote = engine.destage_round(Sluggish::Yes)?;
        engine.shared.tell();
        Ok(moved | wrote)
    }

    /// Says when the next round comes, by how much came since the last one; at most so late.
    fn pace(&mut self, end: Lsn, ring_bytes: u64, most: Duration, is_urgent: bool) {
        let came = end.0.saturating_sub(self.last_end.0);
        let is_little = !is_urgent && came < ring_bytes / LITTLE_PART;
        self.pause = if is_little { (self.pause * 2).min(most) } else { self.round_time };
    }

    /// Makes the next segment's file before anybody needs it.
    fn prepare(&mut self, engine: &Engine, base: Lsn) -> Result<(), IoError> {
        if self.tried_file.is_some_and(|tried| tried.elapsed() < FULL_TIME) {
            return Ok(());
        }
        let result = engine.files.create_leaving(base, KEPT_FREE_BYTES);
        let mut state = engine.shared.lock();
        let Role::Primary(primary) = &mut state.role else { return Ok(()) };
        match result {
            Ok(()) => {
                primary.log.set_prepared(base);
                primary.no_file = None;
                self.tried_file = None;
            }
            Err(SegmentFileError::NoSpace { .. }) => {
                let why = format!(
                    "this node's disk has no room for a segment at {}",
                    engine.config.directory.display()
                );
                primary.no_file = Some(why);
                self.tried_file = Some(Instant::now());
            }
            Err(error) => {
                let why = error.to_string();
                state.fail("file-failed", why.clone());
                return Err(IoError::Failed(why));
            }
        }
        drop(state);
        engine.shared.tell();
        Ok(())
    }

    fn tend_secondary(&mut self, pair: &Pair) -> Result<bool, IoError> {
        let engine = &pair.engine;
        let is_hurried = self.wanted.is_some_and(|wanted| wanted.elapsed() < HURRIED_TIME);
        if !is_hurried && self.followed.elapsed() < self.round_time && !is_wanted(engine) {
            return Ok(self.quiet_rounds == 0);
        }
        self.followed = Instant::now();
        begin_to_follow(pair);
        let mut steps = 0;
        while steps < STEPS_AT_ONCE && engine.follow_step()? {
            steps += 1;
        }
        let moved = steps > 0;
        if moved {
            self.last_change = Instant::now();
        }
        let is_time = self.tried_file.is_none_or(|tried| tried.elapsed() >= FULL_TIME);
        let (wanted, looks, applied, is_resynced) = {
            let mut state = engine.shared.lock();
            let Role::Secondary(secondary) = &mut state.role else { return Ok(moved) };
            let looks = is_time && secondary.trouble == Trouble::NoSpace && !secondary.is_stuck;
            (secondary.is_wanted(), looks, secondary.applied, secondary.resync.is_some())
        };
        // Until it is up to date nobody waits for it.
        if wanted && !is_resynced {
            self.wanted = Some(Instant::now());
        }
        self.pace(applied, engine.config.ring_bytes(), FOLLOWER_PAUSE_MAX, false);
        self.last_end = applied;
        if looks {
            self.tried_file = Some(Instant::now());
            let trouble = engine.room();
            if let Role::Secondary(secondary) = &mut engine.shared.lock().role {
                secondary.trouble = trouble;
            }
        }
        let wrote = engine.destage_round(if wanted { Sluggish::No } else { Sluggish::Yes })?;
        engine.finish_renewal()?;
        publish(pair);
        Ok(moved | wrote)
    }
}

/// Whether a primary's rounds may come late: in the pair all that is urgent is done by those who wait, and a peer that is brought up to date
/// takes its time anyway.
fn is_calm(primary: &Primary) -> bool {
    primary.mode == Mode::Mirrored || primary.resync.is_some()
}

/// Whether there is something for a follower to do before the time for a round has come: the primary waits for it, much has come, or
/// it does not just follow.
fn is_wanted(engine: &Engine) -> bool {
    let state = engine.shared.lock();
    match &state.role {
        Role::Secondary(secondary) => {
            secondary.is_asked() || secondary.is_wanted() || state.behind() >= engine.layout().segment_bytes()
        }
        Role::Undecided | Role::Primary(_) | Role::Failed { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::store::engine::tests::serve;
    use crate::store::log::Full;
    use crate::store::pair::rig::pair;

    #[test]
    fn a_node_that_is_out_of_service_is_tended() {
        let directory = tempfile::tempdir().unwrap();
        let pair = pair(directory.path());
        pair.engine.shared.lock().fail("a-test", "a test says so".into());
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let moved = Tender::new(pair.engine.config.ring_bytes()).round(&pair, false);
            tell.send((moved, pair.engine.shared.try_lock(Duration::from_secs(1)).is_some()))
        });
        let told = told.recv_timeout(Duration::from_secs(60)).expect("it waits for itself");
        assert_eq!(told, (Ok(false), true));
    }

    #[test]
    fn who_waits_for_room_that_does_not_come_does_not_keep_the_tender_busy() {
        let directory = tempfile::tempdir().unwrap();
        let pair = pair(directory.path());
        let engine = &pair.engine;
        serve(engine);
        engine.shared.lock().primary(1).unwrap().log.set_frozen(true);
        let (time, mut looks) = (Duration::from_millis(200), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| Tender::new(engine.config.ring_bytes()).run(&pair));
            let began = std::time::Instant::now();
            let mut state = engine.shared.lock();
            while began.elapsed() < time {
                state = engine.wait_for_room(state, 1, Full::Frozen, &|| false).unwrap();
                looks += 1;
            }
            drop(state);
            pair.stopping.store(true, Ordering::SeqCst);
            engine.shared.bell().ring();
        });
        assert!(looks <= 2 * time.as_millis(), "{looks} looks in {time:?}");
    }
}
