//! What the processes of the demonstration say to each other: one line each, over pipes.
//!
//! ```text
//! holder → parent   listening URL                        proof POSITION ENTRIES FILES FILE_BYTES TORN_BYTES
//! parent → holder   prove ENTRIES POSITION FILE          (end of input: end in good order)
//! owner  → parent   attached POSITION ENTRIES            acked ENTRIES POSITION FILE           done
//! parent → owner    noted POSITION                       (end of input: end at once)
//! either → parent   failed WHY
//! ```
//!
//! A killed process can leave half a line; it is not read.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::str::FromStr;

use mirrorbus::FabricUrl;

use super::prover::{Ledger, Proof};

/// Bytes of a line: room for any path in an error.
pub(super) const LINE_BYTES_MAX: u64 = 16 << 10;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line {
    Listening(FabricUrl),
    Prove(Ledger),
    Proof(Proof),
    Attached { position: usize, entries: u64 },
    Acked(Ledger),
    Noted(usize),
    Done,
    Failed(String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening(url) => write!(f, "listening {url}"),
            Self::Prove(ledger) => {
                write!(f, "prove {} {} {}", ledger.entries, ledger.position, ledger.file)
            }
            Self::Proof(Proof { position, entries, files, file_bytes, torn_bytes }) => {
                write!(f, "proof {position} {entries} {files} {file_bytes} {torn_bytes}")
            }
            Self::Attached { position, entries } => write!(f, "attached {position} {entries}"),
            Self::Acked(ledger) => {
                write!(f, "acked {} {} {}", ledger.entries, ledger.position, ledger.file)
            }
            Self::Noted(position) => write!(f, "noted {position}"),
            Self::Done => f.write_str("done"),
            Self::Failed(why) => write!(f, "failed {}", why.replace('\n', " ")),
        }
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let strange = || format!("a strange line: {text:?}");
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        if word == "listening" {
            return rest.parse().map(Self::Listening).map_err(|_| strange());
        }
        if word == "failed" {
            return Ok(Self::Failed(rest.to_owned()));
        }
        let numbers: Result<Vec<u64>, _> = rest.split_whitespace().map(str::parse).collect();
        let numbers = numbers.map_err(|_| strange())?;
        let size = |number: u64| usize::try_from(number).map_err(|_| strange());
        let ledger = |entries, position, file| {
            Ok::<_, String>(Ledger { entries, position: size(position)?, file: size(file)? })
        };
        match (word, &numbers[..]) {
            ("prove", &[entries, position, file]) => Ok(Self::Prove(ledger(entries, position, file)?)),
            ("acked", &[entries, position, file]) => Ok(Self::Acked(ledger(entries, position, file)?)),
            ("proof", &[position, entries, files, file_bytes, torn]) => Ok(Self::Proof(Proof {
                position: size(position)?,
                entries,
                files,
                file_bytes,
                torn_bytes: size(torn)?,
            })),
            ("attached", &[position, entries]) => Ok(Self::Attached { position: size(position)?, entries }),
            ("noted", &[position]) => Ok(Self::Noted(size(position)?)),
            ("done", []) => Ok(Self::Done),
            _ => Err(strange()),
        }
    }
}

/// Says it to the parent, at once.
///
/// # Errors
/// The parent is gone.
pub(super) fn say(line: &Line) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

/// The next whole line, or `None` at the end of `input`.
///
/// # Errors
/// It cannot be read, or is no line of these.
pub(super) fn hear(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut text = String::new();
    io::Read::take(input, LINE_BYTES_MAX).read_line(&mut text)?;
    match text.strip_suffix('\n') {
        Some(line) => line.parse().map(Some).map_err(io::Error::other),
        None if text.len() as u64 == LINE_BYTES_MAX => {
            Err(io::Error::other(format!("a line of more than {LINE_BYTES_MAX} bytes")))
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let ledger = Ledger { entries: 1, position: 2, file: 3 };
        let proof = Proof { position: 1, entries: 2, files: 3, file_bytes: 4, torn_bytes: 5 };
        let lines = [
            Line::Listening("tcp://127.0.0.1:9".parse().expect("an address")),
            Line::Prove(ledger),
            Line::Proof(proof),
            Line::Attached { position: 9, entries: 8 },
            Line::Acked(ledger),
            Line::Noted(7),
            Line::Done,
            Line::Failed("so it goes".into()),
        ];
        let mut text: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
        text.extend_from_slice(b"acked 1 2");
        let mut input = &text[..];
        for line in lines {
            assert_eq!(hear(&mut input).expect("read"), Some(line));
        }
        assert_eq!(hear(&mut input).expect("half a line is none"), None);
        for strange in ["acked 1 2\n", "acked 1 2 x\n", "proof\n", "\n", "hello\n"] {
            assert!(hear(&mut strange.as_bytes()).is_err(), "{strange:?}");
        }
        assert!(hear(&mut &vec![b'x'; 1 << 20][..]).is_err());
    }
}
