//! Files with what others must not read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

/// Bytes of such a file at most.
const BYTES_MAX: u64 = 64 << 10;

/// What is in a regular file that only its owner, this process' user or root, may read.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    // NONBLOCK: a pipe at this path must not hold us up; it is refused below.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| error.to_string())?);
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is no regular file".into());
    }
    let (mode, owner, user) = (found.mode() & 0o7777, found.uid(), rustix::process::geteuid().as_raw());
    if mode & 0o077 != 0 {
        return Err(format!(
            "it has mode {mode:04o}, wider than 0600: chmod 600; if others could read it, have it changed"
        ));
    }
    if owner != user && owner != 0 {
        return Err(format!("it belongs to user {owner}, and this process runs as {user}"));
    }
    read_bounded(file)
}

/// What is in a file that is no secret.
pub(super) fn read_open(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    read_bounded(File::open(path).map_err(|error| error.to_string())?)
}

fn read_bounded(file: File) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    Ok(bytes)
}
