//! The end of a dataset in good order: what was taken is on this node's disk, and a checkpoint behind it where the peer has it too.
//!
//! ```text
//!  mirrored:  until the peer has taken it ─▶ own disk ─▶ until the peer's disk has it ─▶ nothing more is taken ─▶ checkpoint
//!  alone:     own disk ─▶ …
//!  held:      own disk, with what the peer was never given: it does not come for the end of this node
//! ```
//!
//! Each wait has its time. What was acknowledged may be in two memories only until then, in a device block that it shares with what was not:
//! both go to the disk, since this node's memory is about to go, and a restart without the peer has to find it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::dataset::Dataset;
use super::engine::Sluggish;
use super::error::IoError;
use super::keeper::Keeper;
use super::primary::Mode;
use crate::base::Lsn;
use crate::base::clock::Instant;

/// How long the end of a dataset waits for a peer to take what is under way.
const STOP_TIME: Duration = Duration::from_secs(30);
/// And for the peer's disk, without which there is no checkpoint.
const SETTLE_TIME: Duration = Duration::from_secs(3);
/// Between two looks whether something is committed.
const COMMIT_NAP: Duration = Duration::from_micros(200);

impl Dataset {
    /// Ends it in good order: takes nothing more, makes durable what it has, and writes a checkpoint.
    pub fn stop(self) {
        self.settle();
    }

    /// What [`stop`](Self::stop) does, where others still have the dataset too: it is of no use to them from then on, and whoever still waits for
    /// something is told so.
    pub fn settle(&self) {
        self.pair.ending.store(true, Ordering::SeqCst);
        let drained = self.drain();
        self.engine().shared.lock().stopping = true;
        self.engine().shared.tell();
        if let Err(error) = drained.and_then(|()| self.write_checkpoint()) {
            log::warn!("{}: not everything became durable: {error}", self.config().name);
        }
    }

    fn drain(&self) -> Result<(), IoError> {
        let engine = self.engine();
        let deadline = Instant::now() + STOP_TIME;
        loop {
            let (epoch, end) = {
                let mut state = engine.shared.lock();
                let epoch = state.epoch;
                let Ok(primary) = state.primary(epoch) else {
                    drop(state);
                    return engine.destage_round(Sluggish::No).map(|_| ());
                };
                (epoch, primary.log.pad())
            };
            self.make_durable(epoch, end, deadline)?;
            if self.wait_for_peer(epoch, end, deadline)? {
                return Ok(());
            }
        }
    }

    /// Makes this node durable to `end`: when the peer has taken that, or does not.
    fn make_durable(&self, epoch: u64, end: Lsn, deadline: Instant) -> Result<(), IoError> {
        let engine = self.engine();
        loop {
            let is_to_write = {
                let mut state = engine.shared.lock();
                let primary = state.primary(epoch)?;
                primary.push();
                let waits = primary.committed() < end && !primary.writes_through();
                let is_late = Instant::now() >= deadline;
                if waits && is_late {
                    let name = &engine.config.name;
                    log::warn!("{name}: the peer did not take the log to {end} within {STOP_TIME:?}");
                }
                if waits && (is_late || matches!(primary.mode, Mode::Held { .. })) {
                    primary.write_out();
                }
                !waits || primary.leaves()
            };
            if is_to_write && engine.destage_to(epoch, end)? {
                return Ok(());
            }
            engine.shared.wait(&mut engine.shared.lock(), COMMIT_NAP);
        }
    }

    /// A checkpoint has what both have on their disks. The peer may be slow, or end itself: then a restart replays the rest. Nothing is taken from
    /// then on; false when something was taken meanwhile, which is to become durable first.
    fn wait_for_peer(&self, epoch: u64, end: Lsn, last: Instant) -> Result<bool, IoError> {
        let engine = self.engine();
        let deadline = last.min(Instant::now() + SETTLE_TIME);
        loop {
            let mut state = engine.shared.lock();
            let primary = state.primary(epoch)?;
            primary.push();
            primary.ask_peer();
            let has_all = !primary.has_member() || primary.log.peer_durable() >= end;
            if has_all || matches!(primary.mode, Mode::Held { .. }) || Instant::now() >= deadline {
                let is_all = primary.log.end() == end || Instant::now() >= last;
                state.stopping = is_all;
                return Ok(is_all);
            }
            engine.shared.wait(&mut state, COMMIT_NAP);
        }
    }

    fn write_checkpoint(&self) -> Result<(), IoError> {
        let written = Keeper::new(&self.pair).look(&self.pair, true);
        written.map_err(|error| IoError::Failed(error.to_string()))
    }
}
