//! Golden images: files as text that is small, since zeroes are left out and what repeats is written once.
//!
//! ```text
//!  register 146                                                     a file's name and its bytes
//!  000000 3132333461626364…                                         32 bytes from an offset on; such as are all zero are absent
//!  0000a0 ffffffffffffffff… 12                                      the same twelve times
//! ```

use std::fmt::Write;
use std::io::Write as _;
use std::path::PathBuf;

/// Where images are made anew: a directory in which there are none yet.
const DIRECTORY: &str = "MIRRORBUS_GOLDEN";

const LINE_BYTES: usize = 32;

/// Names and contents.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// The files as text.
pub(crate) fn dump(files: &[(String, Vec<u8>)]) -> String {
    let mut text = String::new();
    for (name, bytes) in files {
        writeln!(text, "{name} {}", bytes.len()).unwrap();
        let lines: Vec<_> = bytes.chunks(LINE_BYTES).collect();
        let mut offset = 0;
        for same in lines.chunk_by(|one, next| one == next) {
            if same[0].iter().any(|byte| *byte != 0) {
                write!(text, "{offset:06x} ").unwrap();
                same[0].iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
                text.push_str(&if same.len() > 1 { format!(" {}\n", same.len()) } else { "\n".into() });
            }
            offset += same.len() * LINE_BYTES;
        }
    }
    text
}

/// The files that [`dump`] made this text of.
pub(crate) fn parse(text: &str) -> Files {
    let mut files = Files::new();
    // A line of bytes belongs to the file before it, until one begins that is no number of six digits.
    for line in text.lines() {
        let (first, rest) = line.split_once(' ').unwrap();
        match (usize::from_str_radix(first, 16), files.last_mut()) {
            (Ok(offset), Some((_, bytes))) if first.len() == 6 => {
                let (digits, times) = rest.split_once(' ').unwrap_or((rest, "1"));
                let digits = digits.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
                let line: Vec<_> = digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect();
                let line = line.repeat(times.parse().unwrap());
                bytes[offset..offset + line.len()].copy_from_slice(&line);
            }
            _ => files.push((first.to_owned(), vec![0; rest.parse().unwrap()])),
        }
    }
    files
}

/// Writes an image that was made anew where whoever runs the tests wants it. One that is there is never replaced.
pub(crate) fn offer(name: &str, files: &[(String, Vec<u8>)]) {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let path = PathBuf::from(directory).join(name);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.write_all(dump(files).as_bytes()).unwrap();
}
