//! A guest's disk, which loses with the guest's power what was not flushed to it.
//!
//! ```text
//! guest ─ virtio-blk ─ QEMU ─ Unix socket ─ nbdkit, its cache filter writing back ─ a flush ─▶ file
//! ```
//!
//! Until the guest flushes, nbdkit keeps what is written in a nameless file of its own. It is killed in the moment in which QEMU
//! is: what the guest's kernel had not written is gone with the one, what was written and not flushed with the other, and of a flush
//! in which both are killed any part may have come to the file.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::failure::{Context, Failure, Result};
use crate::shell::program;

/// nbdkit listens at once, or not at all.
const LISTENS: Duration = Duration::from_secs(20);

/// mke2fs, where users have no `sbin` on their path. Few inodes, a small journal, and nothing left for the kernel to do later.
const FORMAT: &str = r#"PATH=$PATH:/usr/sbin:/sbin
exec mke2fs -q -F -t ext4 -N 4096 -J size=8 -E lazy_itable_init=0,lazy_journal_init=0 "$1""#;

/// Makes a disk of this size with an empty ext4 file system, in place of one that is there. The file is sparse.
pub(crate) fn make(path: &Path, bytes: u64) -> Result<()> {
    let file = File::create(path).and_then(|file| file.set_len(bytes));
    file.context(|| format!("making {}", path.display()))?;
    let output = program("sh", &["-c", FORMAT, "sh"]).arg(path).output().context(|| "mke2fs".to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("mke2fs {}: {}", path.display(), String::from_utf8_lossy(&output.stderr))))
}

/// The command that serves the disk at `socket`.
pub(super) fn server(path: &Path, socket: &Path) -> Vec<String> {
    let (file, socket) = (path.display().to_string(), socket.display().to_string());
    let words = ["nbdkit", "--foreground", "--unix", &socket, "--filter=cache", "file", &file];
    let more = ["cache=writeback", "cache-min-block-size=4096"];
    words.iter().chain(&more).map(|&word| word.to_owned()).collect()
}

/// Waits until it is served.
pub(super) fn until_served(socket: &Path) -> Result<()> {
    let until = Instant::now() + LISTENS;
    while !fs::exists(socket).unwrap_or(false) {
        if Instant::now() > until {
            return Err(Failure::new(format!("nbdkit does not serve {}", socket.display())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    const DISK_BYTES: u64 = 256 << 20;

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Writes by qemu-io, which flushes where it is told to.
    fn write(socket: &Path, commands: &[&str]) {
        let uri = format!("nbd:unix:{}", socket.display());
        let mut io = Command::new("qemu-io");
        io.args(["-t", "none", "-f", "raw", &uri]);
        commands.iter().for_each(|line| _ = io.args(["-c", line]));
        // Killed itself, so that it does not flush in the end.
        let output = io.args(["-c", "sigraise 9"]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("wrote"), "{output:?}");
    }

    #[test]
    fn what_was_not_flushed_is_lost_with_the_power() {
        crate::install::emulator().unwrap();
        crate::install::disk_images().unwrap();
        let directory = std::env::temp_dir().join(format!("mirrorbus-disk-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (disk, socket) = (directory.join("disk"), directory.join("socket"));
        make(&disk, DISK_BYTES).unwrap();
        let before = fs::read(&disk).unwrap();
        assert_eq!(before.len() as u64, DISK_BYTES);
        let words = server(&disk, &socket);
        let nbdkit = Command::new(&words[0]).args(&words[1..]).env("TMPDIR", &directory).spawn().unwrap();
        let nbdkit = Killed(nbdkit);
        until_served(&socket).unwrap();
        write(&socket, &["write -P 0x11 200M 64k", "flush", "write -P 0x22 210M 64k"]);
        drop(nbdkit);
        let after = fs::read(&disk).unwrap();
        let at = |mebibytes: usize| &after[mebibytes << 20..(mebibytes << 20) + (64 << 10)];
        assert!(at(200).iter().all(|&byte| byte == 0x11), "what was flushed is not there");
        assert!(at(210) == &before[210 << 20..(210 << 20) + (64 << 10)], "what was not flushed is there");
        fs::remove_dir_all(&directory).unwrap();
    }
}
