//! The thread that keeps a dataset's files small and its restarts short: checkpoints of the maps, and reclaim behind them.
//!
//! A checkpoint has a position: all before it is in the maps, and durable on *both* nodes, so no later fork lies before it. What a block
//! had before is given back only when a checkpoint lies behind the record that wrote it anew.
//!
//! While the pair is mirrored the marker follows a checkpoint as soon as its phase is over, and a checkpoint is written for it. While it
//! is not, the marker stays, and what its maps have is kept.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::checkpoint::{CheckpointError, Snapshot};
use super::counters::count;
use super::follower::Stage;
use super::pair::Pair;
use super::primary::Mode;
use super::reclaim::{self, Kept};
use super::register::Position;
use super::resync::NoteError;
use super::ring_memory::Trouble;
use super::state::{Role, State};
use super::volumes::Volumes;
use crate::base::Lsn;
use crate::base::clock::Instant;
use crate::replica::{PhaseLimits, Phases};

/// Between two looks.
const LOOK_TIME: Duration = Duration::from_millis(100);
/// On a full disk a checkpoint is tried again after so long.
const NO_SPACE_TIME: Duration = Duration::from_secs(5);
/// A checkpoint is written when the log has grown by so many rings. A restart reads that much, at the speed of the disk; a checkpoint costs as
/// much as there are leaves that changed.
const CHECKPOINT_RINGS: u64 = 2;
/// A checkpoint is written at the latest after so long, if anything changed.
const CHECKPOINT_TIME: Duration = Duration::from_secs(30);

/// And so often while a disk is full: it may be that something can be given back.
const FULL_TIME: Duration = Duration::from_millis(500);

/// What the keeper remembers.
#[derive(Debug)]
pub(super) struct Keeper {
    last: Instant,
    /// A snapshot of which not everything is durable yet.
    pending: Option<(Snapshot, Basis)>,
    /// What is left of segments in which holes were made.
    kept: Kept,
    began: Instant,
    phases: Phases,
    /// The marker is to follow the next checkpoint.
    phase_is_over: bool,
}

/// Of what a snapshot is: the role, and the resync if the maps are those that this node is to have. One of what it had is never written in
/// their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Basis {
    epoch: u64,
    resync: Option<u64>,
}

impl Basis {
    fn of(state: &State) -> Self {
        let resync = match &state.role {
            Role::Secondary(secondary) => secondary.resync.as_ref().map(|staging| staging.session),
            Role::Undecided | Role::Primary(_) | Role::Failed { .. } => None,
        };
        Self { epoch: state.epoch, resync }
    }
}

impl Keeper {
    pub(super) fn new(pair: &Pair) -> Self {
        let marker = pair.engine.shared.lock().marker.unwrap_or_default();
        Self {
            last: Instant::now(),
            pending: None,
            kept: Kept::default(),
            began: Instant::now(),
            phases: Phases::new(PhaseLimits::DEFAULT, marker, Duration::ZERO),
            phase_is_over: false,
        }
    }

    /// Looks until the dataset ends.
    pub(super) fn run(&mut self, pair: &Pair) {
        while !pair.stopping.load(Ordering::SeqCst) {
            match self.look(pair, false) {
                Ok(()) => pair.keeper.nap(LOOK_TIME),
                Err(error @ CheckpointError::NoSpace) => {
                    log::warn!("{}: {error}", pair.engine.config.name);
                    pair.keeper.nap(NO_SPACE_TIME);
                }
                Err(error) => {
                    log::error!("{}: {error}", pair.engine.config.name);
                    pair.engine.shared.lock().fail("checkpoint-failed", error.to_string());
                    return;
                }
            }
        }
    }

    /// Writes a checkpoint if it is time to, or `now`.
    pub(super) fn look(&mut self, pair: &Pair, now: bool) -> Result<(), CheckpointError> {
        let ring_bytes = pair.engine.config.ring_bytes();
        {
            let state = pair.engine.shared.lock();
            let basis = Basis::of(&state);
            // A checkpoint and what it gives back keep the disk from what somebody waits for.
            if !now && basis.resync.is_none() && !is_full(&state) && pair.hands_over() {
                return Ok(());
            }
            if self.pending.as_ref().is_some_and(|(_, pending)| *pending != basis) {
                self.pending = None;
            }
            let Some((now_at, volumes)) = state.to_checkpoint() else {
                self.pending = None;
                return Ok(());
            };
            let end = now_at.end();
            let trigger = self.phases.look(self.began.elapsed(), end, is_mirrored(&state));
            // On a full disk the marker keeps nothing that could be given back.
            self.phase_is_over = trigger.is_some() || now || basis.resync.is_some() || is_full(&state);
            let is_due = trigger.is_some()
                || basis.resync.is_some()
                || end.0 >= state.checkpoint.0 + CHECKPOINT_RINGS * ring_bytes
                || self.last.elapsed() >= CHECKPOINT_TIME
                || is_full(&state) && self.last.elapsed() >= FULL_TIME;
            // A checkpoint of all there is may be there since before the marker was to follow it, or since before a resync that had nothing to
            // bring.
            let follows = (trigger.is_some() || basis.resync.is_some()) && end == state.checkpoint;
            if self.pending.is_none() && (end > state.checkpoint && (is_due || now) || follows) {
                let (generation, volumes) = (now_at.generation(), volumes.clone());
                self.pending = Some((Snapshot { position: end, generation, volumes }, basis));
            }
            let Some((snapshot, _)) = &self.pending else { return Ok(()) };
            if durable_for_good(&state) < snapshot.position {
                return Ok(());
            }
        }
        let Some((snapshot, basis)) = self.pending.take() else { return Ok(()) };
        let keeping = &pair.engine.shared.keeping;
        keeping.store(true, Ordering::Relaxed);
        let written = self.write(pair, &snapshot, basis);
        keeping.store(false, Ordering::Relaxed);
        written
    }

    fn write(&mut self, pair: &Pair, snapshot: &Snapshot, basis: Basis) -> Result<(), CheckpointError> {
        let engine = &pair.engine;
        // Nobody tells this node to follow anew between the checkpoint and the end of the resync that it makes.
        let filling = pair.filling();
        let marked = {
            let mut checkpoint = pair.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
            // A node that was told to follow another log may have set aside what the snapshot has.
            let state = engine.shared.lock();
            if Basis::of(&state) != basis {
                return Ok(());
            }
            drop(state);
            // Whoever ends the dataset writes one too, perhaps meanwhile.
            let there = checkpoint.snapshot().position;
            if snapshot.position < there {
                return Ok(());
            }
            // Of one position there is one content: of two logs that both have it, one is the first part of the other.
            if snapshot.position > there {
                checkpoint.write(snapshot)?;
                engine.mark.sync();
                count(&engine.shared.counters.checkpoints, 1);
            }
            let marked = self.mark(pair, snapshot, basis);
            if let Some(session) = basis.resync
                && pair.end_staging(session).map_err(unnoted)?
            {
                self.kept = Kept::default();
            }
            marked
        };
        drop(filling);
        self.last = Instant::now();
        let (limit, is_full, resync) = {
            let mut state = engine.shared.lock();
            state.checkpoint = snapshot.position;
            let resync = match &state.role {
                Role::Primary(primary) => primary.resync.as_ref().map(|source| source.roots.clone()),
                Role::Undecided | Role::Secondary(_) | Role::Failed { .. } => None,
            };
            (reclaimable(&state, engine.config.ring_bytes()), is_full(&state), resync)
        };
        let marker = pair.marker.lock().unwrap_or_else(PoisonError::into_inner).snapshot().cloned();
        let roots = marker.iter().map(|marker| &marker.volumes);
        let pinned: Vec<_> = roots.chain(resync.iter().map(|roots| &roots.now.volumes)).collect();
        let ends = || !is_full && pair.hands_over();
        if let Err(error) = reclaim::run(engine, snapshot, &pinned, limit, is_full, &mut self.kept, &ends) {
            // Room is not given back, and nothing else is wrong.
            log::warn!("{}: {error}", engine.config.name);
        }
        marked
    }

    /// Moves the marker to a snapshot that was just written, if it is time to and both nodes have all of it.
    fn mark(&mut self, pair: &Pair, snapshot: &Snapshot, basis: Basis) -> Result<(), CheckpointError> {
        let shared = &pair.engine.shared;
        let is_of_both = |state: &State| {
            Basis::of(state) == basis && is_mirrored(state) && snapshot.position <= durable_for_good(state)
        };
        if !self.phase_is_over || !is_of_both(&shared.lock()) {
            return Ok(());
        }
        let mut marker = pair.marker.lock().unwrap_or_else(PoisonError::into_inner);
        marker.advance(snapshot)?;
        shared.lock().marker = marker.position();
        self.phases.moved(snapshot.position.max(self.phases.marker()), self.began.elapsed());
        Ok(())
    }
}

/// Whether both nodes have every write: of a follower, as far as it has come.
fn is_mirrored(state: &State) -> bool {
    match &state.role {
        Role::Primary(primary) => primary.mode == Mode::Mirrored,
        Role::Secondary(secondary) => matches!(secondary.stage, Stage::Following(_)),
        Role::Undecided | Role::Failed { .. } => false,
    }
}

/// Whether room is wanted more than rest.
fn is_full(state: &State) -> bool {
    match &state.role {
        Role::Primary(primary) => primary.is_full(),
        Role::Secondary(secondary) => secondary.trouble == Trouble::NoSpace,
        Role::Undecided | Role::Failed { .. } => false,
    }
}

fn unnoted(error: NoteError) -> CheckpointError {
    match error {
        NoteError::File { path, error } => CheckpointError::System { path, call: "unlink", error },
        NoteError::Damaged { path, why } => {
            CheckpointError::System { path, call: "read", error: std::io::Error::other(why) }
        }
    }
}

impl State {
    /// What a checkpoint would have now, and where; `None` while this node is being resynced.
    fn to_checkpoint(&self) -> Option<(Position, &Volumes)> {
        if let Role::Secondary(secondary) = &self.role
            && let Some(staging) = &secondary.resync
        {
            let volumes = staging.volumes().filter(|_| staging.is_whole)?;
            let (generation, end, highest) =
                (secondary.generation.0, secondary.applied.0, secondary.highest.0);
            return Some((Position { generation, end, highest }, volumes));
        }
        Some((super::pair::position(self), &self.volumes))
    }
}

/// To where no fork can come any more.
fn durable_for_good(state: &State) -> Lsn {
    match &state.role {
        Role::Primary(primary) => primary.durable_for_good(),
        Role::Secondary(secondary) => secondary.durable_for_good(),
        Role::Undecided | Role::Failed { .. } => Lsn::ZERO,
    }
}

/// Behind that nothing is given back. A peer that is away may be brought up to date with what a ring has room for; of what lies before,
/// what the marker's maps have stays. While both are there, the log from the marker on stays too: a node may have to go back to it.
fn reclaimable(state: &State, ring_bytes: u64) -> Lsn {
    #[cfg(test)]
    if crate::store::world::breaks(crate::store::world::Defect::ReclaimsTooSoon) {
        return durable(state);
    }
    match &state.role {
        Role::Primary(primary) if !primary.has_member() => {
            Lsn(primary.log.end().0.saturating_sub(ring_bytes))
        }
        Role::Primary(_) | Role::Secondary(_) => {
            durable_for_good(state).min(state.marker.unwrap_or(Lsn::MAX))
        }
        Role::Undecided | Role::Failed { .. } => Lsn::ZERO,
    }
}

/// To where this node's files have the log.
pub(super) fn durable(state: &State) -> Lsn {
    match &state.role {
        Role::Primary(primary) => primary.log.own_durable(),
        Role::Secondary(secondary) => secondary.durable,
        Role::Undecided => state.position.end(),
        Role::Failed { .. } => Lsn::ZERO,
    }
}
