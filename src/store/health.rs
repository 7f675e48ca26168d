//! What keeps a node's stored data whole: the way to the peer's copy, what waits to be mended, checks under way, and what there is to tell.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::config::CommandError;
use super::mend::Broken;
use super::peer::Peer;
use super::state::Bell;
use crate::base::Lsn;
use crate::base::clock::Instant;
use crate::base::locks::poisoning::{Mutex, MutexGuard};

/// Blocks that wait to be mended at most: what finds no place is found again by the next read.
const WAITING_MAX: usize = 256;
/// Notes that wait to be told at most; the oldest goes.
const NOTES_MAX: usize = 256;

/// How long a block that cannot be had is not told of again, and how many are remembered.
const TOLD_TIME: Duration = Duration::from_secs(60);
const TOLD_MAX: usize = 1024;

/// Something that operators are to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub text: String,
}

/// What is being checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// This node's data against their checksums.
    Scrub,
    /// Both nodes' data against each other.
    Verify,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckStatus {
    /// Which.
    pub kind: CheckKind,
    /// Bytes looked at.
    pub done_bytes: u64,
    /// Bytes to look at, as of its beginning.
    pub total_bytes: u64,
}

/// A check under way.
#[derive(Debug)]
pub(super) struct Progress {
    kind: CheckKind,
    total_bytes: u64,
    done_bytes: AtomicU64,
}

/// Segments whose files were looked at in one pass.
pub(super) type Seen = BTreeSet<Lsn>;

/// All of it.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) peer: Peer,
    /// One mends at a time.
    pub(super) mending: Mutex<()>,
    waiting: Mutex<VecDeque<Broken>>,
    /// Wakes who mends.
    pub(super) bell: Bell,
    /// Ends the rest of a check when the dataset ends.
    pub(super) resting: Bell,
    notes: Mutex<VecDeque<Note>>,
    /// Blocks that were told to be damaged, and when.
    told: Mutex<HashMap<Lsn, Instant>>,
    check: Mutex<Option<Arc<Progress>>>,
    /// The pass of the peer's that this node answers in, by its number.
    answering: Mutex<(u64, Seen)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Health {
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            peer,
            mending: Mutex::default(),
            waiting: Mutex::default(),
            bell: Bell::default(),
            resting: Bell::default(),
            notes: Mutex::default(),
            told: Mutex::default(),
            check: Mutex::default(),
            answering: Mutex::default(),
        }
    }

    /// Has blocks mended soon, on another thread.
    pub(super) fn mend_soon(&self, broken: Broken) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() < WAITING_MAX && !waiting.contains(&broken) {
            waiting.push_back(broken);
        }
        drop(waiting);
        self.bell.ring();
    }

    /// What waits to be mended.
    pub(super) fn take_waiting(&self) -> Vec<Broken> {
        lock(&self.waiting).drain(..).collect()
    }

    /// Tells operators something.
    pub(super) fn note(&self, code: &'static str, text: String) {
        log::warn!("{code}: {text}");
        let mut notes = lock(&self.notes);
        if notes.len() == NOTES_MAX {
            notes.pop_front();
        }
        notes.push_back(Note { code, text });
    }

    /// Tells operators of a block that cannot be had, once in a while: a client may ask for it again and again.
    pub(super) fn note_damage(&self, lsn: Lsn, text: impl FnOnce() -> String) {
        let mut told = lock(&self.told);
        told.retain(|_, when| when.elapsed() < TOLD_TIME);
        if told.len() < TOLD_MAX && told.insert(lsn, Instant::now()).is_none() {
            drop(told);
            self.note("damaged", text());
        }
    }

    /// What there is to tell.
    pub(super) fn take_notes(&self) -> Vec<Note> {
        lock(&self.notes).drain(..).collect()
    }

    /// Begins a check, if none is under way.
    pub(super) fn begin(&self, kind: CheckKind, total_bytes: u64) -> Result<CheckUnderWay<'_>, CommandError> {
        let mut check = lock(&self.check);
        if let Some(other) = &*check {
            let what = match other.kind {
                CheckKind::Scrub => "scrub",
                CheckKind::Verify => "verify",
            };
            return Err(CommandError::Refused(format!(
                "a {what} of the dataset is under way: wait for its end"
            )));
        }
        let progress = Arc::new(Progress { kind, total_bytes, done_bytes: AtomicU64::new(0) });
        *check = Some(progress.clone());
        Ok(CheckUnderWay { health: self, progress })
    }

    /// How far the check under way is.
    pub(super) fn check(&self) -> Option<CheckStatus> {
        let progress = lock(&self.check).clone()?;
        let Progress { kind, total_bytes, .. } = *progress;
        let done_bytes = progress.done_bytes.load(Ordering::Relaxed).min(total_bytes);
        Some(CheckStatus { kind, done_bytes, total_bytes })
    }

    /// Segments that were looked at in the peer's pass of this number.
    pub(super) fn answering(&self, pass: u64) -> MutexGuard<'_, (u64, Seen)> {
        let mut answering = lock(&self.answering);
        if answering.0 != pass {
            *answering = (pass, Seen::new());
        }
        answering
    }
}

/// A check, until it is dropped.
#[derive(Debug)]
pub(super) struct CheckUnderWay<'a> {
    health: &'a Health,
    progress: Arc<Progress>,
}

impl CheckUnderWay<'_> {
    /// So many bytes more were looked at.
    pub(super) fn add(&self, bytes: u64) {
        self.progress.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for CheckUnderWay<'_> {
    fn drop(&mut self) {
        *lock(&self.health.check) = None;
    }
}
