//! The checkpoint: what the log before a position has made of the volumes, so that a restart reads only what follows.
//!
//! A key-value file (`redb`) with three tables: the head, the volumes, the maps in leaves of 64 blocks; `docs/formats.md` draws them. One
//! transaction takes it from one snapshot to the next; only leaves that differ are written. A crash leaves the one or the other, whole, at
//! whatever write or sync it comes.
//!
//! The snapshot that the file has is kept in memory: its maps share all that did not change with those of the running volumes.
//!
//! A transaction is committed in two phases, with the file's free space: so what is there after a crash is valid without a look at
//! all of it.

mod backend;
mod error;
mod load;
mod put;
mod record;
#[cfg(test)]
mod simulated;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, Durability, StorageBackend, TableDefinition, WriteTransaction};

use super::volumes::Volumes;
use crate::base::{DatasetId, LogGeneration, Lsn};
use crate::node::files::sync_directory;
use backend::{Careful, OnFile, Switch};

pub use error::CheckpointError;
pub use record::RecordError;

/// The values' decoders, for those who feed them what they like.
#[doc(hidden)]
pub mod decoders {
    pub use super::record::{HeadRecord, RecordError, VolumeRecord, decode_leaf, encode_leaf};
}

/// Memory that the key-value file may take for pages.
const CACHE_BYTES: usize = 16 << 20;

const HEAD: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("head");
const VOLUMES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("volumes");
const LEAVES: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("leaves");

/// What a checkpoint has.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// All of the log before is in the maps.
    pub(super) position: Lsn,
    /// Of the last record before.
    pub(super) generation: LogGeneration,
    pub(super) volumes: Volumes,
}

/// The file of one dataset's checkpoint.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// `None` after an error.
    database: Option<Database>,
    switch: Switch,
    dataset: DatasetId,
    /// What the file has.
    current: Snapshot,
    /// Where it may be opened again when the disk was full.
    path: Option<PathBuf>,
    failed: bool,
}

impl Checkpoint {
    /// Opens the checkpoint of `dataset` at `path` and reads it. With `create` an empty one, at position 0, is made if there is none.
    ///
    /// # Errors
    /// It is another's, damaged, or not there; then nothing was changed.
    pub(super) fn open(path: &Path, dataset: DatasetId, create: bool) -> Result<Self, CheckpointError> {
        if !path.exists() {
            if !create {
                return Err(CheckpointError::Missing { path: path.to_owned() });
            }
            make(path, dataset, &Snapshot::default())?;
        }
        let switch = Switch::default();
        let mut opened = Self::open_on(OnFile(open_file(path, false)?), switch, dataset)?;
        opened.path = Some(path.to_owned());
        Ok(opened)
    }

    fn open_on(
        backend: impl StorageBackend,
        switch: Switch,
        dataset: DatasetId,
    ) -> Result<Self, CheckpointError> {
        let backend = Careful::new(backend, switch.clone());
        let database = guarded(|| builder().create_with_backend(backend).map_err(CheckpointError::storage))?;
        let mut opened = Self {
            database: Some(database),
            switch,
            dataset,
            current: Snapshot::default(),
            path: None,
            failed: false,
        };
        match guarded(|| load::snapshot(&opened.reader()?, dataset)) {
            Ok(snapshot) => opened.current = snapshot,
            Err(error) => {
                opened.give_up();
                return Err(error);
            }
        }
        Ok(opened)
    }

    /// What it has: what was read, or written last.
    pub(super) const fn snapshot(&self) -> &Snapshot {
        &self.current
    }

    /// Makes the file say what `now` says; on return it is durable. After a crash before, it says what it said or this.
    ///
    /// # Errors
    /// [`NoSpace`](CheckpointError::NoSpace) may be tried again, other errors are kept. The file has what it had, or after a failed sync
    /// perhaps `now`.
    ///
    /// # Panics
    /// When `now` goes back, or a volume has changed its block size.
    pub(super) fn write(&mut self, now: &Snapshot) -> Result<(), CheckpointError> {
        assert!(
            now.position >= self.current.position,
            "a checkpoint at {} after {}",
            now.position,
            self.current.position
        );
        self.reopen()?;
        let (dataset, current) = (self.dataset, &self.current);
        let database = self.database.as_ref().ok_or(CheckpointError::Failed)?;
        let written =
            guarded(|| commit(database, |transaction| put::snapshot(transaction, dataset, current, now)));
        self.settle(written)?;
        self.current = now.clone();
        Ok(())
    }

    /// Makes, or replaces, the file at `path` so that it says what `now` says; on return it is durable. After a crash before, the file is what it
    /// was.
    ///
    /// # Errors
    /// The file at `path` is what it was.
    pub(super) fn begin(path: &Path, dataset: DatasetId, now: &Snapshot) -> Result<Self, CheckpointError> {
        make(path, dataset, now)?;
        Self::open(path, dataset, false)
    }

    /// Goes back to what an earlier one said, because the log behind that is void. On return it is durable; after a crash before, the file
    /// says what it said.
    ///
    /// # Errors
    /// The file says what it said, and is written no more.
    pub(super) fn go_back(&mut self, to: &Snapshot) -> Result<(), CheckpointError> {
        let path = self.path.clone().filter(|_| !self.failed).ok_or(CheckpointError::Failed)?;
        self.give_up();
        self.failed = true;
        *self = Self::begin(&path, self.dataset, to)?;
        Ok(())
    }

    fn reader(&self) -> Result<redb::ReadTransaction, CheckpointError> {
        let database = self.database.as_ref().ok_or(CheckpointError::Failed)?;
        database.begin_read().map_err(CheckpointError::storage)
    }

    /// Remembers a failure.
    fn settle(&mut self, written: Result<(), CheckpointError>) -> Result<(), CheckpointError> {
        if let Err(error) = &written {
            self.failed = !matches!(error, CheckpointError::NoSpace) || self.path.is_none();
            self.give_up();
        }
        written
    }

    /// After a full disk the library's state in memory is of no use any more; the file is.
    fn reopen(&mut self) -> Result<(), CheckpointError> {
        if self.failed {
            return Err(CheckpointError::Failed);
        }
        if let (None, Some(path)) = (&self.database, &self.path) {
            let opened = Self::open(path, self.dataset, false)?;
            if opened.current.position != self.current.position {
                let (found, wanted) = (opened.current.position.0, self.current.position.0);
                return Err(CheckpointError::Count { what: "as its position".to_owned(), found, wanted });
            }
            *self = opened;
        }
        Ok(())
    }

    /// Closes the file without another write.
    fn give_up(&mut self) {
        self.switch.turn_off();
        let database = self.database.take();
        // What it says on its way is of no interest, and what it panics with neither.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

#[cfg(test)]
impl Drop for Checkpoint {
    fn drop(&mut self) {
        simulated::close(self.database.take());
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).create_with_file_format_v3(true);
    builder
}

fn open_file(path: &Path, new: bool) -> Result<File, CheckpointError> {
    let opened = OpenOptions::new().read(true).write(true).create_new(new).mode(0o600).open(path);
    opened.map_err(|error| CheckpointError::System { path: path.to_owned(), call: "open", error })
}

/// A checkpoint at `path` that says what `now` says: made beside it, then renamed, since a file half made cannot be opened.
fn make(path: &Path, dataset: DatasetId, now: &Snapshot) -> Result<(), CheckpointError> {
    let next = path.with_extension("next");
    let system = |call| {
        let path = path.to_owned();
        move |error| CheckpointError::System { path, call, error }
    };
    if next.exists() {
        std::fs::remove_file(&next).map_err(system("unlink"))?;
    }
    let file = open_file(&next, true)?;
    #[cfg(test)]
    let is_made = simulated::copy(&file, dataset, now).map_err(system("write"))?;
    #[cfg(not(test))]
    let is_made = false;
    if !is_made {
        make_on(Careful::new(OnFile(file), Switch::default()), dataset, now)?;
        #[cfg(test)]
        simulated::keep(&next, dataset, now).map_err(system("read"))?;
    }
    std::fs::rename(&next, path).map_err(system("rename"))?;
    sync_directory(path.parent().unwrap_or(Path::new("."))).map_err(system("fsync"))
}

fn make_on(backend: impl StorageBackend, dataset: DatasetId, now: &Snapshot) -> Result<(), CheckpointError> {
    let database = builder().create_with_backend(backend).map_err(CheckpointError::storage)?;
    let empty = Snapshot::default();
    commit(&database, |transaction| put::snapshot(transaction, dataset, &empty, now))
}

fn commit(
    database: &Database,
    put: impl FnOnce(&WriteTransaction) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let mut transaction = database.begin_write().map_err(CheckpointError::storage)?;
    transaction.set_durability(Durability::Immediate);
    // What it writes for that is most of the work of a whole simulated pair, whose tables are looked through in no time.
    #[cfg(test)]
    transaction.set_quick_repair(!crate::sim::scheduler::is_simulated());
    #[cfg(not(test))]
    transaction.set_quick_repair(true);
    put(&transaction)?;
    transaction.commit().map_err(CheckpointError::storage)
}

/// Makes of the library's panics errors: it asserts what a damaged file says.
fn guarded<T>(run: impl FnOnce() -> Result<T, CheckpointError>) -> Result<T, CheckpointError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(CheckpointError::Broken { why: text.unwrap_or("its library gave up").to_owned() })
    })
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod cut_tests;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
