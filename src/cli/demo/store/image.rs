//! The disk image: an ext4 filesystem with real files, made by `mke2fs`, and what `qemu-img` and `e2fsck` do with it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::plan::Plan;
use super::super::scratch::Scratch;
use super::process::{Process, Tool};

const QEMU_IMG: Tool = Tool { program: "qemu-img", package: "qemu-utils" };
const MKE2FS: Tool = Tool { program: "mke2fs", package: "e2fsprogs" };
const E2FSCK: Tool = Tool { program: "e2fsck", package: "e2fsprogs" };

/// Bytes of a block of the filesystem.
const BLOCK_BYTES: u64 = 4096;
/// Bytes of the image beside the files: journal, tables of inodes, and some that are free.
const SPARE_BYTES: u64 = 32 << 20;
/// The copy that is cut short takes about two seconds: so many bytes a second, a part of the files', and at least.
const CUT_COPY_SECONDS: u64 = 2;
const CUT_COPY_BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// The image.
#[derive(Debug)]
pub(super) struct Image {
    scratch: Arc<Scratch>,
    path: PathBuf,
    /// Its size.
    pub(super) bytes: u64,
    pub(super) files: usize,
    pub(super) file_bytes: u64,
}

impl Image {
    /// That the programs are there.
    ///
    /// # Errors
    /// Names the one that is not, and its package.
    pub(super) fn check_tools(scratch: &Arc<Scratch>) -> Result<(), String> {
        for (tool, version) in [(QEMU_IMG, "--version"), (MKE2FS, "-V"), (E2FSCK, "-V")] {
            tool.run(scratch, &[OsStr::new(version)])?;
        }
        Ok(())
    }

    /// Makes it of the files of `plan`.
    ///
    /// # Errors
    /// A file cannot be copied, or the filesystem cannot be made.
    pub(super) fn make(plan: &Plan, scratch: &Arc<Scratch>) -> Result<Self, String> {
        let tree = scratch.path("tree");
        for file in &plan.files {
            let target = tree.join(file.path.strip_prefix("/").unwrap_or(&file.path));
            copy(&file.path, &target).map_err(|error| format!("{}: {error}", file.path.display()))?;
        }
        let (files, file_bytes) = (plan.files.len(), plan.file_bytes());
        // Each file begins a block of its own.
        let bytes = file_bytes * 5 / 4 + files as u64 * BLOCK_BYTES + SPARE_BYTES;
        let bytes = bytes.next_multiple_of(1 << 20);
        let path = scratch.path("image");
        let (block, blocks) = (BLOCK_BYTES.to_string(), (bytes / BLOCK_BYTES).to_string());
        let options = ["-q", "-t", "ext4", "-b", &block, "-d"].map(OsStr::new);
        let rest = [tree.as_os_str(), path.as_os_str(), OsStr::new(&blocks)];
        MKE2FS.run(scratch, &[&options[..], &rest].concat())?;
        std::fs::remove_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
        Ok(Self { scratch: scratch.clone(), path, bytes, files, file_bytes })
    }

    /// Begins to copy it to `url`, slowly enough to be cut short, and with its progress told.
    ///
    /// # Errors
    /// The program does not start.
    pub(super) fn begin_to_copy(&self, url: &str) -> Result<Process, String> {
        let rate = (self.file_bytes / CUT_COPY_SECONDS).max(CUT_COPY_BYTES_PER_SECOND_MIN).to_string();
        self.convert(&["-p", "-m", "1", "-r", &rate], &self.path, OsStr::new(url))
    }

    /// Copies it to `url`.
    ///
    /// # Errors
    /// That fails.
    pub(super) fn copy_to(&self, url: &str) -> Result<(), String> {
        self.convert(&[], &self.path, OsStr::new(url))?.end()?.in_good_order()
    }

    /// That what is at `url` is the image, byte for byte.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn compare_with(&self, url: &str) -> Result<(), String> {
        let options = ["compare", "-f", "raw", "-F", "raw"].map(OsStr::new);
        QEMU_IMG.run(&self.scratch, &[&options[..], &[self.path.as_os_str(), OsStr::new(url)]].concat())
    }

    /// Copies what is at `url` back into a file, and has its filesystem checked.
    ///
    /// # Errors
    /// The filesystem is not clean.
    pub(super) fn check_filesystem(&self, url: &str) -> Result<(), String> {
        let back = self.scratch.path("back");
        std::fs::File::create(&back)
            .and_then(|file| file.set_len(self.bytes))
            .map_err(|error| format!("{}: {error}", back.display()))?;
        self.convert(&[], Path::new(url), back.as_os_str())?.end()?.in_good_order()?;
        E2FSCK.run(&self.scratch, &[OsStr::new("-fn"), back.as_os_str()])?;
        std::fs::remove_file(&back).map_err(|error| format!("{}: {error}", back.display()))
    }

    /// Into something that exists and has the right size.
    fn convert(&self, options: &[&str], from: &Path, to: &OsStr) -> Result<Process, String> {
        let mut arguments: Vec<_> = ["convert", "-n", "-f", "raw", "-O", "raw"].map(OsStr::new).into();
        arguments.extend(options.iter().map(OsStr::new));
        arguments.extend([from.as_os_str(), to]);
        QEMU_IMG.start(&self.scratch, &arguments)
    }
}

/// Waits until a copy whose progress is told is so far, in percent.
///
/// # Errors
/// It ends before.
pub(super) fn copied(copy: &mut Process, percent: f64) -> Result<f64, String> {
    while let Some(piece) = copy.piece()? {
        if let Some(found) = progress(&piece).filter(|found| *found >= percent) {
            return Ok(found);
        }
    }
    Err(format!("qemu-img ended before it had copied {percent} %"))
}

/// What qemu-img says of its progress: `    (12.50/100%)`.
fn progress(piece: &str) -> Option<f64> {
    piece.trim().strip_prefix('(')?.strip_suffix("/100%)")?.parse().ok()
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(directory) = to.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::copy(from, to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_understood() {
        assert_eq!(progress("    (12.50/100%)"), Some(12.5));
        assert_eq!(progress("    (100.00/100%)"), Some(100.0));
        for text in ["", "Image resized.", "(x/100%)", "(1/200%)"] {
            assert_eq!(progress(text), None, "{text}");
        }
    }
}
