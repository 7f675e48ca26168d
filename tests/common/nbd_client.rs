//! A client of NBD that does one thing after another, or as many at once as it is told to.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// When an answer must have come, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a block of content.
pub(crate) const BLOCK: usize = 4096;

/// The content of a block after the write with this number, which is not 0.
pub(crate) fn content(block: u64, number: u32) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    let mut state = (block << 32 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes[..8].copy_from_slice(&block.to_le_bytes());
    bytes[8..12].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// After which write a block has this content, 0 for zeroes; `None` if it is the content of no write of it.
pub(crate) fn number_of(block: u64, bytes: &[u8]) -> Option<u32> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Some(0);
    }
    let number = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
    (bytes == content(block, number)).then_some(number)
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Command {
    Read = 0,
    Write = 1,
    Flush = 3,
    Trim = 4,
    WriteZeroes = 6,
}

/// The number that the protocol has for a full disk, and for a disk that fails.
pub(crate) const NO_SPACE: u32 = 28;
pub(crate) const IO: u32 = 5;

/// A connection to one volume, with simple replies.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    next: u64,
}

impl Client {
    /// Opens `volume` at the node's socket; an error where it is not served.
    pub(crate) fn connect(socket: &Path, volume: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\0\x03");
        let len = u32::try_from(volume.len()).unwrap();
        let flags_and_option = [b"\0\0\0\x03IHAVEOPT\0\0\0\x01", &len.to_be_bytes()[..], volume.as_bytes()];
        stream.write_all(&flags_and_option.concat())?;
        let mut size_and_flags = [0; 10];
        stream.read_exact(&mut size_and_flags)?;
        Ok(Self { stream, next: 0 })
    }

    /// Asks, without waiting for the answer; the number that the answer will have.
    pub(crate) fn ask(&mut self, command: Command, offset: u64, len: u32, payload: &[u8]) -> io::Result<u64> {
        self.next += 1;
        let mut bytes = Vec::with_capacity(28 + payload.len());
        bytes.extend(0x2560_9513_u32.to_be_bytes());
        bytes.extend(0_u16.to_be_bytes());
        bytes.extend((command as u16).to_be_bytes());
        bytes.extend(self.next.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(payload);
        self.stream.write_all(&bytes)?;
        Ok(self.next)
    }

    /// The next answer: to which question, and the number of what went wrong, 0 for nothing.
    pub(crate) fn answer(&mut self) -> io::Result<(u64, u32)> {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header)?;
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        if word(0) != 0x6744_6698 {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("{header:?} is no reply")));
        }
        Ok((u64::from_be_bytes(header[8..].try_into().unwrap()), word(4)))
    }

    /// How long an answer is waited for from now on.
    pub(crate) fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    /// Writes, where the connection may be lost meanwhile; the number of what went wrong, 0 for nothing.
    pub(crate) fn try_write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<u32> {
        let number = self.ask(Command::Write, offset, u32::try_from(bytes.len()).unwrap(), bytes)?;
        let (answered, error) = self.answer()?;
        assert_eq!(answered, number);
        Ok(error)
    }

    /// What was read, after an answer to that.
    pub(crate) fn data(&mut self, len: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn one(&mut self, command: Command, offset: u64, len: u32, payload: &[u8]) -> u32 {
        let number = self.ask(command, offset, len, payload).unwrap();
        let (answered, error) = self.answer().unwrap();
        assert_eq!(answered, number);
        error
    }

    /// Reads; what went wrong, if something did.
    pub(crate) fn read(&mut self, offset: u64, len: u32) -> Result<Vec<u8>, u32> {
        match self.one(Command::Read, offset, len, &[]) {
            0 => {
                let mut bytes = vec![0; len as usize];
                self.stream.read_exact(&mut bytes).unwrap();
                Ok(bytes)
            }
            error => Err(error),
        }
    }

    /// Writes; the number of what went wrong, 0 for nothing.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> u32 {
        self.one(Command::Write, offset, u32::try_from(bytes.len()).unwrap(), bytes)
    }

    pub(crate) fn flush(&mut self) -> u32 {
        self.one(Command::Flush, 0, 0, &[])
    }

    pub(crate) fn trim(&mut self, offset: u64, len: u32) -> u32 {
        self.one(Command::Trim, offset, len, &[])
    }
}
