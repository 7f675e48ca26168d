//! The directory of a dataset on one node: whose it is, and that nobody else uses it.
//!
//! ```text
//!  lock   identity   register   checkpoint.redb   marker.redb   resync   durable   segments/<base>.segment
//! ```
//!
//! It is locked (`flock` on `lock`) while it is open; the kernel gives the lock back whatever becomes of the process. Nothing in it is
//! looked at before the identity says that it is this node's of this dataset.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::identity::{Identity, IdentityError, NODE_NAME_BYTES_MAX};
use crate::base::{DatasetId, LifeId};
use crate::node::files::{DIRECTORY_MODE_MAX, DirectoryLock, TakeError, write_whole};
use crate::segment::SegmentLayout;

/// What an interrupted first start of this program leaves.
const LEFTOVERS: &[&str] = &["lock", "identity.next", "segments"];

/// Why a directory is not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
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
    /// It is not there, or was never a dataset's.
    #[error("{} has no dataset: make it first, or look for the disk that should be mounted there", path.display())]
    NoDataset {
        /// Which.
        path: PathBuf,
    },
    /// There are files, and nothing says whose.
    #[error("{} has {name:?} and no identity: use an empty directory", path.display())]
    NotEmpty {
        /// Which.
        path: PathBuf,
        /// One of them.
        name: String,
    },
    /// Others can look into it or change it.
    #[error("{} has mode {mode:04o}, wider than 0700: chmod 700 {}", path.display(), path.display())]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to user {owner}, this process runs as user {user}", path.display())]
    Owner {
        /// Which.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// The effective user of this process.
        user: u32,
    },
    /// Another process has it.
    #[error("{} is in use by {by}: one process at a time", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
        /// Who, as far as that is known.
        by: String,
    },
    /// A name that no node can have.
    #[error("{bytes} bytes of a node's name: 1 to {NODE_NAME_BYTES_MAX}")]
    Name {
        /// What was given.
        bytes: usize,
    },
    /// Somebody else's, or damaged.
    #[error("{}: {error}", path.display())]
    Identity {
        /// The identity's file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: IdentityError,
    },
}

/// Room of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still take.
    pub free_bytes: u64,
    /// Bytes of all.
    pub total_bytes: u64,
}

/// A directory that this process alone has.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    identity: Identity,
    is_new: bool,
    /// Held while it is open.
    _lock: DirectoryLock,
}

impl From<TakeError> for DirectoryError {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Missing(path) => Self::NoDataset { path },
            TakeError::System { path, call, error } => Self::System { path, call, error },
            TakeError::Mode { path, mode } => Self::Mode { path, mode },
            TakeError::Owner { path, owner, user } => Self::Owner { path, owner, user },
            TakeError::InUse { path, by } => Self::InUse { path, by },
        }
    }
}

fn system(path: &Path, call: &'static str) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |error| DirectoryError::System { path, call, error }
}

impl Directory {
    /// Opens the directory of `dataset` on the node with this name, and counts the start. With `create` it is made if there is none.
    ///
    /// # Errors
    /// It is another's, in use, damaged, open to others, or not there; nothing in it was changed then.
    pub fn open(
        path: &Path,
        dataset: DatasetId,
        node: &str,
        layout: SegmentLayout,
        create: bool,
    ) -> Result<Self, DirectoryError> {
        if !(1..=NODE_NAME_BYTES_MAX).contains(&node.len()) {
            return Err(DirectoryError::Name { bytes: node.len() });
        }
        if create {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(DIRECTORY_MODE_MAX).create(path).map_err(system(path, "mkdir"))?;
        }
        let lock = DirectoryLock::take(path)?;
        let file = path.join("identity");
        let found = read(&file)?;
        let is_new = found.is_none();
        let mut identity = match found {
            Some(found) => found,
            None if create => begin(path, dataset, node, layout)?,
            None => return Err(DirectoryError::NoDataset { path: path.to_owned() }),
        };
        let compared = identity.check(dataset, node, layout);
        compared.map_err(|error| DirectoryError::Identity { path: file.clone(), error })?;
        identity.starts += 1;
        write_whole(&file, &identity.encode()).map_err(system(&file, "write"))?;
        Ok(Self { path: path.to_owned(), identity, is_new, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says it is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it was made by this opening.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where the segments are.
    #[must_use]
    pub fn segments(&self) -> PathBuf {
        self.path.join("segments")
    }

    /// Where the checkpoint is.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint.redb")
    }

    /// Where the marker is.
    #[must_use]
    pub fn marker(&self) -> PathBuf {
        self.path.join("marker.redb")
    }

    /// Room on its file system.
    ///
    /// # Errors
    /// The system's.
    pub fn space(&self) -> io::Result<Space> {
        let found = rustix::fs::statvfs(&self.path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Space { free_bytes: bytes(found.f_bavail), total_bytes: bytes(found.f_blocks) })
    }
}

fn read(file: &Path) -> Result<Option<Identity>, DirectoryError> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(system(file, "read")(error)),
    };
    let decoded = Identity::decode(&bytes);
    decoded.map(Some).map_err(|error| DirectoryError::Identity { path: file.to_owned(), error })
}

/// The identity of a directory that nobody had.
fn begin(
    path: &Path,
    dataset: DatasetId,
    node: &str,
    layout: SegmentLayout,
) -> Result<Identity, DirectoryError> {
    for entry in fs::read_dir(path).map_err(system(path, "readdir"))? {
        let name = entry.map_err(system(path, "readdir"))?.file_name();
        if !LEFTOVERS.iter().any(|known| name == *known) {
            let name = name.to_string_lossy().into_owned();
            return Err(DirectoryError::NotEmpty { path: path.to_owned(), name });
        }
    }
    let segments = path.join("segments");
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(DIRECTORY_MODE_MAX).create(&segments).map_err(system(&segments, "mkdir"))?;
    let mut life = [0; 16];
    let mut filled = 0;
    while filled < life.len() {
        match rustix::rand::getrandom(&mut life[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(system(path, "getrandom")(error.into())),
        }
    }
    Ok(Identity { dataset, node: node.to_owned(), life: LifeId::from_bytes(life), starts: 0, layout })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const OURS: DatasetId = DatasetId::from_bytes([1; 16]);

    fn open(path: &Path, dataset: DatasetId, node: &str) -> Result<Directory, DirectoryError> {
        Directory::open(path, dataset, node, SegmentLayout::DEFAULT, true)
    }

    #[test]
    fn it_is_made_once_and_counts_its_starts() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("d");
        let layout = SegmentLayout::DEFAULT;
        let missing = Directory::open(&path, OURS, "alpha", layout, false);
        assert!(matches!(missing, Err(DirectoryError::NoDataset { .. })));
        let first = open(&path, OURS, "alpha").unwrap();
        assert!(first.is_new() && first.identity().starts == 1 && first.segments().is_dir());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(fs::metadata(path.join("identity")).unwrap().permissions().mode() & 0o7777, 0o600);
        let space = first.space().unwrap();
        assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes);
        let life = first.identity().life;
        drop(first);
        let second = Directory::open(&path, OURS, "alpha", layout, false).unwrap();
        assert!(!second.is_new() && second.identity().starts == 2 && second.identity().life == life);
    }

    #[test]
    fn a_second_process_is_told_the_first() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("d");
        let first = open(&path, OURS, "alpha").unwrap();
        let told = open(&path, OURS, "alpha").unwrap_err().to_string();
        assert!(told.contains(&format!("process {}", std::process::id())), "{told}");
        drop(first);
        drop(open(&path, OURS, "alpha").unwrap());
    }

    #[test]
    fn what_is_anothers_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("d");
        drop(open(&path, OURS, "alpha").unwrap());
        let identity = path.join("identity");
        let before = fs::read(&identity).unwrap();
        let told = |opened: Result<Directory, DirectoryError>| match opened.unwrap_err() {
            DirectoryError::Identity { error, .. } => error,
            other => panic!("{other:?}"),
        };
        let other = DatasetId::from_bytes([2; 16]);
        assert!(matches!(told(open(&path, other, "alpha")), IdentityError::Dataset { .. }));
        assert!(matches!(told(open(&path, OURS, "beta")), IdentityError::Node { .. }));
        let small = SegmentLayout::new(1 << 20, 4096).unwrap();
        let sizes = Directory::open(&path, OURS, "alpha", small, true);
        assert!(matches!(told(sizes), IdentityError::Sizes { .. }));
        assert_eq!(fs::read(&identity).unwrap(), before, "a refusal changes nothing");
        fs::write(&identity, &before[..100]).unwrap();
        assert!(matches!(told(open(&path, OURS, "alpha")), IdentityError::Size { bytes: 100 }));
        fs::remove_file(&identity).unwrap();
        fs::write(path.join("register"), "x").unwrap();
        assert!(matches!(open(&path, OURS, "alpha"), Err(DirectoryError::NotEmpty { .. })));
        fs::remove_file(path.join("register")).unwrap();
        assert!(open(&path, OURS, "alpha").unwrap().is_new(), "what a first start left is no dataset");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(open(&path, OURS, "alpha"), Err(DirectoryError::Mode { mode: 0o750, .. })));
        assert!(matches!(open(&path, OURS, &"x".repeat(65)), Err(DirectoryError::Name { bytes: 65 })));
    }
}
