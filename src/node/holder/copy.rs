//! The memory of the copy: opened as it was left, or made; moved to where nobody else reaches it.
//!
//! One holder at a time has a file: it holds a lock on `PATH.lock` as long as it lives. Over shared memory a file that was
//! found is moved before it is served: an owner of the holder before may still have it mapped, stopped in the middle of
//! a store, and what it writes when it goes on must reach no copy that somebody else was granted.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::file_record::{self, Record};
use super::state::Content;
use super::{HolderConfig, HolderError, apply};
use crate::base::{FabricUrl, Medium, RegionId};
use crate::fabric::shm::take_snapshot;
use crate::memory::{MapError, MapOptions, Mapping};

/// A copy with what is known of it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) memory: Mapping,
    pub(super) content: Content,
    pub(super) region: Option<RegionId>,
    pub(super) sync_failed: bool,
    pub(super) lock: Option<FileLock>,
}

/// `PATH` with `end` behind it.
pub(super) fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

const fn options(config: &HolderConfig) -> MapOptions {
    MapOptions { huge_pages: config.huge_pages }
}

/// Memory that is no file: shareable for shared memory, else private.
pub(super) fn memory_of(config: &HolderConfig, len: usize) -> Result<Mapping, MapError> {
    match config.url.medium() {
        Medium::Shm => Mapping::memfd("mirrorbus-copy", len, options(config)),
        Medium::Tcp | Medium::Rdma => Mapping::anonymous(len, options(config)),
    }
}

/// New memory of the kind that this holder uses.
pub(super) fn fresh(config: &HolderConfig) -> Result<Mapping, MapError> {
    let Some(path) = &config.file else { return memory_of(config, config.size) };
    let next = beside(path, ".next");
    // One left by a crash may have had a sync that failed, or another size.
    remove(&next).map_err(|error| failed(config, error))?;
    Mapping::file(&next, config.size, options(config))
}

/// A file takes the name of the one that it replaces once its bytes are on stable storage, where there is any.
pub(super) fn settle(config: &HolderConfig, fresh: &Mapping) -> Result<(), MapError> {
    let Some(path) = &config.file else { return Ok(()) };
    if fresh.is_durable_backing() {
        fresh.sync().map_err(|error| failed(config, error))?;
    }
    std::fs::rename(beside(path, ".next"), path).map_err(|error| failed(config, error))
}

/// Puts the name that [`settle`] gave on stable storage.
pub(super) fn keep_name(config: &HolderConfig) -> io::Result<()> {
    config.file.as_deref().map_or(Ok(()), file_record::sync_directory)
}

/// Removes a file that need not be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(config: &HolderConfig, error: io::Error) -> MapError {
    MapError::System { call: "replace the copy's file", len: config.size, error }
}

/// The copy as it was left, or a new one.
pub(super) fn open(config: &HolderConfig) -> Result<Opened, HolderError> {
    let new =
        |memory| Opened { memory, content: Content::Empty, region: None, sync_failed: false, lock: None };
    match (&config.url, &config.file) {
        (FabricUrl::ShmDevice { device, .. }, Some(path)) => {
            let why = format!("the copy is the device {}: a file does not go with it", device.display());
            Err(HolderError::File { path: path.clone(), why })
        }
        (FabricUrl::ShmDevice { device, .. }, None) => {
            Ok(new(Mapping::device(device, config.size, options(config))?))
        }
        (_, None) => Ok(new(memory_of(config, config.size)?)),
        (_, Some(path)) => open_file(config, path),
    }
}

fn open_file(config: &HolderConfig, path: &Path) -> Result<Opened, HolderError> {
    let refuse = |why: String| HolderError::File { path: path.to_owned(), why };
    let lock = lock(path).map_err(refuse)?;
    let size = config.size as u64;
    let known = find(config, path).map_err(refuse)?;
    let found = known.is_some();
    let empty = Record { content: Content::Empty, region: None, bytes: size, sync_failed: false };
    if !found {
        // Before the file, so that one that is killed meanwhile does not find a file that it knows nothing of.
        file_record::write(path, empty)?;
    }
    let (record, same_boot) = known.unwrap_or((empty, true));
    let mut memory = Mapping::file(path, config.size, options(config))?;
    if record.content == Content::Complete && same_boot {
        apply::redo(path, &memory).map_err(refuse)?;
    }
    apply::forget(path)?;
    if found && config.url.medium() == Medium::Shm {
        let moved = fresh(config)?;
        if record.content == Content::Complete
            && let Err(error) = take_snapshot(memory.slice(), moved.slice(), || false)
        {
            log::error!("{error}");
        }
        memory.check_whole()?;
        settle(config, &moved)?;
        keep_name(config)?;
        memory = moved;
    }
    file_record::write(path, record)?;
    let Record { content, region, sync_failed, .. } = record;
    Ok(Opened { memory, content, region, sync_failed, lock: Some(lock) })
}

/// Keeps other holders from the file. Given back explicitly: a child process that some thread is making has the descriptor
/// too until it executes its program, and would keep the lock so long.
#[derive(Debug)]
pub(super) struct FileLock(OwnedFd);

impl Drop for FileLock {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

fn lock(path: &Path) -> Result<FileLock, String> {
    let path = beside(path, ".lock");
    let named = |error: io::Error| format!("{}: {error}", path.display());
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(named)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(FileLock(file.into())),
        Err(Errno::WOULDBLOCK) => Err("another holder has this file: stop it, or choose another".into()),
        Err(error) => Err(named(error.into())),
    }
}

/// What is known of the file, and whether of this boot; `None` when there is neither file nor record.
fn find(config: &HolderConfig, path: &Path) -> Result<Option<(Record, bool)>, String> {
    let existing = std::fs::metadata(path).map(|meta| meta.len()).unwrap_or(0);
    let size = config.size as u64;
    let Some((record, same_boot)) = file_record::read(path)? else {
        return match existing {
            0 => Ok(None),
            _ => Err(format!("has {existing} bytes and no record of a holder: move it away")),
        };
    };
    // One that was killed while it made the file has written down before that there is nothing in it.
    let unmade = record.content == Content::Empty && existing < size;
    if record.bytes != size || (existing != size && !unmade) {
        return Err(format!("holds a copy of {} bytes in {existing}, {size} were asked for", record.bytes));
    }
    if config.accept_uncertain {
        return Ok(Some((record, same_boot)));
    }
    if record.sync_failed {
        return Err(
            "a sync of it failed: what is on the disk is unknown. Move it and its record away and push; to \
                    use it all the same, without Durable, accept uncertain content"
                .into(),
        );
    }
    if record.content == Content::Complete && !same_boot {
        return Err(
            "the host has rebooted since: what was synced is in the file, of the stores after the last sync any \
             part may be missing; to use it all the same, accept uncertain content"
                .into(),
        );
    }
    Ok(Some((record, same_boot)))
}
