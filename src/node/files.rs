//! Small files that are replaced as a whole, and directories made to last that one process has.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::base::crc32c;

/// Why a file was not replaced.
#[derive(Debug)]
pub(crate) enum ReplaceError {
    /// The file is the one before.
    Kept(io::Error),
    /// Which of the two is there after a crash is not known.
    Unknown(io::Error),
}

impl From<ReplaceError> for io::Error {
    fn from(error: ReplaceError) -> Self {
        match error {
            ReplaceError::Kept(error) | ReplaceError::Unknown(error) => error,
        }
    }
}

/// Replaces the file at `path`: on return its bytes are these, durably; after a crash they are these or those before.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ReplaceError> {
    let next = path.with_extension("next");
    let directory = path.parent().ok_or_else(|| ReplaceError::Kept(io::ErrorKind::InvalidInput.into()))?;
    write_next(&next, bytes).map_err(ReplaceError::Kept)?;
    fs::rename(&next, path).and_then(|()| sync_directory(directory)).map_err(ReplaceError::Unknown)
}

fn write_next(next: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(next)?;
    file.write_all(bytes)?;
    sync_all(&file)
}

/// [`replace`], for whom any error is the end.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Ok(replace(path, bytes)?)
}

/// The bytes of a file with a checksum: a line with that of `text`, and that.
pub(crate) fn checked(text: &str) -> Vec<u8> {
    format!("{:08x}\n{text}\n", crc32c(text.as_bytes())).into_bytes()
}

/// Replaces the file at `path` by [`checked`] text.
pub(crate) fn write_checked(path: &Path, text: &str) -> io::Result<()> {
    write_whole(path, &checked(text))
}

/// The text that [`write_checked`] wrote there; `None` where there is no file.
///
/// # Errors
/// The system's; of kind `InvalidData` when the checksum is not that of the text.
pub(crate) fn read_checked(path: &Path) -> io::Result<Option<String>> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let all = match fs::read_to_string(path) {
        Ok(all) => all,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (sum, text) = all.split_once('\n').ok_or_else(|| invalid("it has no second line".into()))?;
    let text = text.trim_end_matches('\n');
    let found = u32::from_str_radix(sum, 16);
    let found = found.map_err(|error| invalid(format!("its checksum {sum:?}: {error}")))?;
    let computed = crc32c(text.as_bytes());
    if found != computed {
        return Err(invalid(format!("its checksum is {found:08x}, its bytes give {computed:08x}")));
    }
    Ok(Some(text.to_owned()))
}

/// Makes durable which files the directory has.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    sync_all(&File::open(directory)?)
}

fn sync_all(file: &File) -> io::Result<()> {
    #[cfg(test)]
    if let Some(synced) = crate::sim::files::sync(file) {
        return synced;
    }
    file.sync_all()
}

/// Makes the bytes of a file durable.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    #[cfg(test)]
    if let Some(synced) = crate::sim::files::sync(file) {
        return synced;
    }
    file.sync_data()
}

/// Permission bits that a directory of one process may have.
pub(crate) const DIRECTORY_MODE_MAX: u32 = 0o700;

/// Why a directory is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// It is not there.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// The system refused.
    #[error("{}: {call} failed: {error}", path.display())]
    System {
        path: PathBuf,
        call: &'static str,
        #[source]
        error: io::Error,
    },
    /// Others can look into it or change it.
    #[error("{} has mode {mode:04o}, wider than 0700: chmod 700 {}", path.display(), path.display())]
    Mode { path: PathBuf, mode: u32 },
    /// It belongs to somebody else.
    #[error("{} belongs to user {owner}, this process runs as user {user}", path.display())]
    Owner { path: PathBuf, owner: u32, user: u32 },
    /// Another process has it.
    #[error("{} is in use by {by}: one process at a time", path.display())]
    InUse { path: PathBuf, by: String },
}

/// Held while a directory is in use. Given back explicitly: a child process that some thread is making has the descriptor too until it
/// executes its program, and would keep the lock so long.
#[derive(Debug)]
pub(crate) struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl DirectoryLock {
    /// Takes the directory at `path` for this process, if it is this user's alone: locks the file `lock` in it. The kernel gives the lock
    /// back whatever becomes of the process.
    pub(crate) fn take(path: &Path) -> Result<Self, TakeError> {
        check_directory(path)?;
        let file = path.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(&file).map_err(system(&file, "open"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
                let by = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                return Err(TakeError::InUse { path: path.to_owned(), by });
            }
            Err(error) => return Err(system(&file, "flock")(error.into())),
        }
        // For whoever comes second; nothing depends on it.
        let told = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        told.map_err(system(&file, "write"))?;
        Ok(Self(lock))
    }
}

fn system(path: &Path, call: &'static str) -> impl FnOnce(io::Error) -> TakeError {
    let path = path.to_owned();
    move |error| TakeError::System { path, call, error }
}

fn check_directory(path: &Path) -> Result<(), TakeError> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(TakeError::Missing(path.to_owned()));
        }
        Err(error) => return Err(system(path, "stat")(error)),
    };
    if !found.is_dir() {
        return Err(system(path, "open")(io::ErrorKind::NotADirectory.into()));
    }
    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(TakeError::Owner { path: path.to_owned(), owner, user });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(TakeError::Mode { path: path.to_owned(), mode });
    }
    Ok(())
}
