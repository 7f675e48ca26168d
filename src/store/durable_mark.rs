//! To where a node's own disk has the log, while that decides what is acknowledged: the file `durable` in its directory.
//!
//! ```text
//!  0        8        12      16         32           40        48     64                4096
//!  ├────────┼────────┼───────┼──────────┼────────────┼─────────┼──────┼── … 0 ──────────┼── the same again ── …
//!  │MBDURA01│ crc32c │ flags │ dataset  │ generation │ durable │ 0    │                 │
//!  └────────┴────────┴───────┴──────────┴────────────┴─────────┴──────┴─────────────────┴─────────────────────
//! ```
//!
//! Behind the last checkpoint of a node that serves alone nothing else says that the log went on: a bit that flips in its last segment would look like
//! the end that a crash tore. So the mark is written behind each sync of segments, before anybody is told of what that made durable. It is
//! written in place, and never synced for its own sake: what the process leaves when it dies is in the kernel, and whatever of it a power
//! cut leaves is older and as true. It goes to two places by turns, so that one that is torn leaves the other.
//!
//! It is a net, nothing that must hold: one that cannot be written, or read, is passed over with a warning. What must hold is that it never
//! says too much. Whatever makes the log shorter writes the note of a resync first, and [`Note::write`](super::resync::Note::write) asks for the
//! mark, to remove it durably before. And a mark counts only if no later generation is in the log: that one's head says where it went on.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::base::locks::poisoning::{Mutex, MutexGuard};
use crate::base::{DatasetId, LogGeneration, Lsn, crc32c};
use crate::node::files::{sync_data, sync_directory};

/// Bytes of one of the two places: no two lie in one block of any device.
pub(super) const PLACE_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"MBDURA01";
const CHECKED_FROM: usize = 12;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    crc: U32,
    flags: U32,
    dataset: [u8; 16],
    generation: U64,
    durable: U64,
    reserved: [u8; 16],
}

/// What the mark says: a node that wrote this generation had the log durable to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Marked {
    pub(super) generation: LogGeneration,
    pub(super) durable: Lsn,
}

impl Marked {
    /// The bytes of a place.
    pub(super) fn encode(self, dataset: DatasetId) -> [u8; PLACE_BYTES] {
        let mut wire = Wire {
            magic: MAGIC,
            crc: 0.into(),
            flags: 0.into(),
            dataset: dataset.to_bytes(),
            generation: self.generation.0.into(),
            durable: self.durable.0.into(),
            reserved: [0; 16],
        };
        wire.crc = crc32c(&wire.as_bytes()[CHECKED_FROM..]).into();
        let mut place = [0; PLACE_BYTES];
        place[..size_of::<Wire>()].copy_from_slice(wire.as_bytes());
        place
    }

    /// What a place says; nothing where none was written. What is wrong with it, where it counts for nothing.
    pub(super) fn decode(place: &[u8], dataset: DatasetId) -> Result<Option<Self>, String> {
        if place.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let Ok((wire, _)) = Wire::read_from_prefix(place) else {
            return Err(format!("it has {} bytes", place.len()));
        };
        if wire.magic != MAGIC {
            return Err("it is no mark, or of another version".into());
        }
        let computed = crc32c(&wire.as_bytes()[CHECKED_FROM..]);
        if wire.crc.get() != computed {
            return Err(format!("its checksum is {:08x}, its bytes give {computed:08x}", wire.crc.get()));
        }
        let found = DatasetId::from_bytes(wire.dataset);
        if found != dataset {
            return Err(format!("it is dataset {found}'s"));
        }
        if wire.flags.get() != 0 || wire.reserved != [0; 16] {
            return Err("it has flags that this program does not know".into());
        }
        let (generation, durable) = (LogGeneration(wire.generation.get()), Lsn(wire.durable.get()));
        Ok(Some(Self { generation, durable }))
    }
}

/// What the two places say, and which is written next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places {
    marked: Option<Marked>,
    next: usize,
}

impl Places {
    /// Of what is in the file, and what is wrong with it.
    pub(super) fn read(bytes: &[u8], dataset: DatasetId) -> (Self, Vec<String>) {
        let (mut found, mut wrong) = (Self::default(), Vec::new());
        for (at, place) in bytes.chunks(PLACE_BYTES).take(2).enumerate() {
            match Marked::decode(place, dataset) {
                Ok(marked) if marked > found.marked => found = Self { marked, next: 1 - at },
                Ok(_) => {}
                Err(why) => wrong.push(why),
            }
        }
        (found, wrong)
    }

    /// The one that says most.
    pub(super) const fn marked(&self) -> Option<Marked> {
        self.marked
    }

    /// Where in the file `marked` is to be written, unless that says nothing new.
    pub(super) fn turn(&mut self, marked: Marked) -> Option<u64> {
        if self.marked.is_some_and(|last| last >= marked) {
            return None;
        }
        let place = self.next;
        *self = Self { marked: Some(marked), next: 1 - place };
        Some((place * PLACE_BYTES) as u64)
    }
}

/// The mark of one directory.
#[derive(Debug)]
pub(super) struct DurableMark {
    path: PathBuf,
    dataset: DatasetId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    places: Places,
    file: Option<File>,
    /// Written since it was synced, and made.
    is_dirty: bool,
    is_made: bool,
    /// It was said that it cannot be written.
    is_told: bool,
}

impl DurableMark {
    /// Of the dataset in `directory`. One that cannot be read, or is damaged, is none.
    pub(super) fn open(directory: &Path, dataset: DatasetId) -> Self {
        let path = directory.join("durable");
        let mut places = Places::default();
        match std::fs::read(&path) {
            Ok(bytes) => {
                let wrong;
                (places, wrong) = Places::read(&bytes, dataset);
                wrong.iter().for_each(|why| log::warn!("{}: {why}: passed over", path.display()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::warn!("{}: {error}: passed over", path.display()),
        }
        Self { path, dataset, state: Mutex::new(State { places, ..State::default() }) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it says.
    pub(super) fn marked(&self) -> Option<Marked> {
        self.state().places.marked()
    }

    /// Says that the own disk has the log to there, which it does. When this returns the process may die; the power may not fail yet.
    pub(super) fn write(&self, marked: Marked) {
        let mut state = self.state();
        let before = state.places;
        let Some(at) = state.places.turn(marked) else { return };
        let place = marked.encode(self.dataset);
        let written = self.file(&mut state).and_then(|file| file.write_all_at(&place, at));
        state.is_dirty = true;
        let Err(error) = written else {
            state.is_told = false;
            return;
        };
        // The same place is tried again: the other has what is true still.
        (state.places, state.file) = (before, None);
        if !std::mem::replace(&mut state.is_told, true) {
            let path = self.path.display();
            log::warn!("{path}: {error}: a restart takes damage at the end of the log for its end");
        }
    }

    fn file<'a>(&self, state: &'a mut State) -> io::Result<&'a File> {
        if state.file.is_none() {
            state.is_made = true;
            let mut options = OpenOptions::new();
            state.file = Some(options.write(true).create(true).truncate(false).mode(0o600).open(&self.path)?);
        }
        state.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Makes it outlast a power cut too; for those for whom nobody waits.
    pub(super) fn sync(&self) {
        let file = {
            let mut state = self.state();
            if !std::mem::take(&mut state.is_dirty) {
                return;
            }
            let is_made = std::mem::take(&mut state.is_made);
            state.file.as_ref().and_then(|file| file.try_clone().ok()).map(|file| (file, is_made))
        };
        // Whoever writes meanwhile does not wait for it.
        let Some((file, is_made)) = file else { return };
        let synced = sync_data(&file).and_then(|()| if is_made { self.sync_name() } else { Ok(()) });
        if let Err(error) = synced {
            log::warn!("{}: {error}", self.path.display());
        }
    }

    fn sync_name(&self) -> io::Result<()> {
        sync_directory(self.path.parent().unwrap_or(Path::new(".")))
    }

    /// The log may become shorter than it says from now on, whatever happens. Durable on return.
    ///
    /// # Errors
    /// The system's: it may still count.
    pub(super) fn remove(&self) -> io::Result<()> {
        let mut state = self.state();
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => *state = State::default(),
        }
        self.sync_name()
    }
}

#[cfg(test)]
#[path = "durable_mark_tests.rs"]
mod tests;
