//! A volume as a disk of this machine.
//!
//! ```text
//! volume ─ NBD ─ nbdfuse ─ a file ─ loop device ─ a file system, fio
//! ```
//!
//! This takes rights that not every machine gives. Where one does not, [`refused`] says so, in a line that `cargo xtask test` counts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::child::say;
use crate::rig::{PATIENCE, Rig, text};
use crate::tool::{run, tool};

/// Whether this machine lets nobody make such a disk; says why, as a check that was not made.
pub(crate) fn refused(check: &str) -> bool {
    let Some(why) = why_refused() else { return false };
    // At the beginning of a line, whatever the harness has begun.
    say(&format!("\nskipped: {check} ({why})"));
    true
}

fn why_refused() -> Option<String> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/fuse") {
        return Some(format!("/dev/fuse cannot be opened: {error}"));
    }
    let free = Command::new("losetup").arg("--find").output().unwrap();
    if !free.status.success() {
        return Some(format!("no loop device: {}", String::from_utf8_lossy(&free.stderr).trim()));
    }
    let systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = |name: &str| systems.lines().any(|line| line.trim() == name);
    if let Some(name) = ["ext4", "xfs"].into_iter().find(|name| !known(name) && !module(name)) {
        return Some(format!("this kernel has no {name}"));
    }
    let place = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(place.path()).output().unwrap();
    if !mounted.status.success() {
        return Some(format!("nothing can be mounted: {}", String::from_utf8_lossy(&mounted.stderr).trim()));
    }
    run(Command::new("umount").arg(place.path()));
    None
}

fn module(name: &str) -> bool {
    let loaded = Command::new("modprobe").arg(name).stdin(Stdio::null()).stderr(Stdio::null()).status();
    loaded.is_ok_and(|status| status.success())
}

/// The disk. It is gone with this, whatever becomes of its volume.
pub(crate) struct Device {
    fuse: Child,
    file: PathBuf,
    /// The loop device.
    pub(crate) disk: String,
    mounted: Option<PathBuf>,
}

impl Device {
    /// Of the volume of the node that serves.
    pub(crate) fn of(rig: &Rig, node: usize) -> Self {
        let file = rig.path(&format!("disk{node}"));
        File::create(&file).unwrap();
        // It says much when its volume's node is killed.
        let said = File::create(file.with_extension("said")).unwrap();
        let fuse = tool("nbdfuse", "libnbd-bin").arg(&file).arg(rig.uri(node)).stderr(said).spawn().unwrap();
        let mut device = Self { fuse, file, disk: String::new(), mounted: None };
        let began = Instant::now();
        while std::fs::metadata(&device.file).map_or(0, |metadata| metadata.len()) == 0 {
            let said = || std::fs::read_to_string(device.file.with_extension("said"));
            assert!(began.elapsed() < PATIENCE, "nbdfuse makes no file: {:?}", said());
            std::thread::sleep(Duration::from_millis(5));
        }
        let disk = run(tool("losetup", "mount").args(["--find", "--show"]).arg(&device.file));
        disk.trim().clone_into(&mut device.disk);
        device
    }

    /// Makes a file system on it.
    pub(crate) fn format(&self, make: &mut Command) {
        run(make.arg(&self.disk));
    }

    /// Mounts the file system on it; where.
    pub(crate) fn mount(&mut self, kind: &str) -> PathBuf {
        let place = self.file.with_extension("mounted");
        if !place.exists() {
            std::fs::create_dir(&place).unwrap();
        }
        run(Command::new("mount").args(["-t", kind, &self.disk]).arg(&place));
        self.mounted = Some(place.clone());
        place
    }

    /// Unmounts it in good order.
    pub(crate) fn unmount(&mut self) {
        run(Command::new("umount").arg(self.mounted.take().expect("it is mounted")));
    }

    /// Ends it in good order.
    pub(crate) fn detach(mut self) {
        run(tool("losetup", "mount").args(["--detach", &self.disk]));
        self.disk.clear();
        run(Command::new("umount").arg(&self.file));
        assert!(self.fuse.wait().unwrap().success(), "nbdfuse ended badly");
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // First, so that nothing waits for an answer any more.
        let _ = self.fuse.kill();
        let _ = self.fuse.wait();
        let quietly = |program: &str, words: &[&str]| {
            let _ = Command::new(program).args(words).stderr(Stdio::null()).status();
        };
        if let Some(place) = &self.mounted {
            quietly("umount", &["--lazy", text(place)]);
        }
        if !self.disk.is_empty() {
            quietly("losetup", &["--detach", &self.disk]);
        }
        quietly("umount", &["--lazy", text(&self.file)]);
    }
}

/// What each file below a directory has, by name: to be compared.
pub(crate) fn sums(directory: &Path) -> String {
    let script = "cd \"$1\" && find . -type f -print0 | sort -z | xargs -0 sha256sum";
    run(Command::new("sh").args(["-c", script, "sh"]).arg(directory))
}
