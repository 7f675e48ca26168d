//! What is streamed, entry by entry: a pure function of a list of files and a seed.
//!
//! The three processes of the demonstration share the list as a file. So each knows, at any position of the log, which
//! entry stands there: the recovering owner goes on where the log ends, and the prover compares with what the sources
//! give.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::log_format::{CHUNK_BYTES_MAX, DIGEST_BYTES, Entry, HEADER_BYTES, Kind};

/// Longest path that is taken: with its digest it is far below [`CHUNK_BYTES_MAX`].
pub(super) const PATH_BYTES_MAX: usize = 4096;

/// A file as it was when the list was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// What is streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) files: Vec<SourceFile>,
}

/// A place between two entries of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    /// The file that the next entry belongs to.
    pub(super) file: usize,
    /// Where in it, or `None` before its first entry.
    offset: Option<u64>,
    /// Bytes of log before this place.
    pub(super) position: usize,
    /// Entries before this place.
    pub(super) entries: u64,
}

impl Plan {
    /// The entry at `cursor`, and the place behind it; `None` at the end of the last file.
    pub(super) fn next(&self, cursor: Cursor) -> Option<(Entry, Cursor)> {
        let source = self.files.get(cursor.file)?;
        let file = u32::try_from(cursor.file).expect("fewer than 2³² files");
        let (kind, payload_bytes, offset) = match cursor.offset {
            None => {
                let kind = Kind::File { file_bytes: source.bytes };
                (kind, DIGEST_BYTES + source.path.as_os_str().len(), 0)
            }
            Some(offset) => {
                let len = self.chunk_bytes(file, offset).min(source.bytes - offset);
                let payload_bytes = usize::try_from(len).expect("at most CHUNK_BYTES_MAX");
                (Kind::Data { offset }, payload_bytes, offset + len)
            }
        };
        let entry = Entry { kind, file, payload_bytes, position: cursor.position };
        let (next_file, next_offset) =
            if offset == source.bytes { (cursor.file + 1, None) } else { (cursor.file, Some(offset)) };
        let entries = cursor.entries + 1;
        Some((entry, Cursor { file: next_file, offset: next_offset, position: entry.end(), entries }))
    }

    /// The place behind the last entry.
    pub(super) fn end(&self) -> Cursor {
        let mut cursor = Cursor::default();
        while let Some((_, next)) = self.next(cursor) {
            cursor = next;
        }
        cursor
    }

    /// Bytes of all files.
    pub(super) fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Bytes of the region: the log, and room in which nothing may ever appear.
    pub(super) fn region_bytes(&self) -> usize {
        (self.end().position + HEADER_BYTES + CHUNK_BYTES_MAX).next_multiple_of(64 << 10)
    }

    /// 1 byte to 256 KiB, each power of two as likely as any other.
    fn chunk_bytes(&self, file: u32, offset: u64) -> u64 {
        let random = mix(self.seed ^ mix(u64::from(file)) ^ mix(offset.wrapping_add(1 << 40)));
        let base = 1 << (random % u64::from(CHUNK_BYTES_MAX.ilog2()));
        base + (random >> 32) % (base + 1)
    }

    /// Writes the list to `path`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let mut text = format!("{}\0", self.seed).into_bytes();
        for file in &self.files {
            text.extend_from_slice(format!("{} ", file.bytes).as_bytes());
            text.extend_from_slice(file.path.as_os_str().as_bytes());
            text.push(0);
        }
        std::fs::write(path, text)
    }

    /// Reads the list that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// The file cannot be read or is no such list.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let text = std::fs::read(path)?;
        let parse = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
        let list = || {
            let (seed, files) = text.strip_suffix(b"\0")?.split_at(text.iter().position(|&byte| byte == 0)?);
            let file = |line: &[u8]| {
                let space = line.iter().position(|&byte| byte == b' ')?;
                let path = OsString::from_vec(line[space + 1..].to_vec()).into();
                Some(SourceFile { bytes: parse(&line[..space])?, path })
            };
            let files = files.split(|&byte| byte == 0).skip(1).map(file).collect::<Option<Vec<_>>>()?;
            Some(Self { seed: parse(seed)?, files })
        };
        list().ok_or_else(|| io::Error::other(format!("{} is no list of files", path.display())))
    }
}

/// Spreads a number over 64 bits (the finalizer of SplitMix64, Steele et al. 2014).
pub(super) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let file = |path: &str, bytes| SourceFile { path: path.into(), bytes };
        Plan { seed: 7, files: vec![file("a b", 3_000_000), file("empty", 0), file("one", 1)] }
    }

    #[test]
    fn entries_cover_each_file_once_and_leave_no_gap() {
        let plan = plan();
        let (mut cursor, mut covered, mut sizes) = (Cursor::default(), vec![0; 3], Vec::new());
        while let Some((entry, next)) = plan.next(cursor) {
            assert_eq!((entry.position, entry.end()), (cursor.position, next.position));
            match entry.kind {
                Kind::File { file_bytes } => assert_eq!(file_bytes, plan.files[entry.file as usize].bytes),
                Kind::Data { offset } => {
                    assert_eq!(offset, covered[entry.file as usize]);
                    assert!((1..=CHUNK_BYTES_MAX).contains(&entry.payload_bytes));
                    covered[entry.file as usize] += entry.payload_bytes as u64;
                    sizes.push(entry.payload_bytes);
                }
            }
            cursor = next;
        }
        assert_eq!(covered, [3_000_000, 0, 1]);
        assert_eq!((cursor, cursor.file), (plan.end(), 3));
        assert!(
            sizes.iter().any(|&size| size < 64) && sizes.iter().any(|&size| size > 64 << 10),
            "{sizes:?}"
        );
        assert_ne!(Plan { seed: 8, ..plan.clone() }.end(), plan.end());
    }

    #[test]
    fn the_list_survives_its_file() {
        let path = std::env::temp_dir().join(format!("mirrorbus-plan-{}", std::process::id()));
        for plan in [plan(), Plan { seed: 1, files: Vec::new() }] {
            plan.save(&path).expect("written");
            assert_eq!(Plan::load(&path).expect("read"), plan);
        }
        std::fs::write(&path, "7\0nine path\0").expect("written");
        assert!(Plan::load(&path).is_err());
        std::fs::remove_file(&path).expect("removed");
    }
}
