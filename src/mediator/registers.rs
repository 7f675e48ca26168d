//! What a mediator knows, on its disk: a directory with one file for each dataset, and the lock of the process that has it.
//!
//! Nothing is answered before it is durable. Two datasets wait for one another only where the disk makes them: each has a lock of its own.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::locks::poisoning::Mutex;
use crate::cluster::{Arbiter, DATASETS_MAX, Entry, NOT_KNOWN, Question, Told, is_dataset, refused};
use crate::node::files::{
    DIRECTORY_MODE_MAX, DirectoryLock, ReplaceError, TakeError, checked, read_checked, replace,
    sync_directory,
};

/// How the name of a register's file ends.
const EXTENSION: &str = "register";

/// Why a mediator's directory is not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistersError {
    /// In use, another user's, or open to others.
    #[error("{0}")]
    Directory(String),
    /// The system refused.
    #[error("{}: {call} failed: {error}", path.display())]
    System {
        /// What.
        path: PathBuf,
        /// The call.
        call: &'static str,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// More files of datasets than there may be.
    #[error("{} has more than {DATASETS_MAX} datasets: remove the files of those that are no more", path.display())]
    TooMany {
        /// Which.
        path: PathBuf,
    },
}

impl From<TakeError> for RegistersError {
    fn from(error: TakeError) -> Self {
        Self::Directory(error.to_string())
    }
}

/// As it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    dataset: String,
    #[serde(flatten)]
    entry: Entry,
}

/// The register of a dataset.
#[derive(Debug)]
enum Slot {
    /// As on the disk.
    Known(Option<Entry>),
    /// What the disk has cannot be told, or not be read: nothing is answered for this dataset.
    Out { code: &'static str, text: String },
}

/// The registers of a mediator.
#[derive(Debug)]
pub(super) struct Registers {
    directory: PathBuf,
    slots: Mutex<HashMap<String, Arc<Mutex<Slot>>>>,
    _lock: DirectoryLock,
}

impl Registers {
    /// Opens the directory; makes it where there is none. A file that is damaged puts its dataset out of service, and no other.
    pub(super) fn open(directory: &Path) -> Result<Self, RegistersError> {
        let system = |call| {
            let path = directory.to_owned();
            move |error| RegistersError::System { path, call, error }
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(DIRECTORY_MODE_MAX).create(directory).map_err(system("mkdir"))?;
        let lock = DirectoryLock::take(directory)?;
        let mut slots = HashMap::new();
        for found in fs::read_dir(directory).map_err(system("readdir"))? {
            let path = found.map_err(system("readdir"))?.path();
            let Some(dataset) = dataset_of(&path) else { continue };
            if slots.len() == DATASETS_MAX {
                return Err(RegistersError::TooMany { path: directory.to_owned() });
            }
            let slot = read(&path, &dataset);
            if let Slot::Out { text, .. } = &slot {
                log::error!("{text}");
            }
            slots.insert(dataset, Arc::new(Mutex::new(slot)));
        }
        // A process before this may have failed to: then what was read is not there after a crash.
        sync_directory(directory).map_err(system("fsync"))?;
        Ok(Self { directory: directory.to_owned(), slots: Mutex::new(slots), _lock: lock })
    }

    /// How many datasets there are.
    pub(super) fn count(&self) -> usize {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The answer to `question`. What it says is durable on return.
    pub(super) fn answer(&self, rules: Arbiter, question: &Question, uptime: Duration) -> Told {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            match slots.get(&question.dataset) {
                Some(slot) => slot.clone(),
                None => {
                    // Only what is to be written makes a dataset known.
                    let decision = rules.decide(None, slots.len(), question, uptime);
                    if decision.write.is_none() {
                        return decision.told;
                    }
                    let slot = Arc::new(Mutex::new(Slot::Known(None)));
                    slots.insert(question.dataset.clone(), slot.clone());
                    slot
                }
            }
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match &*slot {
            Slot::Known(entry) => entry.as_ref(),
            Slot::Out { code, text } => return refused(code, text.clone()),
        };
        // It has its place among them already.
        let decision = rules.decide(entry, 0, question, uptime);
        let Some(entry) = decision.write else { return decision.told };
        match self.write(&question.dataset, &entry) {
            Ok(()) => {
                *slot = Slot::Known(Some(entry));
                decision.told
            }
            Err(ReplaceError::Kept(error)) => {
                let path = self.path(&question.dataset);
                log::error!("{}: {error}", path.display());
                let code = if is_full(&error) { "no-room" } else { "failed" };
                let text = format!(
                    "{}: nothing was written: {error}; mend the disk, then ask again",
                    path.display()
                );
                refused(code, text)
            }
            Err(ReplaceError::Unknown(error)) => {
                let path = self.path(&question.dataset);
                let text = format!(
                    "{}: {error}: what the disk has is not known; this dataset is out of service until the mediator is started anew on \
                     a disk that is in order",
                    path.display()
                );
                log::error!("{text}");
                *slot = Slot::Out { code: "failed", text: text.clone() };
                refused(NOT_KNOWN, text)
            }
        }
    }

    fn write(&self, dataset: &str, entry: &Entry) -> Result<(), ReplaceError> {
        let stored = Stored { dataset: dataset.to_owned(), entry: entry.clone() };
        let json = serde_json::to_string(&stored).map_err(|error| ReplaceError::Kept(error.into()))?;
        let path = self.path(dataset);
        let written = replace(&path, &checked(&json));
        if matches!(written, Err(ReplaceError::Kept(_))) {
            // It takes room that others need.
            let _ = fs::remove_file(path.with_extension("next"));
        }
        written
    }

    fn path(&self, dataset: &str) -> PathBuf {
        self.directory.join(dataset).with_extension(EXTENSION)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Whose register the file is, by its name.
fn dataset_of(path: &Path) -> Option<String> {
    let dataset = path.file_stem()?.to_str()?;
    (path.extension()? == EXTENSION && is_dataset(dataset)).then(|| dataset.to_owned())
}

fn read(path: &Path, dataset: &str) -> Slot {
    let stored = read_checked(path).map_err(|error| error.to_string()).and_then(|text| {
        let text = text.ok_or("it went away")?;
        let stored: Stored = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if stored.dataset != dataset {
            return Err(format!("it is the register of dataset {}", stored.dataset));
        }
        Ok(stored.entry)
    });
    match stored {
        Ok(entry) => Slot::Known(Some(entry)),
        Err(why) => Slot::Out {
            code: "damaged",
            text: format!(
                "{} is damaged: {why}. Stop the mediator, move the file away, start it, and say `mirrorbus seed NAME` at the node \
                 that serves dataset {dataset}, or, if none does, at the one that is to",
                path.display()
            ),
        },
    }
}

#[cfg(test)]
#[path = "registers_tests.rs"]
mod tests;
