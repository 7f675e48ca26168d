//! A directory of its own for one run: key file, list of files, socket. Gone when the run ends, however it ends but by
//! SIGKILL.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Names tried until one is free.
const TRIES_MAX: u32 = 16;

/// The directory, readable by this user only.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A new directory among the temporary ones.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let mut last = io::Error::other("no try was made");
        for attempt in 0..TRIES_MAX {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
            let name = format!("mirrorbus-{name}-{}-{now:08x}-{attempt}", std::process::id());
            let path = std::env::temp_dir().join(name);
            // Fails where the name is taken: nobody else's directory is used.
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) => last = io::Error::new(error.kind(), format!("{}: {error}", path.display())),
            }
        }
        Err(last)
    }

    /// A file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The directory itself.
    pub(super) fn directory(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
