//! Key files: where the pre-shared keys of [`KeySet`] lie on disk, and who may read them.
//!
//! The checks are made on the open descriptor, so nobody can exchange the file between check and read: a regular
//! file, not a symbolic link, that belongs to this process' user or root and that nobody else can read or write. Its
//! text is held in memory that is wiped.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use zeroize::{Zeroize, Zeroizing};

use crate::control::{KeySet, KeyTextError};

/// Bytes of a key file: two keys and plenty of comment.
pub(super) const KEY_FILE_BYTES_MAX: usize = 4096;

const MODE_MAX: u32 = 0o600;

/// Why a key file cannot be used or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// A system call failed.
    #[error("key file {path}: {call} failed: {error}", path = path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The call.
        call: &'static str,
        /// What it said.
        error: std::io::Error,
    },
    /// There is a file already.
    #[error("key file {path} exists and is not overwritten: whoever uses it would be locked out; choose another name or remove it", path = path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Not a regular file.
    #[error("key file {path} is a {found}: give the path of the regular file itself", path = path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// Others can read or write it.
    #[error("key file {path} has mode {mode:04o}, wider than 0600: chmod 600 {path}; if others could read it, make a new key", path = path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("key file {path} belongs to user {owner}, this process runs as user {user}: chown {user} {path}", path = path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// The effective user of this process.
        user: u32,
    },
    /// Too long.
    #[error("key file {path} has {len} bytes or more, the limit is {max}: is it a key file?", path = path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// The bound.
        max: usize,
    },
    /// Its text holds no keys.
    #[error("key file {path}: {error}", path = path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// The mistake.
        error: KeyTextError,
    },
}

impl KeySet {
    /// Reads a key file.
    ///
    /// # Errors
    /// When it is not a regular file of mode 0600 or narrower that belongs to this process' user or root, or its text
    /// is no key text.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        // NONBLOCK: a FIFO at this path must not hold us up; it is refused below.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::LOOP) => {
                return Err(KeyFileError::NotRegular { path: path.into(), found: "symbolic link" });
            }
            Err(error) => return Err(system(path, "open", error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|error| system(path, "fstat", error))?;
        check(path, stat.st_mode, stat.st_uid, rustix::process::geteuid().as_raw())?;
        let text = read_bounded(path, &file)?;
        Self::parse(&text).map_err(|error| KeyFileError::Text { path: path.into(), error })
    }

    /// Makes a new key file, mode 0600, with one random key; it is on stable storage on return. Never overwrites.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`], or when the file cannot be written; then nothing is left of it.
    pub fn create(path: &Path) -> Result<Self, KeyFileError> {
        let mut bytes = Zeroizing::new([0; 32]);
        fill_random(bytes.as_mut_slice()).map_err(|error| system(path, "getrandom", error))?;
        let keys = Self::from_bytes(std::slice::from_ref(&*bytes))
            .map_err(|error| KeyFileError::Text { path: path.into(), error })?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::from_raw_mode(MODE_MAX)) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::EXIST) => return Err(KeyFileError::Exists { path: path.into() }),
            Err(error) => return Err(system(path, "open", error)),
        };
        if let Err(error) = write_durably(path, &file, &keys) {
            // Made by us a moment ago: half a key file helps nobody.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        Ok(keys)
    }
}

fn system(path: &Path, call: &'static str, error: impl Into<std::io::Error>) -> KeyFileError {
    KeyFileError::System { path: path.into(), call, error: error.into() }
}

fn check(path: &Path, st_mode: u32, owner: u32, user: u32) -> Result<(), KeyFileError> {
    let found = match FileType::from_raw_mode(st_mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some("directory"),
        FileType::Symlink => Some("symbolic link"),
        FileType::Fifo => Some("FIFO"),
        FileType::Socket => Some("socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("device"),
        FileType::Unknown => Some("file of unknown kind"),
    };
    if let Some(found) = found {
        return Err(KeyFileError::NotRegular { path: path.into(), found });
    }
    if owner != user && owner != 0 {
        return Err(KeyFileError::Owner { path: path.into(), owner, user });
    }
    let mode = st_mode & 0o7777;
    if mode & !MODE_MAX != 0 {
        return Err(KeyFileError::Mode { path: path.into(), mode });
    }
    Ok(())
}

fn read_bounded(path: &Path, file: &File) -> Result<Zeroizing<String>, KeyFileError> {
    // One byte more than allowed, so that the bound is seen to be passed; never reallocated.
    let mut bytes = Zeroizing::new(vec![0; KEY_FILE_BYTES_MAX + 1]);
    let mut filled = 0;
    let mut source = file;
    while filled < bytes.len() {
        match source.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(system(path, "read", error)),
        }
    }
    if filled > KEY_FILE_BYTES_MAX {
        return Err(KeyFileError::TooLong { path: path.into(), len: filled as u64, max: KEY_FILE_BYTES_MAX });
    }
    bytes.truncate(filled);
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
                .iter()
                .filter(|&&b| b == b'\n')
                .count();
            error.into_bytes().zeroize();
            let error = KeyTextError::Encoding { line };
            Err(KeyFileError::Text { path: path.into(), error })
        }
    }
}

fn write_durably(path: &Path, mut file: &File, keys: &KeySet) -> Result<(), KeyFileError> {
    // The umask may have narrowed the mode to something that nobody can read.
    rustix::fs::fchmod(file, Mode::from_raw_mode(MODE_MAX)).map_err(|error| system(path, "fchmod", error))?;
    let head = "# Mirrorbus pre-shared key: the same file on both sides. A second line is a second key, for rotation.\n";
    file.write_all(head.as_bytes()).map_err(|error| system(path, "write", error))?;
    file.write_all(keys.to_text().as_bytes()).map_err(|error| system(path, "write", error))?;
    file.sync_all().map_err(|error| system(path, "fsync", error))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(parent).map_err(|error| system(parent, "open", error))?;
    directory.sync_all().map_err(|error| system(parent, "fsync", error))
}

fn fill_random(mut bytes: &mut [u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => bytes = &mut bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory of its own, removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mirrorbus-key-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, text: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn made_then_loaded_and_never_overwritten() {
        let directory = Directory::new("made");
        let path = directory.0.join("key");
        let made = KeySet::create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(*KeySet::load(&path).unwrap().to_text(), *made.to_text());
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(KeySet::create(&path), Err(KeyFileError::Exists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        let other = KeySet::create(&directory.0.join("other")).unwrap();
        assert_ne!(*other.to_text(), *made.to_text());
    }

    #[test]
    fn wide_modes_are_refused_with_the_fix() {
        let directory = Directory::new("wide");
        let text = "ab".repeat(32);
        for mode in [0o601, 0o604, 0o610, 0o640, 0o644, 0o666, 0o700, 0o777, 0o4600] {
            let path = directory.file(&format!("{mode:o}"), text.as_bytes(), mode);
            let error = KeySet::load(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Mode { mode: found, .. } if found == mode), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        for mode in [0o600, 0o400] {
            assert_eq!(KeySet::load(&directory.file("narrow", text.as_bytes(), mode)).unwrap().count(), 1);
            std::fs::remove_file(directory.0.join("narrow")).unwrap();
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let directory = Directory::new("kinds");
        let path = directory.file("key", "ab".repeat(32).as_bytes(), 0o600);
        let link = directory.0.join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let fifo = directory.0.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for (path, kind) in [(&link, "symbolic link"), (&fifo, "FIFO"), (&directory.0, "directory")] {
            let error = KeySet::load(path).unwrap_err();
            assert!(matches!(error, KeyFileError::NotRegular { found, .. } if found == kind), "{error}");
        }
        assert!(matches!(
            KeySet::load(&directory.0.join("none")),
            Err(KeyFileError::System { call: "open", .. })
        ));
    }

    #[test]
    fn owners() {
        let path = Path::new("/key");
        let regular = 0o100_600;
        check(path, regular, 7, 7).unwrap();
        check(path, regular, 0, 7).unwrap();
        let error = check(path, regular, 8, 7).unwrap_err();
        assert_eq!(
            error.to_string(),
            "key file /key belongs to user 8, this process runs as user 7: chown 7 /key"
        );
        assert!(check(path, regular, 8, 0).is_err(), "root does not trust another user's file either");
    }

    #[test]
    fn content_is_bounded_and_checked() {
        let directory = Directory::new("content");
        let long = directory.file("long", &[b'#'; KEY_FILE_BYTES_MAX + 1], 0o600);
        assert!(matches!(KeySet::load(&long), Err(KeyFileError::TooLong { len: 4097, .. })));
        let full = directory.file("full", &[b'#'; KEY_FILE_BYTES_MAX], 0o600);
        let error = KeySet::load(&full).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Text { error: KeyTextError::Count { found: 0 }, .. }),
            "{error}"
        );
        let binary = directory.file("binary", b"#\n\xff\xfe", 0o600);
        let error = KeySet::load(&binary).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Text { error: KeyTextError::Encoding { line: 2 }, .. }),
            "{error}"
        );
    }
}
