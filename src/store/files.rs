//! Small files that are replaced as a whole, and directories made to last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::base::crc32c;

/// Replaces the file at `path`: on return its bytes are these, durably; after a crash they are these or those before.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let next = path.with_extension("next");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    sync_directory(directory)
}

/// Replaces the file at `path` by a line with the checksum of `text`, and that.
pub(super) fn write_checked(path: &Path, text: &str) -> io::Result<()> {
    write_whole(path, format!("{:08x}\n{text}\n", crc32c(text.as_bytes())).as_bytes())
}

/// The text that [`write_checked`] wrote there; `None` where there is no file.
///
/// # Errors
/// The system's; of kind `InvalidData` when the checksum is not that of the text.
pub(super) fn read_checked(path: &Path) -> io::Result<Option<String>> {
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
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
