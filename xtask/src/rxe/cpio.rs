//! Writes a cpio archive of the form that the kernel unpacks at its start ("newc").

use std::collections::BTreeSet;
use std::io::Write;

use crate::failure::{Context, Result};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// Header and content each begin at a multiple of this.
const ALIGNMENT: usize = 4;

/// An archive being written. Paths have no slash in front; the directories above a path are made by themselves.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    output: W,
    written: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub(crate) const fn new(output: W) -> Self {
        Self { output, written: BTreeSet::new() }
    }

    /// A directory, unless it is there already.
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY | 0o755, b"")
    }

    /// A file. The first of a path counts, so that what is needed by several may be added by each.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> Result<()> {
        self.entry(path, REGULAR | permissions, content)
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(path, LINK | 0o777, target.as_bytes())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.record("TRAILER!!!", 0, b"")?;
        self.output.flush().context(|| "writing an archive".to_owned())?;
        Ok(self.output)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        if !self.written.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above)?;
        }
        self.record(path, mode, content)
    }

    fn record(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).context(|| format!("{path} is too large for an archive"))?;
        let inode = u32::try_from(self.written.len()).expect("fewer than 2^32 files");
        let name_len = u32::try_from(path.len() + 1).expect("a path is short");
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_len, 0];
        let mut bytes = b"070701".to_vec();
        for field in fields {
            bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        bytes.extend_from_slice(path.as_bytes());
        bytes.push(0);
        pad(&mut bytes);
        bytes.extend_from_slice(content);
        pad(&mut bytes);
        self.output.write_all(&bytes).context(|| format!("writing {path} into an archive"))
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: path, mode, content.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |number: usize| {
                let text = std::str::from_utf8(&bytes[6 + number * 8..14 + number * 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap() as usize
            };
            let (mode, size, name_len) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_len - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_len - 1], 0);
            let start = (110 + name_len).next_multiple_of(4);
            let content = bytes[start..start + size].to_vec();
            bytes = &bytes[(start + size).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return entries;
            }
            entries.push((name, u32::try_from(mode).unwrap(), content));
        }
    }

    #[test]
    fn what_is_written_is_read_back_with_the_directories_above() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/file", 0o755, b"content").unwrap();
        archive.file("a/b/file", 0o644, b"the second of a path is left out").unwrap();
        archive.link("a/link", "b/file").unwrap();
        archive.directory("a").unwrap();
        let entries = read(&archive.finish().unwrap());
        let of = |name: &str, mode: u32, content: &[u8]| (name.to_owned(), mode, content.to_vec());
        assert_eq!(
            entries,
            [
                of("a", 0o040_755, b""),
                of("a/b", 0o040_755, b""),
                of("a/b/file", 0o100_755, b"content"),
                of("a/link", 0o120_777, b"b/file"),
            ]
        );
    }

    #[test]
    fn lengths_of_every_remainder_are_padded() {
        for len in 0..9 {
            let mut archive = Archive::new(Vec::new());
            archive.file(&"n".repeat(len + 1), 0o600, &vec![7; len]).unwrap();
            assert_eq!(read(&archive.finish().unwrap())[0].2, vec![7; len]);
        }
    }
}
